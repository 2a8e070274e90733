//! Stands in for the library's operations until they are there: their shapes, and nothing behind them.
#![expect(dead_code, reason = "shapes only")]

use icecore::Error;

fn unbuilt<T>() -> Result<T, Error> {
    Err(Error::Usage("not built yet".to_owned()))
}

pub mod ops {
    use std::ops::ControlFlow;
    use std::path::PathBuf;

    use icecore::observe::Observer;
    use icecore::ops::Cancel;
    use icecore::repo::Repository;
    use icecore::types::{Entry, RelPath, SnapshotId, Timestamp};

    use super::{Error, unbuilt};

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
            unbuilt()
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
            unbuilt()
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
            unbuilt()
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
            unbuilt()
        }

        /// The source's name goes with each entry.
        pub fn ls(
            _repo: &Repository,
            _what: &Selector,
            _recursive: bool,
            _each: &mut dyn FnMut(&str, &Entry) -> ControlFlow<()>,
        ) -> Result<(), Error> {
            unbuilt()
        }

        pub fn find(
            _repo: &Repository,
            _glob: &str,
            _snap: Option<&Snap>,
            _each: &mut dyn FnMut(&SnapshotId, &str, &Entry) -> ControlFlow<()>,
        ) -> Result<(), Error> {
            unbuilt()
        }

        pub fn cat(
            _repo: &Repository,
            _what: &Selector,
            _out: &mut dyn std::io::Write,
            _observer: &dyn Observer,
            _cancel: &Cancel,
        ) -> Result<(), Error> {
            unbuilt()
        }

        pub fn stats(_repo: &Repository) -> Result<Stats, Error> {
            unbuilt()
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
            unbuilt()
        }
    }

    pub mod repair {
        use super::*;

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
            unbuilt()
        }
    }
}
