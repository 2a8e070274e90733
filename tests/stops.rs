//! Backups that fail or are asked to stop: they end soon, wherever they are.

mod hook;

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use hook::Hook;
use icecore::Error;
use icecore::observe::Counter;
use icecore::ops::Cancel;
use icecore::ops::backup::{BackupOptions, SourceSpec, TreeSpec, backup};
use icecore::repo::{RepoError, Repository, Secret};
use icecore::store::{Effect, Fault, FaultyStore, MemoryStore, Operation, SharedStore, StoreError, Trouble};

struct World {
    tree: tempfile::TempDir,
    cache: tempfile::TempDir,
    store: SharedStore,
}

impl World {
    fn new() -> Self {
        let store: SharedStore = Arc::new(MemoryStore::new());
        Repository::init(&store, &Secret::empty(), "test").expect("init");
        let dir = || tempfile::tempdir().expect("a folder");
        Self { tree: dir(), cache: dir(), store }
    }

    fn repo_on(&self, store: SharedStore) -> Repository {
        Repository::open(store, &Secret::empty(), self.cache.path()).expect("open")
    }

    fn options(&self, immutable: bool) -> BackupOptions {
        let tree = TreeSpec { immutable, ..TreeSpec::new("tree", self.tree.path()) };
        BackupOptions::new("host", vec![SourceSpec::Tree(Box::new(tree))])
    }
}

/// A reader that failed ended alone: the walk and the other readers went on to the end of the tree, for hours.
#[test]
fn a_reader_that_failed_ends_the_walk() {
    const EMPTY: u64 = 10_000;
    let world = World::new();
    // 24 MiB, twice what the stages before the one that fails take in.
    let noise: Vec<u8> = (0..3u32 << 18).flat_map(|n| *blake3::hash(&n.to_le_bytes()).as_bytes()).collect();
    fs::write(world.tree.path().join("a"), &noise).expect("written");
    let folder = world.tree.path().join("b");
    fs::create_dir(&folder).expect("made");
    (0..EMPTY).for_each(|n| fs::write(folder.join(n.to_string()), b"").expect("written"));
    let faulty = Arc::new(FaultyStore::new(Arc::clone(&world.store)));
    let repo = world.repo_on(faulty.clone());
    let effect = Effect::ErrorBefore(Trouble::Full);
    faulty.plan(Fault { operation: Operation::Spool, kind: None, nth: 1, effect });
    let observer = Hook::new(|counter, _| {
        if counter == Counter::Entries {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let options = BackupOptions { threads: Some(2), ..world.options(false) };
    let full = backup(&repo, options, &observer, &Cancel::new());
    assert!(matches!(full, Err(Error::Repo(RepoError::Store(StoreError::Full { .. })))), "{full:?}");
    let walked = observer.recording.get(Counter::Entries);
    assert!(walked < EMPTY, "the walk went on: {walked}");
}
