//! Options and report of a copy.

use crate::ops::list::SnapshotFilter;
use crate::repo::{HostChoice, StoredSnapshot};
use crate::types::{ByteSize, SnapshotId};

/// Options of [`copy`](super::copy).
#[derive(Debug, Clone, PartialEq)]
pub struct CopyOptions {
    /// Ids, prefixes or `latest`; empty: all that the filter accepts.
    pub names: Vec<String>,
    /// The hosts whose snapshots count for `latest`.
    pub hosts: HostChoice,
    pub filter: SnapshotFilter,
    /// zstd level, 1–19.
    pub level: i32,
    /// Number of threads that compress; 0: the number of cores.
    pub threads: usize,
    pub memory: ByteSize,
    /// Report the snapshots that would be copied, change nothing.
    pub dry_run: bool,
}

/// Result for one snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyOutcome {
    /// It was copied and has this id in the destination.
    Copied(SnapshotId),
    /// The destination already had it, with this id.
    There(SnapshotId),
    /// Dry run: it would be copied.
    Wanted,
    /// It cannot be copied completely, so it was not copied.
    Failed(String),
}

/// A snapshot of the source repository and its result.
#[derive(Debug, Clone, PartialEq)]
pub struct CopyItem {
    pub found: StoredSnapshot,
    pub outcome: CopyOutcome,
}

/// Results of a copy.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CopyReport {
    /// Oldest first.
    pub items: Vec<CopyItem>,
    pub packs: u64,
    pub stored_bytes: u64,
}
