//! The index: a SQLite database that answers "where is this chunk?".
//!
//! Its content is a function of the loaded segments, so it may be deleted at any time. Callers load
//! each listed segment, transfer or unload the segments that are no longer listed, and query.
//!
//! **Locking.** Any number of threads and processes may use one index. Readers never wait for
//! writers (WAL). Writers wait for one another, up to 30 s. Each change is one transaction, so a
//! crash leaves all of it or nothing. An [`Index`] has one connection for writing and one for
//! reading, each behind a mutex. A process that finds the database unusable creates a new file and
//! switches a pointer to it; processes that have the old file open keep using it.
//!
//! **Damage.** SQLite has no checksums for its pages. Therefore each row of chunks and frames
//! carries a mark (a hash of the row), checked whenever the row is read. The small tables carry a
//! digest, checked when the database is opened and whenever another transaction has changed them.
//! After an unclean shutdown the structure is checked too. A look-up either returns correct rows or
//! fails with [`IndexError::Damaged`]. A damaged page can still hide a chunk: a writer then stores
//! the chunk again, and a caller that is about to report it as lost calls [`Index::check`] first.
//! The remedy for damage is [`Index::recreate`].
//!
//! **Durability.** `synchronous=NORMAL`: a power failure may lose the last transactions. Their
//! segments are then loaded again.
//!
//! **Compatibility.** A database of an older or newer schema is replaced by an empty one.
//! [`LocalState`] holds the data that cannot be derived again, and is migrated.
//!
//! **File systems.** WAL needs shared memory and POSIX locks, and the directory needs flock, so the
//! index needs a local file system. The cache directory is local. The repository may be remote, so
//! it holds no database.

#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::cast_lossless)
)]

mod chunks;
mod database;
mod error;
mod files;
mod memory;
mod packs;
mod roll;
mod rows;
mod schema;
mod segments;
#[cfg(test)]
mod tests;

pub use self::database::{Index, OpenedIndex};
pub use self::error::IndexError;
pub use self::memory::{LastSnapshot, LocalState};
pub use self::packs::SegmentSummary;
pub use self::roll::PackRoll;
pub use self::rows::{ChunkLocation, FrameRow, IndexTotals, PackRow, PackState};
