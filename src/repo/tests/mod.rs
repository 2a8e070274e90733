//! Tests of the repository's rules on in-memory stores.

mod interleavings;
mod keys;
mod leases;
mod runs;
mod writer;

use std::sync::Arc;

use super::{
    Claims, FrameWriter, Lease, LeaseTimes, PackedSource, Packer, PackerOptions, RepoError,
    Repository, Secret,
};
use crate::format::{FORMAT_VERSION, LeaseKind, Snapshot, SnapshotState};
use crate::observe::Recording;
use crate::store::{MemoryStore, SharedStore};
use crate::types::{ChunkClass, ChunkId, LeaseId, SnapshotId, Timestamp};

/// An in-memory repository and the directory of its caches.
struct Fixture {
    memory: Arc<MemoryStore>,
    caches: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let memory = Arc::new(MemoryStore::new());
        let store: SharedStore = memory.clone();
        Repository::init(&store, &Secret::empty(), "test").expect("init");
        Self {
            memory,
            caches: tempfile::tempdir().expect("a directory"),
        }
    }

    fn store(&self) -> SharedStore {
        self.memory.clone()
    }

    /// Opens a client of the repository with the cache directory `cache`.
    fn open(&self, cache: &str) -> Repository {
        self.open_on(self.store(), cache).expect("opens")
    }

    fn open_on(&self, store: SharedStore, cache: &str) -> Result<Repository, RepoError> {
        Repository::open(store, &Secret::empty(), &self.caches.path().join(cache))
    }
}

fn lease(repo: &Repository) -> Lease {
    take_lease(repo, LeaseTimes::default()).expect("a lease")
}

fn take_lease(repo: &Repository, times: LeaseTimes) -> Result<Lease, RepoError> {
    Lease::take_with(repo, LeaseKind::Backup, times)
}

const OPTIONS: PackerOptions = PackerOptions {
    workers: 2,
    level: 1,
    dry_run: false,
};

/// Runs a packer to its end around `work`, which gets a writer of each class.
fn pack<T>(
    repo: &Repository,
    lease: Option<&Lease>,
    options: PackerOptions,
    work: impl FnOnce(&mut FrameWriter<'_>, &mut FrameWriter<'_>) -> Result<T, RepoError>,
) -> Result<(T, PackedSource), RepoError> {
    let claims = Claims::new(repo.index())?;
    let observer = Recording::default();
    std::thread::scope(|scope| {
        let packer = Packer::start(scope, repo, lease, &claims, options, &observer)?;
        let mut data = packer.writer(ChunkClass::Data);
        let mut metadata = packer.writer(ChunkClass::Metadata);
        let run = || {
            let out = work(&mut data, &mut metadata)?;
            data.flush()?;
            metadata.flush()?;
            Ok(out)
        };
        let out: Result<T, RepoError> = run();
        drop((data, metadata));
        let packed = packer.finish();
        match (out, packed) {
            (Ok(out), Ok(packed)) => Ok((out, packed)),
            (Err(RepoError::Stopped), Err(err)) | (Ok(_), Err(err)) => Err(err),
            (Err(err), _) => Err(err),
        }
    })
}

/// Stores data chunks and returns their ids.
fn store_chunks(
    repo: &Repository,
    lease: &Lease,
    chunks: &[&[u8]],
) -> Result<Vec<ChunkId>, RepoError> {
    pack(repo, Some(lease), OPTIONS, |data, _| {
        chunks.iter().map(|chunk| data.add(chunk)).collect()
    })
    .map(|(ids, _)| ids)
}

fn snapshot(parents: &[SnapshotId]) -> Snapshot {
    Snapshot {
        format: FORMAT_VERSION,
        state: SnapshotState::Complete,
        host: "host".into(),
        tags: vec![],
        program: "test".into(),
        started: Timestamp::from_seconds(1),
        ended: Timestamp::from_seconds(2),
        lease: LeaseId::new([0; 16]),
        heartbeat: Timestamp::default(),
        parents: parents.to_vec(),
        sources: vec![],
        images: Vec::new(),
        protected: false,
        replaces: None,
        original: None,
        committed: None,
        lost: None,
        other: Default::default(),
    }
}
