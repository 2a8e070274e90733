//! Stands in for the library's operations until they are there: their shapes, and nothing behind them.
#![expect(dead_code, reason = "shapes only")]

use std::fmt;

/// An operation's error.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

/// What callers match on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    Failed,
    Usage,
    Damage,
    Alarm,
    NoRepository,
    WrongKey,
    NeedsNewer,
    Interrupted,
}

impl Error {
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    pub fn hint(&self) -> Option<String> {
        None
    }

    fn unbuilt<T>() -> Result<T, Self> {
        Err(Self { kind: ErrorKind::Failed, message: "not built yet".to_owned() })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

pub mod store {
    use super::Error;
    use icecore::store::SharedStore;

    pub fn locate(_address: &std::ffi::OsStr) -> Result<SharedStore, Error> {
        Error::unbuilt()
    }
}

pub mod repo {
    use std::path::PathBuf;

    use icecore::observe::Observer;
    use icecore::store::SharedStore;
    use icecore::types::RepoId;
    use zeroize::Zeroizing;

    use super::Error;

    pub struct Secret(pub Zeroizing<Vec<u8>>);

    pub struct Repository;

    /// What can be told of a repository without its key.
    pub struct Probe {
        pub id: RepoId,
        /// A slot opens with the empty passphrase.
        pub open_to_all: bool,
    }

    pub struct InitOptions {
        pub id: RepoId,
        pub cache_root: PathBuf,
        /// The secret is a random key: it takes a cheap slot.
        pub random_key: bool,
    }

    pub struct OpenOptions {
        pub cache_root: PathBuf,
    }

    impl Repository {
        pub fn probe(_store: &SharedStore) -> Result<Probe, Error> {
            Error::unbuilt()
        }

        pub fn init(_store: SharedStore, _secret: &Secret, _options: InitOptions) -> Result<Self, Error> {
            Error::unbuilt()
        }

        pub fn open(
            _store: SharedStore,
            _secret: &Secret,
            _options: OpenOptions,
            _observer: &dyn Observer,
        ) -> Result<Self, Error> {
            Error::unbuilt()
        }
    }
}

pub mod ops {
    use std::ops::ControlFlow;
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use icecore::observe::Observer;
    use icecore::types::{Entry, RelPath, SnapshotId, Timestamp};

    use super::Error;
    use super::repo::Repository;

    #[derive(Clone, Default)]
    pub struct Cancel(Arc<AtomicBool>);

    impl Cancel {
        pub fn new() -> Self {
            Self::default()
        }

        pub fn cancel(&self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    pub enum Snap {
        Latest { host: Option<String> },
        Prefix(String),
    }

    pub struct Selector {
        pub snap: Snap,
        pub source: Option<String>,
        pub path: RelPath,
    }

    pub struct SnapshotInfo {
        pub id: SnapshotId,
        pub host: String,
        pub started: Timestamp,
        pub state: &'static str,
        pub tags: Vec<String>,
        pub sources: Vec<SourceInfo>,
    }

    pub struct SourceInfo {
        pub name: String,
        pub bytes: u64,
        pub entries: u64,
    }

    pub mod backup {
        use super::*;

        pub struct BackupOptions {
            pub host: Option<String>,
            pub tags: Vec<String>,
            pub sources: Vec<SourceSpec>,
            pub level: Option<i32>,
            pub force: bool,
            pub ignore_ctime: bool,
            pub ignore_inode: bool,
            pub parent: Option<(Snap, String)>,
            pub allow_empty: bool,
            pub memory_bytes: Option<u64>,
            pub threads: Option<usize>,
            pub dry_run: bool,
        }

        pub enum SourceSpec {
            Tree { name: String, path: PathBuf, filter: Filter, immutable: bool, files_from: Option<PathBuf> },
            Command { name: String, words: Vec<String> },
            Stdin { name: String },
        }

        #[derive(Clone)]
        pub struct Filter {
            pub globs: Vec<String>,
            pub files: Vec<PathBuf>,
            pub caches: bool,
            pub larger_than: Option<u64>,
            pub one_file_system: bool,
        }

        pub struct BackupReport {
            pub snapshot: Option<SnapshotId>,
        }

        pub fn backup(
            _repo: &Repository,
            _options: BackupOptions,
            _observer: &dyn Observer,
            _cancel: &Cancel,
        ) -> Result<BackupReport, Error> {
            Error::unbuilt()
        }
    }

    pub mod restore {
        use super::*;

        pub enum Overwrite {
            Always,
            IfChanged,
            Never,
        }

        pub struct RestoreOptions {
            pub what: Selector,
            pub include: Vec<String>,
            pub exclude: Vec<String>,
            pub overwrite: Overwrite,
            pub delete: bool,
            pub numeric_ids: bool,
            pub owner: bool,
            pub verify: bool,
            pub dry_run: bool,
        }

        pub struct RestoreReport {
            pub written: u64,
            pub deleted: u64,
        }

        pub fn restore(
            _repo: &Repository,
            _options: RestoreOptions,
            _target: &std::path::Path,
            _observer: &dyn Observer,
            _cancel: &Cancel,
        ) -> Result<RestoreReport, Error> {
            Error::unbuilt()
        }
    }

    pub mod verify {
        use super::*;

        pub struct VerifyOptions {
            pub read_data: bool,
            pub sample: Option<f64>,
            pub max_time: Option<std::time::Duration>,
            pub max_bytes: Option<u64>,
        }

        pub struct Finding {
            pub subject: String,
            pub message: String,
            /// Snapshots and paths that are hit.
            pub affected: Vec<String>,
        }

        pub struct VerifyReport {
            pub findings: Vec<Finding>,
            pub snapshots: u64,
            pub packs: u64,
            pub bytes: u64,
        }

        pub fn verify(
            _repo: &Repository,
            _options: &VerifyOptions,
            _observer: &dyn Observer,
            _cancel: &Cancel,
        ) -> Result<VerifyReport, Error> {
            Error::unbuilt()
        }
    }

    pub mod list {
        use super::*;

        pub struct SnapshotFilter {
            pub host: Option<String>,
            pub tag: Option<String>,
            pub source: Option<String>,
        }

        pub struct Stats {
            pub snapshots: u64,
            pub packs: u64,
            pub chunks: u64,
            pub plain_bytes: u64,
            pub stored_bytes: u64,
            pub sources_bytes: u64,
        }

        pub fn snapshots(_repo: &Repository, _filter: &SnapshotFilter) -> Result<Vec<SnapshotInfo>, Error> {
            Error::unbuilt()
        }

        /// The source's name goes with each entry.
        pub fn ls(
            _repo: &Repository,
            _what: &Selector,
            _recursive: bool,
            _each: &mut dyn FnMut(&str, &Entry) -> ControlFlow<()>,
        ) -> Result<(), Error> {
            Error::unbuilt()
        }

        pub fn find(
            _repo: &Repository,
            _glob: &str,
            _snap: Option<&Snap>,
            _each: &mut dyn FnMut(&SnapshotId, &str, &Entry) -> ControlFlow<()>,
        ) -> Result<(), Error> {
            Error::unbuilt()
        }

        pub fn cat(
            _repo: &Repository,
            _what: &Selector,
            _out: &mut dyn std::io::Write,
            _observer: &dyn Observer,
            _cancel: &Cancel,
        ) -> Result<(), Error> {
            Error::unbuilt()
        }

        pub fn stats(_repo: &Repository) -> Result<Stats, Error> {
            Error::unbuilt()
        }
    }

    pub mod diff {
        use super::*;

        pub enum Change {
            Added,
            Removed,
            Changed,
            Metadata,
        }

        pub fn diff(
            _repo: &Repository,
            _old: &Snap,
            _new: &Snap,
            _each: &mut dyn FnMut(&str, &RelPath, Change) -> ControlFlow<()>,
        ) -> Result<(), Error> {
            Error::unbuilt()
        }
    }

    pub mod repair {
        use super::*;
        use icecore::store::SharedStore;

        pub struct IndexReport {
            pub segments: u64,
            pub packs: u64,
            pub written: u64,
        }

        pub fn index(
            _repo: &Repository,
            _observer: &dyn Observer,
            _cancel: &Cancel,
        ) -> Result<IndexReport, Error> {
            Error::unbuilt()
        }

        /// Puts damaged or missing copies of `config` and key slots back; names of the objects written.
        pub fn config(_store: &SharedStore) -> Result<Vec<String>, Error> {
            Error::unbuilt()
        }
    }

    pub mod keys {
        use super::super::repo::Secret;
        use super::*;

        pub struct Slot {
            pub name: String,
            pub created: Timestamp,
            /// The one that opened the repository now.
            pub current: bool,
        }

        pub fn list(_repo: &Repository) -> Result<Vec<Slot>, Error> {
            Error::unbuilt()
        }

        pub fn add(_repo: &Repository, _secret: &Secret, _random_key: bool) -> Result<String, Error> {
            Error::unbuilt()
        }

        pub fn remove(_repo: &Repository, _slot: &str) -> Result<(), Error> {
            Error::unbuilt()
        }

        pub fn change(_repo: &Repository, _secret: &Secret, _random_key: bool) -> Result<String, Error> {
            Error::unbuilt()
        }

        pub fn export(_repo: &Repository) -> Result<zeroize::Zeroizing<Vec<u8>>, Error> {
            Error::unbuilt()
        }
    }
}
