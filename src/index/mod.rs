//! The index: a SQLite database that answers "where is this chunk?".

mod error;
mod memory;

use std::collections::BTreeSet;
use std::path::Path;

pub use self::error::IndexError;
pub use self::memory::{LastSnapshot, Memory};
use crate::types::{ChunkId, Class, Codec, LeaseId, PackId, SegmentBody, SegmentId};

/// How `Index::open` found the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// There was none: it is new and empty.
    Created,
    /// It was there and its small tables agree with their digest.
    Existing,
    /// It was unusable; a new, empty one has taken its place. `why` is for people.
    Recreated { why: String },
}

/// What the loaded segments say of a pack: dropped wins over condemned, condemned over known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PackState {
    /// Added, neither condemned nor dropped: its chunks are deduplicated against.
    Known,
    /// A prune has marked it.
    Condemned,
    /// A prune has let it go.
    Dropped,
}

/// One copy of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Location {
    pub pack: PackId,
    pub state: PackState,
    /// Number of the frame in the pack, from 0.
    pub frame: u32,
    /// Where the chunk begins in the frame's plain bytes.
    pub offset: u32,
    /// Plain bytes.
    pub len: u32,
    /// The pack's base plus the chunk's position in the pack; stable only within one generation of the database.
    pub number: u64,
}

/// A frame as the index knows it. See [`crate::types::FrameInfo`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FrameRow {
    pub class: Class,
    pub codec: Codec,
    /// Where the sealed bytes begin in the pack.
    pub offset: u64,
    /// Sealed bytes, the tag included.
    pub stored: u32,
    /// Plain bytes.
    pub plain: u32,
    /// Number of chunks in it.
    pub chunks: u32,
}

/// A pack as the index knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PackRow {
    pub id: PackId,
    pub state: PackState,
    /// True if a loaded segment adds it. Else a segment only condemns or drops it, and all that follows is zero.
    pub added: bool,
    /// Stored bytes.
    pub size: u64,
    /// Chunk numbers of this pack are `base..base + chunks`, in this generation of the database.
    pub base: u64,
    pub chunks: u32,
    pub frames: u32,
    /// The lease of the writer of the segment that first added it.
    pub writer: LeaseId,
}

/// Sums over the packs that are held: added and not dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Held packs, condemned ones among them.
    pub packs: u64,
    /// Held packs that are condemned.
    pub condemned: u64,
    /// Stored bytes of held packs.
    pub stored_bytes: u64,
    /// Chunks in held packs; a chunk in two packs counts twice.
    pub chunks: u64,
    /// Plain bytes of data frames.
    pub data_bytes: u64,
    /// Plain bytes of metadata frames.
    pub metadata_bytes: u64,
}

/// The index of one repository at one address. All methods may be called from many threads.
pub struct Index;

fn pending<T>() -> Result<T, IndexError> {
    Err(IndexError::damaged(Path::new(""), "not built yet"))
}

#[expect(unused_variables, reason = "bodies follow")]
impl Index {
    /// Opens the index in `dir`, the cache folder of one repository and address, and makes both if need be.
    ///
    /// A database that is damaged, foreign or of another schema gives way to a new, empty one; that is no error.
    pub fn open(dir: &Path) -> Result<(Self, Opened), IndexError> {
        pending()
    }
    /// Begins anew in a new, empty database; this `Index` goes on with it, others keep what they have open.
    pub fn recreate(&self, why: &str) -> Result<(), IndexError> {
        pending()
    }
    /// The segments that are loaded now.
    pub fn loaded(&self) -> Result<BTreeSet<SegmentId>, IndexError> {
        pending()
    }
    /// A loaded segment (the lowest) that says it supersedes `old`.
    pub fn superseder(&self, old: &SegmentId) -> Result<Option<SegmentId>, IndexError> {
        pending()
    }
    /// Loads a segment in one transaction; a segment that is loaded already changes nothing.
    pub fn load(&self, id: SegmentId, body: &SegmentBody) -> Result<(), IndexError> {
        pending()
    }
    /// Makes what `old` says a part of what `to` says, and forgets `old` (R3).
    pub fn transfer(&self, old: &SegmentId, to: &SegmentId) -> Result<(), IndexError> {
        pending()
    }
    /// Takes away what a segment says; packs that nobody adds any more lose their rows.
    pub fn unload(&self, id: &SegmentId) -> Result<(), IndexError> {
        pending()
    }
    /// Finds the best copy of each chunk: known, then condemned, then dropped, then the lowest pack id.
    /// `out` is emptied and gets one entry for each id, in order.
    pub fn lookup(&self, ids: &[ChunkId], out: &mut Vec<Option<Location>>) -> Result<(), IndexError> {
        pending()
    }
    /// Finds the best copy of one chunk.
    pub fn lookup_one(&self, id: &ChunkId) -> Result<Option<Location>, IndexError> {
        pending()
    }
    /// Returns all copies of a chunk, best first.
    pub fn copies(&self, id: &ChunkId) -> Result<Vec<Location>, IndexError> {
        pending()
    }
    /// Returns frame number `frame` of a pack that some segment adds.
    pub fn frame(&self, pack: &PackId, frame: u32) -> Result<Option<FrameRow>, IndexError> {
        pending()
    }
    /// Returns what is known of a pack in any state.
    pub fn pack(&self, id: &PackId) -> Result<Option<PackRow>, IndexError> {
        pending()
    }
    /// Returns all packs in any state, sorted by id.
    pub fn packs(&self) -> Result<Vec<PackRow>, IndexError> {
        pending()
    }
    /// All `Location::number` are below this.
    pub fn chunk_numbers_end(&self) -> Result<u64, IndexError> {
        pending()
    }
    /// The ids in `lost` sections of loaded segments that no known pack holds.
    pub fn lost(&self) -> Result<BTreeSet<ChunkId>, IndexError> {
        pending()
    }
    /// Sums over all held packs.
    pub fn totals(&self) -> Result<Totals, IndexError> {
        pending()
    }
    /// True if no look-up can find anything.
    pub fn is_empty(&self) -> Result<bool, IndexError> {
        pending()
    }
    /// Reads the whole database and compares it with its sums; about a second for a million chunks.
    ///
    /// A damaged database never gives a wrong location, but it can miss a chunk. Call this before a chunk that a
    /// look-up misses is reported as lost.
    pub fn check(&self) -> Result<(), IndexError> {
        pending()
    }
    /// Names this database among all that were in the folder; numbers of chunks hold within one generation.
    pub fn generation(&self) -> u64 {
        0
    }
}
