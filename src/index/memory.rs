//! Local state that must survive a rebuild of the index: when each pack was verified, and the last
//! snapshots seen.
//!
//! It is a separate database, `state.sqlite` in the index directory, whose schema is migrated
//! (`MIGRATIONS` only ever grows). All its content is hints. A row that is damaged or belongs to
//! another repository counts as absent. A damaged database is replaced by a new one. If the
//! directory cannot be written, the state lasts as long as the process. Every process that has the
//! database open holds a shared lock (flock) on `state.open`; only a process that holds it
//! exclusively removes a damaged database.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, params};

use crate::sys::{LockFile, PathError, private_directory, remove_if_there};
use crate::types::{PackId, RepoId, SnapshotId, Timestamp, to_u64};

/// Append only: entry n brings a database from `user_version` n to n + 1.
const MIGRATIONS: &[&str] = &["
create table verified (
    pack blob primary key, seconds integer not null, nanos integer not null, mark integer not null) strict, without rowid;
create table last_snapshots (
    host text not null, source text not null, snapshot blob not null, seconds integer not null,
    nanos integer not null, mark integer not null, primary key (host, source)) strict, without rowid;
", "
create table times (
    name text primary key, seconds integer not null, nanos integer not null, mark integer not null) strict, without rowid;
create table vanished (
    host text not null, source text not null, snapshot blob not null, seconds integer not null,
    nanos integer not null, mark integer not null, primary key (host, source, snapshot)) strict, without rowid;
", "
create table newest_listed (
    host text not null, source text not null, snapshot blob not null, seconds integer not null,
    nanos integer not null, mark integer not null, primary key (host, source)) strict, without rowid;
"];

/// Name of a row of `times`.
const PACKS_LISTED: &str = "packs listed";

/// The newest snapshot of a source that this machine committed or saw.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LastSnapshot {
    pub host: String,
    pub source: String,
    pub snapshot: SnapshotId,
    pub time: Timestamp,
}

/// A small database of hints beside the index. Its methods never fail: data that cannot be read
/// counts as absent, data that cannot be written is not kept, and [`LocalState::problem`] returns the
/// reason.
pub struct LocalState {
    /// Only rows of this repository count.
    repository: RepoId,
    inner: Mutex<LocalStateInner>,
    /// Locked shared. It is released after the connection is closed, since fields drop in order.
    _hold: Option<LockFile>,
}

struct LocalStateInner {
    conn: Option<Connection>,
    problem: Option<String>,
}

impl LocalState {
    /// Opens `state.sqlite` of a repository in `dir`. Creates a new one if it is damaged, or keeps
    /// the state in memory if that fails.
    pub fn open(dir: &Path, repository: RepoId) -> Self {
        match open_durable(dir) {
            Ok((conn, hold, problem)) => Self {
                repository,
                inner: Mutex::new(LocalStateInner {
                    conn: Some(conn),
                    problem,
                }),
                _hold: Some(hold),
            },
            Err(problem) => {
                let conn = Connection::open_in_memory()
                    .ok()
                    .filter(|conn| prepare(conn).is_ok());
                Self {
                    repository,
                    inner: Mutex::new(LocalStateInner {
                        conn,
                        problem: Some(problem),
                    }),
                    _hold: None,
                }
            }
        }
    }

    /// Returns true if the state outlives the process.
    pub fn is_durable(&self) -> bool {
        self._hold.is_some()
    }

    /// Returns the text of the last problem that made the state incomplete or not durable.
    pub fn problem(&self) -> Option<String> {
        self.lock().problem.clone()
    }

