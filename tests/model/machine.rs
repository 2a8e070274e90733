//! Runs a script against a repository and a naive model of it: the committed snapshots and the
//! contents of each. On a difference it panics, with the steps so far on stderr.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use icecore::repo::{RepoError, Repository, Secret};
use icecore::store::{
    Fault, FaultyStore, ListingLag, MemoryStore, ModelWorld, ObjectKey, SharedStore, TestClock,
};
use icecore::testing::noise;
use icecore::types::SnapshotId;
use icecore::{Error, ErrorKind};

use crate::cut::CutStore;
use crate::deeds::{Job, Outcome, Work};
use crate::script::{Deed, Mishap, Raw, Step, from_bytes};
use crate::tree::Rng;
use crate::world::{
    Held, Host, committed, difference, init, read_back, scratch, shared, verify_all,
};

/// The longest lag of listings, and the most that the store's clock is ahead of real time: together
/// they are the protocol's margin M, one hour.
const LAG_SECONDS: i64 = 30 * 60;

/// True while a failing script is shortened: its steps are not printed then.
pub static QUIET: AtomicBool = AtomicBool::new(false);

/// A snapshot in the model.
#[derive(Debug, Clone)]
struct Kept {
    held: Held,
    is_live: bool,
    /// Its backup did not report that it was committed, so it may be withdrawn.
    is_tentative: bool,
}

/// Counters of a run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    pub steps: u64,
    pub snapshots: u64,
    pub crashes: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.steps += other.steps;
        self.snapshots += other.snapshots;
        self.crashes += other.crashes;
    }
}

pub struct Machine {
    world: ModelWorld,
    lags: bool,
    /// Seconds that the store's clock is ahead.
    ahead: i64,
    hosts: [Host; 2],
    clients: [SharedStore; 2],
    /// An observer of the true state of the store, with a separate cache.
    watch: Repository,
    kept: BTreeMap<SnapshotId, Kept>,
    tally: Tally,
    log: String,
    dir: tempfile::TempDir,
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() && !QUIET.load(Ordering::Relaxed) {
            eprintln!("the steps:\n{}", self.log);
        }
    }
}

/// Plays any bytes: the first byte chooses the seed, all others are steps.
pub fn play(bytes: &[u8]) -> Tally {
    match bytes.split_first() {
        Some((seed, steps)) => Machine::new(u64::from(*seed)).run(&from_bytes(steps)),
        None => Tally::default(),
    }
}

impl Machine {
    /// Creates a machine. `seed` decides whether listings lag, and everything that steps do not
    /// specify.
    pub fn new(seed: u64) -> Self {
        let dir = scratch();
        let lags = seed.is_multiple_of(3);

        let clock = TestClock::stepping(icecore::sys::now(), 1_000_000);
        let world = ModelWorld::new(&clock, seed);
        let world = if seed.is_multiple_of(5) {
            world.with_whole_seconds()
        } else {
            world
        };
        let world = if lags {
            world
        } else {
            world.with_strong_listing()
        };

        init(&shared(world.client()));
        if lags {
            world.set_lag(ListingLag::up_to(LAG_SECONDS));
            world.advance(LAG_SECONDS);
        }

        let mut hosts = [
            Host::new("one", dir.path().join("one")),
            Host::new("two", dir.path().join("two")),
        ];
        hosts[1].checkpoints = seed.is_multiple_of(2);

        let clients = [shared(world.client()), shared(world.client())];
        let memory: SharedStore = world.memory().clone();
        let watch =
            Repository::open(memory, &Secret::empty(), &dir.path().join("watch")).expect("opens");
        let log = format!(
            "seed {seed}, listings {}\n",
            if lags { "lag" } else { "are strong" }
        );

        let kept = BTreeMap::new();
        let tally = Tally::default();
        Self {
            world,
            lags,
            ahead: 0,
            hosts,
            clients,
            watch,
            kept,
            tally,
            log,
            dir,
        }
    }

    /// Runs all steps, then checks everything, prunes several times and checks again.
    pub fn run(mut self, script: &[Raw]) -> Tally {
        for raw in script {
            let step = Step::decode(*raw);
            let _ = writeln!(self.log, "{raw:?} {step:?}");
            self.step(step);
            self.tally.steps += 1;
        }
        self.settle();
        self.tally
    }

