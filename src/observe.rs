//! How an operation tells what it is doing: counters, phases, problems. Text, progress bars and
//! JSON are printers of the same events; nothing below the binary prints.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::types::{RelPath, Timestamp};

/// What is counted. Each thing is counted in one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Counter {
    /// Paths looked at (backup), put back (restore) or checked (verify).
    Entries,
    /// Regular files among them that were new, or changed.
    FilesNew,
    FilesChanged,
    FilesUnchanged,
    /// Paths gone since the parent.
    Removed,
    /// Paths that vanished between listing and reading: no error.
    Vanished,
    /// Paths that could not be captured or restored.
    Failed,
    /// Plain bytes read from the source (backup), or produced (restore, verify).
    BytesRead,
    /// Plain bytes of chunks that the repository did not have.
    BytesNew,
    /// Bytes put into the store.
    BytesStored,
    /// Bytes fetched from the store.
    BytesFetched,
    /// Data chunks that were new.
    ChunksNew,
    /// Metadata chunks that were new.
    MetadataChunksNew,
    /// Packs stored, or checked.
    Packs,
    /// What the phase's end is counted in, if known: see [`Observer::expect`].
    Done,
}

impl Counter {
    /// How many counters there are.
    pub const COUNT: usize = Self::Done as usize + 1;
}

/// What an operation is busy with.
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
    /// Waiting until what was restored is on the disk.
    Sync { name: String },
    /// Checking that everything listed resolves.
    Structure,
    /// Reading packs and checking every chunk.
    Data,
    /// Copying a snapshot to another repository.
    Copy { name: String },
    /// Moving snapshots to the forgotten ones.
    Forget,
    /// Finding out which packs are needed.
    Mark,
    /// Copying what is needed out of packs that are mostly not.
    Repack,
    /// Deleting what nobody needs.
    Sweep,
    /// Reading the rows of a database dump.
    Dump { name: String },
    /// Looking for a node's files.
    Check { name: String },
    /// Done; counters are final.
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
            Self::Sync { name } => write!(f, "writing {name} to the disk"),
            Self::Structure => f.write_str("checking structure"),
            Self::Data => f.write_str("checking data"),
            Self::Copy { name } => write!(f, "copying {name}"),
            Self::Forget => f.write_str("forgetting snapshots"),
            Self::Mark => f.write_str("marking what is needed"),
            Self::Repack => f.write_str("copying what is needed"),
            Self::Sweep => f.write_str("sweeping"),
            Self::Dump { name } => write!(f, "reading the dump {name}"),
            Self::Check { name } => write!(f, "checking {name}"),
            Self::End => f.write_str("done"),
        }
    }
}

/// How much a problem matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth knowing; changes no exit code.
    Note,
    /// To be acted on, though this operation is none the worse for it; changes no exit code.
    Warning,
    /// Something was left out or is incomplete: exit code 3.
    Missing,
    /// The repository is damaged: exit code 4.
    Damage,
    /// What must never change has changed or is gone: exit code 5.
    Alarm,
}

/// What an event is about: a path, an object or a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    text: String,
    path: Option<Vec<u8>>,
}

impl Subject {
    /// A path below a source's root.
    pub fn path(path: &RelPath) -> Self {
        Self::joined("", path)
    }

    /// A path of a source that is captured: `SOURCE:PATH`.
    pub fn captured(source: &str, path: &RelPath) -> Self {
        Self::joined(&format!("{source}:"), path)
    }

    /// A path of a snapshot's source, as commands take it: `SOURCE/PATH`.
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

    /// As people read it: bytes that are not UTF-8, control characters and backslashes of a path
    /// are escaped.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Every byte of it; of a path as it is, with slashes between its names.
    pub fn bytes(&self) -> &[u8] {
        self.path.as_deref().unwrap_or(self.text.as_bytes())
    }
}

impl<T: fmt::Display> From<T> for Subject {
    /// Anything that is not a path.
    fn from(thing: T) -> Self {
        Self {
            text: thing.to_string(),
            path: None,
        }
    }
}

/// One thing that went wrong without ending the operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub severity: Severity,
    /// The path, object or source it is about, as people read it.
    pub subject: String,
    /// The same with every byte of a path ([`Subject::bytes`]).
    pub subject_bytes: Vec<u8>,
    /// What happened and what follows from it.
    pub message: String,
    /// What to do about it, where that can be said.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem of this weight.
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
            hint: None,
        }
    }

    /// The same with advice.
    pub fn with_hint(mut self, advice: impl Into<String>) -> Self {
        self.hint = Some(advice.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.message)
    }
}

/// What a dry run says would be done to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlannedVerb {
    /// Nothing is there.
    Write,
    /// Something else is there.
    Overwrite,
    Delete,
}

/// One thing that a dry run would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned<'a> {
    pub verb: PlannedVerb,
    pub source: &'a str,
    /// Below the source's root.
    pub path: &'a RelPath,
    /// The modification time of the file that is there.
    pub here: Option<Timestamp>,
    /// It is younger than the one that would replace it.
    pub is_newer: bool,
}

/// Receives an operation's events, from several threads at once; must not block for long.
pub trait Observer: Send + Sync {
    /// Adds to a counter.
    fn add(&self, counter: Counter, amount: u64);
    /// A new phase begins.
    fn phase(&self, phase: &Phase);
    /// How far [`Counter::Done`] will count in this phase, where that is known. `bytes` tells the
    /// unit: bytes or things.
    fn expect(&self, total: u64, bytes: bool);
    /// Something went wrong without ending the operation.
    fn problem(&self, problem: &Problem);
    /// A line of detail for who asked for it (`-v`): the path just handled.
    fn detail(&self, verb: &'static str, subject: &Subject);
    /// Something that a dry run would do.
    fn planned(&self, _: &Planned<'_>) {}
    /// True if [`Observer::detail`] is wanted; asked before the text is made.
    fn wants_detail(&self) -> bool {
        false
    }
}

/// An observer that keeps counters alone and drops the rest.
#[derive(Debug, Default)]
pub struct Counters([AtomicU64; Counter::COUNT]);

impl Counters {
    /// The counter's value now.
    pub fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize].load(Ordering::Relaxed)
    }
}

impl Observer for Counters {
    fn add(&self, counter: Counter, amount: u64) {
        self.0[counter as usize].fetch_add(amount, Ordering::Relaxed);
    }
    fn phase(&self, _: &Phase) {}
    fn expect(&self, _: u64, _: bool) {}
    fn problem(&self, _: &Problem) {}
    fn detail(&self, _: &'static str, _: &Subject) {}
}

/// An observer that remembers counters, phases and problems, for tests and reports.
#[derive(Debug, Default)]
pub struct Recording {
    counters: Counters,
    log: Mutex<(Vec<Phase>, Vec<Problem>)>,
    planned: Mutex<Vec<String>>,
}

impl Recording {
    /// The counter's value now.
    pub fn get(&self, counter: Counter) -> u64 {
        self.counters.get(counter)
    }

    /// The problems so far, in the order they came.
    pub fn problems(&self) -> Vec<Problem> {
        self.lock().1.clone()
    }

    /// What would be done, in the order it came: verb, path, and whether a newer file is there.
    pub fn planned_so_far(&self) -> Vec<String> {
        self.planned
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }

    /// The phases so far.
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
    fn expect(&self, _: u64, _: bool) {}
    fn problem(&self, problem: &Problem) {
        self.lock().1.push(problem.clone());
    }
    fn planned(&self, planned: &Planned<'_>) {
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
