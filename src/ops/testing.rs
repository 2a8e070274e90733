//! A repository in memory and trees to back up, for tests of operations.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::chunk::CHUNK_BYTES_MAX;
use crate::format::{
    LeaseKind, RunRef, Snapshot, SnapshotState, SourceCounts, SourceKind, SourceRecord,
};
use crate::observe::{Counters, Observer};
use crate::ops::backup::{BackupOptions, SourceSpec, TreeSpec, backup};
use crate::read::ReadSession;
use crate::repo::{
    ChunkReader, Claims, Lease, MergedRuns, OnDamage, Packer, PackerOptions, Repository,
    RunStreams, RunWriter, Secret,
};
use crate::source::SourceDir;
use crate::store::{MemoryStore, ObjectBody, PutMode, SharedStore, Store};
use crate::sys::now;
use crate::task::{Cancel, Task};
use crate::types::{
    ChunkClass, Content, Entry, Extent, MissingNames, PlainLen, SnapshotId, to_u64,
};

pub use crate::testing::{noise, write};

pub struct Lab {
    pub store: Arc<MemoryStore>,
    dir: tempfile::TempDir,
}

impl Lab {
    pub fn new() -> Self {
        let lab = Self::with_store(MemoryStore::new());
        let store: SharedStore = lab.store.clone();
        Repository::init(&store, &Secret::empty(), "test").expect("init");
        lab
    }

    /// A repository with this percentage of recovery data.
    pub fn with_parity(percent: u8) -> Self {
        let lab = Self::with_store(MemoryStore::new());
        let store: SharedStore = lab.store.clone();
        let id = crate::types::RepoId::new([7; 16]);
        Repository::init_with(&store, id, &Secret::empty(), "test", Some(percent)).expect("init");
        lab
    }

    pub fn with_store(store: MemoryStore) -> Self {
        store.clock().set(now());
        Self {
            store: Arc::new(store),
            dir: tempfile::tempdir().expect("a directory"),
        }
    }

    /// The same objects in another store, with another cache.
    pub fn fork(&self) -> Self {
        Self::with_store(self.store.fork())
    }

    /// Copies the objects into another store, in an order and with times from `shuffle`, like a
    /// copy by a tool that keeps no times. The clocks agree afterwards.
    pub fn copied_without_times(&self, mut shuffle: impl FnMut() -> u64) -> Self {
        let copy = Self::with_store(MemoryStore::new());
        let mut objects = self.store.objects();
        objects.sort_by_cached_key(|_| shuffle());
        let now = self.store.clock().now();
        for meta in objects {
            let back = i64::try_from(shuffle() % (400 * 86_400)).expect("small") - 30 * 86_400;
            copy.store.clock().set(now.plus_seconds(-back));
            let bytes = self.store.get(&meta.key, u64::MAX >> 1).expect("there");
            copy.store
                .put(&meta.key, ObjectBody::Bytes(&bytes), PutMode::CreateOnly)
                .expect("put");
        }
        copy.store.clock().set(now);
        copy
    }

    pub fn try_open(&self) -> Result<Repository, crate::repo::RepoError> {
        self.try_open_on(self.store.clone())
    }

    /// Opens it through a decorator of the store, with the same cache.
    pub fn try_open_on(&self, store: SharedStore) -> Result<Repository, crate::repo::RepoError> {
        Repository::open(store, &Secret::empty(), &self.dir.path().join("cache"))
    }

    pub fn open(&self) -> Repository {
        self.try_open().expect("opens")
    }

    /// Returns a directory for test files.
    pub fn tree(&self) -> PathBuf {
        let path = self.dir.path().join("tree");
        std::fs::create_dir_all(&path).expect("made");
        path
    }

    /// Backs up the directory as `tree`, and `stream` as `db` if it is not empty.
    pub fn backup(&self, repo: &Repository, stream: &[u8]) -> SnapshotId {
        self.backup_as(repo, TreeSpec::new("tree", self.tree()), stream)
    }

    /// The same with other rules: without `*.log` and the directory `own`, which the snapshot marks
    /// as missing.
    pub fn backup_in_part(&self, repo: &Repository) -> SnapshotId {
        let mut tree = TreeSpec::new("tree", self.tree());
        tree.filter.excludes = vec!["*.log".into()];
        tree.filter.never = vec![
            SourceDir::open_root(&self.tree().join("own"))
                .expect("opens")
                .id(),
        ];
        self.backup_as(repo, tree, &[])
    }

    fn backup_as(&self, repo: &Repository, tree: TreeSpec, stream: &[u8]) -> SnapshotId {
        let mut sources = vec![SourceSpec::Tree(Box::new(tree))];
        if !stream.is_empty() {
            let input = Box::new(std::io::Cursor::new(stream.to_vec()));
            sources.insert(
                0,
                SourceSpec::Stream {
                    name: "db".into(),
                    input,
                },
            );
        }
        let options = BackupOptions {
            allow_empty: true,
            ..BackupOptions::new("host", sources)
        };
        let report = backup(
            repo,
            options,
            Task::new(&Counters::default(), &Cancel::new()),
        )
        .expect("backed up");
        report.snapshot.expect("committed")
    }
}

