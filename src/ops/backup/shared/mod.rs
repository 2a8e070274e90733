//! The data that all threads of one tree source share.

pub(super) mod counts;
mod emptied;
mod outcome;
pub(super) mod watch;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use self::counts::TreeCounts;
use self::watch::{ImmutableWatch, is_other};
use crate::Error;
use crate::advice::Advice;
use crate::observe::{Counter, Problem, Severity, Subject};
use crate::ops::backup::heal::LostChunks;
use crate::ops::backup::reader::file_version::Links;
use crate::ops::backup::run::sink::EntrySink;
use crate::repo::{FirstError, RepoError};
use crate::source::OwnerNames;
use crate::task::Task;
use crate::types::{ChunkProfile, Entry, RelPath};

/// The data that all threads of one tree source share.
pub(super) struct TreeShared<'a> {
    pub source: &'a str,
    pub profile: ChunkProfile,
    pub immutable: bool,
    pub owners: &'a OwnerNames,
    pub sink: &'a EntrySink,
    pub task: Task<'a>,
    /// The error that ended the checkpoint thread.
    pub failure: &'a FirstError<RepoError>,
    /// The error that ended a reader thread. The other readers and the walk stop, since nothing can
    /// be committed.
    pub reading: FirstError<Error>,
    pub lost: &'a LostChunks<'a>,
    /// Accept that a source has lost all its entries.
    pub allow_empty: bool,
    /// `Some` if nothing in the source may change.
    pub watch: Option<ImmutableWatch>,
    pub counts: Arc<TreeCounts>,
    pub links: Links,
    /// Mount points of the kernel's own file systems, which were not entered.
    pub kernels: Mutex<NamedFile>,
    /// Some directories could not be read and keep the previous entries.
    pub keeps_old: AtomicBool,
    /// Some directories were not listed, as nothing in them can have changed. They may have no
    /// files.
    pub has_skipped: AtomicBool,
}

/// Counted paths, of which the first few are kept by name.
#[derive(Debug, Default)]
pub(super) struct NamedFile {
    count: usize,
    first: Vec<String>,
}

impl NamedFile {
    const NAMED_MAX: usize = 6;

    fn push(&mut self, path: &RelPath) {
        self.count += 1;
        if self.first.len() < Self::NAMED_MAX {
            self.first.push(path.to_string());
        }
    }

    /// Returns the paths as text for a message, or `None` if there are none.
    pub fn text(&self) -> Option<String> {
        let more = match self.count - self.first.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        (self.count > 0).then(|| format!("{}{more}", self.first.join(", ")))
    }
}

impl TreeShared<'_> {
    /// Returns an error if the backup was cancelled or another thread failed.
    pub fn check(&self) -> Result<(), Error> {
        self.task.check()?;
        if self.failure.is_set() || self.reading.is_set() {
            Err(RepoError::Stopped.into())
        } else {
            Ok(())
        }
    }

    /// Adds to a count of the source and to the observer's.
    pub fn count(&self, which: &AtomicU64, counter: Counter) {
        which.fetch_add(1, Ordering::Relaxed);
        self.task.observer.add(counter, 1);
    }

    pub fn problem(&self, path: &RelPath, message: &str) {
        let subject = Subject::captured(self.source, path);
        self.task
            .observer
            .problem(&Problem::new(Severity::Missing, subject, message));
    }

    /// Reports a path that is not captured as it is, with advice.
    pub fn problem_with(&self, path: &RelPath, message: &str, advice: Advice) {
        let subject = Subject::captured(self.source, path);
        let problem = Problem::new(Severity::Missing, subject, message);
        self.task.observer.problem(&problem.with_advice(advice));
    }

    /// Raises the alarm if nothing in this source may change.
    pub fn alarm(&self, path: &RelPath, what: &str) {
        if let Some(watch) = &self.watch {
            watch.alarm(self.task.observer, self.source, path, what);
        }
    }

    /// The same, if the path's content or kind differs from the previous entry.
    pub fn alarm_of_change(&self, previous: Option<&Entry>, now: &Entry) {
        if previous.is_some_and(|previous| is_other(previous, now)) {
            self.alarm(&now.path, "changed");
        }
    }

    /// Records a mount of a kernel file system that was not entered.
    pub fn leave_kernels(&self, path: &RelPath) {
        self.kernels
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(path);
    }
}
