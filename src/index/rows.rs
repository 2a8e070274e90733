//! Answers of the index: copies of chunks, frames, packs and their sums.

use std::ops::Range;

use crate::types::{
    ChunkClass, FrameCodec, FrameInfo, FrameOffset, LeaseId, PackId, PackOffset, PlainLen,
    StoredLen,
};

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
    pub offset: FrameOffset,
    /// Plain bytes.
    pub len: PlainLen,
    /// The pack's base plus the chunk's position in the pack; stable only within one generation of
    /// the database.
    pub number: u64,
}

impl ChunkLocation {
    /// Returns the place of the chunk in the plain bytes of its frame.
    pub fn range(&self) -> Range<usize> {
        self.offset.range(self.len)
    }
}

/// A frame in the index. See [`crate::types::FrameInfo`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FrameRow {
    pub class: ChunkClass,
    pub codec: FrameCodec,
    /// Offset of the sealed bytes in the pack.
    pub offset: PackOffset,
    /// Sealed bytes, including the tag.
    pub stored: StoredLen,
    /// Plain bytes.
    pub plain: PlainLen,
    /// Number of chunks in the frame.
    pub chunks: u32,
}

impl FrameRow {
    /// Returns the offset after the sealed bytes, or `None` beyond 2^64.
    pub fn end(&self) -> Option<PackOffset> {
        self.offset.checked_add(self.stored)
    }
}

impl From<&FrameInfo> for FrameRow {
    fn from(frame: &FrameInfo) -> Self {
        Self {
            class: frame.class,
            codec: frame.codec,
            offset: frame.offset,
            stored: frame.stored,
            plain: frame.plain,
            // A frame that was read has at most 4 MiB, and each chunk at least one byte.
            chunks: u32::try_from(frame.chunks.len()).unwrap_or(u32::MAX),
        }
    }
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
