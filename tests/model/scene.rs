//! Two hosts on a store with lagging listings and a jumping clock, controlled step by step.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc;

use icecore::Error;
use icecore::format::{ObjectKind, encode_segment};
use icecore::repo::{Repository, Secret, seal_object};
use icecore::store::{
    KeyKind, ListingLag, ModelWorld, ObjectBody, ObjectDir, ObjectKey, PutMode, SharedStore,
    TestClock, list_all,
};
use icecore::types::{LeaseId, SegmentBody, SegmentId, SnapshotId};

use crate::cut::{CutStore, Hook};
use crate::deeds::{Job, Outcome, Work};
use crate::machine::causes;
use crate::world::{Held, Host, difference, init, read_back, scratch, shared, verify_all};

pub const HOUR: i64 = 3600;
pub const DAY: i64 = 24 * HOUR;
/// The longest lag, and the largest jump of the store's clock: together M.
pub const LAG: i64 = HOUR / 2;

pub struct Scene {
    pub world: ModelWorld,
    pub hosts: [Host; 2],
    pub clients: [SharedStore; 2],
    /// The expected contents of each committed snapshot.
    pub kept: BTreeMap<SnapshotId, Held>,
    ahead: bool,
    pub dir: tempfile::TempDir,
}

/// Indexes of the first and the second host.
pub const ONE: usize = 0;
pub const TWO: usize = 1;

/// An operation that is paused in the middle.
pub struct Paused {
    resume: mpsc::Sender<()>,
    thread: std::thread::JoinHandle<Result<Outcome, Error>>,
    /// False if it ended before the call at which it should pause.
    pub is_waiting: bool,
}

