//! The database's tables, its settings, and the sums that show whether its small tables are intact.
//!
//! A database of another schema is replaced, not migrated, since all its content comes from
//! segments. To change the schema, change `TABLES` and raise `SCHEMA_VERSION`.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, params};

use super::error::IndexError;
use crate::sys::is_writable_by_any;

/// "ICEi", so that a foreign database is not mistaken for ours.
const APPLICATION_ID: i32 = 0x4943_4569;
const SCHEMA_VERSION: i32 = 1;
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);
/// Page cache of one connection; there are two connections.
const CACHE_KIB: i64 = 8 * 1024;

/// Pack numbers are never reused within a database, so rows of a deleted pack cannot join another
/// pack's. `packs.content` is 1 while the pack has rows in `frames` and `chunks`.
const TABLES: &str = "
create table meta (
    only_row integer primary key check (only_row = 0), changes integer not null, next_pack integer not null,
    next_base integer not null, chunk_rows integer not null, chunk_sum integer not null, digest integer not null,
    mark integer not null) strict;
create table segments (no integer primary key, id blob not null unique) strict;
create table packs (
    no integer primary key, id blob not null unique, content integer not null, size integer not null,
    base integer not null, chunks integer not null, chunk_rows integer not null, frames integer not null,
    data_bytes integer not null, metadata_bytes integer not null, writer blob not null, digest integer not null) strict;
create table claims (
    segment integer not null, pack integer not null, what integer not null,
    primary key (segment, pack, what)) strict, without rowid;
create table superseded (
    segment integer not null, old blob not null, primary key (segment, old)) strict, without rowid;
create table lost (
    segment integer not null, chunk blob not null, primary key (segment, chunk)) strict, without rowid;
create table frames (
    pack integer not null, frame integer not null, class integer not null, codec integer not null,
    offset integer not null, stored integer not null, plain integer not null, chunks integer not null,
    mark integer not null, primary key (pack, frame)) strict, without rowid;
create table chunks (
    id blob not null, pack integer not null, frame integer not null, position integer not null,
    offset integer not null, len integer not null, mark integer not null,
    primary key (id, pack)) strict, without rowid;
";

/// Reason why a database cannot be used. `Foreign` is not an error: the database is replaced.
pub(super) enum UnusableDatabase {
    Foreign(String),
    Failed(IndexError),
}

impl From<IndexError> for UnusableDatabase {
    fn from(error: IndexError) -> Self {
        Self::Failed(error)
    }
}

/// Creates a new, empty database.
pub(super) fn create(path: &Path) -> Result<Connection, IndexError> {
    let action = "create tables";
    let fail = |source| IndexError::sqlite(path, action, source);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;

    let mut conn = Connection::open_with_flags(path, flags).map_err(fail)?;
    configure(&conn).map_err(fail)?;

    let tx = conn.transaction().map_err(fail)?;
    tx.execute_batch(TABLES).map_err(fail)?;
    tx.pragma_update(None, "application_id", APPLICATION_ID)
        .map_err(fail)?;
    tx.pragma_update(None, "user_version", SCHEMA_VERSION)
        .map_err(fail)?;
    let meta = MetaRow {
        changes: 1,
        next_pack: 1,
        ..MetaRow::default()
    };

    // `MetaRow::write` updates the row, so insert one first.
    tx.execute("insert into meta values (0, 0, 0, 0, 0, 0, 0, 0)", [])
        .map_err(fail)?;

    meta.write(&tx).map_err(fail)?;
    tx.commit().map_err(fail)?;
    Ok(conn)
}

/// Opens an existing database of ours.
pub(super) fn open(path: &Path) -> Result<Connection, UnusableDatabase> {
    let fail = |source| IndexError::sqlite(path, "open the database", source);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).map_err(fail)?;
    conn.busy_timeout(BUSY_TIMEOUT).map_err(fail)?;
    let number = |name| {
        conn.pragma_query_value(None, name, |row| row.get::<_, i32>(0))
            .map_err(fail)
    };
    let application = number("application_id")?;
    let version = number("user_version")?;
    if application != APPLICATION_ID {
        return Err(UnusableDatabase::Foreign(
            "it is not an icecore index".to_owned(),
        ));
    }
    if version != SCHEMA_VERSION {
        return Err(UnusableDatabase::Foreign(format!(
            "its schema is {version}, this icecore's {SCHEMA_VERSION}"
        )));
    }

    configure(&conn).map_err(fail)?;
    // SQLite opens a file read-only if its permissions require that, but also if the version in its
    // header is damaged.
    let writable = is_writable_by_any(path);
    if writable && conn.is_readonly("main").map_err(fail)? {
        return Err(UnusableDatabase::Foreign(
            "its header requires a newer SQLite".to_owned(),
        ));
    }

    Ok(conn)
}

