//! Cuts every operation at every write, on a memory store. The repository must then open, verify
//! and read back as the model predicts, with the cache that the crash left and with a new one, and
//! the next backup and prune must succeed.
//!
//! `ICECORE_CRASH_BASES=n` tries n histories; `ICECORE_CRASH_SEED=n` begins with that one.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use icecore::repo::{Repository, Secret};
use icecore::store::{MemoryStore, ObjectKey, SharedStore, Store, TestClock};
use icecore::testing::noise;
use icecore::types::{SnapshotId, Timestamp};

use crate::cut::{CutStore, Last};
use crate::deeds::{Job, Outcome, Work};
use crate::machine::{causes, copy_directory};
use crate::tree::{Rng, Thing};
use crate::world::{Held, Host, committed, difference, init, read_back, scratch, verify_all};

const HOUR: i64 = 3600;

/// A repository with a history, in the state that every cut starts from.
struct Base {
    store: Arc<MemoryStore>,
    time: Timestamp,
    host: Host,
    /// A copy of the host's cache in that state.
    cache: PathBuf,
    kept: BTreeMap<SnapshotId, Held>,
    forgotten: BTreeMap<SnapshotId, Held>,
    dir: tempfile::TempDir,
}

impl Base {
    fn new() -> Self {
        let dir = scratch();
        let clock = TestClock::stepping(icecore::sys::now(), 1_000_000);
        let store = Arc::new(MemoryStore::with_clock(&clock));
        init(&(store.clone() as SharedStore));
        let host = Host::new("one", dir.path().join("one"));
        let cache = dir.path().join("base-cache");
        let time = clock.now();
        Self {
            store,
            time,
            host,
            cache,
            kept: BTreeMap::new(),
            forgotten: BTreeMap::new(),
            dir,
        }
    }

    fn clock(&self) -> &TestClock {
        self.store.clock()
    }

    fn job(&self, store: SharedStore, work: Work) -> Job {
        Job {
            store,
            cache: self.host.cache(),
            host: self.host.name,
            work,
        }
    }

    fn run(&mut self, work: Work) -> Outcome {
        let ended = self.job(self.store.clone(), work).run();
        let outcome = ended.unwrap_or_else(|err| panic!("{err}{}", causes(&err)));
        match &outcome {
            Outcome::Committed(id) => {
                self.kept.insert(*id, self.host.held());
            }
            Outcome::Replaced { from, by } => {
                let held = self.kept.remove(from).expect("known");
                self.kept.insert(*by, held);
            }
            Outcome::Done(_) => {}
        }
        outcome
    }

    fn backup(&mut self) -> SnapshotId {
        let work = Work::Backup(Box::new(self.host.options()));
        match self.run(work) {
            Outcome::Committed(id) => id,
            other => panic!("no backup: {other:?}"),
        }
    }

    fn forget(&mut self, id: SnapshotId) {
        self.run(Work::Forget(id));
        let held = self.kept.remove(&id).expect("known");
        self.forgotten.insert(id, held);
    }

    fn held(&self, id: &SnapshotId) -> Option<&Held> {
        self.kept.get(id).or_else(|| self.forgotten.get(id))
    }

    fn pass(&mut self, seconds: i64) {
        self.clock().advance(seconds);
    }

    /// Backs up an edited tree several times; returns the ids.
    fn grow(&mut self, rng: &mut Rng, backups: usize) -> Vec<SnapshotId> {
        (0..backups)
            .map(|_| {
                self.host.tree.edit(rng);
                self.host.blocks.edit_blocks(rng);
                self.host
                    .tree
                    .put("always", Thing::File(noise(rng.next(), 6000)));
                self.pass(HOUR);
                self.backup()
            })
            .collect()
    }

    /// Cuts an operation at every write, with the last write lost and landed. Returns the number of
    /// cuts.
    fn cut(&mut self, name: &str, work: &dyn Fn(&Self) -> Work) -> u64 {
        self.time = self.clock().now();
        copy_directory(&self.host.cache(), &self.cache);

        let mut cuts = 0;
        for writes in 0.. {
            let mut through = false;
            for last in [Last::Lost, Last::Landed] {
                self.clock().set(self.time);
                copy_directory(&self.cache, &self.host.cache());
                let store = Arc::new(self.store.fork());
                let cut = Arc::new(CutStore::dying(store.clone(), writes, last));
                let ended = self.job(cut.clone(), work(self)).run();
                let where_ = format!("{name}, write {writes} {last:?}");
                if !cut.is_dead() {
                    let ended =
                        ended.unwrap_or_else(|err| panic!("{where_}: {err}{}", causes(&err)));
                    through = true;
                    self.judge(&store, &where_, &work(self), Some(&ended));
                    break;
                }
                cuts += 1;
                self.judge(&store, &where_, &work(self), ended.ok().as_ref());
            }
            if through {
                break;
            }
        }

        // Restore the state before the cuts.
        self.clock().set(self.time);
        copy_directory(&self.cache, &self.host.cache());
        cuts
    }