impl Paused {
    /// Resumes the operation and returns its result.
    pub fn end(self) -> Result<Outcome, Error> {
        drop(self.resume);
        self.thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Scene {
    /// Creates a scene whose listings lag by up to half an hour, drawn from the seed. The store's
    /// clock jumps by half an hour, alternately forward and back, at each [`Scene::pass`].
    pub fn new(seed: u64) -> Self {
        let scene = Self::without_lag(seed);
        scene.world.set_lag(ListingLag::up_to(LAG));
        scene.world.advance(LAG);
        scene
    }

    pub fn without_lag(seed: u64) -> Self {
        Self::on(ModelWorld::new(
            &TestClock::stepping(icecore::sys::now(), 1_000_000),
            seed,
        ))
    }

    /// Creates a scene on a store with strong listings, like a local one: every backup lists the
    /// packs.
    pub fn with_strong_listing(seed: u64) -> Self {
        let world = ModelWorld::new(&TestClock::stepping(icecore::sys::now(), 1_000_000), seed);
        Self::on(world.with_strong_listing())
    }

    fn on(world: ModelWorld) -> Self {
        init(&shared(world.client()));
        let dir = scratch();
        let hosts = [
            Host::new("one", dir.path().join("one")),
            Host::new("two", dir.path().join("two")),
        ];
        let clients = [shared(world.client()), shared(world.client())];
        Self {
            world,
            hosts,
            clients,
            kept: BTreeMap::new(),
            ahead: false,
            dir,
        }
    }

    /// Lets time pass and makes the store's clock jump.
    pub fn pass(&mut self, seconds: i64) {
        self.world.advance(seconds);
        self.world.jump(if self.ahead { -LAG } else { LAG });
        self.ahead = !self.ahead;
    }

    /// Lets enough time pass that all listings are up to date.
    pub fn pass_lag(&mut self) {
        self.world.advance(LAG + 1);
    }

    pub fn job(&self, host: usize, store: SharedStore, work: Work) -> Job {
        Job {
            store,
            cache: self.hosts[host].cache(),
            host: self.hosts[host].name,
            work,
        }
    }

    pub fn try_backup(&mut self, host: usize) -> Result<SnapshotId, Error> {
        let work = Work::Backup(Box::new(self.hosts[host].options()));
        let ended = self
            .job(host, SharedStore::clone(&self.clients[host]), work)
            .run();
        self.note(host, ended)
    }

    /// Records the snapshot that a backup committed.
    pub fn note(
        &mut self,
        host: usize,
        ended: Result<Outcome, Error>,
    ) -> Result<SnapshotId, Error> {
        match ended? {
            Outcome::Committed(id) => {
                self.kept.insert(id, self.hosts[host].held());
                Ok(id)
            }
            other => panic!("no backup: {other:?}"),
        }
    }

    pub fn backup(&mut self, host: usize) -> SnapshotId {
        self.try_backup(host)
            .unwrap_or_else(|err| panic!("backs up: {err}{}", causes(&err)))
    }

    /// Begins a backup that pauses before a call of the store.
    pub fn backup_until(&self, host: usize, call: u64) -> Paused {
        self.until(
            host,
            call,
            Work::Backup(Box::new(self.hosts[host].options())),
        )
    }

    /// Begins a backup that pauses before it puts an object of this kind.
    pub fn backup_until_put(&self, host: usize, kind: KeyKind) -> Paused {
        let work = Work::Backup(Box::new(self.hosts[host].options()));
        self.paused(host, work, |client, hook| {
            CutStore::hooked_before(client, kind, hook)
        })
    }

    /// Begins an operation that pauses before a call of the store.
    pub fn until(&self, host: usize, call: u64, work: Work) -> Paused {
        self.paused(host, work, |client, hook| {
            CutStore::hooked(client, call, hook)
        })
    }

    fn paused(
        &self,
        host: usize,
        work: Work,
        cut: impl FnOnce(SharedStore, Hook) -> CutStore,
    ) -> Paused {
        let (paused, is_paused) = mpsc::channel::<()>();
        let (resume, resumed) = mpsc::channel::<()>();
        let hook = Box::new(move || {
            let _ = paused.send(());
            let _ = resumed.recv();
        });
        let store = cut(SharedStore::clone(&self.clients[host]), hook);
        let job = self.job(host, shared(store), work);
        let thread = std::thread::spawn(|| job.run());
        let is_waiting = is_paused.recv().is_ok();
        Paused {
            resume,
            thread,
            is_waiting,
        }
    }

    pub fn try_prune(&self, host: usize) -> Result<String, Error> {
        let work = Work::Prune { now: false };
        match self
            .job(host, SharedStore::clone(&self.clients[host]), work)
            .run()?
        {
            Outcome::Done(report) => Ok(report),
            other => panic!("no prune: {other:?}"),
        }
    }

    /// Prunes. A listing that lacks objects of another host may make the prune refuse until
    /// listings are up to date.
    pub fn prune(&mut self, host: usize) -> String {
        let tried = self.try_prune(host);
        tried
            .or_else(|_| {
                self.pass_lag();
                self.try_prune(host)
            })
            .unwrap_or_else(|err| panic!("prunes: {err}{}", causes(&err)))
    }

    /// Prunes daily, for this many days.
    pub fn prune_for_days(&mut self, host: usize, days: u32) {
        for _ in 0..days {
            self.pass(26 * HOUR);
            self.prune(host);
        }
    }

    pub fn forget(&mut self, host: usize, id: SnapshotId) {
        let work = Work::Forget(id);
        self.job(host, SharedStore::clone(&self.clients[host]), work)
            .run()
            .expect("forgets");
        self.kept.remove(&id);
    }

    pub fn open(&self, host: usize) -> Repository {
        self.hosts[host].open(&self.clients[host]).expect("opens")
    }

    /// Opens the true state of the store, with a separate cache.
    pub fn open_true(&self, cache: &str) -> Repository {
        let memory: SharedStore = self.world.memory().clone();
        Repository::open(memory, &Secret::empty(), &self.dir.path().join(cache)).expect("opens")
    }

    /// Reads every snapshot with this client and compares it with the model.
    pub fn check_with(&self, repo: &Repository) {
        repo.sync().expect("syncs");
        for (id, held) in &self.kept {
            let found = read_back(repo, id)
                .unwrap_or_else(|err| panic!("{}: {err}{}", id.short(), causes(&err)));
            if let Some(what) = difference(held, &found) {
                panic!("snapshot {}: {what}", id.short());
            }
        }
    }

    /// Checks everything: the true state, and for both hosts once listings are up to date.
    pub fn check(&mut self) {
        let memory: SharedStore = self.world.memory().clone();
        verify_all(&memory).unwrap_or_else(|what| panic!("{what}"));
        self.check_with(&self.open_true("fresh"));
        self.pass_lag();
        for host in [ONE, TWO] {
            self.check_with(&self.open(host));
        }
    }

    /// Returns the true number of objects in a directory.
    pub fn count(&self, directory: ObjectDir) -> usize {
        list_all(&**self.world.memory(), directory)
            .expect("lists")
            .len()
    }

    /// Publishes a segment like a client that follows no rules.
    pub fn publish(&self, host: usize, change: impl FnOnce(&mut SegmentBody)) -> SegmentId {
        let repo = self.open(host);
        let writer = LeaseId::new([9; 16]);
        let mut body = SegmentBody::empty(writer);
        change(&mut body);
        let (bytes, name) = seal_object(
            repo.keys(),
            ObjectKind::Segment,
            writer,
            &encode_segment(&body),
        )
        .expect("seals");
        let id = SegmentId::from(name);
        repo.store()
            .put(
                &ObjectKey::Segment(id),
                ObjectBody::Bytes(&bytes),
                PutMode::CreateOnly,
            )
            .expect("puts");
        id
    }

    /// Deletes an object outside icecore.
    pub fn lose(&self, key: &ObjectKey) {
        self.clients[ONE].delete(key).expect("deletes");
    }

    pub fn memory(&self) -> &Arc<icecore::store::MemoryStore> {
        self.world.memory()
    }
}
