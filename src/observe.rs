//! Events that an operation reports: counters, phases, problems. Text, progress bars and JSON are
//! printers of the same events. Nothing below the binary prints.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::advice::Advice;
use crate::types::{RelPath, Timestamp};

/// A kind of thing that is counted. Each thing is counted in one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Counter {
    /// Paths scanned (backup), restored (restore) or checked (verify).
    Entries,
    /// Regular files among them that were new, changed or unchanged.
    FilesNew,
    FilesChanged,
    FilesUnchanged,
    /// Paths removed since the parent.
    Removed,
    /// Paths that vanished between listing and reading, which is not an error.
    Vanished,
    /// Paths that could not be captured or restored.
    Failed,
    /// Plain bytes read from the source (backup) or produced (restore, verify).
    BytesRead,
    /// Plain bytes of chunks that the repository did not have.
    BytesNew,
    /// Bytes written to the store.
    BytesStored,
    /// Bytes read from the store.
    BytesFetched,
    /// Data chunks that were new.
    ChunksNew,
    /// Metadata chunks that were new.
    MetadataChunksNew,
    /// Packs stored or checked.
    Packs,
    /// The progress of the phase towards its total, if that is known: see [`Observer::expect`].
    Done,
}

impl Counter {
    /// The number of counters.
    pub const COUNT: usize = Self::Done.index() + 1;

    /// Returns the counter's index: the discriminant, which only a cast gives.
    const fn index(self) -> usize {
        self as usize
    }
}

/// A phase of an operation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Bringing the index up to date with the repository.
    Index,
    /// Scanning and reading a source.
    Source { name: String },
    /// Writing the run, the last packs, the segment and the snapshot.
    Commit,
    /// Reading a snapshot's runs.
    Plan,
    /// Writing files.
    Restore { name: String },
    /// Waiting until the restored data is on the disk.
    Sync { name: String },
    /// Checking that everything listed resolves.
    Structure,
    /// Reading packs and checking every chunk.
    Data,
    /// Copying a snapshot to another repository.
    Copy { name: String },
    /// Moving snapshots to `forgotten/`.
    Forget,
    /// Finding out which packs are needed.
    Mark,
    /// Copying the needed chunks out of packs that are mostly unneeded.
    Repack,
    /// Deleting unneeded objects.
    Sweep,
    /// Reading the rows of a database dump.
    Dump { name: String },
    /// Looking for a node's files.
    Check { name: String },
    /// Finished: the counters are final.
    End,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index => f.write_str("reading the index"),
            Self::Source { name } => write!(f, "backing up {name}"),
            Self::Commit => f.write_str("committing"),
            Self::Plan => f.write_str("planning"),
            Self::Restore { name } => write!(f, "restoring {name}"),
            Self::Sync { name } => write!(f, "syncing {name} to disk"),
            Self::Structure => f.write_str("checking structure"),
            Self::Data => f.write_str("checking data"),
            Self::Copy { name } => write!(f, "copying {name}"),
            Self::Forget => f.write_str("forgetting snapshots"),
            Self::Mark => f.write_str("marking referenced data"),
            Self::Repack => f.write_str("copying referenced data"),
            Self::Sweep => f.write_str("deleting unreferenced data"),
            Self::Dump { name } => write!(f, "reading the dump {name}"),
            Self::Check { name } => write!(f, "checking {name}"),
            Self::End => f.write_str("done"),
        }
    }
}

/// The weight of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// For information; does not change the exit code.
    Note,
    /// Needs action, but did not affect this operation; does not change the exit code.
    Warning,
    /// Something was left out or is incomplete: exit code 3.
    Missing,
    /// The repository is damaged: exit code 4.
    Damage,
    /// Something that must never change has changed or is missing: exit code 5.
    Alarm,
}

/// The subject of an event: a path, an object or a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    text: String,
    path: Option<Vec<u8>>,
}

impl Subject {
    /// Creates the subject of a path below a source's root.
    pub fn path(path: &RelPath) -> Self {
        Self::joined("", path)
    }

    /// Creates the subject of a path in a source that is being captured: `SOURCE:PATH`.
    pub fn captured(source: &str, path: &RelPath) -> Self {
        Self::joined(&format!("{source}:"), path)
    }

    /// Creates the subject of a path in a snapshot's source, as commands accept it: `SOURCE/PATH`.
    pub fn within(source: &str, path: &RelPath) -> Self {
        if path.is_root() {
            Self::from(source)
        } else {
            Self::joined(&format!("{source}/"), path)
        }
    }

    fn joined(before: &str, path: &RelPath) -> Self {
        let bytes = [before.as_bytes(), &path.to_slashed()].concat();
        Self {
            text: format!("{before}{path}"),
            path: (!path.is_root()).then_some(bytes),
        }
    }

    /// Returns the readable text: bytes of a path that are not UTF-8, control characters and
    /// backslashes are escaped.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the unescaped bytes; those of a path have slashes between its names.
    pub fn bytes(&self) -> &[u8] {
        self.path.as_deref().unwrap_or(self.text.as_bytes())
    }
}