fn configure(conn: &Connection) -> rusqlite::Result<()> {
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.set_prepared_statement_cache_capacity(48);
    conn.query_row("pragma journal_mode=wal", [], |_| Ok(()))?;
    conn.pragma_update(None, "synchronous", "normal")?;
    conn.pragma_update(None, "mmap_size", 0)?;
    conn.pragma_update(None, "cache_size", -CACHE_KIB)?;
    conn.pragma_update(None, "cell_size_check", true)?;
    conn.pragma_update(None, "temp_store", "memory")?;
    // 16 MiB between checkpoints; after a large load the log is truncated to 64 MiB.
    conn.pragma_update(None, "wal_autocheckpoint", 4096)?;
    conn.pragma_update(None, "journal_size_limit", 64 << 20)
}

/// Runs SQLite's check of the database's structure. It does not find wrong values: marks and
/// digests do.
pub(super) fn quick_check(conn: &Connection, path: &Path) -> Result<(), IndexError> {
    let verdict = conn
        .query_row("pragma quick_check(1)", [], |row| row.get::<_, String>(0))
        .map_err(|source| IndexError::sqlite(path, "check the database", source))?;
    if verdict == "ok" {
        Ok(())
    } else {
        Err(IndexError::damaged(path, verdict))
    }
}

/// The one row of counters and sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct MetaRow {
    /// Incremented by each transaction, so that a view of the small tables can detect that it is
    /// out of date.
    pub(super) changes: u64,
    pub(super) next_pack: i64,
    /// All chunk numbers are below this.
    pub(super) next_base: u64,
    /// Rows of `chunks`, including those of packs that no segment adds any more.
    pub(super) chunk_rows: u64,
    /// Sum of the marks of these rows, wrapping.
    pub(super) chunk_sum: u64,
    /// Sum of `row_hash` of all rows of segments, packs, claims, superseded and lost, wrapping.
    pub(super) digest: u64,
}

impl MetaRow {
    pub(super) fn read(conn: &Connection, path: &Path) -> Result<Self, IndexError> {
        let (meta, mark) = conn
            .prepare_cached(
                "select changes, next_pack, next_base, chunk_rows, chunk_sum, digest, mark from meta",
            )
            .and_then(|mut statement| {
                statement.query_row([], |row| {
                    let number = |i| row.get::<_, i64>(i).map(i64::cast_unsigned);
                    let meta = Self {
                        changes: number(0)?,
                        next_pack: row.get(1)?,
                        next_base: number(2)?,
                        chunk_rows: number(3)?,
                        chunk_sum: number(4)?,
                        digest: number(5)?,
                    };
                    Ok((meta, row.get::<_, i64>(6)?))
                })
            })
            .map_err(|source| IndexError::sqlite(path, "read the counters", source))?;
        if meta.mark() != mark {
            return Err(IndexError::damaged(
                path,
                "the row of counters does not match its mark",
            ));
        }
        Ok(meta)
    }

    /// Reads the `changes` counter alone, unchecked. A caller that finds it changed reads the whole
    /// row.
    pub(super) fn read_changes(conn: &Connection) -> rusqlite::Result<u64> {
        conn.prepare_cached("select changes from meta")?
            .query_row([], |row| row.get::<_, i64>(0))
            .map(i64::cast_unsigned)
    }

    pub(super) fn write(&self, conn: &Connection) -> rusqlite::Result<()> {
        conn.prepare_cached(
            "update meta set changes = ?1, next_pack = ?2, next_base = ?3, chunk_rows = ?4, chunk_sum = ?5, \
             digest = ?6, mark = ?7",
        )?
        .execute(params![
            self.changes.cast_signed(),
            self.next_pack,
            self.next_base.cast_signed(),
            self.chunk_rows.cast_signed(),
            self.chunk_sum.cast_signed(),
            self.digest.cast_signed(),
            self.mark(),
        ])
        .map(|_| ())
    }

    fn mark(&self) -> i64 {
        let numbers = [
            self.changes,
            self.next_pack.cast_unsigned(),
            self.next_base,
            self.chunk_rows,
            self.chunk_sum,
            self.digest,
        ];
        let mut hash = RowHash::new(SmallTable::Meta);
        numbers.iter().for_each(|number| hash.number(*number));
        hash.finish().cast_signed()
    }
}

/// Identifies the table in a row's hash, so that equal bytes in two tables give different hashes.
#[derive(Debug, Clone, Copy)]
pub(super) enum SmallTable {
    Meta = 0,
    Segments = 1,
    Packs = 2,
    Claims = 3,
    Superseded = 4,
    Lost = 5,
    Frames = 6,
    Chunks = 7,
    PackContent = 8,
}

impl SmallTable {
    /// Returns the number in hashes: the discriminant, which only a cast gives.
    pub(super) const fn number(self) -> u8 {
        self as u8
    }
}

/// Hash of one row: BLAKE3 over the table and the fields, truncated to 64 bits. It protects against
/// accidents, not attackers.
pub(super) struct RowHash(blake3::Hasher);

impl RowHash {
    pub(super) fn new(table: SmallTable) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[table.number()]);
        Self(hasher)
    }

    pub(super) fn number(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }

    /// Adds an id; its length follows from the table.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(super) fn finish(&self) -> u64 {
        let hash = self.0.finalize();
        let mut first = [0; 8];
        first.copy_from_slice(&hash.as_bytes()[..8]);
        u64::from_le_bytes(first)
    }
}
