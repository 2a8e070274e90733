//! Counters of one source while it is captured.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::format::SourceCounts;
use crate::ops::backup::run::sink::EntrySink;

/// Counters of one source, shared by several threads.
#[derive(Default)]
pub(in crate::ops::backup) struct TreeCounts {
    pub files_new: AtomicU64,
    pub files_changed: AtomicU64,
    pub files_unchanged: AtomicU64,
    /// All entries that are not files.
    pub others: AtomicU64,
    /// Of [`others`](Self::others), the directories.
    pub directories: AtomicU64,
    /// Previous entries that are not directories and that vanished or changed.
    pub gone: AtomicU64,
    pub removed: AtomicU64,
    pub vanished: AtomicU64,
    /// Unfinished files of a restore, left out.
    pub leftovers: AtomicU64,
    pub bytes_read: AtomicU64,
    /// Content bytes of the previous entries that vanished or changed, since the last run was
    /// written.
    pub hidden: AtomicU64,
}

/// Returns the counts of a source so far.
pub(in crate::ops::backup) fn counts(counts: &TreeCounts, sink: &EntrySink) -> SourceCounts {
    let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
    SourceCounts {
        files_new: get(&counts.files_new),
        files_changed: get(&counts.files_changed),
        files_unchanged: get(&counts.files_unchanged),
        others: get(&counts.others),
        removed: get(&counts.removed),
        vanished: get(&counts.vanished),
        bytes_read: get(&counts.bytes_read),
        incomplete: sink.incomplete(),
        partial: Some(sink.partial()),
        unseen: Some(sink.unseen()),
    }
}
