//! An open index: its two connections, the queries and the changes.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

use super::chunks;
use super::error::IndexError;
use super::files::{DatabaseHold, DatabasePointer, IndexDir, OpenMark, database_path};
use super::packs::{PackView, SegmentSummary};
use super::rows::{ChunkLocation, FrameRow, IndexTotals, PackRow, PackState};
use super::schema::{self, MetaRow, UnusableDatabase};
use super::segments::SegmentChange;
use crate::sys::is_regular_file;
use crate::types::{ChunkId, PackId, SegmentBody, SegmentId};

/// State in which `Index::open` found the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenedIndex {
    /// There was no database; a new, empty one was created.
    Created,
    /// The database existed and its small tables match their digest.
    Existing,
    /// The database was unusable and was replaced by a new, empty one. `why` is a text for
    /// messages.
    Recreated { why: String },
}

/// Rows in one half of the cache of recent frames; the cache holds at most twice this many.
const RECENT_FRAMES: usize = 2048;

/// The index of one repository at one address. All methods may be called from many threads.
///
/// Every method can fail with [`IndexError::Damaged`]. After that, the next process that opens the
/// directory gets a new database.
pub struct Index {
    dir: PathBuf,
    generation: AtomicU64,
    // Locked in this order.
    writer: Mutex<IndexSide>,
    reader: Mutex<IndexReader>,
    hold: Mutex<Option<DatabaseHold>>,
}

/// A connection and the path of its database file.
struct IndexSide {
    conn: Connection,
    path: PathBuf,
}

struct IndexReader {
    side: IndexSide,
    view: PackView,
    frames: RecentFrames,
}

impl Index {
    /// Opens the index in `dir`, the cache directory of one repository and address. Creates both if
    /// they do not exist.
    ///
    /// A database that is damaged, foreign or of another schema is replaced by a new, empty one;
    /// that is not an error.
    pub fn open(dir: &Path) -> Result<(Self, OpenedIndex), IndexError> {
        let directory = IndexDir::enter(dir)?;
        let why = match directory.pointer()? {
            DatabasePointer::Absent => None,
            DatabasePointer::Unusable(why) => Some(why),
            DatabasePointer::Generation(generation) => {
                match IndexOpening::existing(&directory, dir, generation) {
                    Ok(opening) => {
                        directory.remove_others(generation);
                        return Ok((opening.into_index(dir), OpenedIndex::Existing));
                    }
                    Err(UnusableDatabase::Foreign(why)) => Some(why),
                    Err(UnusableDatabase::Failed(error)) if error.is_damage() => {
                        Some(error.to_string())
                    }
                    Err(UnusableDatabase::Failed(error)) => return Err(error),
                }
            }
        };

        let opening =
            IndexOpening::fresh(&directory, dir, why.as_deref().unwrap_or("there was none"))?;
        directory.remove_others(opening.generation);
        let opened = why.map_or(OpenedIndex::Created, |why| OpenedIndex::Recreated { why });
        Ok((opening.into_index(dir), opened))
    }

    /// Switches this `Index` to a new, empty database. Other processes keep the one that they have
    /// open.
    ///
    /// `why` is written to the pointer file, for diagnosis. On an error the old database stays in
    /// use.
    pub fn recreate(&self, why: &str) -> Result<(), IndexError> {
        let mut writer = lock(&self.writer);
        let mut reader = lock(&self.reader);
        let mut hold = lock(&self.hold);
        let directory = IndexDir::enter(&self.dir)?;
        let opening = IndexOpening::fresh(&directory, &self.dir, why)?;
        self.generation.store(opening.generation, Ordering::Release);
        *writer = opening.writer;
        *reader = opening.reader;
        if let Some(old) = hold.replace(opening.hold) {
            old.leave();
        }
        directory.remove_others(opening.generation);
        Ok(())
    }

    /// Returns the ids of the segments that are loaded now.
    pub fn loaded(&self) -> Result<BTreeSet<SegmentId>, IndexError> {
        self.read(|now| Ok(now.view.segments.keys().copied().collect()))
    }

    /// Returns the lowest id of the loaded segments that supersede `old`.
    pub fn superseder(&self, old: &SegmentId) -> Result<Option<SegmentId>, IndexError> {
        self.read(|now| Ok(now.view.superseders.get(old).copied()))
    }

    /// Loads a segment in one transaction. Loading a segment that is already loaded changes
    /// nothing.
    ///
    /// A pack that several segments add has its rows once, as the first loaded segment describes
    /// it. A segment that is invalid ([`IndexError::Refused`]) changes nothing.
    pub fn load(&self, id: SegmentId, body: &SegmentBody) -> Result<(), IndexError> {
        self.write("load a segment", |change| change.load(id, body))
    }

