//! Chunks → frames. New chunks of one source fill a frame; full frames go to the compressors.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded, select};

use super::RepoError;
use super::claims::{ChunkClaim, Claims};
use super::pack_writer::plain_len;
use crate::chunk::{CHUNK_BYTES_MAX, FRAME_PLAIN_BYTES_MAX, Keys};
use crate::observe::{Counter, Observer};
use crate::types::{ChunkClass, ChunkId, ChunkInfo, to_u64};

/// Plain bytes at which a data frame is full: 1 MiB.
pub(super) const DATA_FRAME_BYTES: usize = 1 << 20;
/// Plain bytes at which a metadata frame is full: 256 KiB. Metadata is read one page at a time, so
/// its frames are smaller.
pub(super) const METADATA_FRAME_BYTES: usize = 256 << 10;

/// Chunks at which any frame is full. This keeps a pack's directory within the size that readers
/// accept, even if the chunks are tiny.
pub(super) const FRAME_CHUNKS_FULL: usize = 64 << 10;

/// New chunks of one class, concatenated.
#[derive(Debug)]
pub(super) struct PlainFrame {
    /// The number of the frame, in the order of sending.
    pub number: u64,
    pub class: ChunkClass,
    pub bytes: Vec<u8>,
    pub chunks: Vec<ChunkInfo>,
}

/// Requests that all frames below a number are stored and published, and then an answer.
#[derive(Debug)]
pub(super) struct PublishBarrier {
    pub below: u64,
    pub done: Sender<()>,
}

/// The input of a packer: creates writers, and waits until their chunks are published.
///
/// Clones feed the same packer, which ends only when all of them are dropped.
#[derive(Clone)]
pub struct PackerHandle<'a> {
    pub(super) keys: &'a Keys,
    pub(super) claims: &'a Claims<'a>,
    pub(super) observer: &'a dyn Observer,
    pub(super) frames: Sender<PlainFrame>,
    pub(super) barriers: Sender<PublishBarrier>,
    /// Disconnected once a stage has ended. Requests that are still in its queue are no longer
    /// answered.
    pub(super) ended: Receiver<Infallible>,
    pub(super) open: Arc<OpenFrames>,
}

/// The frames that all writers are filling, and the number of frames sent.
#[derive(Debug, Default)]
pub(super) struct OpenFrames {
    /// The frame of a dropped writer stays here until it is sent.
    filling: Mutex<Vec<Arc<Mutex<PlainFrame>>>>,
    sent: AtomicU64,
}

impl std::fmt::Debug for PackerHandle<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Feed({} frames sent)",
            self.open.sent.load(Ordering::Relaxed)
        )
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> PackerHandle<'a> {
    /// Creates a writer of one class, for one thread and source.
    pub fn writer(&self, class: ChunkClass) -> FrameWriter<'a> {
        let current = Arc::new(Mutex::new(PlainFrame::empty(class)));
        let mut filling = lock(&self.open.filling);
        filling.retain(|frame| Arc::strong_count(frame) > 1 || !lock(frame).chunks.is_empty());
        filling.push(Arc::clone(&current));
        FrameWriter {
            class,
            feed: self.clone(),
            current,
        }
    }

    /// Waits until all chunks that any writer was given before the call are stored, durable and
    /// published. Chunks given during the call may be published too. Other threads are not blocked.
    pub fn publish(&self) -> Result<(), RepoError> {
        self.send_open()?;
        let (done, published) = bounded(1);
        let below = self.open.sent.load(Ordering::Acquire);
        self.barriers
            .send(PublishBarrier { below, done })
            .map_err(|_| RepoError::Stopped)?;
        select! {
            recv(published) -> answer => answer.map_err(|_| RepoError::Stopped),
            recv(self.ended) -> _ => Err(RepoError::Stopped),
        }
    }

    /// Sends the frames that are being filled, those of dropped writers included.
    ///
    /// A writer holds its frame's lock from the claim of a chunk until the chunk is in the frame.
    /// So a chunk that already counts as held is in a frame that was sent, or is sent here.
    pub(super) fn send_open(&self) -> Result<(), RepoError> {
        let filling = lock(&self.open.filling).clone();
        filling
            .iter()
            .try_for_each(|frame| self.send(&mut lock(frame)))
    }

    /// See [`Claims::index_grew`].
    pub fn index_grew(&self) {
        self.claims.index_grew();
    }

    fn send(&self, current: &mut PlainFrame) -> Result<(), RepoError> {
        if current.chunks.is_empty() {
            return Ok(());
        }
        let mut frame = std::mem::replace(current, PlainFrame::empty(current.class));
        frame.number = self.open.sent.fetch_add(1, Ordering::AcqRel);
        // The receivers are gone only if one of them failed. Its error is the one to report.
        self.frames.send(frame).map_err(|_| RepoError::Stopped)
    }
}

/// Adds chunks of one class and source to frames. Used by one thread.
pub struct FrameWriter<'a> {
    class: ChunkClass,
    feed: PackerHandle<'a>,
    current: Arc<Mutex<PlainFrame>>,
}

impl std::fmt::Debug for FrameWriter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FrameWriter({:?})", self.class)
    }
}

impl PlainFrame {
    fn empty(class: ChunkClass) -> Self {
        Self {
            number: 0,
            class,
            bytes: Vec::new(),
            chunks: Vec::new(),
        }
    }
}

impl FrameWriter<'_> {
    /// Returns the id of a chunk (1 B to 2 MiB), and stores the chunk if it is new.
    pub fn add(&mut self, bytes: &[u8]) -> Result<ChunkId, RepoError> {
        debug_assert!(
            !bytes.is_empty() && bytes.len() <= CHUNK_BYTES_MAX,
            "a chunk is 1 B to 2 MiB"
        );
        let len = plain_len(bytes)?;

        // The lock is held from the claim until the chunk is in the frame: see `PackerHandle::send_open`.
        let id = self.feed.keys.chunk_id(self.class, bytes);
        let mut current = lock(&self.current);
        if self.feed.claims.claim(&id)? == ChunkClaim::Held {
            return Ok(id);
        }

        let target = match self.class {
            ChunkClass::Data => DATA_FRAME_BYTES,
            ChunkClass::Metadata => METADATA_FRAME_BYTES,
        };
        if current.bytes.len() + bytes.len() > FRAME_PLAIN_BYTES_MAX {
            self.feed.send(&mut current)?;
        }

        if current.bytes.capacity() == 0 {
            // Leaves room for the chunk that fills the frame, so that the buffer seldom moves.
            current.bytes.reserve(bytes.len().max(64 << 10));
        }

        current.bytes.extend_from_slice(bytes);
        current.chunks.push(ChunkInfo { id, len });

        let chunks = if self.class == ChunkClass::Data {
            Counter::ChunksNew
        } else {
            Counter::MetadataChunksNew
        };
        self.feed.observer.add(chunks, 1);
        self.feed
            .observer
            .add(Counter::BytesNew, to_u64(bytes.len()));

        if current.bytes.len() >= target || current.chunks.len() >= FRAME_CHUNKS_FULL {
            self.feed.send(&mut current)?;
        }

        Ok(id)
    }

    /// Sends the current frame. Called at the end of a source, because a frame never mixes sources.
    pub fn flush(&mut self) -> Result<(), RepoError> {
        self.feed.send(&mut lock(&self.current))
    }
}
