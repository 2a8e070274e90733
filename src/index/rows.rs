//! Answers of the index: copies of chunks, frames, packs and their sums.

use crate::types::{ChunkClass, FrameCodec, LeaseId, PackId};

/// State of a pack according to the loaded segments. Dropped wins over condemned, condemned over
/// known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PackState {
    /// Added, neither condemned nor dropped: new data is deduplicated against its chunks.
    Known,
    /// A prune has condemned it.
    Condemned,
    /// A prune has dropped it.
    Dropped,
}

/// One copy of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChunkLocation {
    pub pack: PackId,
    pub state: PackState,
    /// Number of the frame in the pack, from 0.
    pub frame: u32,
    /// Offset of the chunk in the frame's plain bytes.
    pub offset: u32,
    /// Plain bytes.
    pub len: u32,
    /// The pack's base plus the chunk's position in the pack; stable only within one generation of
    /// the database.
    pub number: u64,
}

/// A frame in the index. See [`crate::types::FrameInfo`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FrameRow {
    pub class: ChunkClass,
    pub codec: FrameCodec,
    /// Offset of the sealed bytes in the pack.
    pub offset: u64,
    /// Sealed bytes, including the tag.
    pub stored: u32,
    /// Plain bytes.
    pub plain: u32,
    /// Number of chunks in the frame.
    pub chunks: u32,
}

/// A pack in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PackRow {
    pub id: PackId,
    pub state: PackState,
    /// True if a loaded segment adds it. Otherwise segments only condemn or drop it, and all fields
    /// below are zero.
    pub added: bool,
    /// Stored bytes.
    pub size: u64,
    /// Chunk numbers of this pack are `base..base + chunks`, in this generation of the database.
    pub base: u64,
    pub chunks: u32,
    pub frames: u32,
    /// Plain bytes of all frames.
    pub plain: u64,
    /// The lease of the writer of the segment that added it first.
    pub writer: LeaseId,
}

/// Sums over the held packs, which are added and not dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IndexTotals {
    /// Held packs, including condemned ones.
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
