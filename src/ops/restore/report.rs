//! The report of a restore: counts of restored, kept, deleted and failed paths.

use std::ffi::OsString;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::advice::{Advice, RestoreAdvice};
use crate::observe::{Counter, Observer, Problem, Severity, Subject};
use crate::repo::UncertainPaths;
use crate::types::{RelPath, SnapshotId};

/// A range of paths with unknown entries, because a page of the list of files cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UncertainRange {
    pub source: String,
    /// The first path of the range.
    pub from: RelPath,
    /// The first path after the range. `None`: the range extends to the end.
    pub until: Option<RelPath>,
    pub why: String,
}

/// The result of a restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreReport {
    pub snapshot: SnapshotId,
    /// Selected entries of the snapshot, including directories.
    pub entries: u64,
    /// Files, links and special files written, or in a dry run: that would be written.
    pub files_written: u64,
    /// Part of `files_written` that became another name of a file restored before.
    pub hard_links: u64,
    /// Existing files that were left as they are.
    pub files_unchanged: u64,
    /// Part of `files_unchanged` that was left because the snapshot's is not newer.
    pub newer_here: u64,
    /// Bytes of written files, including holes.
    pub bytes_written: u64,
    /// Names deleted because the snapshot lacks them. A directory with everything below it counts
    /// as one.
    pub deleted: u64,
    /// Names that the snapshot lacks and that were not deleted, because the snapshot does not
    /// account for them or because the program needs them.
    pub not_deleted: u64,
    /// Paths that could not be restored. Each was reported.
    pub failed: u64,
    /// Entries that the snapshot holds as failed, stale or torn, entries of a kind unknown to this
    /// version, and paths with content lost in a repair.
    pub incomplete: u64,
    /// Parts of metadata that could not be set or read.
    pub refused_meta: u64,
    /// Owners that an ordinary user may not set; not counted in `refused_meta`.
    pub owners_not_set: u64,
    /// With `verify`: files whose content was compared and matches the snapshot's.
    pub verified: u64,
    /// With `verify`: files of equal size and time whose content differed.
    pub different: u64,
    /// Unfinished files of killed restores that were removed, or in a dry run: that would be
    /// removed.
    pub leftovers: u64,
    /// With `include`: patterns that matched nothing that `exclude` leaves, in the given order.
    /// They do not make the restore incomplete; the caller decides about them.
    pub unmatched: Vec<UnmatchedInclude>,
    pub uncertain: Vec<UncertainRange>,
}

/// An include pattern that matched nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnmatchedInclude {
    pub pattern: OsString,
    /// The pattern that was probably meant, if this one begins with a source's own path or name.
    pub meant: Option<OsString>,
}

impl RestoreReport {
    /// Returns true if everything selected is restored as it was backed up.
    pub fn is_complete(&self) -> bool {
        self.failed == 0
            && self.incomplete == 0
            && self.refused_meta == 0
            && self.uncertain.is_empty()
    }
}

/// The report during the restore, updated by several threads.
pub(super) struct RestoreTally<'a> {
    observer: &'a dyn Observer,
    snapshot: SnapshotId,
    entries: AtomicU64,
    written: AtomicU64,
    links: AtomicU64,
    unchanged: AtomicU64,
    newer: AtomicU64,
    bytes: AtomicU64,
    deleted: AtomicU64,
    not_deleted: AtomicU64,
    failed: AtomicU64,
    incomplete: AtomicU64,
    refused: AtomicU64,
    owners: AtomicU64,
    verified: AtomicU64,
    different: AtomicU64,
    leftovers: AtomicU64,
    provisional: AtomicU64,
    uncertain: Mutex<Vec<UncertainRange>>,
}

fn add(to: &AtomicU64, amount: u64) {
    to.fetch_add(amount, Ordering::Relaxed);
}

impl<'a> RestoreTally<'a> {
    pub fn new(observer: &'a dyn Observer, snapshot: SnapshotId) -> Self {
        Self {
            observer,
            snapshot,
            entries: AtomicU64::new(0),
            written: AtomicU64::new(0),
            links: AtomicU64::new(0),
            unchanged: AtomicU64::new(0),
            newer: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            deleted: AtomicU64::new(0),
            not_deleted: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            incomplete: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            owners: AtomicU64::new(0),
            verified: AtomicU64::new(0),
            different: AtomicU64::new(0),
            leftovers: AtomicU64::new(0),
            provisional: AtomicU64::new(0),
            uncertain: Mutex::default(),
        }
    }

    pub fn add_entry(&self) {
        add(&self.entries, 1);
        self.observer.add(Counter::Entries, 1);
    }

    pub fn file_written(&self, bytes: u64) {
        add(&self.written, 1);
        add(&self.bytes, bytes);
        self.observer.add(Counter::FilesNew, 1);
    }

    pub fn linked(&self) {
        add(&self.links, 1);
        self.file_written(0);
    }

    pub fn unchanged(&self) {
        add(&self.unchanged, 1);
        self.observer.add(Counter::FilesUnchanged, 1);
    }

    /// Returns the id of the restored snapshot.
    pub fn snapshot(&self) -> SnapshotId {
        self.snapshot
    }