impl<T: fmt::Display> From<T> for Subject {
    /// Creates a subject that is not a path.
    fn from(thing: T) -> Self {
        Self {
            text: thing.to_string(),
            path: None,
        }
    }
}

/// A problem that did not end the operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub severity: Severity,
    /// The path, object or source, as readable text.
    pub subject: String,
    /// The subject with every byte of a path ([`Subject::bytes`]).
    pub subject_bytes: Vec<u8>,
    /// What happened, and the consequence.
    pub message: String,
    /// Advice for the user, if there is any.
    pub advice: Option<Advice>,
}

impl Problem {
    /// Creates a problem of this severity, without advice.
    pub fn new(
        severity: Severity,
        subject: impl Into<Subject>,
        message: impl fmt::Display,
    ) -> Self {
        let subject = subject.into();
        let subject_bytes = subject.bytes().to_vec();
        Self {
            severity,
            subject: subject.text,
            subject_bytes,
            message: message.to_string(),
            advice: None,
        }
    }

    /// Adds advice.
    pub fn with_advice(mut self, advice: impl Into<Advice>) -> Self {
        self.advice = Some(advice.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.message)
    }
}

/// The action that a dry run would take for a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlannedVerb {
    /// The path does not exist.
    Write,
    /// Something else exists at the path.
    Overwrite,
    Delete,
}

/// An action that a dry run would take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedChange<'a> {
    pub verb: PlannedVerb,
    pub source: &'a str,
    /// The path below the source's root.
    pub path: &'a RelPath,
    /// The modification time of the existing file.
    pub here: Option<Timestamp>,
    /// True if the existing file is newer than its replacement.
    pub is_newer: bool,
}

/// The unit of [`Counter::Done`] in a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProgressUnit {
    Bytes,
    Items,
}

/// Receives an operation's events, from several threads at once. Implementations must not block for
/// long.
pub trait Observer: Send + Sync {
    /// Adds `amount` to a counter.
    fn add(&self, counter: Counter, amount: u64);
    /// Begins a phase.
    fn phase(&self, phase: &Phase);
    /// Sets the total that [`Counter::Done`] will reach in this phase, if it is known.
    fn expect(&self, total: u64, unit: ProgressUnit);
    /// Reports a problem that does not end the operation.
    fn problem(&self, problem: &Problem);
    /// Reports the path that was just handled, for verbose output (`-v`).
    fn detail(&self, verb: &'static str, subject: &Subject);
    /// Reports an action that a dry run would take.
    fn planned(&self, _: &PlannedChange<'_>) {}
    /// Returns true if the observer uses [`Observer::detail`]. Callers ask before they format the
    /// text.
    fn wants_detail(&self) -> bool {
        false
    }
}

/// An observer that keeps only the counters.
#[derive(Debug, Default)]
pub struct Counters([AtomicU64; Counter::COUNT]);

impl Counters {
    /// Returns the current value of the counter.
    pub fn get(&self, counter: Counter) -> u64 {
        self.0[counter.index()].load(Ordering::Relaxed)
    }
}

impl Observer for Counters {
    fn add(&self, counter: Counter, amount: u64) {
        self.0[counter.index()].fetch_add(amount, Ordering::Relaxed);
    }
    fn phase(&self, _: &Phase) {}
    fn expect(&self, _: u64, _: ProgressUnit) {}
    fn problem(&self, _: &Problem) {}
    fn detail(&self, _: &'static str, _: &Subject) {}
}

/// An observer that records counters, phases and problems, for tests and reports.
#[derive(Debug, Default)]
pub struct Recording {
    counters: Counters,
    log: Mutex<(Vec<Phase>, Vec<Problem>)>,
    planned: Mutex<Vec<String>>,
}

impl Recording {
    /// Returns the current value of the counter.
    pub fn get(&self, counter: Counter) -> u64 {
        self.counters.get(counter)
    }

    /// Returns the problems so far, in order of arrival.
    pub fn problems(&self) -> Vec<Problem> {
        self.lock().1.clone()
    }

    /// Returns the planned actions so far, in order of arrival: verb, path, and whether a newer
    /// file is there.
    pub fn planned_so_far(&self) -> Vec<String> {
        self.planned
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }

    /// Returns the phases so far.
    pub fn phases(&self) -> Vec<Phase> {
        self.lock().0.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (Vec<Phase>, Vec<Problem>)> {
        self.log
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Observer for Recording {
    fn add(&self, counter: Counter, amount: u64) {
        self.counters.add(counter, amount);
    }
    fn phase(&self, phase: &Phase) {
        self.lock().0.push(phase.clone());
    }
    fn expect(&self, _: u64, _: ProgressUnit) {}
    fn problem(&self, problem: &Problem) {
        self.lock().1.push(problem.clone());
    }
    fn planned(&self, planned: &PlannedChange<'_>) {
        let newer = if planned.is_newer { " (newer)" } else { "" };
        let line = format!(
            "{:?} {}/{}{newer}",
            planned.verb, planned.source, planned.path
        );
        self.planned
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .push(line);
    }
    fn detail(&self, _: &'static str, _: &Subject) {}
}
