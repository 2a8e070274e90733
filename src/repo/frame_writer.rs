//! Chunks → frames: new chunks of one source fill a frame, full frames go to the compressors.

use crossbeam_channel::Sender;

use super::RepoError;
use super::claims::{Claim, Claims};
use crate::chunk::{CHUNK_BYTES_MAX, FRAME_PLAIN_BYTES_MAX, Keys};
use crate::observe::{Counter, Observer};
use crate::types::{ChunkId, ChunkInfo, Class};

/// A data frame is full at this many plain bytes: 1 MiB.
pub(super) const DATA_FRAME_BYTES: usize = 1 << 20;
/// Metadata is read a page at a time, so its frames are smaller: 256 KiB.
pub(super) const METADATA_FRAME_BYTES: usize = 256 << 10;

/// … or this many chunks, so that a pack's directory stays within what readers take, however small the chunks.
pub(super) const FRAME_CHUNKS_FULL: usize = 64 << 10;

/// New chunks of one class, one behind the other.
#[derive(Debug)]
pub(super) struct PlainFrame {
    pub class: Class,
    pub bytes: Vec<u8>,
    pub chunks: Vec<ChunkInfo>,
}

/// Takes chunks of one class and source; used by one thread.
pub struct FrameWriter<'a> {
    pub(super) class: Class,
    pub(super) keys: &'a Keys,
    pub(super) claims: &'a Claims<'a>,
    pub(super) observer: &'a dyn Observer,
    pub(super) frames: Sender<PlainFrame>,
    pub(super) current: PlainFrame,
}

impl std::fmt::Debug for FrameWriter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FrameWriter({:?})", self.class)
    }
}

impl PlainFrame {
    pub(super) fn empty(class: Class) -> Self {
        Self { class, bytes: Vec::new(), chunks: Vec::new() }
    }
}

impl FrameWriter<'_> {
    /// Names a chunk (1 B – 2 MiB) and stores it if nobody has it.
    pub fn add(&mut self, bytes: &[u8]) -> Result<ChunkId, RepoError> {
        debug_assert!(!bytes.is_empty() && bytes.len() <= CHUNK_BYTES_MAX, "a chunk is 1 B to 2 MiB");
        let id = self.keys.chunk_id(self.class, bytes);
        if self.claims.claim(&id)? == Claim::Held {
            return Ok(id);
        }
        let target = match self.class {
            Class::Data => DATA_FRAME_BYTES,
            Class::Metadata => METADATA_FRAME_BYTES,
        };
        if self.current.bytes.len() + bytes.len() > FRAME_PLAIN_BYTES_MAX {
            self.flush()?;
        }
        if self.current.bytes.capacity() == 0 {
            // Room for the chunk that fills it, so that a frame is seldom moved.
            self.current.bytes.reserve(bytes.len().max(64 << 10));
        }
        self.current.bytes.extend_from_slice(bytes);
        self.current.chunks.push(ChunkInfo { id, len: bytes.len() as u32 });
        let chunks = if self.class == Class::Data { Counter::ChunksNew } else { Counter::MetadataChunksNew };
        self.observer.add(chunks, 1);
        self.observer.add(Counter::BytesNew, bytes.len() as u64);
        if self.current.bytes.len() >= target || self.current.chunks.len() >= FRAME_CHUNKS_FULL {
            self.flush()?;
        }
        Ok(id)
    }

    /// Sends what is there on its way: at the end of a source, since a frame never mixes sources.
    pub fn flush(&mut self) -> Result<(), RepoError> {
        if self.current.chunks.is_empty() {
            return Ok(());
        }
        let frame = std::mem::replace(&mut self.current, PlainFrame::empty(self.class));
        // The receivers are gone only if one of them failed; its error is the one to report.
        self.frames.send(frame).map_err(|_| RepoError::Stopped)
    }
}