    /// Counts a file that was left because the snapshot's is not newer. It is counted as unchanged
    /// too.
    pub fn newer_here(&self) {
        add(&self.newer, 1);
    }

    pub fn deleted(&self) {
        add(&self.deleted, 1);
        self.observer.add(Counter::Removed, 1);
    }

    pub fn not_deleted(&self) {
        add(&self.not_deleted, 1);
    }

    /// Counts and reports a path that cannot be restored.
    pub fn fail(&self, severity: Severity, subject: impl Into<Subject>, why: &str) {
        add(&self.failed, 1);
        self.observer.add(Counter::Failed, 1);
        self.observer.problem(&Problem::new(severity, subject, why));
    }

    /// Counts and reports a path that the snapshot does not hold as it was.
    pub fn incomplete(&self, subject: impl Into<Subject>, why: &str) {
        add(&self.incomplete, 1);
        self.observer
            .problem(&Problem::new(Severity::Missing, subject, why));
    }

    /// Counts paths with content lost in a repair; they have been reported already.
    pub fn lost(&self, paths: u64) {
        add(&self.incomplete, paths);
    }

    /// Counts and reports a part of a path's metadata that was refused.
    pub fn refused(&self, subject: impl Into<Subject>, why: &str) {
        add(&self.refused, 1);
        self.observer
            .problem(&Problem::new(Severity::Missing, subject, why));
    }

    /// Counts an owner that an ordinary user may not set. One line at the end reports all of them.
    pub fn owner_not_set(&self) {
        add(&self.owners, 1);
    }

    pub fn verified(&self) {
        add(&self.verified, 1);
    }

    pub fn differs(&self) {
        add(&self.different, 1);
    }

    /// Counts an unfinished file of a killed restore that was removed.
    pub fn leftover(&self) {
        add(&self.leftovers, 1);
    }

    /// Counts a restored file whose content does not match its name.
    pub fn provisional(&self) {
        add(&self.provisional, 1);
    }

    /// Reports, once at the end, the things that were only counted.
    pub fn say_counted(&self, target: &str, is_dry: bool) {
        let note = |message: String| Problem::new(Severity::Note, target, message);
        let counted = |of: &AtomicU64, one: &str, many: &str| match of.load(Ordering::Relaxed) {
            0 => None,
            1 => Some(format!("1 {one}")),
            count => Some(format!("{count} {many}")),
        };
        if let Some(owners) = counted(&self.owners, "owner was", "owners were") {
            let problem = note(format!("{owners} not set: not running as root"));
            self.observer.problem(
                &problem.with_advice(Advice::Restore(RestoreAdvice::RestoreWithoutOwners)),
            );
        }
        if let Some(files) = counted(&self.leftovers, "unfinished file", "unfinished files") {
            let verb = if is_dry {
                "would be removed"
            } else {
                "removed"
            };
            let problem = note(format!("{files} of a restore that was killed: {verb}"));
            self.observer.problem(&problem);
        }
        if let Some(files) = counted(&self.provisional, "file", "files") {
            let problem = note(format!(
                "{files} restored whose content did not match the name when it was backed up"
            ));
            self.observer.problem(&problem);
        }
    }

    /// Counts and reports a part of a path's metadata that cannot be read.
    pub fn damaged_meta(&self, subject: impl Into<Subject>, why: &str) {
        add(&self.refused, 1);
        self.observer
            .problem(&Problem::new(Severity::Damage, subject, why));
    }

    /// Records and reports a page that cannot be read.
    pub fn uncertain(&self, source: &str, lost: UncertainPaths) {
        let until = lost
            .until
            .as_ref()
            .map_or_else(|| "the end".to_owned(), |path| format!("'{path}'"));
        self.observer.problem(&Problem::new(
            Severity::Damage,
            source,
            format!(
                "the list of files from '{}' up to {until} cannot be read ({}); these paths are not restored",
                lost.from, lost.why
            ),
        ));
        let range = UncertainRange {
            source: source.to_owned(),
            from: lost.from,
            until: lost.until,
            why: lost.why,
        };
        self.uncertain
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(range);
    }

    pub fn into_report(self, unmatched: Vec<UnmatchedInclude>) -> RestoreReport {
        RestoreReport {
            snapshot: self.snapshot,
            entries: self.entries.into_inner(),
            files_written: self.written.into_inner(),
            hard_links: self.links.into_inner(),
            files_unchanged: self.unchanged.into_inner(),
            newer_here: self.newer.into_inner(),
            bytes_written: self.bytes.into_inner(),
            deleted: self.deleted.into_inner(),
            not_deleted: self.not_deleted.into_inner(),
            failed: self.failed.into_inner(),
            incomplete: self.incomplete.into_inner(),
            refused_meta: self.refused.into_inner(),
            owners_not_set: self.owners.into_inner(),
            verified: self.verified.into_inner(),
            different: self.different.into_inner(),
            leftovers: self.leftovers.into_inner(),
            unmatched,
            uncertain: self
                .uncertain
                .into_inner()
                .unwrap_or_else(PoisonError::into_inner),
        }
    }
}
