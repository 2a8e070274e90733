//! Reads many chunks at once: sorted by pack and frame, each frame read and opened once, on several
//! threads.
//!
//! The caller collects the wanted chunks of one window, [`Fetcher::locate`] finds their places, and
//! [`Fetcher::each_frame`] returns opened frames in the order of packs and frames. If a chunk
//! cannot be read there, its other copies are tried, one at a time. The caller reports chunks of
//! which no copy can be read.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rayon::ThreadPool;

use crate::error::Error;
use crate::index::{ChunkLocation, FrameRow};
use crate::observe::Counter;
use crate::repo::{ChunkReader, FirstError, RepoError, Repository};
use crate::store::ObjectKey;
use crate::task::Task;
use crate::types::{ChunkClass, ChunkId, FrameOffset, PackId, PlainLen, at_most, to_u64, to_usize};

/// Ids per lookup: the index answers a batch from one moment, and other queries run in between.
const LOOKUP_BATCH: usize = 16 << 10;
/// Adjacent frames are fetched in one range of at most this many stored bytes.
const RANGE_BYTES_MAX: usize = 2 << 20;
/// … and at most this many frames, so that the work spreads over the threads.
const RANGE_FRAMES_MAX: usize = 8;
/// The pack number of a chunk that is not in the index.
const NOWHERE: u32 = u32::MAX;

/// A wanted chunk, with its owner and place: 64 bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChunkRequest {
    pub id: ChunkId,
    /// Its destination, in the caller's terms.
    pub at: u64,
    /// The file or buffer that needs it, in the caller's terms.
    pub owner: usize,
    /// Plain bytes.
    pub len: PlainLen,
    pack: u32,
    frame: u32,
    offset: FrameOffset,
}

impl ChunkRequest {
    pub fn new(id: ChunkId, len: PlainLen, owner: usize, at: u64) -> Self {
        Self {
            id,
            at,
            owner,
            len,
            pack: NOWHERE,
            frame: 0,
            offset: FrameOffset::default(),
        }
    }

    /// Returns a number of its frame that is equal only for wants of the same frame.
    pub fn frame(&self) -> (u32, u32) {
        (self.pack, self.frame)
    }

    /// Returns its place in the frame's plain bytes.
    fn range(&self) -> Range<usize> {
        self.offset.range(self.len)
    }

    /// Returns true if `next` directly follows this one in the same frame.
    pub fn is_before(&self, next: &Self) -> bool {
        self.frame() == next.frame()
            && self.pack != NOWHERE
            && self.offset.checked_add(self.len) == Some(next.offset)
    }
}

/// The packs of the wants, by number.
#[derive(Debug, Default)]
pub(crate) struct PackTable(Vec<PackId>);

/// An opened frame with the wants that it holds.
#[derive(Debug)]
pub(crate) struct OpenedFrame<'a> {
    /// All wants of one frame, by owner and place.
    pub wants: &'a [ChunkRequest],
    plain: &'a [u8],
    /// For wants that the frame does not hold intact: the bytes of another copy, or why there is
    /// none.
    others: HashMap<usize, Result<Vec<u8>, String>>,
}

impl OpenedFrame<'_> {
    /// Returns the bytes of the want of this number, checked against its name, or why they cannot
    /// be read.
    pub fn bytes(&self, number: usize) -> Result<&[u8], &str> {
        match self.others.get(&number) {
            Some(Ok(bytes)) => Ok(bytes),
            Some(Err(why)) => Err(why),
            None => {
                let want = &self.wants[number];
                Ok(&self.plain[want.range()])
            }
        }
    }

    /// Returns the bytes of adjacent wants as one slice, if the frame holds all of them intact and
    /// one after the other.
    pub fn joined(&self, numbers: Range<usize>) -> Option<&[u8]> {
        let wants = self.wants.get(numbers.clone())?;
        let first = wants.first()?;
        let last = wants.last()?;
        let whole =
            self.others.is_empty() || numbers.into_iter().all(|n| !self.others.contains_key(&n));
        if !whole || !wants.windows(2).all(|pair| pair[0].is_before(&pair[1])) {
            return None;
        }
        self.plain.get(first.range().start..last.range().end)
    }
}

/// Frames that the next window needs too.
#[derive(Debug, Default)]
struct ReusedFrames {
    frames: HashMap<(PackId, u32), Arc<Vec<u8>>>,
    bytes: usize,
}

