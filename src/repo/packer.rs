//! The writing half of a backup, as bounded stages. Several threads compress frames, one seals them
//! and writes them into packs, and another stores and publishes the packs.
//!
//! ```text
//! FrameWriter… ─frames─▶ compress-N ─packed─▶ pack ─sealed─▶ store ─▶ segment ─▶ index
//! ```
//!
//! Every queue is bounded in items of bounded size: `frames` and `packed` hold `2 × workers` frames
//! of at most 4 MiB (usually 1 MiB); `sealed` holds one pack, in a spool file and not in memory.
//! [`PackerHandle::publish`] sends a barrier through the stages. Once all frames before the barrier are in
//! packs, these packs are stored and published. The first error ends all stages, and
//! [`Packer::finish`] returns it.
//!
//! Crash points: a pack without a segment is an orphan that a later prune adopts. A segment without
//! a snapshot names chunks that the next backup deduplicates against.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, never, select, unbounded};

use super::claims::Claims;
use super::frame_writer::{FrameWriter, PackerHandle, PlainFrame, PublishBarrier};
use super::pack_writer::{FRAME_SLACK, PackBuilder, PackedFrame, SealedPack, plain_len};
use super::system::io_error;
use super::{Lease, RepoError, Repository};
use crate::chunk::Compressor;
use crate::observe::{Counter, Observer};
use crate::types::{ChunkClass, PackId, PackInfo, SegmentBody, SegmentId, to_u64};

/// The longest time between segments while there is something to publish.
const SEGMENT_EVERY: Duration = Duration::from_secs(5 * 60);
/// Stored bytes after which a segment is published earlier.
const SEGMENT_BYTES: u64 = 1 << 30;
/// Chunks after which a segment is published earlier.
const SEGMENT_CHUNKS: usize = 256 << 10;

/// Options of a packer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackerOptions {
    /// Number of compressing threads, at least 1.
    pub workers: usize,
    /// zstd level, 1–19.
    pub level: i32,
    /// If set, frames are compressed and counted, but not stored.
    pub dry_run: bool,
}

/// The stored objects of a packer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PackedSource {
    pub packs: u64,
    pub stored_bytes: u64,
    /// The packs and their stored bytes.
    pub ids: Vec<(PackId, u64)>,
    pub segments: Vec<SegmentId>,
}

/// An item for the store stage. Items are handled in order.
enum SealedItem {
    Pack(SealedPack),
    /// Publish the packs stored so far, then answer.
    Publish(Sender<()>),
}

/// Signals that a stage has ended, so that a caller that waits for an answer stops waiting.
///
/// [`PackerHandle::publish`] needs this: a bounded channel keeps queued messages, and with them the
/// caller's reply sender, after its receiver is gone, as long as any sender is left.
struct StagesAlive(Mutex<Option<Sender<Infallible>>>);

/// Held by a stage. Signals its end on drop, and so after an error or a panic too.
struct TellsEnd(Arc<StagesAlive>);

impl Drop for TellsEnd {
    fn drop(&mut self) {
        drop(
            self.0
                .0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
    }
}

/// The stages of one writer. Lives within a thread scope.
pub struct Packer<'scope, 'env> {
    feed: PackerHandle<'env>,
    hurry: Arc<AtomicBool>,
    threads: Vec<ScopedJoinHandle<'scope, Result<(), RepoError>>>,
    store_thread: ScopedJoinHandle<'scope, Result<PackedSource, RepoError>>,
}

impl std::fmt::Debug for Packer<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Packer({} threads)", self.threads.len() + 1)
    }
}

