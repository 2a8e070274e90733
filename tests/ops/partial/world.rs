//! A tree on a real file system, a repository in memory, and the marks of a snapshot's directories.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use icecore::format::{SourceKind, SourceRecord};
use icecore::observe::Recording;
use icecore::ops::backup::{BackupOptions, BackupReport, SourceSpec, TreeSpec, backup};
use icecore::repo::{ChunkReader, MergedRuns, Repository, RunStreams, Secret};
use icecore::store::{MemoryStore, SharedStore};
use icecore::task::{Cancel, Task};
use icecore::types::{Entry, MissingNames, SnapshotId};

/// A source's tree, and the repository for its backups.
pub struct World {
    pub tree: tempfile::TempDir,
    cache: tempfile::TempDir,
    /// The cache for backups by an ordinary user.
    pub user_cache: tempfile::TempDir,
    pub store: SharedStore,
}

impl World {
    pub fn new() -> Self {
        let store: SharedStore = Arc::new(MemoryStore::new());
        Repository::init(&store, &Secret::empty(), "test").expect("init");
        let dir = || tempfile::tempdir().expect("a directory");
        Self {
            tree: dir(),
            cache: dir(),
            user_cache: dir(),
            store,
        }
    }

    pub fn repo(&self) -> Repository {
        Repository::open(self.store.clone(), &Secret::empty(), self.cache.path()).expect("open")
    }

    pub fn repo_of_user(&self) -> Repository {
        Repository::open(self.store.clone(), &Secret::empty(), self.user_cache.path())
            .expect("open")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.tree.path().join(name)
    }

    pub fn write(&self, name: &str, content: &[u8]) {
        write(&self.path(name), content);
    }

    /// Returns the tree as a source, for the test to add rules.
    pub fn spec(&self) -> TreeSpec {
        TreeSpec::new("tree", self.tree.path())
    }

    pub fn backup(&self, spec: TreeSpec) -> BackupReport {
        let options = BackupOptions::new("host", vec![SourceSpec::Tree(Box::new(spec))]);
        backup(
            &self.repo(),
            options,
            Task::new(&Recording::default(), &Cancel::new()),
        )
        .expect("backup")
    }

    pub fn record(&self, snapshot: &SnapshotId) -> SourceRecord {
        let repo = self.repo();
        repo.read_snapshot(snapshot)
            .expect("reads")
            .source("tree")
            .expect("there")
            .clone()
    }

    /// Returns all entries of a snapshot's tree.
    pub fn entries(&self, snapshot: &SnapshotId) -> Vec<Entry> {
        let repo = self.repo();
        repo.sync().expect("sync");
        let record = self.record(snapshot);
        let SourceKind::Tree { runs, .. } = &record.kind else {
            panic!("not a tree")
        };
        let reader = ChunkReader::new(&repo, 1 << 20);
        let mut merged = MergedRuns::open(&reader, runs, RunStreams::All, false).expect("opens");
        std::iter::from_fn(|| merged.next_entry().expect("reads")).collect()
    }

    /// Returns the directories that a snapshot marks, and the reasons.
    pub fn marks(&self, snapshot: &SnapshotId) -> BTreeMap<String, MissingNames> {
        let entries = self.entries(snapshot);
        entries
            .iter()
            .filter_map(|entry| Some((entry.path.to_string(), entry.missing_names()?)))
            .collect()
    }
}

/// Writes a file, and creates the directories above it.
pub fn write(path: &Path, content: &[u8]) {
    fs::create_dir_all(path.parent().expect("has a parent")).expect("directories");
    fs::write(path, content).expect("written");
}
