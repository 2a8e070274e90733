//! Chunks → frames: new chunks of one source fill a frame, full frames go to the compressors.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded, select};

use super::RepoError;
use super::claims::{Claim, Claims};
use crate::chunk::{CHUNK_BYTES_MAX, FRAME_PLAIN_BYTES_MAX, Keys};
use crate::observe::{Counter, Observer};
use crate::types::{ChunkId, ChunkInfo, Class};

/// A data frame is full at this many plain bytes: 1 MiB.
pub(super) const DATA_FRAME_BYTES: usize = 1 << 20;
/// Metadata is read a page at a time, so its frames are smaller: 256 KiB.
pub(super) const METADATA_FRAME_BYTES: usize = 256 << 10;

/// … or this many chunks, so that a pack's directory stays within what readers take, however small
/// the chunks.
pub(super) const FRAME_CHUNKS_FULL: usize = 64 << 10;

/// New chunks of one class, one behind the other.
#[derive(Debug)]
pub(super) struct PlainFrame {
    /// Frames are numbered as they are sent.
    pub number: u64,
    pub class: Class,
    pub bytes: Vec<u8>,
    pub chunks: Vec<ChunkInfo>,
}

/// Asks for everything below a frame's number to be stored and published, then for an answer.
#[derive(Debug)]
pub(super) struct Barrier {
    pub below: u64,
    pub done: Sender<()>,
}

/// The way into a packer: makes writers, and sees to it that what they were given is published.
/// Clones feed the same packer, which ends only when all of them are gone.
#[derive(Clone)]
pub struct Feed<'a> {
    pub(super) keys: &'a Keys,
    pub(super) claims: &'a Claims<'a>,
    pub(super) observer: &'a dyn Observer,
    pub(super) frames: Sender<PlainFrame>,
    pub(super) barriers: Sender<Barrier>,
    /// Disconnected once a stage has ended: what lies in its queue then is not answered any more.
    pub(super) ended: Receiver<Infallible>,
    pub(super) open: Arc<OpenFrames>,
}

/// The frames that are being filled, of all writers, and how many were sent.
#[derive(Debug, Default)]
pub(super) struct OpenFrames {
    /// A writer that is gone leaves its frame here until it is sent.
    filling: Mutex<Vec<Arc<Mutex<PlainFrame>>>>,
    sent: AtomicU64,
}

impl std::fmt::Debug for Feed<'_> {
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

impl<'a> Feed<'a> {
    /// A writer of one class for one thread and source.
    pub fn writer(&self, class: Class) -> FrameWriter<'a> {
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

    /// Returns once every chunk that any writer was given before the call is stored, durable and
    /// published; chunks given meanwhile may be as well. Other threads go on.
    pub fn publish(&self) -> Result<(), RepoError> {
        self.send_open()?;
        let (done, published) = bounded(1);
        let below = self.open.sent.load(Ordering::Acquire);
        self.barriers
            .send(Barrier { below, done })
            .map_err(|_| RepoError::Stopped)?;
        select! {
            recv(published) -> answer => answer.map_err(|_| RepoError::Stopped),
            recv(self.ended) -> _ => Err(RepoError::Stopped),
        }
    }

    /// Sends on their way the frames that are being filled, and those of writers that are gone.
    ///
    /// A writer holds its frame's lock from the claim of a chunk until the chunk lies in it: a
    /// chunk that counts as held by now lies in a frame that was sent, or is sent here.
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
        // The receivers are gone only if one of them failed; its error is the one to report.
        self.frames.send(frame).map_err(|_| RepoError::Stopped)
    }
}

/// Takes chunks of one class and source; used by one thread.
pub struct FrameWriter<'a> {
    class: Class,
    feed: Feed<'a>,
    current: Arc<Mutex<PlainFrame>>,
}

impl std::fmt::Debug for FrameWriter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FrameWriter({:?})", self.class)
    }
}

impl PlainFrame {
    fn empty(class: Class) -> Self {
        Self {
            number: 0,
            class,
            bytes: Vec::new(),
            chunks: Vec::new(),
        }
    }
}

impl FrameWriter<'_> {
    /// Names a chunk (1 B – 2 MiB) and stores it if nobody has it.
    pub fn add(&mut self, bytes: &[u8]) -> Result<ChunkId, RepoError> {
        debug_assert!(
            !bytes.is_empty() && bytes.len() <= CHUNK_BYTES_MAX,
            "a chunk is 1 B to 2 MiB"
        );
        let id = self.feed.keys.chunk_id(self.class, bytes);
        let mut current = lock(&self.current);
        if self.feed.claims.claim(&id)? == Claim::Held {
            return Ok(id);
        }
        let target = match self.class {
            Class::Data => DATA_FRAME_BYTES,
            Class::Metadata => METADATA_FRAME_BYTES,
        };
        if current.bytes.len() + bytes.len() > FRAME_PLAIN_BYTES_MAX {
            self.feed.send(&mut current)?;
        }
        if current.bytes.capacity() == 0 {
            // Room for the chunk that fills it, so that a frame is seldom moved.
            current.bytes.reserve(bytes.len().max(64 << 10));
        }
        current.bytes.extend_from_slice(bytes);
        current.chunks.push(ChunkInfo {
            id,
            len: bytes.len() as u32,
        });
        let chunks = if self.class == Class::Data {
            Counter::ChunksNew
        } else {
            Counter::MetadataChunksNew
        };
        self.feed.observer.add(chunks, 1);
        self.feed
            .observer
            .add(Counter::BytesNew, bytes.len() as u64);
        if current.bytes.len() >= target || current.chunks.len() >= FRAME_CHUNKS_FULL {
            self.feed.send(&mut current)?;
        }
        Ok(id)
    }

    /// Sends what is there on its way: at the end of a source, since a frame never mixes sources.
    pub fn flush(&mut self) -> Result<(), RepoError> {
        self.feed.send(&mut lock(&self.current))
    }
}