impl<'scope, 'env> Packer<'scope, 'env> {
    /// Starts the stages.
    pub fn start(
        scope: &'scope Scope<'scope, 'env>,
        repo: &'env Repository,
        lease: Option<&'env Lease>,
        claims: &'env Claims<'env>,
        options: PackerOptions,
        observer: &'env dyn Observer,
    ) -> Result<Self, RepoError> {
        let (frames, plain) = bounded::<PlainFrame>(2 * options.workers);
        let (packed_in, packed) = bounded::<PackedFrame>(2 * options.workers);
        let (sealed_in, sealed) = bounded::<SealedItem>(1);
        // Unbounded, but holds at most one barrier per caller of `publish`, which waits for its
        // answer.
        let (barriers, barriers_out) = unbounded::<PublishBarrier>();

        let hurry = Arc::new(AtomicBool::new(false));
        let (ends, ended) = bounded::<Infallible>(0);
        let ending = Arc::new(StagesAlive(Mutex::new(Some(ends))));

        let mut threads = Vec::new();
        for n in 0..options.workers {
            let plain = plain.clone();
            let packed_in = packed_in.clone();
            let hurry = Arc::clone(&hurry);
            threads.push(spawn(scope, format!("compress-{n}"), &ending, move || {
                compress(options.level, &hurry, &plain, &packed_in)
            })?);
        }

        let lease = if options.dry_run { None } else { lease };
        threads.push(spawn(scope, "pack".into(), &ending, move || match lease {
            Some(lease) => PackStage::new(repo, lease, &sealed_in).run(&packed, barriers_out),
            None => {
                for frame in packed.iter() {
                    observer.add(Counter::BytesStored, to_u64(frame.bytes.len()));
                }
                Ok(())
            }
        })?);

        let store_thread = spawn(scope, "store".into(), &ending, move || match lease {
            Some(lease) => PackPublisher::new(repo, lease, claims, observer).run(&sealed),
            None => Ok(PackedSource::default()),
        })?;

        let feed = PackerHandle {
            keys: repo.keys(),
            claims,
            observer,
            frames,
            barriers,
            ended,
            open: Arc::default(),
        };
        Ok(Self {
            feed,
            hurry,
            threads,
            store_thread,
        })
    }

    /// Creates a writer of one class, for one thread and source.
    pub fn writer(&self, class: ChunkClass) -> FrameWriter<'env> {
        self.feed.writer(class)
    }

    /// Returns the input, for threads that do not have the packer. It must be dropped before
    /// [`Packer::finish`], like the writers.
    pub fn feed(&self) -> PackerHandle<'env> {
        self.feed.clone()
    }

    /// Compresses as fast as possible from now on, because a caller waits for the end.
    pub fn hurry(&self) {
        self.hurry.store(true, Ordering::Relaxed);
    }

    /// Waits until all chunks are stored, durable and published. All [`FrameWriter`]s must be
    /// dropped first. Chunks that they left unflushed are sent, because other writers count them as
    /// held.
    pub fn finish(self) -> Result<PackedSource, RepoError> {
        // If this fails because a stage has ended, that stage returns the error.
        let _ = self.feed.send_open();
        drop(self.feed);
        let mut failure = None;
        for thread in self.threads {
            keep_first(&mut failure, join(thread));
        }
        let packed = keep_first(&mut failure, join(self.store_thread));
        match (failure, packed) {
            (Some(err), _) => Err(err),
            (None, Some(packed)) => Ok(packed),
            (None, None) => Err(RepoError::Stopped),
        }
    }
}

fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: String,
    ending: &Arc<StagesAlive>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>, RepoError> {
    let stage_guard = TellsEnd(Arc::clone(ending));
    let work = move || {
        let _stage_guard = stage_guard;
        work()
    };
    std::thread::Builder::new()
        .name(name)
        .spawn_scoped(scope, work)
        .map_err(|source| io_error("start", "a thread", source))
}

fn join<T>(thread: ScopedJoinHandle<'_, Result<T, RepoError>>) -> Result<T, RepoError> {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Keeps the first real error. [`RepoError::Stopped`] only means that another thread failed.
fn keep_first<T>(failure: &mut Option<RepoError>, result: Result<T, RepoError>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(err) => {
            if failure
                .as_ref()
                .is_none_or(|held| matches!(held, RepoError::Stopped))
            {
                *failure = Some(err);
            }
            None
        }
    }
}

/// The zstd level after [`Packer::hurry`].
const HURRIED_LEVEL: i32 = 1;

