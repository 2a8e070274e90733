//! Options and report of a repair of packs.

use crate::ops::memory;
use crate::types::{ByteSize, PackId};

/// Options of [`repair_packs`](super::repair_packs).
#[derive(Debug, Clone, PartialEq)]
pub struct RepairPacksOptions {
    /// Ids or unambiguous prefixes of the packs to read; empty: read every pack.
    pub packs: Vec<String>,
    /// Read no packs; find only packs that are missing or have the wrong size.
    pub quick: bool,
    /// Treat packs that cannot be read now as damaged and move them to quarantine. For packs that
    /// will not become readable again.
    pub set_aside_unreadable: bool,
    /// Report the results that the repair would have, change nothing.
    pub dry_run: bool,
    /// Number of packs read in parallel; 0: the number of cores.
    pub threads: usize,
    /// Memory budget.
    pub memory: ByteSize,
}

impl Default for RepairPacksOptions {
    fn default() -> Self {
        Self {
            packs: Vec::new(),
            quick: false,
            set_aside_unreadable: false,
            dry_run: false,
            threads: 0,
            memory: memory::BUDGET_DEFAULT,
        }
    }
}

/// Result of the repair for one damaged pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PackFate {
    /// Reconstructed from its recovery data.
    Healed,
    /// All its chunks are stored elsewhere; the pack was moved to quarantine.
    Saved,
    /// Some of its chunks are lost; the pack was moved to quarantine.
    Lost,
    /// It cannot be read now, and no other pack holds some of its chunks: they are lost for now.
    /// The pack stays in `packs/`, condemned.
    LostForNow,
    /// It cannot be read now. The repair did nothing with it.
    Unreadable,
    /// No segment lists it and it is not a pack; it was moved to quarantine.
    Foreign,
}

/// A damaged pack and the result of its repair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedPack {
    pub id: PackId,
    /// Description of the damage.
    pub what: String,
    pub fate: PackFate,
}

/// Results of a repair of packs; after a dry run, the results that a repair would have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PacksReport {
    /// Held packs, and how many of them were read to the end.
    pub packs: u64,
    pub packs_read: u64,
    pub damaged: Vec<DamagedPack>,
    /// Chunks stored again, and their plain bytes.
    pub saved_chunks: u64,
    pub saved_bytes: u64,
    /// Chunks that this repair could not read anywhere and that were not known as lost before.
    pub lost_chunks: u64,
    /// Such chunks in packs that cannot be read now: they may come back.
    pub lost_for_now: u64,
    /// Packs that cannot be read now.
    pub unreadable_now: u64,
    /// Chunks that earlier repairs recorded as lost and that are still missing.
    pub still_lost: u64,
    /// Orphan packs added to the index.
    pub adopted_packs: u64,
    /// Packs for which missing or damaged recovery data was written.
    pub parity_written: u64,
}

impl PacksReport {
    /// Returns true if no damage was found, or all of it was repaired.
    pub fn is_whole(&self) -> bool {
        self.lost_chunks == 0 && self.unreadable_now == 0
    }
}