    /// Moves the claims of `old` to `to` and forgets `old` ([R3](docs/protocol.md#r3)).
    ///
    /// The result is as if `to` were a merge of both: packs that `to` drops are no longer added on
    /// behalf of `old`. If `old` is not loaded, nothing changes. If `to` is not loaded, returns
    /// [`IndexError::NotLoaded`].
    pub fn transfer(&self, old: &SegmentId, to: &SegmentId) -> Result<(), IndexError> {
        self.write("hand a segment over", |change| change.transfer(old, to))
    }

    /// Removes the claims of a segment. Packs that no other segment adds lose their rows; packs
    /// that no other segment condemns or drops lose that state. A segment that is not loaded
    /// changes nothing.
    pub fn unload(&self, id: &SegmentId) -> Result<(), IndexError> {
        self.write("unload a segment", |change| change.unload(id))
    }

    /// Finds the best copy of each chunk. Known packs come first, then condemned, then dropped;
    /// among equals the lowest pack id wins.
    ///
    /// `out` is cleared and gets one entry for each id, in the order of `ids`. All answers are from
    /// one moment. Sorted ids in large batches are fastest. After an error the content of `out` is
    /// unspecified.
    pub fn lookup(
        &self,
        ids: &[ChunkId],
        out: &mut Vec<Option<ChunkLocation>>,
    ) -> Result<(), IndexError> {
        out.clear();
        self.read(|now| {
            let mut statement = chunks::find_statement(now.conn)
                .map_err(|source| IndexError::sqlite(now.path, "look up a chunk", source))?;
            for id in ids {
                let mut best: Option<ChunkLocation> = None;
                chunks::find(&mut statement, now.view, now.path, id, |copy| {
                    if best.as_ref().is_none_or(|best| chunks::better(&copy, best)) {
                        best = Some(copy);
                    }
                })?;
                out.push(best);
            }
            Ok(())
        })
    }

    /// Finds the best copy of one chunk.
    pub fn lookup_one(&self, id: &ChunkId) -> Result<Option<ChunkLocation>, IndexError> {
        Ok(self.copies(id)?.first().copied())
    }

    /// Returns all copies of a chunk, best first.
    pub fn copies(&self, id: &ChunkId) -> Result<Vec<ChunkLocation>, IndexError> {
        self.read(|now| now.copies(id))
    }

    /// Calls `each` with every copy of each chunk and the index of the chunk in `ids`. The copies
    /// of a chunk come in no order; all are from one moment.
    pub fn each_copy(
        &self,
        ids: &[ChunkId],
        each: &mut dyn FnMut(usize, ChunkLocation),
    ) -> Result<(), IndexError> {
        self.read(|now| {
            let mut statement = chunks::find_statement(now.conn)
                .map_err(|source| IndexError::sqlite(now.path, "look up a chunk", source))?;
            ids.iter().enumerate().try_for_each(|(n, id)| {
                chunks::find(&mut statement, now.view, now.path, id, |copy| each(n, copy))
            })
        })
    }

    /// Returns the claims of each loaded segment, sorted by segment. Claims of a segment that was
    /// transferred count as claims of the segment that superseded it.
    pub fn segment_summaries(&self) -> Result<Vec<SegmentSummary>, IndexError> {
        self.read(|now| Ok(now.view.segment_summaries()))
    }

    /// Returns frame number `frame` of a pack, or `None` if no segment adds the pack or the pack
    /// has fewer frames.
    pub fn frame(&self, pack: &PackId, frame: u32) -> Result<Option<FrameRow>, IndexError> {
        self.read(|now| {
            let Some((number, found)) = now
                .view
                .find(pack)
                .filter(|(_, found)| frame < found.row.frames)
            else {
                return Ok(None);
            };
            if let Some(row) = now.frames.get(number, frame) {
                return Ok(Some(row));
            }
            let row = chunks::read_frame(now.conn, now.path, number, &found.row.id, frame)?;
            now.frames.put(number, frame, row);
            Ok(Some(row))
        })
    }

    /// Returns the row of a pack, or `None` if no loaded segment names it.
    pub fn pack(&self, id: &PackId) -> Result<Option<PackRow>, IndexError> {
        self.read(|now| Ok(now.view.find(id).map(|(_, pack)| pack.row)))
    }

    /// Returns all packs that loaded segments name, sorted by id.
    pub fn packs(&self) -> Result<Vec<PackRow>, IndexError> {
        let mut packs =
            self.read(|now| Ok(now.view.named().map(|pack| pack.row).collect::<Vec<_>>()))?;
        packs.sort_unstable_by_key(|pack| pack.id);
        Ok(packs)
    }

    /// Returns the packs that are in this state or a later one, sorted. 100,000 packs take 3.2 MB.
    pub fn packs_from(&self, state: PackState) -> Result<Vec<PackId>, IndexError> {
        let mut packs = self.read(|now| {
            let later = now.view.named().filter(|pack| pack.row.state >= state);
            Ok(later.map(|pack| pack.row.id).collect::<Vec<_>>())
        })?;
        packs.sort_unstable();
        Ok(packs)
    }

