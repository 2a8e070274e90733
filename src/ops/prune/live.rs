//! Finds the copies of chunks that the roots need: one bit per chunk, sums per pack.
//!
//! Of several copies in packs that are not condemned, one counts: the copy in the pack with the
//! largest wanted share, then the copy in the pack with the lowest id. So two prunes that see the
//! same objects choose the same copies. Only a held pack that is listed with its size holds
//! anything.

use std::collections::{HashMap, HashSet};

use super::roots::RootSnapshots;
use crate::Error;
use crate::index::{ChunkLocation, Index, PackRow, PackState};
use crate::read::reach::{ChunkBits, ReachVisitor, ReachWalker, ReachedPiece, UnreadableReason};
use crate::repo::{ChunkReader, Repository};
use crate::task::Cancel;
use crate::types::{ChunkId, PackId, PlainLen, Timestamp};

/// Maximum number of missing objects and chunks that are reported by name.
const EXAMPLES_MAX: usize = 20;
/// Maximum number of missing chunks of snapshots in quarantine that are remembered: 12 MiB.
const MISSING_MAX: usize = 256 << 10;
/// Maximum number of chunks with several copies whose packs are compared: 9 MiB. Of further chunks
/// the copy in the lowest pack counts.
const SEVERAL_MAX: usize = 256 << 10;

/// A pack and how much of it is needed.
#[derive(Debug, Clone)]
pub(super) struct PackUsage {
    pub row: PackRow,
    /// The store's time of the pack's object; `None` unless it exists with the expected size.
    pub there: Option<Timestamp>,
    /// Plain bytes of the chunks whose copy here counts.
    pub live: u64,
    /// Plain bytes of the chunks that would count if every copy did.
    pub wanted: u64,
    /// True if a live chunk has a copy here and none outside condemned packs.
    pub needed: bool,
}

impl PackUsage {
    pub fn new(row: PackRow, there: Option<Timestamp>) -> Self {
        Self {
            row,
            there,
            live: 0,
            wanted: 0,
            needed: false,
        }
    }

    fn holds(&self) -> bool {
        self.row.added && self.row.state != PackState::Dropped && self.there.is_some()
    }

    /// Returns the live share of the pack's stored bytes.
    pub fn live_bytes(&self) -> u64 {
        let share = u128::from(self.row.size) * u128::from(self.live.min(self.row.plain));
        u64::try_from(share / u128::from(self.row.plain.max(1))).unwrap_or(u64::MAX)
    }
}

pub(super) type Packs = HashMap<PackId, PackUsage>;

/// Live chunks, and the packs that hold them.
#[derive(Debug, Default)]
pub(super) struct LiveChunks {
    pub packs: Packs,
    /// Numbers of the copies that count.
    pub bits: ChunkBits,
    /// Number of live chunks.
    pub chunks: u64,
    /// Number of references to missing data, and the first of them: object and reason.
    pub unresolved: u64,
    pub examples: Vec<(String, UnreadableReason)>,
    /// True if a reference is to data that is missing or damaged, and not only unreadable now.
    pub any_lost: bool,
    /// Chunks that snapshots in quarantine need and that no pack has.
    pub missing: HashSet<ChunkId>,
    /// True if more chunks are missing than `missing` lists: those below missing metadata, or too
    /// many.
    pub is_blind: bool,
}

impl LiveChunks {
    /// Walks the roots and finds their chunks.
    pub fn find(
        reader: &ChunkReader<'_>,
        roots: &RootSnapshots,
        packs: Packs,
        cancel: &Cancel,
    ) -> Result<Self, Error> {
        let repo = reader.repo();
        let bits = ChunkBits::with_room(repo.with_index(Index::chunk_numbers_end)?);
        let marker = LiveMarker {
            repo,
            out: Self {
                packs,
                bits,
                ..Self::default()
            },
            tolerant: false,
            ids: Vec::new(),
            copies: Vec::new(),
            several: Vec::new(),
        };

        let mut walker = ReachWalker::new(reader, cancel, marker)?;
        for found in &roots.snapshots {
            for source in &found.snapshot.sources {
                walker.source(&source.kind)?;
            }
        }

        // A repair set these snapshots aside: missing data is expected here.
        walker.judge.tolerant = true;
        for snapshot in &roots.quarantined {
            for source in &snapshot.sources {
                walker.source(&source.kind)?;
            }
        }

        walker.judge.weigh()
    }

    /// Returns true if this copy is the one that counts for a live chunk.
    pub fn counts(&self, copy: &ChunkLocation) -> bool {
        self.bits.contains(copy.number)
    }
}

struct LiveMarker<'a> {
    repo: &'a Repository,
    out: LiveChunks,
    /// True while missing data is not a reason to refuse.
    tolerant: bool,
    ids: Vec<ChunkId>,
    copies: Vec<(usize, ChunkLocation)>,
    /// Chunks that more than one pack holds.
    several: Vec<(ChunkId, PlainLen)>,
}

