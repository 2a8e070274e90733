//! Stands in for the library's operations until they are there: their shapes, and nothing behind them.
#![expect(dead_code, reason = "shapes only")]

use icecore::Error;

fn unbuilt<T>() -> Result<T, Error> {
    Err(Error::Usage("not built yet".to_owned()))
}

pub mod ops {
    use std::ops::ControlFlow;

    use icecore::observe::Observer;
    use icecore::ops::Cancel;
    use icecore::repo::{HostChoice, Repository};
    use icecore::types::{Entry, RelPath, SnapshotId};

    use super::{Error, unbuilt};

    pub struct Selector {
        pub snap: String,
        pub hosts: HostChoice,
        pub source: Option<String>,
        pub path: RelPath,
    }

    pub fn selector(what: &crate::parse::SnapPath, hosts: &crate::context::HostArgs) -> Selector {
        Selector {
            snap: what.snap.clone(),
            hosts: hosts.choice(),
            source: what.source.clone(),
            path: what.path.clone(),
        }
    }

    pub fn whole(snap: &str, hosts: &crate::context::HostArgs) -> Selector {
        Selector { snap: snap.to_owned(), hosts: hosts.choice(), source: None, path: RelPath::root() }
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

        pub struct Stats {
            pub snapshots: u64,
            pub packs: u64,
            pub chunks: u64,
            pub plain_bytes: u64,
            pub stored_bytes: u64,
            pub sources_bytes: u64,
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
            _snap: Option<&Selector>,
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
            _old: &Selector,
            _new: &Selector,
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