fn compress(
    level: i32,
    hurry: &AtomicBool,
    plain: &Receiver<PlainFrame>,
    out: &Sender<PackedFrame>,
) -> Result<(), RepoError> {
    let mut compressor = Compressor::new(level)?;
    let mut is_hurried = level <= HURRIED_LEVEL;
    // The scratch buffer has the size of the worst case. The result is copied to a buffer of its
    // real size, so that queued frames take no more memory than they need.
    let mut scratch = Vec::new();
    for frame in plain {
        if !is_hurried && hurry.load(Ordering::Relaxed) {
            compressor = Compressor::new(HURRIED_LEVEL)?;
            is_hurried = true;
        }

        let codec = compressor.compress(&frame.bytes, &mut scratch, FRAME_SLACK)?;
        let mut bytes = Vec::with_capacity(scratch.len() + FRAME_SLACK);
        bytes.extend_from_slice(&scratch);
        let number = frame.number;
        let plain_len = plain_len(&frame.bytes)?;
        let packed = PackedFrame {
            number,
            class: frame.class,
            codec,
            plain_len,
            bytes,
            chunks: frame.chunks,
        };
        out.send(packed).map_err(|_| RepoError::Stopped)?;
    }
    Ok(())
}

/// The numbers of the frames that have arrived: all below `next`, and those in `ahead`, which the
/// compressors sent out of order.
#[derive(Default)]
struct ArrivedFrames {
    next: u64,
    ahead: BTreeSet<u64>,
}

impl ArrivedFrames {
    fn add(&mut self, number: u64) {
        self.ahead.insert(number);
        while self.ahead.remove(&self.next) {
            self.next += 1;
        }
    }
}

/// Fills packs with frames.
struct PackStage<'a> {
    repo: &'a Repository,
    lease: &'a Lease,
    out: &'a Sender<SealedItem>,
    current: Option<(PackBuilder, Instant)>,
    arrived: ArrivedFrames,
    waiting: Vec<PublishBarrier>,
}

impl<'a> PackStage<'a> {
    fn new(repo: &'a Repository, lease: &'a Lease, out: &'a Sender<SealedItem>) -> Self {
        Self {
            repo,
            lease,
            out,
            current: None,
            arrived: ArrivedFrames::default(),
            waiting: Vec::new(),
        }
    }

    fn run(
        mut self,
        packed: &Receiver<PackedFrame>,
        mut barriers: Receiver<PublishBarrier>,
    ) -> Result<(), RepoError> {
        loop {
            // A pack waits for more frames for as long as a segment may wait.
            let left = self.current.as_ref().map_or(SEGMENT_EVERY, |(_, since)| {
                SEGMENT_EVERY.saturating_sub(since.elapsed())
            });
            select! {
                recv(packed) -> frame => match frame {
                    Ok(frame) => self.add(frame)?,
                    Err(_) => break,
                },
                recv(barriers) -> barrier => match barrier {
                    Ok(barrier) => self.waiting.push(barrier),
                    Err(_) => barriers = never(),
                },
                default(left) => self.seal()?,
            }
            self.let_through()?;
        }
        self.waiting.extend(barriers.try_iter());
        self.let_through()?;
        self.seal()
    }

    fn add(&mut self, frame: PackedFrame) -> Result<(), RepoError> {
        self.arrived.add(frame.number);
        let (mut builder, since) = match self.current.take() {
            Some(open) => open,
            None => (
                PackBuilder::begin(self.repo.store(), self.repo.keys(), self.lease.id())?,
                Instant::now(),
            ),
        };
        builder.add(frame)?;
        let is_due = builder.is_full() || since.elapsed() >= SEGMENT_EVERY;
        self.current = Some((builder, since));
        if is_due { self.seal() } else { Ok(()) }
    }

    fn seal(&mut self) -> Result<(), RepoError> {
        match self.current.take() {
            Some((builder, _)) => self.send(SealedItem::Pack(builder.finish()?)),
            None => Ok(()),
        }
    }