impl LiveMarker<'_> {
    /// Finds all copies of these chunks in packs that hold them. The copy that counts first comes
    /// first for each chunk.
    fn look_up(&mut self, batch: &[(ChunkId, PlainLen)]) -> Result<(), Error> {
        self.ids.clear();
        self.ids.extend(batch.iter().map(|&(id, _)| id));
        let ids = &self.ids;
        let copies = &mut self.copies;
        // If this starts a new index, the caller notices the new generation and walks again.
        self.repo.with_index(|index| {
            copies.clear();
            index.each_copy(ids, &mut |n, copy| copies.push((n, copy)))
        })?;
        let packs = &self.out.packs;
        copies.retain(|(n, copy)| {
            copy.len == batch[*n].1 && packs.get(&copy.pack).is_some_and(PackUsage::holds)
        });
        copies.sort_unstable_by_key(|(n, copy)| (*n, copy.state, copy.pack));
        Ok(())
    }

    fn mark(&mut self, id: ChunkId, copies: &[(usize, ChunkLocation)]) {
        let (_, best) = copies[0];
        if !self.out.bits.insert(best.number) {
            return;
        }
        self.out.chunks += 1;
        let len = u64::from(best.len);
        let known = copies
            .iter()
            .filter(|(_, copy)| copy.state == PackState::Known)
            .count();
        for (n, (_, copy)) in copies.iter().enumerate() {
            let Some(pack) = self.out.packs.get_mut(&copy.pack) else {
                continue;
            };
            pack.live += if n == 0 { len } else { 0 };
            pack.wanted += len;
            pack.needed |= known == 0;
        }
        if known > 1 && self.several.len() < SEVERAL_MAX {
            self.several.push((id, best.len));
        }
    }

    /// Moves the mark of each chunk with several copies to the best copy.
    fn weigh(mut self) -> Result<LiveChunks, Error> {
        let mut several = std::mem::take(&mut self.several);
        several.sort_unstable();
        several.dedup();
        for batch in several.chunks(16 << 10) {
            self.look_up(batch)?;
            let copies = std::mem::take(&mut self.copies);
            for of_one in copies.chunk_by(|a, b| a.0 == b.0) {
                let known = of_one
                    .iter()
                    .map(|(_, copy)| copy)
                    .filter(|copy| copy.state == PackState::Known);
                let first = &of_one[0].1;
                if let Some(best) = known.max_by(|a, b| self.out.better(a, b))
                    && best.number != first.number
                    && self.out.bits.contains(first.number)
                {
                    self.out.move_mark(first, best);
                }
            }
        }
        Ok(self.out)
    }
}

impl LiveChunks {
    /// Compares two copies; the greater one counts.
    fn better(&self, a: &ChunkLocation, b: &ChunkLocation) -> std::cmp::Ordering {
        let share = |copy: &ChunkLocation| {
            let pack = self.packs.get(&copy.pack);
            pack.map_or(0, |pack| {
                u128::from(pack.wanted) * 1_000_000 / u128::from(pack.row.plain.max(1))
            })
        };
        share(a).cmp(&share(b)).then(b.pack.cmp(&a.pack))
    }

    fn move_mark(&mut self, from: &ChunkLocation, to: &ChunkLocation) {
        self.bits.remove(from.number);
        self.bits.insert(to.number);
        let len = u64::from(from.len);
        if let Some(pack) = self.packs.get_mut(&from.pack) {
            pack.live -= len.min(pack.live);
        }
        if let Some(pack) = self.packs.get_mut(&to.pack) {
            pack.live += len;
        }
    }
}

impl ReachVisitor for LiveMarker<'_> {
    fn place(&mut self, id: &ChunkId) -> Result<Option<ChunkLocation>, Error> {
        let copies = self.repo.with_index(|index| index.copies(id))?;
        Ok(copies
            .into_iter()
            .find(|copy| self.out.packs.get(&copy.pack).is_some_and(PackUsage::holds)))
    }

    fn chunks(&mut self, batch: &[(ChunkId, PlainLen)]) -> Result<bool, Error> {
        self.look_up(batch)?;
        let copies = std::mem::take(&mut self.copies);
        let mut missing = vec![true; batch.len()];
        for of_one in copies.chunk_by(|a, b| a.0 == b.0) {
            let n = of_one[0].0;
            missing[n] = false;
            self.mark(batch[n].0, of_one);
        }
        self.copies = copies;
        let mut all_there = true;
        for ((id, _), _) in batch.iter().zip(missing).filter(|(_, missing)| *missing) {
            all_there = false;
            self.miss(*id);
            self.report_unresolved(
                format!("chunk {}", id.short()),
                UnreadableReason::lost("no existing pack holds it"),
            );
        }
        Ok(all_there)
    }

    fn unreadable(&mut self, piece: ReachedPiece, id: &ChunkId, why: UnreadableReason) {
        self.miss(*id);
        self.out.is_blind |= self.tolerant;
        self.report_unresolved(format!("{piece} {}", id.short()), why);
    }
}

impl LiveMarker<'_> {
    fn miss(&mut self, id: ChunkId) {
        if self.tolerant && self.out.missing.len() < MISSING_MAX {
            self.out.missing.insert(id);
        } else {
            self.out.is_blind |= self.tolerant;
        }
    }

    fn report_unresolved(&mut self, object: String, why: UnreadableReason) {
        if self.tolerant {
            return;
        }
        self.out.unresolved += 1;
        self.out.any_lost |= !why.now;
        if self.out.examples.len() < EXAMPLES_MAX {
            self.out.examples.push((object, why));
        }
    }
}