    fn memory(&self) -> &Arc<MemoryStore> {
        self.world.memory()
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Edit { host, seed } => self.edit(host, seed),
            Step::Do { host, deed, mishap } => self.act(host, deed, mishap),
            Step::Advance(seconds) => self.world.advance(seconds),
            Step::Jump(ahead) => {
                self.world.jump(ahead - self.ahead);
                self.ahead = ahead;
            }
            Step::IndexLost { host } => remove_directory(&self.hosts[host].cache()),
            Step::IndexKept { host } => {
                copy_directory(&self.hosts[host].cache(), &self.hosts[host].old_cache());
            }
            Step::IndexPutBack { host } => {
                let old = self.hosts[host].old_cache();
                let cache = self.hosts[host].cache();
                if old.is_dir() {
                    copy_directory(&old, &cache);
                }
            }
            Step::Read { host, which } => self.read(host, which),
        }
    }

    fn edit(&mut self, host: usize, seed: u16) {
        let mut rng = Rng(u64::from(seed));
        let host = &mut self.hosts[host];
        match rng.below(8) {
            0 => host.dump = noise(rng.below(4), rng.below(3) as usize * 40_000),
            1 | 2 => host.blocks.edit_blocks(&mut rng),
            _ => host.tree.edit(&mut rng),
        }
    }

    fn live(&self) -> Vec<SnapshotId> {
        self.kept
            .iter()
            .filter(|(_, kept)| kept.is_live && !kept.is_tentative)
            .map(|(id, _)| *id)
            .collect()
    }

    fn job(&self, host: usize, deed: Deed, store: SharedStore) -> Option<Job> {
        let pick = |from: &[SnapshotId], which: u8| {
            (!from.is_empty()).then(|| from[usize::from(which) % from.len()])
        };
        let work = match deed {
            Deed::Backup => Work::Backup(Box::new(self.hosts[host].options())),
            Deed::Prune => Work::Prune { now: false },
            Deed::PruneNow if self.lags => return None,
            Deed::PruneNow => Work::Prune { now: true },
            Deed::Forget(which) => Work::Forget(pick(&self.live(), which)?),
            Deed::Undelete(which) => {
                let gone: Vec<_> = self
                    .kept
                    .iter()
                    .filter(|(_, kept)| !kept.is_live)
                    .map(|(id, _)| *id)
                    .collect();
                Work::Undelete(pick(&gone, which)?)
            }
            Deed::Tag(which) => Work::Tag(pick(&self.live(), which)?, which),
            Deed::RepairIndex => Work::RepairIndex,
            Deed::RepairPacks => Work::RepairPacks,
            Deed::AddKey => Work::AddKey,
        };

        Some(Job {
            store,
            cache: self.hosts[host].cache(),
            host: self.hosts[host].name,
            work,
        })
    }

    fn act(&mut self, host: usize, deed: Deed, mishap: Mishap) {
        let client = SharedStore::clone(&self.clients[host]);
        let (store, faulted): (SharedStore, bool) = match mishap {
            Mishap::None => (client, false),
            Mishap::Crash { writes, last } => {
                self.tally.crashes += 1;
                (shared(CutStore::dying(client, writes, last)), true)
            }
            Mishap::Sleep { call, seconds } => {
                let world = self.world.clone();
                (
                    shared(CutStore::hooked(
                        client,
                        call,
                        Box::new(move || world.advance(seconds)),
                    )),
                    true,
                )
            }
            Mishap::Fault {
                operation,
                kind,
                nth,
                effect,
            } => {
                let faulty = FaultyStore::new(client);
                faulty.plan(Fault {
                    operation,
                    kind,
                    nth,
                    effect,
                });
                (shared(faulty), true)
            }
            Mishap::Meanwhile { call, deed: other } => {
                return self.act_meanwhile(host, deed, call, other);
            }
        };

        let Some(job) = self.job(host, deed, store) else {
            return;
        };

        let about = subject(&job.work);
        let result = job.run();
        self.judge(host, about, result, faulted);
    }

    /// Pauses one host in the middle of its operation, runs one of the other host, and resumes the
    /// first.
    fn act_meanwhile(&mut self, host: usize, deed: Deed, call: u64, other: Deed) {
        let (paused, is_paused) = mpsc::channel::<()>();
        let (resume, resumed) = mpsc::channel::<()>();
        let hook = Box::new(move || {
            let _ = paused.send(());
            let _ = resumed.recv();
        });
        let store = CutStore::hooked(SharedStore::clone(&self.clients[host]), call, hook);
        let Some(job) = self.job(host, deed, shared(store)) else {
            return;
        };

        let about = subject(&job.work);
        let thread = std::thread::spawn(|| job.run());
        // An error means that the operation ended before that call and dropped its hook.
        if is_paused.recv().is_ok() {
            self.act(1 - host, other, Mishap::None);
        }

        drop(resume);
        let result = match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        self.judge(host, about, result, true);
    }

    /// Compares the result of an operation with the model. `faulted`: it was disturbed, so it may
    /// have failed.
    fn judge(
        &mut self,
        host: usize,
        about: Option<SnapshotId>,
        result: Result<Outcome, Error>,
        faulted: bool,
    ) {
        let result_text = match &result {
            Ok(outcome) => format!("{outcome:?}"),
            Err(err) => format!("failed: {err}{}", causes(err)),
        };

        let _ = writeln!(
            self.log,
            "    at {}: {result_text}",
            self.memory().clock().now().seconds()
        );

        match result {
            Ok(Outcome::Committed(id)) => {
                let held = self.hosts[host].held();
                self.kept.insert(
                    id,
                    Kept {
                        held,
                        is_live: true,
                        is_tentative: false,
                    },
                );
                self.tally.snapshots += 1;
                self.check(&id);
            }
            Ok(Outcome::Replaced { from, by }) => {
                let held = self.kept[&from].held.clone();
                self.kept.insert(
                    by,
                    Kept {
                        held,
                        is_live: true,
                        is_tentative: false,
                    },
                );
                self.check(&by);
            }
            Ok(Outcome::Done(_)) => {}
            Err(err) => assert!(
                faulted || self.may_fail(&err, about),
                "nothing was in its way: {result_text}"
            ),
        }

        self.compare_listing(about);
    }

    /// Returns true if the error can be due to a lagging listing or to the other host's operation.
    fn may_fail(&self, err: &Error, about: Option<SnapshotId>) -> bool {
        let refused = matches!(
            err,
            Error::Repo(RepoError::Refused { .. } | RepoError::NoSuchSnapshot { .. })
        );
        // Bringing back a forgotten snapshot may always fail.
        about.is_some() || refused || (self.lags && err.kind() == ErrorKind::Damage)
    }

    /// Asserts that no snapshot vanishes unless it was forgotten; adds new snapshots to the model.
    fn compare_listing(&mut self, about: Option<SnapshotId>) {
        let objects = self.memory().objects();
        let is_there = |key: &ObjectKey| objects.iter().any(|meta| meta.key == *key);

        self.kept
            .retain(|id, kept| !kept.is_tentative || is_there(&ObjectKey::Snapshot(*id)));

        for (id, kept) in &mut self.kept {
            let is_live = is_there(&ObjectKey::Snapshot(*id));
            assert!(
                is_live || !kept.is_live || is_there(&ObjectKey::Forgotten(*id)),
                "snapshot {} is gone (the step was about {about:?})",
                id.short()
            );
            kept.is_live = is_live;
        }

        let all = committed(&self.watch).expect("every snapshot opens");
        for id in all {
            if !self.kept.contains_key(&id) {
                let snapshot = self.watch.read_snapshot(&id).expect("opens");
                // A replacement holds the content of the snapshot that it replaces.
                let older = snapshot
                    .replaces
                    .or(snapshot.original)
                    .and_then(|id| self.kept.get(&id));
                let host = self
                    .hosts
                    .iter()
                    .find(|host| host.name == snapshot.host)
                    .expect("one of ours");
                let held = older.map_or_else(|| host.held(), |older| older.held.clone());
                let kept = Kept {
                    held,
                    is_live: true,
                    is_tentative: true,
                };
                self.kept.insert(id, kept);
            }
        }
    }

    /// Reads a snapshot through the observer of the true state.
    fn check(&self, id: &SnapshotId) {
        self.watch.sync().expect("syncs");
        let found = read_back(&self.watch, id)
            .unwrap_or_else(|err| panic!("{}: {err}{}", id.short(), causes(&err)));
        if let Some(what) = difference(&self.kept[id].held, &found) {
            panic!("snapshot {}: {what}", id.short());
        }
    }

    fn read(&mut self, host: usize, which: u8) {
        let live = self.live();
        if live.is_empty() {
            return;
        }
        let id = live[usize::from(which) % live.len()];
        let repo = self.hosts[host].open(&self.clients[host]).expect("opens");
        let _ = repo.sync().expect("syncs");
        match read_back(&repo, &id) {
            Ok(found) => {
                let what = difference(&self.kept[&id].held, &found);
                assert!(
                    what.is_none(),
                    "snapshot {} read by {}: {what:?}",
                    id.short(),
                    self.hosts[host].name
                );
            }
            Err(err) => {
                assert!(
                    self.lags && self.may_fail(&err, None),
                    "{}: {err}{}",
                    id.short(),
                    causes(&err)
                );
            }
        }
    }

    /// Lets time pass until all listings are up to date and all dead clients are known to be dead.
    /// Then checks everything.
    fn settle(&mut self) {
        let _ = writeln!(self.log, "settling");
        self.world.set_lag(ListingLag::default());
        self.world.advance(3 * 3600);

        // A snapshot that landed without being reported counts from now on: no client is left to
        // withdraw it.
        self.kept
            .values_mut()
            .for_each(|kept| kept.is_tentative = false);
        self.check_all("as it was left");

        for host in 0..2 {
            self.act(host, Deed::Backup, Mishap::None);
        }

        for round in ["after a mark", "after a sweep", "after another"] {
            self.act(0, Deed::Prune, Mishap::None);
            self.check_all(round);
            self.world.advance(26 * 3600);
        }

        self.act(1, Deed::Backup, Mishap::None);
        self.check_all("at the end");
    }

    fn check_all(&self, when: &str) {
        let memory: SharedStore = self.memory().clone();
        if let Err(what) = verify_all(&memory) {
            panic!("{when}: {what}");
        }
        let fresh = self.dir.path().join("fresh");
        remove_directory(&fresh);
        let caches = [fresh, self.hosts[0].cache(), self.hosts[1].cache()];
        for (cache, store) in caches
            .iter()
            .zip([&memory, &self.clients[0], &self.clients[1]])
        {
            let repo = Repository::open(SharedStore::clone(store), &Secret::empty(), cache)
                .expect("opens");
            repo.sync().expect("syncs");
            for (id, kept) in self.kept.iter().filter(|(_, kept)| kept.is_live) {
                let found = read_back(&repo, id)
                    .unwrap_or_else(|err| panic!("{when}: {}: {err}{}", id.short(), causes(&err)));
                if let Some(what) = difference(&kept.held, &found) {
                    panic!(
                        "{when}: snapshot {} with {}: {what}",
                        id.short(),
                        cache.display()
                    );
                }
            }
        }
    }
}

fn subject(work: &Work) -> Option<SnapshotId> {
    match work {
        Work::Forget(id) | Work::Undelete(id) | Work::Tag(id, _) => Some(*id),
        _ => None,
    }
}

/// Returns the causes of an error as text.
pub fn causes(err: &Error) -> String {
    let mut out = String::new();
    let mut source = std::error::Error::source(err);
    while let Some(err) = source {
        let _ = write!(out, ": {err}");
        source = err.source();
    }
    out
}

fn remove_directory(path: &Path) {
    match fs::remove_dir_all(path) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
            panic!("removes {}: {err}", path.display())
        }
        _ => {}
    }
}

/// Replaces a directory by a copy of another one.
pub fn copy_directory(from: &Path, to: &Path) {
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).expect("makes the directory");
        let Ok(listed) = fs::read_dir(from) else {
            return;
        };
        let paths: Vec<PathBuf> = listed.map(|file| file.expect("lists").path()).collect();
        for path in paths {
            let target = to.join(path.file_name().expect("a name"));
            if path.is_dir() {
                copy(&path, &target);
            } else {
                fs::copy(&path, target).expect("copies");
            }
        }
    }
    remove_directory(to);
    copy(from, to);
}