    /// Returns when the pack's stored bytes were last verified.
    pub fn verified(&self, pack: &PackId) -> Option<Timestamp> {
        self.with(|conn| {
            let mut statement =
                conn.prepare_cached("select seconds, nanos, mark from verified where pack = ?1")?;
            let mut rows = statement.query([pack.as_bytes().as_slice()])?;
            let Some(row) = rows.next()? else {
                return Ok(None);
            };
            Ok(self.checked_time(&[pack.as_bytes()], row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .flatten()
    }

    /// Returns the verification times of all packs.
    pub fn verified_all(&self) -> HashMap<PackId, Timestamp> {
        self.with(|conn| {
            let mut all = HashMap::new();
            let mut statement =
                conn.prepare_cached("select pack, seconds, nanos, mark from verified")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let id: [u8; PackId::LEN] = row.get(0)?;
                if let Some(time) = self.checked_time(&[&id], row.get(1)?, row.get(2)?, row.get(3)?)
                {
                    all.insert(PackId::new(id), time);
                }
            }
            Ok(all)
        })
        .unwrap_or_default()
    }

    /// Stores when packs were verified, in one transaction. Replaces stored times even by earlier
    /// ones.
    pub fn set_verified(&self, packs: &[(PackId, Timestamp)]) {
        self.with(|conn| {
            let tx = conn.transaction()?;
            for (pack, time) in packs {
                let mark = self.time_mark(&[pack.as_bytes()], time.seconds(), time.nanos());
                tx.prepare_cached("insert or replace into verified values (?1, ?2, ?3, ?4)")?
                    .execute(params![pack.as_bytes(), time.seconds(), time.nanos(), mark])?;
            }
            tx.commit()
        });
    }

    /// Deletes the verification times of packs that are gone.
    pub fn forget_packs(&self, packs: &[PackId]) {
        self.with(|conn| {
            let tx = conn.transaction()?;
            for pack in packs {
                tx.prepare_cached("delete from verified where pack = ?1")?
                    .execute([pack.as_bytes()])?;
            }
            tx.commit()
        });
    }

    /// Returns when the packs were last listed and compared with the index.
    pub fn packs_listed(&self) -> Option<Timestamp> {
        self.with(|conn| {
            let mut statement =
                conn.prepare_cached("select seconds, nanos, mark from times where name = ?1")?;
            let mut rows = statement.query([PACKS_LISTED])?;
            let Some(row) = rows.next()? else {
                return Ok(None);
            };
            Ok(self.checked_time(
                &[PACKS_LISTED.as_bytes()],
                row.get(0)?,
                row.get(1)?,
                row.get(2)?,
            ))
        })
        .flatten()
    }

    /// Stores when the packs were listed, by the store's clock.
    pub fn set_packs_listed(&self, time: Timestamp) {
        let mark = self.time_mark(&[PACKS_LISTED.as_bytes()], time.seconds(), time.nanos());
        self.with(|conn| {
            conn.prepare_cached("insert or replace into times values (?1, ?2, ?3, ?4)")?
                .execute(params![PACKS_LISTED, time.seconds(), time.nanos(), mark])
        });
    }

    /// Returns the last snapshot of each host and source that this machine committed, and the
    /// newest that it saw listed, sorted by host and source. A snapshot that is both is returned
    /// once.
    pub fn last_snapshots(&self) -> Vec<LastSnapshot> {
        let mut all = self.last_committed();
        all.extend(self.newest_listed());
        all.sort_by(|a, b| (&a.host, &a.source, a.snapshot).cmp(&(&b.host, &b.source, b.snapshot)));
        all.dedup_by(|a, b| (&a.host, &a.source, a.snapshot) == (&b.host, &b.source, b.snapshot));
        all
    }

    /// Returns the last snapshot of each host and source that this machine committed, sorted by
    /// both.
    pub fn last_committed(&self) -> Vec<LastSnapshot> {
        self.snapshots_of(
            "select host, source, snapshot, seconds, nanos, mark from last_snapshots order by host, source",
        )
    }

    /// Returns the newest snapshot of each host and source that this machine saw listed, sorted by
    /// both.
    pub fn newest_listed(&self) -> Vec<LastSnapshot> {
        self.snapshots_of(
            "select host, source, snapshot, seconds, nanos, mark from newest_listed order by host, source",
        )
    }

    /// Returns the snapshots that were stored here and are gone, sorted by host and source.
    pub fn vanished_snapshots(&self) -> Vec<LastSnapshot> {
        self.snapshots_of(
            "select host, source, snapshot, seconds, nanos, mark from vanished order by host, source, seconds",
        )
    }

    fn snapshots_of(&self, sql: &str) -> Vec<LastSnapshot> {
        self.with(|conn| {
            let mut all = Vec::new();
            let mut statement = conn.prepare_cached(sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let host: String = row.get(0)?;
                let source: String = row.get(1)?;
                let snapshot: [u8; SnapshotId::LEN] = row.get(2)?;
                let key = [host.as_bytes(), source.as_bytes(), &snapshot];
                if let Some(time) = self.checked_time(&key, row.get(3)?, row.get(4)?, row.get(5)?) {
                    all.push(LastSnapshot {
                        host,
                        source,
                        snapshot: SnapshotId::new(snapshot),
                        time,
                    });
                }
            }
            Ok(all)
        })
        .unwrap_or_default()
    }

    /// Stores the last snapshot of a source that this machine committed.
    pub fn set_last_committed(
        &self,
        host: &str,
        source: &str,
        snapshot: SnapshotId,
        time: Timestamp,
    ) {
        let sql = "insert or replace into last_snapshots values (?1, ?2, ?3, ?4, ?5, ?6)";
        self.set_snapshot(sql, (host, source), snapshot, time);
    }

    /// Stores the newest snapshot of a source that a listing showed.
    pub fn set_newest_listed(
        &self,
        host: &str,
        source: &str,
        snapshot: SnapshotId,
        time: Timestamp,
    ) {
        let sql = "insert or replace into newest_listed values (?1, ?2, ?3, ?4, ?5, ?6)";
        self.set_snapshot(sql, (host, source), snapshot, time);
    }

    fn set_snapshot(
        &self,
        sql: &str,
        (host, source): (&str, &str),
        snapshot: SnapshotId,
        time: Timestamp,
    ) {
        let key = [host.as_bytes(), source.as_bytes(), snapshot.as_bytes()];
        let mark = self.time_mark(&key, time.seconds(), time.nanos());
        self.with(|conn| {
            conn.prepare_cached(sql)?.execute(params![
                host,
                source,
                snapshot.as_bytes(),
                time.seconds(),
                time.nanos(),
                mark
            ])
        });
    }

    /// Stores that a snapshot is gone.
    pub fn mark_vanished(&self, last: &LastSnapshot) {
        let LastSnapshot {
            host,
            source,
            snapshot,
            time,
        } = last;
        let key = [host.as_bytes(), source.as_bytes(), snapshot.as_bytes()];
        let mark = self.time_mark(&key, time.seconds(), time.nanos());
        self.with(|conn| {
            conn.prepare_cached("insert or replace into vanished values (?1, ?2, ?3, ?4, ?5, ?6)")?
                .execute(params![
                    host,
                    source,
                    snapshot.as_bytes(),
                    time.seconds(),
                    time.nanos(),
                    mark
                ])
        });
    }

    /// Stores that a snapshot that was gone has appeared again.
    pub fn clear_vanished(&self, snapshot: &SnapshotId) {
        self.with(|conn| {
            conn.prepare_cached("delete from vanished where snapshot = ?1")?
                .execute([snapshot.as_bytes().as_slice()])
        });
    }

    /// Deletes all rows of a snapshot that was deleted on purpose.
    pub fn forget_snapshot(&self, snapshot: &SnapshotId) {
        self.with(|conn| {
            for sql in [
                "delete from last_snapshots where snapshot = ?1",
                "delete from newest_listed where snapshot = ?1",
                "delete from vanished where snapshot = ?1",
            ] {
                conn.prepare_cached(sql)?
                    .execute([snapshot.as_bytes().as_slice()])?;
            }
            Ok(())
        });
    }

    /// Returns the mark of a row: BLAKE3 over the repository's id and the row's fields, each with
    /// its length, truncated to 32 bits.
    fn time_mark(&self, key: &[&[u8]], seconds: i64, nanos: u32) -> u32 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.repository.as_bytes());
        for part in key {
            hasher.update(&to_u64(part.len()).to_le_bytes());
            hasher.update(part);
        }
        hasher.update(&seconds.to_le_bytes());
        hasher.update(&nanos.to_le_bytes());
        let hash = hasher.finalize();
        let mut first = [0; 4];
        first.copy_from_slice(&hash.as_bytes()[..4]);
        u32::from_le_bytes(first)
    }

    /// Returns the time of a row if its mark matches.
    fn checked_time(
        &self,
        key: &[&[u8]],
        seconds: i64,
        nanos: u32,
        mark: u32,
    ) -> Option<Timestamp> {
        if self.time_mark(key, seconds, nanos) == mark {
            Timestamp::new(seconds, nanos)
        } else {
            None
        }
    }

    fn lock(&self) -> MutexGuard<'_, LocalStateInner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `act`. On a failure, stores the problem and returns `None`.
    fn with<T>(&self, act: impl FnOnce(&mut Connection) -> rusqlite::Result<T>) -> Option<T> {
        let mut inner = self.lock();
        let result = act(inner.conn.as_mut()?);
        result
            .map_err(|error| inner.problem = Some(error.to_string()))
            .ok()
    }
}

/// Opens the file. If it is unusable and no other process has it open, it is removed and created
/// again.
fn open_durable(dir: &Path) -> Result<(Connection, LockFile, Option<String>), String> {
    let text = |error: PathError| error.to_string();
    private_directory(dir).map_err(text)?;
    let hold = LockFile::open(dir.join("state.open")).map_err(text)?;
    hold.share().map_err(text)?;

    let path = dir.join("state.sqlite");
    let open = || -> rusqlite::Result<Connection> {
        let conn = Connection::open(&path)?;
        prepare(&conn)?;
        Ok(conn)
    };

    let why = match open() {
        Ok(conn) => return Ok((conn, hold, None)),
        Err(error) => error.to_string(),
    };

    // Only the sole user of the database may remove it.
    hold.unlock().map_err(text)?;
    if !matches!(hold.try_lock(), Ok(true)) {
        return Err(format!("{}: {why}", path.display()));
    }

    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.clone().into_os_string();
        name.push(suffix);
        remove_if_there(Path::new(&name)).map_err(text)?;
    }