    /// Checks a repository after a crash or a completed operation.
    fn judge(&self, store: &Arc<MemoryStore>, where_: &str, work: &Work, ended: Option<&Outcome>) {
        let shared: SharedStore = store.clone();
        let mut kept = self.kept.clone();
        if let Some(Outcome::Committed(id)) = ended {
            kept.insert(*id, self.host.held());
        }

        let about = match work {
            Work::Forget(id) | Work::Undelete(id) | Work::Tag(id, _) => Some(*id),
            _ => None,
        };
        for id in self.kept.keys() {
            let is_there = |key| store.stat(&key).is_ok();
            let listed = is_there(ObjectKey::Snapshot(*id));
            let forgotten = about == Some(*id) && is_there(ObjectKey::Forgotten(*id));
            assert!(listed || forgotten, "{where_}: {} is gone", id.short());
            if !listed {
                kept.remove(id);
            }
        }

        let fresh = self.dir.path().join("fresh");
        let _ = std::fs::remove_dir_all(&fresh);
        let open = |cache: &PathBuf| {
            let repo = Repository::open(SharedStore::clone(&shared), &Secret::empty(), cache);
            let repo = repo.unwrap_or_else(|err| panic!("{where_}: does not open: {err}"));
            repo.sync().expect("syncs");
            repo
        };

        // A snapshot that landed without being reported must hold the state that its operation
        // intended.
        let look = open(&fresh);
        for id in committed(&look).unwrap_or_else(|err| panic!("{where_}: {err}")) {
            let snapshot = look.read_snapshot(&id).expect("opens");
            let older = snapshot
                .replaces
                .or(snapshot.original)
                .and_then(|id| self.held(&id));
            let meant = older.cloned().unwrap_or_else(|| self.host.held());
            kept.entry(id).or_insert(meant);
        }

        let compare = |repo: &Repository, kept: &BTreeMap<SnapshotId, Held>, when: &str| {
            for (id, held) in kept {
                let found = read_back(repo, id).unwrap_or_else(|err| {
                    panic!("{where_}, {when}: {}: {err}{}", id.short(), causes(&err))
                });
                if let Some(what) = difference(held, &found) {
                    panic!("{where_}, {when}: {}: {what}", id.short());
                }
            }
        };
        verify_all(&shared).unwrap_or_else(|what| panic!("{where_}: {what}"));
        compare(&look, &kept, "with a new cache");
        compare(&open(&self.host.cache()), &kept, "with the old cache");
        // From now on the dead client is known to be dead.
        self.clock().advance(3 * HOUR);
        let go_on = |work: Work| {
            let ended = self.job(SharedStore::clone(&shared), work).run();
            ended.unwrap_or_else(|err| panic!("{where_}, going on: {err}{}", causes(&err)))
        };
        if let Outcome::Committed(id) = go_on(Work::Backup(Box::new(self.host.options()))) {
            kept.insert(id, self.host.held());
        }
        go_on(Work::Prune { now: true });
        verify_all(&shared).unwrap_or_else(|what| panic!("{where_}, after a prune: {what}"));
        compare(&open(&self.host.cache()), &kept, "after a prune");
    }
}

/// Cuts every operation of one history.
fn cut_all(seed: u64) -> Vec<(&'static str, u64)> {
    let mut rng = Rng(seed);
    let mut base = Base::new();
    let mut out = Vec::new();
    let mut cut = |base: &mut Base, name: &'static str, work: &dyn Fn(&Base) -> Work| {
        out.push((name, base.cut(name, work)));
    };
    let backup = |base: &Base| Work::Backup(Box::new(base.host.options()));

    base.host.tree.edit(&mut rng);
    cut(&mut base, "first backup", &backup);

    let ids = base.grow(&mut rng, 5);
    base.host.tree.edit(&mut rng);
    base.host.dump = noise(seed, 50_000);
    cut(&mut base, "backup", &backup);
    cut(&mut base, "forget", &|_| Work::Forget(ids[1]));
    cut(&mut base, "tag", &|_| Work::Tag(ids[2], 1));
    cut(&mut base, "key add", &|_| Work::AddKey);
    cut(&mut base, "key change", &|_| Work::ChangeKey);
    cut(&mut base, "repair index", &|_| Work::RepairIndex);

    [ids[0], ids[1], ids[3]]
        .into_iter()
        .for_each(|id| base.forget(id));

    let back = ids[3];
    base.pass(HOUR);
    cut(&mut base, "undelete", &|_| Work::Undelete(back));
    cut(&mut base, "prune --now", &|_| Work::Prune { now: true });

    base.pass(30 * HOUR);
    cut(&mut base, "mark", &|_| Work::Prune { now: false });
    base.run(Work::Prune { now: false });

    base.grow(&mut rng, 2);
    base.pass(30 * HOUR);
    cut(&mut base, "sweep", &|_| Work::Prune { now: false });
    base.run(Work::Prune { now: false });
    base.host.tree.edit(&mut rng);
    cut(&mut base, "backup after a sweep", &backup);
    out
}

#[test]
fn every_operation_cut_at_every_write_leaves_a_whole_repository() {
    let number = |name| {
        std::env::var(name)
            .ok()
            .and_then(|text: String| text.parse::<u64>().ok())
    };
    let bases = number("ICECORE_CRASH_BASES").unwrap_or(8);
    let first = number("ICECORE_CRASH_SEED").unwrap_or(1);
    let next = AtomicU64::new(0);

    let run = || {
        let mut all = Vec::new();
        loop {
            let base = next.fetch_add(1, Ordering::Relaxed);
            if base >= bases {
                return all;
            }
            println!("crash history {}", first + base);
            all.extend(cut_all(first + base));
        }
    };

    let threads = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(4);
    let all: Vec<(&str, u64)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("a cut left a broken repository"))
            .collect()
    });

    let mut by_name: BTreeMap<&str, u64> = BTreeMap::new();
    all.iter()
        .for_each(|(name, cuts)| *by_name.entry(name).or_default() += cuts);
    let total: u64 = by_name.values().sum();
    println!("{total} cut points in {bases} histories: {by_name:?}");
    assert!(
        total >= bases * 60 && by_name.values().all(|&cuts| cuts >= 2 * bases),
        "{by_name:?}"
    );
}
