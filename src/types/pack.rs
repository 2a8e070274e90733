//! The content of packs, as described by pack directories and index segments.

use crate::types::{ChunkId, LeaseId, PackId, PackOffset, PlainLen, SegmentId, StoredLen};

/// The class of a frame's chunks; each class has separate keys. The numbers are part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ChunkClass {
    /// File and stream content.
    Data = 1,
    /// Run pages, list nodes, long attribute values.
    Metadata = 2,
}

impl ChunkClass {
    /// Returns the number in the format: the discriminant, which only a cast gives.
    pub const fn number(self) -> u8 {
        self as u8
    }
}

/// The encoding of a frame's plain bytes before sealing. The numbers are part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum FrameCodec {
    /// Unchanged.
    Plain = 0,
    /// One zstd frame.
    Zstd = 1,
}

impl FrameCodec {
    /// Returns the number in the format: the discriminant, which only a cast gives.
    pub const fn number(self) -> u8 {
        self as u8
    }
}

/// A chunk in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChunkInfo {
    pub id: ChunkId,
    /// Plain bytes, 1 B – 2 MiB.
    pub len: PlainLen,
}

/// A frame in a pack. Its chunks follow one another in its plain bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FrameInfo {
    pub class: ChunkClass,
    pub codec: FrameCodec,
    /// Offset of the sealed bytes in the pack.
    pub offset: PackOffset,
    /// Sealed bytes, including the tag of 16 bytes.
    pub stored: StoredLen,
    /// Plain bytes: the sum of the chunks' lengths, at most 4 MiB.
    pub plain: PlainLen,
    pub chunks: Vec<ChunkInfo>,
}

impl FrameInfo {
    /// Returns the offset after the sealed bytes, or `None` beyond 2^64.
    pub fn end(&self) -> Option<PackOffset> {
        self.offset.checked_add(self.stored)
    }
}

/// A pack: its name, its size in the store, and its content.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PackInfo {
    pub id: PackId,
    /// Stored bytes of the whole object.
    pub size: u64,
    pub frames: Vec<FrameInfo>,
}

impl PackInfo {
    /// Returns the number of chunks in all frames.
    pub fn chunk_count(&self) -> usize {
        self.frames.iter().map(|frame| frame.chunks.len()).sum()
    }
}

/// The content of an index segment. All lists are sorted by id without duplicates, except `packs`,
/// which keeps the order in which the packs were written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SegmentBody {
    /// The lease of the writer that published it.
    pub writer: LeaseId,
    pub packs: Vec<PackInfo>,
    pub condemned: Vec<PackId>,
    pub dropped: Vec<PackId>,
    pub lost: Vec<ChunkId>,
    pub superseded: Vec<SegmentId>,
}

impl SegmentBody {
    /// Returns a segment without content.
    pub fn empty(writer: LeaseId) -> Self {
        Self {
            writer,
            packs: Vec::new(),
            condemned: Vec::new(),
            dropped: Vec::new(),
            lost: Vec::new(),
            superseded: Vec::new(),
        }
    }

    /// Returns true if all sections are empty.
    pub fn is_empty(&self) -> bool {
        self.packs.is_empty()
            && self.condemned.is_empty()
            && self.dropped.is_empty()
            && self.lost.is_empty()
            && self.superseded.is_empty()
    }
}
