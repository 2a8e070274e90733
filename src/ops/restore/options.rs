//! Options of a restore: the selected paths, the target, and the treatment of existing paths.

use std::ffi::OsString;
use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use crate::dest::{OwnerPolicy, ProtectedDirs, SyncMethod};
use crate::error::Error;
use crate::ops::memory;
use crate::repo::HostChoice;
use crate::types::{ByteSize, Entry, RelPath};

/// Treatment of paths that already exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OverwriteRule {
    /// Write everything again.
    Always,
    /// Keep a regular file of equal size and mtime, an equal link and an equal special file, and
    /// correct its metadata. Replace everything else.
    #[default]
    IfChanged,
    /// As [`IfChanged`](Self::IfChanged), but replace an existing path, of any kind, only if the
    /// snapshot's modification time is newer. Directories are entered, and their metadata is set.
    IfNewer,
    /// Replace regular files of a different size; leave everything else as it is. Directories are
    /// entered. For files named by their hash in a directory that a program is using.
    IfSizeDiffers,
    /// Leave everything that exists as it is; directories are entered.
    Never,
}

impl OverwriteRule {
    /// Returns true if existing paths other than regular files, and the metadata of directories,
    /// are left as they are.
    pub(super) fn leaves_most(self) -> bool {
        matches!(self, Self::IfSizeDiffers | Self::Never)
    }

    /// Returns true if the next restore would keep a file that a crash left with a different time
    /// than the snapshot's. Each file then gets its name only once it is durable.
    pub(super) fn trusts_names(self) -> bool {
        self.leaves_most() || self == Self::IfNewer
    }
}

/// Chooses single entries, in addition to the patterns.
pub trait SelectPath: fmt::Debug + Send + Sync {
    /// Returns true if the entry is to be restored. One thread calls it in path order for each
    /// entry that the patterns let through, except directories. An error ends the restore.
    fn wants(&self, entry: &Entry) -> Result<bool, Error>;
}

/// Options of a restore.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// Restore only paths that match these patterns, with everything below them. The rules are
    /// gitignore's, from the source's root. Empty: everything.
    pub include: Vec<OsString>,
    /// Leave out paths that match these patterns; they take precedence over `include`.
    pub exclude: Vec<OsString>,
    /// Restore only the entries that this chooses. With `delete`, existing paths of entries that it
    /// does not choose stay.
    pub select: Option<Arc<dyn SelectPath>>,
    pub overwrite: OverwriteRule,
    /// Delete below restored directories the names that the snapshot accounts for as absent; see
    /// `docs/format.md`, "What a snapshot lacks". Paths that match `exclude` stay.
    pub delete: bool,
    /// Delete also in directories from which only the backup's own rules left out names.
    pub delete_excluded: bool,
    /// Delete every name that the snapshot lacks, even where it does not account for absent names.
    /// For directories whose files must all be of the same time.
    pub replace_whole: bool,
    /// Directories and files that the restore never enters, replaces or deletes, in addition to the
    /// repository, its cache and the state directory.
    pub protect: ProtectedDirs,
    pub owner: OwnerPolicy,
    /// Read back written files, and compare files kept because of equal size and time; rewrite
    /// those that differ.
    pub verify: bool,
    /// Count and report, but change nothing.
    pub dry_run: bool,
    pub memory: ByteSize,
    /// `None`: one for each core, as far as memory allows.
    pub threads: Option<usize>,
    /// Hosts whose snapshots `latest` considers.
    pub host: HostChoice,
    /// Whether a successful restore is durable. Only tests change the default.
    pub durability: SyncMethod,
}

impl Default for RestoreOptions {
    fn default() -> Self {
        Self {
            include: Vec::new(),
            exclude: Vec::new(),
            select: None,
            overwrite: OverwriteRule::default(),
            delete: false,
            delete_excluded: false,
            replace_whole: false,
            protect: ProtectedDirs::default(),
            owner: OwnerPolicy::default(),
            verify: false,
            dry_run: false,
            memory: memory::BUDGET_DEFAULT,
            threads: None,
            host: HostChoice::Any,
            durability: SyncMethod::default(),
        }
    }
}

impl RestoreOptions {
    /// Returns true if any option deletes names.
    pub(super) fn deletes(&self) -> bool {
        self.delete || self.delete_excluded || self.replace_whole
    }
}

/// The part of a snapshot to restore: `SNAP[:SOURCE[/PATH]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotPath {
    /// An id, an unambiguous prefix of one, or `latest`.
    pub snapshot: String,
    /// `None`: all sources, each into a directory of its name. Empty: the user gave a path without
    /// a source; the error shows the right form.
    pub source: Option<String>,
    /// The root means the whole source.
    pub path: RelPath,
}

/// Destination of a restore.
pub enum RestoreTarget<'a> {
    /// A directory, created if missing. For a single file or stream it may also be the file's new
    /// path.
    Directory(PathBuf),
    /// Standard output; for one file or stream.
    Stdout(&'a mut dyn Write),
}
