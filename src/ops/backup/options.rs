//! What a backup is told, and what it tells.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::Error;
use crate::format::{ServiceImage, SnapshotState, SourceCounts};
use crate::ops::things::Thing;
use crate::source::{FilesFrom, FilterOptions, StreamCommand};
use crate::sys::recorded_path;
use crate::types::{ByteSize, Profile, SnapshotId, Timestamp};

/// One thing to capture.
pub enum SourceSpec {
    /// A file tree, or a single file.
    Tree(Box<TreeSpec>),
    /// A command's standard output; counts only if it exits with 0.
    Command(Box<CommandSpec>),
    /// Whatever comes: standard input. A read that fails with `WouldBlock` is tried again, after a
    /// look at whether to stop.
    Stream {
        name: String,
        input: Box<dyn Read + Send>,
    },
}

impl SourceSpec {
    /// What its name stands for; none where that is found out late.
    pub(super) fn thing(&self) -> Option<Thing> {
        match self {
            Self::Tree(tree) => Some(tree.thing()),
            Self::Command(command) => match &command.run {
                Run::Known((command, _)) => Some(Thing::command(command.words())),
                Run::Late(_) => None,
            },
            Self::Stream { .. } => Some(Thing::command(&[])),
        }
    }

    /// The source's name in the snapshot.
    pub fn name(&self) -> &str {
        match self {
            Self::Tree(tree) => &tree.name,
            Self::Command(command) => &command.name,
            Self::Stream { name, .. } => name,
        }
    }

    /// The commands that run around its capture.
    pub(super) fn around(&self) -> Around {
        match self {
            Self::Tree(tree) => tree.around.clone(),
            Self::Command(command) => command.around.clone(),
            Self::Stream { .. } => Around::default(),
        }
    }
}

/// Commands that run before and after a source is captured, such as what stops and starts the
/// service that writes to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Around {
    /// In order; the first that fails ends the backup.
    pub before: Vec<StreamCommand>,
    /// In order, all of them, also if the capture or one of `before` failed.
    pub after: Vec<StreamCommand>,
}

/// A command, and the variables that it gets besides ours.
pub type CommandAndEnv = (StreamCommand, Vec<(String, OsString)>);

/// What is run for its output.
pub enum Run {
    /// This.
    Known(CommandAndEnv),
    /// What this finds out once what is to run before it has run: a dump by a program in a
    /// container that `before` starts cannot be spelled earlier.
    Late(Box<dyn FnOnce() -> Result<CommandAndEnv, Error> + Send>),
}

impl Run {
    pub(super) fn known(self) -> Result<CommandAndEnv, Error> {
        match self {
            Self::Known(known) => Ok(known),
            Self::Late(find_out) => find_out(),
        }
    }
}

/// A command whose output is captured.
pub struct CommandSpec {
    pub name: String,
    pub run: Run,
    /// A line that must stand within the last 4 KiB of the output: without it the stream is not
    /// whole.
    pub ends_with: Option<String>,
    /// Share of the last good one's size below which the stream is doubtful; 0: never. None: a
    /// tenth, if the last good one had 64 KiB or more.
    pub smallest: Option<f64>,
    /// How it is cut: [`Profile::Stream`] or [`Profile::Dump`].
    pub profile: Profile,
    pub around: Around,
}

impl CommandSpec {
    /// A command with nothing special about it.
    pub fn new(name: impl Into<String>, command: StreamCommand) -> Self {
        Self {
            name: name.into(),
            run: Run::Known((command, Vec::new())),
            ends_with: None,
            smallest: None,
            profile: Profile::Stream,
            around: Around::default(),
        }
    }
}

impl std::fmt::Debug for SourceSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SourceSpec({})", self.name())
    }
}