    /// Returns the end of the used chunk numbers: every `ChunkLocation::number` is below it.
    /// Numbers of packs that are gone are not reused.
    pub fn chunk_numbers_end(&self) -> Result<u64, IndexError> {
        self.read(|now| Ok(now.view.meta.next_base))
    }

    /// Returns the ids in `lost` sections of loaded segments that no known pack holds.
    pub fn lost(&self) -> Result<BTreeSet<ChunkId>, IndexError> {
        self.read(|now| {
            let mut lost = BTreeSet::new();
            for id in &now.view.lost {
                if now
                    .copies(id)?
                    .first()
                    .is_none_or(|best| best.state != PackState::Known)
                {
                    lost.insert(*id);
                }
            }
            Ok(lost)
        })
    }

    /// Returns the sums over all held packs.
    pub fn totals(&self) -> Result<IndexTotals, IndexError> {
        self.read(|now| {
            let mut totals = IndexTotals::default();
            for pack in now
                .view
                .named()
                .filter(|pack| pack.row.added && pack.row.state != PackState::Dropped)
            {
                totals.packs += 1;
                totals.condemned += u64::from(pack.row.state == PackState::Condemned);
                totals.stored_bytes = totals.stored_bytes.saturating_add(pack.row.size);
                totals.chunks += u64::from(pack.row.chunks);
                totals.data_bytes = totals.data_bytes.saturating_add(pack.data_bytes);
                totals.metadata_bytes = totals.metadata_bytes.saturating_add(pack.metadata_bytes);
            }
            Ok(totals)
        })
    }

    /// Returns true if no look-up can find a chunk.
    pub fn is_empty(&self) -> Result<bool, IndexError> {
        self.read(|now| Ok(!now.view.named().any(|pack| pack.row.chunks > 0)))
    }

    /// Reads the whole database and compares it with its sums. This takes some seconds for ten
    /// million chunks, and look-ups wait in the meantime.
    ///
    /// Call this before reporting a chunk as lost that a look-up misses: damage can hide a row.
    pub fn check(&self) -> Result<(), IndexError> {
        self.read(|now| {
            schema::quick_check(now.conn, now.path)?;
            let view = PackView::read(now.conn, now.path)?;
            chunks::check_all(now.conn, &view, now.path)
        })
    }

    /// Identifies this database among all that the directory has held. Chunk numbers are valid
    /// within one generation.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(super) fn read<T>(
        &self,
        ask: impl FnOnce(&mut IndexMoment<'_>) -> Result<T, IndexError>,
    ) -> Result<T, IndexError> {
        let mut reader = lock(&self.reader);
        let result = reader.at_one_moment(ask);
        drop(reader);
        self.noting_damage(result)
    }

    fn write(
        &self,
        action: &'static str,
        act: impl FnOnce(SegmentChange<'_>) -> Result<(), IndexError>,
    ) -> Result<(), IndexError> {
        let mut writer = lock(&self.writer);
        if let Some(hold) = lock(&self.hold).as_mut() {
            hold.will_write()?;
        }
        let IndexSide { conn, path } = &mut *writer;
        let result = SegmentChange::begin(conn, path, action).and_then(act);
        drop(writer);
        self.noting_damage(result)
    }

    fn noting_damage<T>(&self, result: Result<T, IndexError>) -> Result<T, IndexError> {
        if let Err(IndexError::Damaged { path, .. }) = &result
            && *path == database_path(&self.dir, self.generation())
            && let Some(hold) = lock(&self.hold).as_ref()
        {
            hold.met_damage();
        }
        result
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        // Close both connections before the hold is released: the mark "clean" must be true.
        if let Ok(nowhere) = Connection::open_in_memory() {
            lock(&self.reader).side.conn = nowhere;
        }
        if let Ok(nowhere) = Connection::open_in_memory() {
            lock(&self.writer).conn = nowhere;
            if let Some(hold) = lock(&self.hold).take() {
                hold.leave();
            }
        }
    }
}

/// Locks a mutex and ignores poisoning. A panic leaves no half-done state behind: transactions roll
/// back and views are replaced as a whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The view of a query: one moment of the database.
pub(super) struct IndexMoment<'a> {
    conn: &'a Connection,
    path: &'a Path,
    pub(super) view: &'a PackView,
    frames: &'a mut RecentFrames,
}

impl IndexMoment<'_> {
    fn copies(&self, id: &ChunkId) -> Result<Vec<ChunkLocation>, IndexError> {
        let mut copies = Vec::new();
        let mut statement = chunks::find_statement(self.conn)
            .map_err(|source| IndexError::sqlite(self.path, "look up a chunk", source))?;
        chunks::find(&mut statement, self.view, self.path, id, |copy| {
            copies.push(copy);
        })?;
        copies.sort_unstable_by_key(|copy| (copy.state, copy.pack));
        Ok(copies)
    }
}

