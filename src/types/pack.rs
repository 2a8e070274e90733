//! What packs hold, as pack directories and index segments tell it.

use crate::types::{ChunkId, LeaseId, PackId, SegmentId};

/// What a frame's chunks are: each class has keys of its own. The numbers are the format's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Class {
    /// File and stream content.
    Data = 1,
    /// Run pages, list nodes, long attribute values.
    Metadata = 2,
}

/// How a frame's plain bytes were packed before sealing. The numbers are the format's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Codec {
    /// As they are.
    Plain = 0,
    /// One zstd frame.
    Zstd = 1,
}

/// A chunk in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChunkInfo {
    pub id: ChunkId,
    /// Plain bytes, 1 B – 2 MiB.
    pub len: u32,
}

/// A frame in a pack. Its chunks lie one behind the other in its plain bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FrameInfo {
    pub class: Class,
    pub codec: Codec,
    /// Where the sealed bytes begin in the pack.
    pub offset: u64,
    /// Sealed bytes, the tag of 16 included.
    pub stored: u32,
    /// Plain bytes: the sum of the chunks' lengths, at most 4 MiB.
    pub plain: u32,
    pub chunks: Vec<ChunkInfo>,
}

/// A pack: its name, its size in the store, and what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PackInfo {
    pub id: PackId,
    /// Stored bytes of the whole object.
    pub size: u64,
    pub frames: Vec<FrameInfo>,
}

impl PackInfo {
    /// Number of chunks in all frames.
    pub fn chunk_count(&self) -> usize {
        self.frames.iter().map(|frame| frame.chunks.len()).sum()
    }
}

/// What an index segment says. All lists are sorted by id and hold nothing twice, but for `packs`,
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
    /// A segment that says nothing yet.
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

    /// True if no section holds anything.
    pub fn is_empty(&self) -> bool {
        self.packs.is_empty()
            && self.condemned.is_empty()
            && self.dropped.is_empty()
            && self.lost.is_empty()
            && self.superseded.is_empty()
    }
}
