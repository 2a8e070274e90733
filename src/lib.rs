//! icecore is a backup program for file trees and database dumps. This crate is its engine: it cuts
//! content into chunks, deduplicates, compresses and encrypts them, and stores them in a repository of
//! immutable objects. The program `icecore` is a command line over it.
//!
//! ```
//! use std::sync::Arc;
//!
//! use icecore::observe::Counters;
//! use icecore::task::{Cancel, Task};
//! use icecore::ops::backup::{BackupOptions, SourceSpec, TreeSpec, backup};
//! use icecore::ops::restore::{RestoreOptions, RestoreTarget, SnapshotPath, restore};
//! use icecore::repo::{Repository, Secret};
//! use icecore::store::{LocalStore, SharedStore};
//! use icecore::types::RelPath;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let dir = tempfile::tempdir()?;
//! std::fs::create_dir(dir.path().join("data"))?;
//! std::fs::write(dir.path().join("data/file"), "content")?;
//!
//! // A repository is made once, and opened with the same secret by every later run.
//! let secret = Secret::passphrase(b"a long passphrase".to_vec().into());
//! let store: SharedStore = Arc::new(LocalStore::create(dir.path().join("repo"))?);
//! Repository::init(&store, &secret, "example")?;
//! let repo = Repository::open(store, &secret, &dir.path().join("cache"))?;
//!
//! let tree = TreeSpec::new("data", dir.path().join("data"));
//! let options = BackupOptions::new("host", vec![SourceSpec::Tree(Box::new(tree))]);
//! let (counters, cancel) = (Counters::default(), Cancel::new());
//! let task = Task::new(&counters, &cancel);
//! backup(&repo, options, task)?;
//!
//! let what = SnapshotPath {
//!     snapshot: "latest".into(),
//!     source: Some("data".into()),
//!     path: RelPath::root(),
//! };
//! let target = RestoreTarget::Directory(dir.path().join("restored"));
//! let options = RestoreOptions::default();
//! restore(&repo, &what, target, &options, task)?;
//! assert_eq!(std::fs::read(dir.path().join("restored/file"))?, b"content");
//! # Ok(())
//! # }
//! ```
//!
//! # Code map
//!
//! A module uses only modules above it in this table; `tests/tidy` checks that.
//!
//! | module | purpose |
//! |---|---|
//! | [`types`] | values that are checked when they are built |
//! | [`advice`] | what a user can do about an error or a problem |
//! | [`observe`] | counters, phases and problems that an operation reports |
//! | [`task`] | where an operation reports, and how it is stopped |
//! | [`chunk`], [`mod@format`] | cutting, hashing, compressing and sealing; values as bytes |
//! | [`sys`] | durable writes, sorting outside memory, clocks |
//! | [`store`] | whole objects by key: a local directory, and stores for tests |
//! | [`index`] | the SQLite database that finds a chunk |
//! | [`source`], [`dest`] | reading trees and commands; writing trees |
//! | [`repo`] | formats, store and index under one set of rules |
//! | [`read`] | trees, contents, and what a snapshot reaches |
//! | [`ops`] | backup, restore, verify, forget, prune, repair, copy |
//! | [`ccn`] | nodes of aleph.im: compose files, Docker, PostgreSQL |
//! | [`jobs`] | operations as the configuration describes them |
//!
//! # Invariants
//!
//! 1. Packs are durable before the segment that adds them, segments before the snapshot that needs them.
//! 2. The index is a function of the segments that are listed now. It can be deleted at any time.
//! 3. A backup deduplicates only against packs that a listed segment adds and none condemns or drops.
//! 4. Every decoder is bounded and refuses input that an encoder would not have written.
//! 5. A path that could not be captured stays visible in each snapshot until it is captured.
//! 6. Prune deletes a pack only after every snapshot was found to resolve without it.
//!
//! `docs/architecture.md` explains them, `docs/protocol.md` argues why they hold, and
//! `docs/format.md` has the bytes.

pub mod advice;
pub mod ccn;
pub mod chunk;
pub mod dest;
mod error;
pub mod format;
pub mod index;
pub mod jobs;
pub mod observe;
pub mod ops;
pub mod read;
pub mod repo;
pub mod source;
pub mod store;
pub mod sys;
pub mod task;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod types;

pub use error::{Error, ErrorKind};