/// A file tree to capture.
#[derive(Debug)]
pub struct TreeSpec {
    pub name: String,
    /// Nobody gave the name, it is the path's last component: then it stands for one path, and
    /// another one is refused.
    pub is_name_derived: bool,
    pub path: PathBuf,
    pub filter: FilterOptions,
    /// Only these paths and what leads to them.
    pub files_from: Option<FilesFrom>,
    /// Files never change once written, names are hashes of contents: known names are not looked at
    /// again.
    pub immutable: bool,
    /// Take this snapshot's source as parent instead of the latest of this host and name.
    pub parent: Option<(SnapshotId, String)>,
    /// Nothing in it is ever to change or go: if it does, that is an alarm, and the snapshot does
    /// not count as good.
    pub unchanged: bool,
    /// Owners are numbers that mean nothing on this host, as in a container's volume: a restore
    /// does not map their names. Paths in which container engines keep files are taken for such in
    /// any case.
    pub numeric_owners: bool,
    pub around: Around,
}

impl TreeSpec {
    /// The directory or file by which it is recorded.
    pub(super) fn thing(&self) -> Thing {
        Thing::Tree(recorded_path(&self.path).into_os_string().into_vec())
    }

    /// A tree with nothing special about it.
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            is_name_derived: false,
            path: path.into(),
            filter: FilterOptions::default(),
            files_from: None,
            immutable: false,
            parent: None,
            unchanged: false,
            numeric_owners: false,
            around: Around::default(),
        }
    }
}

/// How to back up.
#[derive(Debug)]
pub struct BackupOptions {
    pub host: String,
    pub tags: Vec<String>,
    /// Captured in this order.
    pub sources: Vec<SourceSpec>,
    /// zstd level, 1–19.
    pub level: i32,
    /// Read every file again, whatever its parent entry says.
    pub force: bool,
    pub ignore_ctime: bool,
    pub ignore_inode: bool,
    /// What was modified within so many seconds of its scan is read again next time; none: as the
    /// kind of file system asks for.
    pub grain_seconds: Option<i64>,
    /// Accept that a name which nobody gave stands for another path than before.
    pub moved: bool,
    /// Accept that a source which had entries has none now.
    pub allow_empty: bool,
    /// Sources of which what would be doubtful or an alarm is accepted, as what is good from now
    /// on.
    pub accept: BTreeSet<String>,
    pub memory: ByteSize,
    /// Reading and compressing threads; none: as many as cores and memory allow.
    pub threads: Option<usize>,
    /// Scan, read and compress, store nothing. What is counted as new is an upper bound where that
    /// is more than 900,000 chunks: a chunk that comes again much later may be counted again.
    pub dry_run: bool,
    /// How often what was captured so far is made a checkpoint, from which an interrupted backup
    /// goes on.
    pub checkpoint_every: Duration,
    /// Environment variables that commands do not get.
    pub env_remove: Vec<String>,
    /// The images of the containers whose data is captured, for the record; those that are not
    /// legal are left out.
    pub images: Vec<ServiceImage>,
}

impl BackupOptions {
    /// Options with their defaults.
    pub fn new(host: impl Into<String>, sources: Vec<SourceSpec>) -> Self {
        Self {
            host: host.into(),
            tags: Vec::new(),
            sources,
            level: 3,
            force: false,
            ignore_ctime: false,
            ignore_inode: false,
            grain_seconds: None,
            moved: false,
            allow_empty: false,
            accept: BTreeSet::new(),
            memory: crate::ops::memory::BUDGET_DEFAULT,
            threads: None,
            dry_run: false,
            checkpoint_every: Duration::from_secs(5 * 60),
            env_remove: Vec::new(),
            images: Vec::new(),
        }
    }
}

impl BackupOptions {
    /// True if what the last good snapshot has of a tree is to go on should the tree not be there:
    /// nothing of it may go, and nobody says that it should.
    pub(super) fn keeps(&self, tree: &TreeSpec) -> bool {
        tree.unchanged && !self.accept.contains(&tree.name)
    }
}

/// What became of one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceReport {
    pub name: String,
    pub counts: SourceCounts,
    /// The snapshot whose runs or content it builds on.
    pub parent: Option<SnapshotId>,
}

/// What a backup did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupReport {
    /// None for a dry run.
    pub snapshot: Option<SnapshotId>,
    pub state: SnapshotState,
    pub started: Timestamp,
    pub sources: Vec<SourceReport>,
    /// Objects and bytes put into the store, leases aside.
    pub packs: u64,
    pub segments: u64,
    pub stored_bytes: u64,
}