    let conn = open().map_err(|error| error.to_string())?;
    hold.share().map_err(text)?;

    Ok((
        conn,
        hold,
        Some(format!("{} was recreated: {why}", path.display())),
    ))
}

/// Sets up a connection, brings its schema up to date and reads all rows, which are few.
fn prepare(conn: &Connection) -> rusqlite::Result<()> {
    conn.busy_timeout(Duration::from_secs(30))?;
    conn.query_row("pragma journal_mode=wal", [], |_| Ok(()))?;
    conn.pragma_update(None, "synchronous", "normal")?;
    conn.pragma_update(None, "mmap_size", 0)?;
    conn.pragma_update(None, "cache_size", -1024)?;

    let version = || conn.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0));
    let up_to_date = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    if version()? < up_to_date {
        conn.execute_batch("begin immediate")?;
        // Another process may have migrated it first.
        let from = usize::try_from(version()?).unwrap_or(usize::MAX);
        for migration in MIGRATIONS.iter().skip(from) {
            conn.execute_batch(migration)?;
        }
        conn.pragma_update(None, "user_version", up_to_date)?;
        conn.execute_batch("commit")?;
    }
    let count = |sql| conn.query_row(sql, [], |row| row.get::<_, i64>(0));
    count("select count(seconds) + count(nanos) + count(mark) from verified")?;
    count("select count(seconds) + count(nanos) + count(mark) from last_snapshots")?;
    count("select count(seconds) + count(nanos) + count(mark) from times")?;
    count("select count(seconds) + count(nanos) + count(mark) from vanished")?;
    count("select count(seconds) + count(nanos) + count(mark) from newest_listed")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    fn pack(n: u8) -> PackId {
        PackId::new([n; 32])
    }

    #[test]
    fn hints_outlive_the_process() {
        let dir = tempfile::tempdir().expect("a directory");
        let t1 = Timestamp::from_seconds(10);
        let t2 = Timestamp::new(-5, 7).expect("a time");
        let snapshot = SnapshotId::new([9; 32]);

        let memory = LocalState::open(dir.path(), RepoId::new([1; 16]));
        memory.set_verified(&[(pack(1), t1), (pack(2), t1), (pack(3), t2)]);
        memory.set_verified(&[(pack(2), t2)]);
        memory.forget_packs(&[pack(1)]);
        memory.set_last_committed("host", "b", SnapshotId::new([8; 32]), t2);
        memory.set_last_committed("host", "b", snapshot, t1);
        memory.set_last_committed("host", "a", snapshot, t2);
        assert_eq!(memory.packs_listed(), None);
        memory.set_packs_listed(t1);
        memory.set_packs_listed(t2);
        assert_eq!(memory.problem(), None);
        drop(memory);

        let memory = LocalState::open(dir.path(), RepoId::new([1; 16]));
        assert_eq!(memory.verified(&pack(1)), None);
        assert_eq!(memory.packs_listed(), Some(t2));
        assert_eq!(memory.verified(&pack(2)), Some(t2));
        assert_eq!(
            memory.verified_all(),
            HashMap::from([(pack(2), t2), (pack(3), t2)])
        );

        let last: Vec<_> = memory
            .last_snapshots()
            .into_iter()
            .map(|l| (l.source, l.snapshot, l.time))
            .collect();
        assert_eq!(
            last,
            [
                ("a".to_owned(), snapshot, t2),
                ("b".to_owned(), snapshot, t1)
            ]
        );

        memory.set_last_committed("host", "c", SnapshotId::new([8; 32]), t1);
        memory.set_newest_listed("host", "a", snapshot, t2);
        memory.set_newest_listed("host", "c", SnapshotId::new([7; 32]), t1);
        let last: Vec<_> = memory
            .last_snapshots()
            .into_iter()
            .map(|l| (l.source, l.snapshot.as_bytes()[0]))
            .collect();
        let expected =
            [("a", 9), ("b", 9), ("c", 7), ("c", 8)].map(|(name, id)| (name.to_owned(), id));
        assert_eq!(last, expected, "each once, though one is both");

        memory.forget_snapshot(&snapshot);
        let last: Vec<_> = memory
            .last_snapshots()
            .into_iter()
            .map(|l| l.source)
            .collect();
        assert_eq!(last, ["c", "c"]);
    }

    #[test]
    fn a_damaged_state_is_recreated_unless_others_have_it_open() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("state.sqlite");
        fs::write(
            &path,
            "a text that is long enough to be taken for a header, but is none".repeat(20),
        )
        .expect("written");
        let held = File::create(dir.path().join("state.open")).expect("a file");
        held.lock_shared().expect("locked");
        let memory = LocalState::open(dir.path(), RepoId::new([1; 16]));
        memory.set_verified(&[(pack(1), Timestamp::from_seconds(1))]);
        assert!(memory.problem().is_some());
        assert_eq!(memory.verified(&pack(1)), Some(Timestamp::from_seconds(1)));
        drop((memory, held));
        let memory = LocalState::open(dir.path(), RepoId::new([1; 16]));
        assert!(
            memory
                .problem()
                .is_some_and(|problem| problem.contains("was recreated"))
        );
        assert_eq!(memory.verified(&pack(1)), None);
        memory.set_verified(&[(pack(1), Timestamp::from_seconds(1))]);
        drop(memory);
        let memory = LocalState::open(dir.path(), RepoId::new([1; 16]));
        assert_eq!(memory.problem(), None);
        assert_eq!(memory.verified(&pack(1)), Some(Timestamp::from_seconds(1)));
    }

    /// The `state.sqlite` of another repository was in our cache directory: `verify` reported its
    /// last snapshots as vanished from ours.
    #[test]
    fn rows_of_another_repository_count_for_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let memory = LocalState::open(dir.path(), RepoId::new([2; 16]));
        memory.set_verified(&[(pack(1), Timestamp::from_seconds(1))]);
        memory.set_last_committed(
            "host",
            "a",
            SnapshotId::new([9; 32]),
            Timestamp::from_seconds(1),
        );
        assert_eq!(
            (memory.verified_all().len(), memory.last_snapshots().len()),
            (1, 1)
        );
        drop(memory);
        let memory = LocalState::open(dir.path(), RepoId::new([1; 16]));
        assert_eq!(
            (memory.verified_all().len(), memory.last_snapshots().len()),
            (0, 0)
        );
        assert_eq!(memory.problem(), None);
    }
}