    /// Forwards the barriers for which all earlier frames have arrived.
    fn let_through(&mut self) -> Result<(), RepoError> {
        let next = self.arrived.next;
        if !self.waiting.iter().any(|barrier| barrier.below <= next) {
            return Ok(());
        }
        self.seal()?;
        for barrier in self
            .waiting
            .extract_if(.., |barrier| barrier.below <= next)
            .collect::<Vec<_>>()
        {
            self.send(SealedItem::Publish(barrier.done))?;
        }
        Ok(())
    }

    fn send(&self, sealed: SealedItem) -> Result<(), RepoError> {
        self.out.send(sealed).map_err(|_| RepoError::Stopped)
    }
}

/// Stores packs and publishes them: packs durable → segment → rows in the index.
struct PackPublisher<'a> {
    repo: &'a Repository,
    lease: &'a Lease,
    claims: &'a Claims<'a>,
    observer: &'a dyn Observer,
    pending: Vec<PackInfo>,
    pending_bytes: u64,
    pending_chunks: usize,
    since: Instant,
    done: PackedSource,
}

impl<'a> PackPublisher<'a> {
    fn new(
        repo: &'a Repository,
        lease: &'a Lease,
        claims: &'a Claims<'a>,
        observer: &'a dyn Observer,
    ) -> Self {
        Self {
            repo,
            lease,
            claims,
            observer,
            pending: Vec::new(),
            pending_bytes: 0,
            pending_chunks: 0,
            since: Instant::now(),
            done: PackedSource::default(),
        }
    }

    fn run(mut self, sealed: &Receiver<SealedItem>) -> Result<PackedSource, RepoError> {
        loop {
            let left = SEGMENT_EVERY.saturating_sub(self.since.elapsed());
            match sealed.recv_timeout(left) {
                Ok(SealedItem::Publish(done)) => {
                    self.publish()?;
                    // The caller may have stopped waiting.
                    let _ = done.send(());
                }
                Ok(SealedItem::Pack(pack)) => {
                    self.store(pack)?;
                    if self.pending_bytes >= SEGMENT_BYTES || self.pending_chunks >= SEGMENT_CHUNKS
                    {
                        self.publish()?;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.publish()?;
                    self.since = Instant::now();
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.publish()?;
        Ok(self.done)
    }

    fn store(&mut self, pack: SealedPack) -> Result<(), RepoError> {
        // A writer that lost its lease stores no more. Its stored packs remain for the next writer.
        self.lease.check()?;
        let bytes = self.repo.put_pack(&pack.info.id, pack.spool)?;
        self.observer.add(Counter::BytesStored, bytes);
        self.observer.add(Counter::Packs, 1);
        self.done.packs += 1;
        self.done.ids.push((pack.info.id, pack.info.size));
        self.done.stored_bytes += bytes;
        self.pending_bytes += pack.info.size;
        self.pending_chunks += pack.info.chunk_count();
        self.pending.push(pack.info);
        Ok(())
    }

    fn publish(&mut self) -> Result<(), RepoError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.lease.check()?;
        let writer = self.lease.id();

        let packs = std::mem::take(&mut self.pending);
        let body = SegmentBody {
            packs,
            ..SegmentBody::empty(writer)
        };
        let (id, bytes) = self.repo.publish_segment(writer, &body)?;
        self.observer.add(Counter::BytesStored, bytes);
        self.done.segments.push(id);
        self.done.stored_bytes += bytes;

        let chunks = body
            .packs
            .iter()
            .flat_map(|pack| &pack.frames)
            .flat_map(|frame| &frame.chunks);
        self.claims.published(chunks.map(|chunk| chunk.id));

        self.pending_bytes = 0;
        self.pending_chunks = 0;
        self.since = Instant::now();
        Ok(())
    }
}

/// A cell for the first error of several threads that have no channel for it.
#[derive(Debug)]
pub struct FirstError<E>(Mutex<Option<E>>);

impl<E> Default for FirstError<E> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<E> FirstError<E> {
    /// Stores the error if it is the first.
    pub fn set(&self, err: E) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(err);
    }

    /// Returns true if there is an error.
    pub fn is_set(&self) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
    }

    /// Removes and returns the error.
    pub fn take(&self) -> Option<E> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
