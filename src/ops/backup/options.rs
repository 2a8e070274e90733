//! Options and report of a backup.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::Error;
use crate::format::{ServiceImage, SnapshotState, SourceCounts};
use crate::ops::things::SourceThing;
use crate::source::{FilesFrom, FilterOptions, StreamCommand};
use crate::sys::recorded_path;
use crate::types::{ByteSize, ChunkProfile, SnapshotId, Timestamp};

/// A source to capture.
pub enum SourceSpec {
    /// A file tree, or a single file.
    Tree(Box<TreeSpec>),
    /// A command's standard output. It counts only if the command exits with 0.
    Command(Box<CommandSpec>),
    /// Standard input, to its end. A read that fails with `WouldBlock` is retried after a check for
    /// cancellation.
    Stream {
        name: String,
        input: Box<dyn Read + Send>,
    },
}

impl SourceSpec {
    /// Returns the thing that its name stands for, or `None` for a command that is not known yet.
    pub(super) fn thing(&self) -> Option<SourceThing> {
        match self {
            Self::Tree(tree) => Some(tree.thing()),
            Self::Command(command) => match &command.run {
                DumpCommand::Known((command, _)) => Some(SourceThing::command(command.words())),
                DumpCommand::Late(_) => None,
            },
            Self::Stream { .. } => Some(SourceThing::command(&[])),
        }
    }

    /// Returns the source's name in the snapshot.
    pub fn name(&self) -> &str {
        match self {
            Self::Tree(tree) => &tree.name,
            Self::Command(command) => &command.name,
            Self::Stream { name, .. } => name,
        }
    }

    /// Returns the commands that run around its capture.
    pub(super) fn around(&self) -> SourceHooks {
        match self {
            Self::Tree(tree) => tree.around.clone(),
            Self::Command(command) => command.around.clone(),
            Self::Stream { .. } => SourceHooks::default(),
        }
    }
}

/// Commands that run before and after a source is captured, for example to stop and start the
/// service that writes to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceHooks {
    /// In order. The first that fails ends the backup.
    pub before: Vec<StreamCommand>,
    /// In order. All of them run, also if the capture or one of `before` failed.
    pub after: Vec<StreamCommand>,
}

/// A command, and the environment variables that it gets besides ours.
pub type CommandAndEnv = (StreamCommand, Vec<(String, OsString)>);

/// The command whose output is captured.
pub enum DumpCommand {
    /// Known now.
    Known(CommandAndEnv),
    /// Looked up after the source's `before` commands have run: `before` may start the container in
    /// which the command runs.
    Late(Box<dyn FnOnce() -> Result<CommandAndEnv, Error> + Send>),
}

impl DumpCommand {
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
    pub run: DumpCommand,
    /// A line that the last 4 KiB of the output must contain. Without it the stream is incomplete.
    pub ends_with: Option<String>,
    /// The stream is suspect if it is smaller than this share of the last good one; 0: never.
    /// `None`: a tenth, if the last good one had 64 KiB or more.
    pub smallest: Option<f64>,
    /// How the stream is cut: [`ChunkProfile::Stream`] or [`ChunkProfile::Dump`].
    pub profile: ChunkProfile,
    pub around: SourceHooks,
}

impl CommandSpec {
    /// Returns a command with default options.
    pub fn new(name: impl Into<String>, command: StreamCommand) -> Self {
        Self {
            name: name.into(),
            run: DumpCommand::Known((command, Vec::new())),
            ends_with: None,
            smallest: None,
            profile: ChunkProfile::Stream,
            around: SourceHooks::default(),
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
    /// The name is the last component of the path, not given by the user. It then stands for one
    /// path, and the same name with another path is refused.
    pub is_name_derived: bool,
    pub path: PathBuf,
    pub filter: FilterOptions,
    /// Capture only these paths and the directories that lead to them.
    pub files_from: Option<FilesFrom>,
    /// Files never change once written, and their names are hashes of their content: names already
    /// captured are not looked at again.
    pub immutable: bool,
    /// Build on this snapshot's source instead of the latest one of this host and name.
    pub parent: Option<(SnapshotId, String)>,
    /// Nothing in the tree may change or vanish. If something does, an alarm is raised and the
    /// snapshot does not count as good.
    pub unchanged: bool,
    /// Owners are numbers that mean nothing on this host, as in a container's volume: a restore
    /// does not map their names. Paths in which container engines keep files are always treated
    /// this way.
    pub numeric_owners: bool,
    pub around: SourceHooks,
}

impl TreeSpec {
    /// Returns the directory or file as it is recorded.
    pub(super) fn thing(&self) -> SourceThing {
        SourceThing::Tree(recorded_path(&self.path).into_os_string().into_vec())
    }

    /// Returns a tree with default options.
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
            around: SourceHooks::default(),
        }
    }
}

/// Options of a backup.
#[derive(Debug)]
pub struct BackupOptions {
    pub host: String,
    pub tags: Vec<String>,
    /// Captured in this order.
    pub sources: Vec<SourceSpec>,
    /// zstd level, 1–19.
    pub level: i32,
    /// Read every file again, even if it is unchanged since the previous entry.
    pub force: bool,
    pub ignore_ctime: bool,
    pub ignore_inode: bool,
    /// A file modified within this many seconds of its scan is read again next time. `None`: as the
    /// kind of file system requires.
    pub grain_seconds: Option<i64>,
    /// Accept that a derived source name stands for another path than before.
    pub moved: bool,
    /// Accept that a source which had entries has none now.
    pub allow_empty: bool,
    /// Sources whose capture is accepted as good even if it would be suspect or raise an alarm.
    /// Later captures are compared with it.
    pub accept: BTreeSet<String>,
    pub memory: ByteSize,
    /// Reading and compressing threads. `None`: as many as cores and memory allow.
    pub threads: Option<usize>,
    /// Scan, read and compress, but store nothing. With more than 900,000 new chunks, the counts of
    /// new data are an upper bound: a chunk that appears again much later may be counted again.
    pub dry_run: bool,
    /// Interval between checkpoints, from which an interrupted backup resumes.
    pub checkpoint_every: Duration,
    /// Environment variables that commands do not get.
    pub env_remove: Vec<String>,
    /// The images of the containers whose data is captured, for the record. Images that are not
    /// legal are left out.
    pub images: Vec<ServiceImage>,
}

impl BackupOptions {
    /// Returns the default options.
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
    /// Returns true if a missing tree keeps the capture of the last good snapshot: nothing in it
    /// may vanish, and the change is not accepted.
    pub(super) fn keeps(&self, tree: &TreeSpec) -> bool {
        tree.unchanged && !self.accept.contains(&tree.name)
    }
}

/// The result of one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceReport {
    pub name: String,
    pub counts: SourceCounts,
    /// The snapshot whose runs or content it builds on.
    pub parent: Option<SnapshotId>,
}

/// The result of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupReport {
    /// `None` for a dry run.
    pub snapshot: Option<SnapshotId>,
    pub state: SnapshotState,
    pub started: Timestamp,
    pub sources: Vec<SourceReport>,
    /// Objects and bytes put into the store, without leases.
    pub packs: u64,
    pub segments: u64,
    pub stored_bytes: u64,
}
