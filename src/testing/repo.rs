//! A repository without a passphrase, and the tree that is backed up into it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use super::files::write;
use super::sources::tree_options;
use crate::Error;
use crate::format::{Snapshot, SourceKind, SourceRecord};
use crate::observe::Recording;
use crate::ops::backup::{BackupOptions, BackupReport, TreeSpec, backup};
use crate::ops::restore::{RestoreOptions, RestoreTarget, SnapshotPath, restore};
use crate::repo::{ChunkReader, MergedRuns, OnDamage, Repository, RunStreams, Secret};
use crate::store::{MemoryStore, SharedStore, Store};
use crate::sys::now;
use crate::task::{Cancel, Task};
use crate::types::{Entry, RelPath, SnapshotId};

/// Metadata that a reader keeps in memory.
const READER_BYTES: usize = 1 << 20;

/// A repository without a passphrase, a directory that is its source `tree`, and one client's cache.
///
/// All methods panic if the operation fails, except those whose result says otherwise.
pub struct TestRepo<S = MemoryStore> {
    /// The directory of the source `tree`.
    pub tree: TempDir,
    /// The repository's store, for tests that look at its objects.
    pub store: Arc<S>,
    cache: TempDir,
}

impl TestRepo {
    /// Creates a repository in memory. The store's clock stands at the present.
    pub fn new() -> Self {
        let store = MemoryStore::new();
        store.clock().set(now());
        Self::on(Arc::new(store))
    }
}

impl Default for TestRepo {
    fn default() -> Self {
        Self::new()
    }
}

impl<S: Store + 'static> TestRepo<S> {
    /// Creates a repository in an empty store.
    pub fn on(store: Arc<S>) -> Self {
        Self::with_tree(directory(), store)
    }

    /// Creates a repository in an empty store, with `tree` as its source.
    pub fn with_tree(tree: TempDir, store: Arc<S>) -> Self {
        let shared: SharedStore = store.clone();
        Repository::init(&shared, &Secret::empty(), "test").expect("init");
        Self {
            tree,
            store,
            cache: directory(),
        }
    }

    /// Opens the repository. All clients share one cache directory: without it a backup does not know
    /// the files of the last one, since the rules of a source name the cache.
    pub fn open(&self) -> Repository {
        self.open_on(self.store.clone())
    }

    /// Opens the repository through a decorator of its store.
    pub fn open_on(&self, store: SharedStore) -> Repository {
        Repository::open(store, &Secret::empty(), self.cache.path()).expect("open")
    }

    /// Opens the repository with another cache directory.
    pub fn open_with_cache(&self, cache: &Path) -> Repository {
        Repository::open(self.store.clone(), &Secret::empty(), cache).expect("open")
    }

    /// Returns a path in the tree.
    pub fn path(&self, name: &str) -> PathBuf {
        self.tree.path().join(name)
    }

    /// Writes a file in the tree, and creates the directories above it.
    pub fn write(&self, name: &str, content: &[u8]) {
        write(&self.path(name), content);
    }

    /// Returns the tree as the source `tree`, for the test to add rules.
    pub fn spec(&self) -> TreeSpec {
        TreeSpec::new("tree", self.tree.path())
    }

    /// Returns the options of a backup of the tree.
    pub fn options(&self) -> BackupOptions {
        tree_options(self.spec())
    }

    /// Makes a backup. Returns the report and the recorded events.
    pub fn backup(&self, options: BackupOptions) -> (BackupReport, Recording) {
        let (report, seen) = self.try_backup(options);
        (report.expect("backup"), seen)
    }

    /// Makes a backup that may fail. Returns the result and the recorded events.
    pub fn try_backup(&self, options: BackupOptions) -> (Result<BackupReport, Error>, Recording) {
        let seen = Recording::default();
        let report = self.backup_with_task(options, Task::new(&seen, &Cancel::new()));
        (report, seen)
    }

    /// Makes a backup with the caller's observer, which can be stopped.
    ///
    /// # Errors
    ///
    /// Those of [`backup`].
    pub fn backup_with_task(
        &self,
        options: BackupOptions,
        task: Task<'_>,
    ) -> Result<BackupReport, Error> {
        backup(&self.open(), options, task)
    }

    /// Restores the tree, or a path in it, into `target`. Returns the recorded events.
    pub fn restore(
        &self,
        snapshot: SnapshotId,
        path: &str,
        target: PathBuf,
        options: &RestoreOptions,
    ) -> Recording {
        let what = SnapshotPath {
            snapshot: snapshot.to_string(),
            source: Some("tree".into()),
            path: RelPath::from_slashed(path.as_bytes()).expect("a path"),
        };
        let seen = Recording::default();
        restore(
            &self.open(),
            &what,
            RestoreTarget::Directory(target),
            options,
            Task::new(&seen, &Cancel::new()),
        )
        .expect("restored");
        seen
    }

    /// Reads a snapshot.
    pub fn snapshot(&self, id: SnapshotId) -> Snapshot {
        self.open().read_snapshot(&id).expect("reads")
    }

    /// Reads a snapshot's record of the source `tree`.
    pub fn record(&self, id: SnapshotId) -> SourceRecord {
        self.snapshot(id).source("tree").expect("there").clone()
    }

    /// Reads all entries of a snapshot's tree.
    pub fn entries(&self, id: SnapshotId) -> Vec<Entry> {
        let repo = self.open();
        repo.sync().expect("sync");
        let SourceKind::Tree { runs, .. } = self.record(id).kind else {
            panic!("not a tree")
        };

        let reader = ChunkReader::new(&repo, READER_BYTES);
        let mut merged =
            MergedRuns::open(&reader, &runs, RunStreams::All, OnDamage::Fail).expect("opens");
        std::iter::from_fn(|| merged.next_entry().expect("reads")).collect()
    }

    /// Reads the paths of all entries of a snapshot's tree.
    pub fn names(&self, id: SnapshotId) -> Vec<String> {
        let entries = self.entries(id);
        entries.iter().map(|entry| entry.path.to_string()).collect()
    }
}

/// Returns the snapshot that a backup committed.
///
/// # Panics
///
/// If it committed none.
pub fn committed(report: &BackupReport) -> SnapshotId {
    report.snapshot.expect("committed")
}

fn directory() -> TempDir {
    tempfile::tempdir().expect("a directory")
}