impl IndexReader {
    /// Runs a query within one read transaction, after bringing the view up to date with it.
    fn at_one_moment<T>(
        &mut self,
        ask: impl FnOnce(&mut IndexMoment<'_>) -> Result<T, IndexError>,
    ) -> Result<T, IndexError> {
        let IndexSide { conn, path } = &self.side;
        let fail = |source| IndexError::sqlite(path, "read", source);
        let execute = |sql| {
            conn.prepare_cached(sql)
                .and_then(|mut statement| statement.execute([]))
        };

        if !conn.is_autocommit() {
            // The last transaction could not be ended.
            execute("rollback").map_err(fail)?;
        }

        execute("begin").map_err(fail)?;

        let result = (|| {
            if MetaRow::read_changes(conn).map_err(fail)? != self.view.meta.changes {
                self.view = PackView::read(conn, path)?;
                self.frames = RecentFrames::default();
            }
            ask(&mut IndexMoment {
                conn,
                path,
                view: &self.view,
                frames: &mut self.frames,
            })
        })();

        let ended = execute("rollback");
        // SQLite ends a transaction by itself after some errors.
        if result.is_ok() && !conn.is_autocommit() {
            ended.map_err(fail)?;
        }

        result
    }
}

/// A database being opened, while the directory is locked.
struct IndexOpening {
    generation: u64,
    hold: DatabaseHold,
    writer: IndexSide,
    reader: IndexReader,
}

impl IndexOpening {
    fn existing(
        directory: &IndexDir,
        dir: &Path,
        generation: u64,
    ) -> Result<Self, UnusableDatabase> {
        let path = database_path(dir, generation);
        if !is_regular_file(&path) {
            return Err(UnusableDatabase::Foreign(format!(
                "{} is not a file",
                path.display()
            )));
        }
        let (hold, mark) =
            DatabaseHold::take(directory, dir, generation).map_err(IndexError::from)?;
        if mark == OpenMark::Damaged {
            return Err(UnusableDatabase::Foreign(
                "damage was found in it".to_owned(),
            ));
        }
        let writer = schema::open(&path)?;
        if mark == OpenMark::Unclean {
            schema::quick_check(&writer, &path)?;
        }
        Self::with_reader(generation, hold, writer, path)
    }

    fn fresh(directory: &IndexDir, dir: &Path, why: &str) -> Result<Self, IndexError> {
        let generation = directory.new_generation()?;
        let path = database_path(dir, generation);
        let (mut hold, _) = DatabaseHold::take(directory, dir, generation)?;
        hold.will_write()?;
        let writer = schema::create(&path)?;
        let opening = Self::with_reader(generation, hold, writer, path.clone()).map_err(
            |error| match error {
                UnusableDatabase::Failed(error) => error,
                UnusableDatabase::Foreign(what) => IndexError::damaged(&path, what),
            },
        )?;
        directory.point_to(generation, why)?;
        Ok(opening)
    }

    fn with_reader(
        generation: u64,
        hold: DatabaseHold,
        writer: Connection,
        path: PathBuf,
    ) -> Result<Self, UnusableDatabase> {
        let conn = schema::open(&path)?;
        let side = IndexSide {
            conn,
            path: path.clone(),
        };
        let mut reader = IndexReader {
            side,
            view: PackView::default(),
            frames: RecentFrames::default(),
        };
        reader.at_one_moment(|_| Ok(()))?;
        Ok(Self {
            generation,
            hold,
            writer: IndexSide { conn: writer, path },
            reader,
        })
    }

    fn into_index(self, dir: &Path) -> Index {
        Index {
            dir: dir.to_owned(),
            generation: AtomicU64::new(self.generation),
            writer: Mutex::new(self.writer),
            reader: Mutex::new(self.reader),
            hold: Mutex::new(Some(self.hold)),
        }
    }
}

/// Recently used frames by pack number and frame number, in a young and an old half.
#[derive(Default)]
struct RecentFrames {
    young: HashMap<(i64, u32), FrameRow>,
    old: HashMap<(i64, u32), FrameRow>,
}

impl RecentFrames {
    fn get(&mut self, pack: i64, frame: u32) -> Option<FrameRow> {
        let key = (pack, frame);
        if let Some(row) = self.young.get(&key) {
            return Some(*row);
        }
        let row = self.old.remove(&key)?;
        self.put(pack, frame, row);
        Some(row)
    }

    fn put(&mut self, pack: i64, frame: u32, row: FrameRow) {
        if self.young.len() >= RECENT_FRAMES {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert((pack, frame), row);
    }
}