/// Reads chunks in bulk.
pub(crate) struct Fetcher<'a> {
    reader: &'a ChunkReader<'a>,
    /// `None`: the global pool of rayon, with one thread per core.
    pool: Option<&'a ThreadPool>,
    task: Task<'a>,
    made_sure: AtomicBool,
    /// Held during the search for another copy, so that the sync of one thread serves all.
    second_look: Mutex<()>,
    kept: Mutex<ReusedFrames>,
    kept_bytes_max: usize,
}

impl<'a> Fetcher<'a> {
    /// `kept_bytes_max`: most bytes of frames that are kept for the next window.
    pub fn new(
        reader: &'a ChunkReader<'a>,
        pool: Option<&'a ThreadPool>,
        kept_bytes_max: usize,
        task: Task<'a>,
    ) -> Self {
        Self {
            reader,
            pool,
            task,
            made_sure: AtomicBool::new(false),
            second_look: Mutex::default(),
            kept: Mutex::default(),
            kept_bytes_max,
        }
    }

    fn repo(&self) -> &'a Repository {
        self.reader.repo()
    }

    /// Records that the index was brought up to date, so that the next miss is made sure of again.
    pub fn index_was_updated(&self) {
        self.made_sure.store(false, Ordering::Relaxed);
    }

    /// Finds the places of the wants, and sorts them by pack, frame, owner and place. Packs are
    /// ordered by the first owner that needs them, so that owners are served roughly one after
    /// another.
    pub fn locate(&self, wants: &mut [ChunkRequest]) -> Result<PackTable, Error> {
        wants.sort_unstable_by_key(|want| want.id);
        let mut numbers: HashMap<PackId, u32> = HashMap::new();
        let mut first_owner: Vec<(usize, PackId)> = Vec::new();
        let mut ids = Vec::new();
        let mut found = Vec::new();
        for batch in wants.chunks_mut(LOOKUP_BATCH) {
            self.task.check()?;
            ids.clear();
            ids.extend(batch.iter().map(|want| want.id));
            self.look_up(&ids, &mut found)?;
            for (want, place) in batch.iter_mut().zip(&found) {
                want.pack = NOWHERE;
                let Some(place) = place.filter(|place| place.len == want.len) else {
                    continue;
                };
                let number = match numbers.entry(place.pack) {
                    Entry::Occupied(known) => *known.get(),
                    Entry::Vacant(unknown) => {
                        // Without a number, the chunk is looked up and read again on its own.
                        let number = u32::try_from(first_owner.len()).unwrap_or(NOWHERE);
                        if number == NOWHERE {
                            continue;
                        }
                        first_owner.push((want.owner, place.pack));
                        *unknown.insert(number)
                    }
                };
                let first = &mut first_owner[to_usize(number)].0;
                *first = (*first).min(want.owner);
                (want.pack, want.frame, want.offset) = (number, place.frame, place.offset);
            }
        }

        // Renumber the packs by their first owner.
        let mut order: Vec<usize> = (0..first_owner.len()).collect();
        order.sort_by_key(|&number| first_owner[number].0);
        let mut renumbered = vec![NOWHERE; order.len()];
        for (new, &old) in (0..).zip(&order) {
            renumbered[old] = new;
        }
        for want in wants.iter_mut().filter(|want| want.pack != NOWHERE) {
            want.pack = renumbered[to_usize(want.pack)];
        }

        wants.sort_unstable_by_key(|want| (want.pack, want.frame, want.owner, want.at));
        Ok(PackTable(
            order.iter().map(|&old| first_owner[old].1).collect(),
        ))
    }

    /// Looks up ids. Before the first miss is accepted, the segments are listed again and the
    /// database is checked, once.
    fn look_up(&self, ids: &[ChunkId], out: &mut Vec<Option<ChunkLocation>>) -> Result<(), Error> {
        self.repo().with_index(|index| index.lookup(ids, out))?;
        if out.iter().any(Option::is_none) && !self.made_sure.swap(true, Ordering::Relaxed) {
            self.repo().confirm_misses()?;
            self.repo().with_index(|index| index.lookup(ids, out))?;
        }
        Ok(())
    }

    /// Returns the frames of located wants.
    pub fn frames(wants: &[ChunkRequest], packs: &PackTable) -> HashSet<(PackId, u32)> {
        let known = wants.iter().filter(|want| want.pack != NOWHERE);
        known
            .map(|want| (packs.0[to_usize(want.pack)], want.frame))
            .collect()
    }

    /// Opens each frame of located wants once and calls `act` for it, from several threads, roughly
    /// in order. `keep`: the frames that the next window needs. `S`: state of a thread between
    /// calls. Returns the first error of `act`, or of the store as a whole.
    pub fn each_frame<S: Default>(
        &self,
        wants: &[ChunkRequest],
        packs: &PackTable,
        keep: &HashSet<(PackId, u32)>,
        act: impl Fn(&mut S, &OpenedFrame<'_>) -> Result<(), Error> + Sync,
    ) -> Result<(), Error> {
        let tasks = tasks(wants);
        self.on_all_threads(tasks.len(), |state, number| {
            self.run_task(&wants[tasks[number].clone()], packs, keep, |opened| {
                act(state, opened)
            })
        })?;
        let mut kept = self.kept();
        kept.frames.retain(|at, _| keep.contains(at));
        kept.bytes = kept.frames.values().map(|frame| frame.len()).sum();
        Ok(())
    }

    /// Calls `act` for 0 … `count` − 1, handed out in order to several threads. Returns the first
    /// error, after which no new calls start.
    pub fn on_all_threads<S: Default>(
        &self,
        count: usize,
        act: impl Fn(&mut S, usize) -> Result<(), Error> + Sync,
    ) -> Result<(), Error> {
        let next = AtomicUsize::new(0);
        let failure = FirstError::default();

        let work = || {
            let mut state = S::default();
            while !failure.is_set() {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    break;
                }
                let checked = self.task.check().map_err(Error::from);
                if let Err(err) = checked.and_then(|()| act(&mut state, number)) {
                    failure.set(err);
                }
            }
        };

        match (count, self.pool) {
            (0, _) => {}
            (1, _) => work(),
            (_, Some(pool)) => drop(pool.broadcast(|_| work())),
            (_, None) => drop(rayon::broadcast(|_| work())),
        }
        failure.take().map_or(Ok(()), Err)
    }

    fn run_task(
        &self,
        wants: &[ChunkRequest],
        packs: &PackTable,
        keep: &HashSet<(PackId, u32)>,
        mut act: impl FnMut(&OpenedFrame<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Some(pack) = wants
            .first()
            .and_then(|want| packs.0.get(to_usize(want.pack)))
        else {
            // Not in the index: looking for other copies gives the reason.
            return wants
                .chunk_by(|a, b| a.owner == b.owner)
                .try_for_each(|part| {
                    let others = self.other_copies(part, 0..part.len())?;
                    act(&OpenedFrame {
                        wants: part,
                        plain: &[],
                        others,
                    })
                });
        };

        let mut range = self.read_range(pack, wants)?;
        for group in wants.chunk_by(|a, b| a.frame == b.frame) {
            let number = group[0].frame;
            let plain = match range.remove(&number) {
                Some((row, sealed)) => self.open(pack, number, &row, sealed),
                None => self.read(pack, number),
            };
            let plain = match plain {
                Ok(plain) => plain,
                Err(err) if is_of_one_object(&err) => Arc::default(),
                Err(err) => return Err(err.into()),
            };

            let fits = |want: &ChunkRequest| {
                plain.get(want.range()).is_some_and(|bytes| {
                    self.repo().keys().chunk_id(ChunkClass::Data, bytes) == want.id
                })
            };

            let bad = (0..group.len()).filter(|&n| !fits(&group[n]));
            let others = self.other_copies(group, bad)?;
            act(&OpenedFrame {
                wants: group,
                plain: &plain,
                others,
            })?;
            self.keep(keep, (*pack, number), plain);
        }
        Ok(())
    }

    fn other_copies(
        &self,
        wants: &[ChunkRequest],
        numbers: impl Iterator<Item = usize>,
    ) -> Result<HashMap<usize, Result<Vec<u8>, String>>, Error> {
        let mut others = HashMap::new();
        for number in numbers {
            self.task.check()?;
            let want = &wants[number];
            let _one = self
                .second_look
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let result = match self.reader.chunk(ChunkClass::Data, &want.id) {
                Ok(bytes) if bytes.len() == want.len.to_usize() => Ok(bytes),
                Ok(_) => Err(format!(
                    "chunk {} has a different length than its file records",
                    want.id.short()
                )),
                Err(err) if is_of_one_object(&err) => Err(with_sources(&err)),
                Err(err) => return Err(err.into()),
            };
            others.insert(number, result);
        }
        Ok(others)
    }

    /// Reads the sealed bytes of several frames in one range, if they are adjacent and few. Returns
    /// an empty map if they are not, or if the range cannot be read.
    fn read_range(&self, pack: &PackId, wants: &[ChunkRequest]) -> Result<SealedFrames, Error> {
        let mut rows: Vec<(u32, FrameRow)> = Vec::new();
        for group in wants.chunk_by(|a, b| a.frame == b.frame) {
            let number = group[0].frame;
            if self.kept().frames.contains_key(&(*pack, number)) {
                return Ok(SealedFrames::new());
            }
            match self.repo().frame_row(pack, number)? {
                Some(row) => rows.push((number, row)),
                None => return Ok(SealedFrames::new()),
            }
        }

        let adjoin = |pair: &[(u32, FrameRow)]| pair[0].1.end() == Some(pair[1].1.offset);
        let total: u64 = rows.iter().map(|(_, row)| u64::from(row.stored)).sum();
        let is_short = total <= to_u64(RANGE_BYTES_MAX);
        if rows.len() < 2 || !is_short || !rows.windows(2).all(adjoin) {
            return Ok(SealedFrames::new());
        }

        let mut bytes = vec![0; at_most(total, RANGE_BYTES_MAX)];
        match self.repo().store().read_at(
            &ObjectKey::Pack(*pack),
            rows[0].1.offset.get(),
            &mut bytes,
        ) {
            Ok(()) => {}
            // Reading them one by one shows which of them cannot be read.
            Err(_) => return Ok(SealedFrames::new()),
        }

        self.task.observer.add(Counter::BytesFetched, total);
        let mut rest = bytes.as_slice();
        let mut out = SealedFrames::new();
        for (number, row) in rows {
            let (sealed, after) = rest.split_at(row.stored.to_usize());
            out.insert(number, (row, sealed.to_vec()));
            rest = after;
        }
        Ok(out)
    }

    fn open(
        &self,
        pack: &PackId,
        number: u32,
        row: &FrameRow,
        sealed: Vec<u8>,
    ) -> Result<Arc<Vec<u8>>, RepoError> {
        let head = self.repo().pack_head(pack)?;
        self.repo()
            .open_frame(&ObjectKey::Pack(*pack), &head, number, row, sealed)
            .map(Arc::new)
    }

    fn read(&self, pack: &PackId, number: u32) -> Result<Arc<Vec<u8>>, RepoError> {
        if let Some(frame) = self.kept().frames.get(&(*pack, number)) {
            return Ok(Arc::clone(frame));
        }
        let row = self.repo().frame_row(pack, number)?;
        let row = row.ok_or_else(|| {
            RepoError::damaged(
                ObjectKey::Pack(*pack),
                format!("the index lacks frame {number}"),
            )
        })?;
        let plain = self.repo().read_frame(pack, number, &row)?;
        self.task
            .observer
            .add(Counter::BytesFetched, u64::from(row.stored));
        Ok(Arc::new(plain))
    }

    fn keep(&self, keep: &HashSet<(PackId, u32)>, at: (PackId, u32), plain: Arc<Vec<u8>>) {
        if !keep.contains(&at) {
            return;
        }
        let mut kept = self.kept();
        if kept.bytes + plain.len() <= self.kept_bytes_max && !kept.frames.contains_key(&at) {
            kept.bytes += plain.len();
            kept.frames.insert(at, plain);
        }
    }

    fn kept(&self) -> MutexGuard<'_, ReusedFrames> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Frame number → its row and sealed bytes.
type SealedFrames = HashMap<u32, (FrameRow, Vec<u8>)>;

/// Cuts sorted wants into tasks: a few consecutive frames of one pack.
fn tasks(wants: &[ChunkRequest]) -> Vec<Range<usize>> {
    let mut out: Vec<Range<usize>> = Vec::new();
    let mut start = 0;
    let mut frames = 1;
    for at in 1..wants.len() {
        let before = &wants[at - 1];
        let here = &wants[at];
        if before.frame() == here.frame() {
            continue;
        }
        let follows = before.pack == here.pack && before.frame.checked_add(1) == Some(here.frame);
        if follows && frames < RANGE_FRAMES_MAX {
            frames += 1;
        } else {
            out.push(start..at);
            (start, frames) = (at, 1);
        }
    }
    if !wants.is_empty() {
        out.push(start..wants.len());
    }
    out
}

/// Returns true if an error concerns one object, so that others may still be readable.
pub(crate) fn is_of_one_object(err: &RepoError) -> bool {
    err.is_unavailable()
}

/// Returns an error with its causes, on one line.
pub(crate) fn with_sources(err: &(dyn std::error::Error + 'static)) -> String {
    let mut text = err.to_string();
    let mut source = err.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