/// Returns the directories of the source `tree` that a snapshot marks as lacking names, and its
/// count of them.
pub fn marks(repo: &Repository, id: SnapshotId) -> (BTreeMap<String, MissingNames>, Option<u64>) {
    repo.sync().expect("synced");
    let snapshot = repo.read_snapshot(&id).expect("read");
    let source = snapshot.source("tree").expect("the tree");
    let SourceKind::Tree { runs, .. } = &source.kind else {
        panic!("a tree")
    };
    let reader = ChunkReader::new(repo, 1 << 20);
    let mut merged =
        MergedRuns::open(&reader, runs, RunStreams::All, OnDamage::Fail).expect("opens");
    let entries = std::iter::from_fn(|| merged.next_entry().expect("read"));
    let marked = entries.filter_map(|entry| Some((entry.path.to_string(), entry.missing_names()?)));
    (marked.collect(), source.counts.partial)
}

/// Writes the given runs, and one data chunk for each of the byte strings.
pub fn write_runs(
    repo: &Repository,
    lease: &Lease,
    runs: &[Vec<Entry>],
    data: &[&[u8]],
) -> (Vec<RunRef>, Vec<Content>) {
    repo.sync().expect("synced");
    let claims = Claims::new(repo.index()).expect("claims");
    let observer = Counters::default();
    std::thread::scope(|scope| {
        let options = PackerOptions {
            workers: 1,
            level: 1,
            dry_run: false,
        };
        let packer =
            Packer::start(scope, repo, Some(lease), &claims, options, &observer).expect("started");

        let mut pages = packer.writer(ChunkClass::Metadata);
        let mut chunks = packer.writer(ChunkClass::Data);

        let contents = data.iter().map(|bytes| {
            assert!(bytes.len() <= CHUNK_BYTES_MAX);
            let id = chunks.add(bytes).expect("added");
            Content {
                size: to_u64(bytes.len()),
                extents: vec![Extent::Chunk {
                    id,
                    len: PlainLen::of(bytes).expect("small"),
                }],
            }
        });
        let contents = contents.collect();

        let mut put = |bytes: &[u8]| pages.add(bytes);
        let refs = runs.iter().map(|entries| {
            let mut run = RunWriter::new(&mut put);
            entries
                .iter()
                .for_each(|entry| run.push(entry, entry.is_directory()).expect("pushed"));
            run.finish().expect("finished").expect("entries")
        });
        let refs = refs.collect();

        pages.flush().expect("flushed");
        chunks.flush().expect("flushed");
        drop((pages, chunks));
        packer.finish().expect("stored");
        (refs, contents)
    })
}

pub fn lease(repo: &Repository) -> Lease {
    Lease::take(repo, LeaseKind::Backup).expect("a lease")
}

/// Commits a snapshot of these sources.
pub fn commit(repo: &Repository, lease: Lease, sources: Vec<(&str, SourceKind)>) -> SnapshotId {
    let record = |(name, kind): (&str, SourceKind)| SourceRecord {
        name: name.into(),
        kind,
        profile: "tree-64k".into(),
        started: now(),
        ended: now(),
        digest: [0; 32],
        counts: SourceCounts::default(),
        suspect: None,
        numeric_owners: false,
        moved_from: Vec::new(),
    };

    let snapshot = Snapshot {
        format: 1,
        state: SnapshotState::Complete,
        host: "host".into(),
        tags: Vec::new(),
        program: "test".into(),
        started: now(),
        ended: now(),
        lease: lease.id(),
        heartbeat: lease.last_heartbeat(),
        parents: Vec::new(),
        sources: sources.into_iter().map(record).collect(),
        images: Vec::new(),
        protected: false,
        replaces: None,
        original: None,
        committed: None,
        lost: None,
        other: Default::default(),
    };
    repo.commit(lease, snapshot).expect("committed").id
}

/// Commits a complete, empty snapshot of `host`, changed by `change`.
pub fn commit_as(
    repo: &Repository,
    lease: Lease,
    change: impl FnOnce(&mut Snapshot),
) -> SnapshotId {
    let mut snapshot = Snapshot {
        format: 1,
        state: SnapshotState::Complete,
        host: "host".into(),
        tags: Vec::new(),
        program: "test".into(),
        started: lease.started(),
        ended: lease.started(),
        lease: lease.id(),
        heartbeat: lease.started(),
        parents: Vec::new(),
        sources: Vec::new(),
        images: Vec::new(),
        protected: false,
        replaces: None,
        original: None,
        committed: None,
        lost: None,
        other: Default::default(),
    };
    change(&mut snapshot);
    repo.commit(lease, snapshot).expect("committed").id
}

pub fn tree_kind(runs: &[RunRef]) -> SourceKind {
    SourceKind::Tree {
        path: b"/x".to_vec(),
        immutable: false,
        runs: runs.to_vec(),
    }
}

/// Opens a session that reports to `observer`, and calls `act` with it.
pub fn reading<T>(
    repo: &Repository,
    observer: &dyn Observer,
    act: impl FnOnce(&ReadSession<'_>) -> T,
) -> T {
    let cancel = Cancel::new();
    let session = ReadSession::open(repo, Task::new(observer, &cancel)).expect("a session");
    act(&session)
}
