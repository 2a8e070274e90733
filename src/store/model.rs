//! A store with delayed listings, like remote ones, for tests. Several clients share the objects,
//! each with its own lagging view of the listings, on a store clock that can be made to jump.
//!
//! Reads by name (`get`, `read_at`, `stat`) are strong. A put or delete appears in a client's
//! listings after a delay that differs by client, and a listing may be an old one. Both are derived
//! from a seed, so a run can be repeated.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::store::{
    MemoryStore, ObjectBody, ObjectDir, ObjectKey, ObjectMeta, PutMode, Spool, Store, StoreError,
    StoreProperties, TestClock,
};
use crate::sys::FileId;
use crate::types::Timestamp;

/// Lag of the listings of a directory, in seconds of real time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ListingLag {
    /// Minimal delay until a put or delete appears in the listings of other clients.
    pub least: i64,
    /// Maximal delay. The delay is drawn for each change and client.
    pub most: i64,
    /// Maximal age of the state that a listing shows. The total lag is at most `most + stale`.
    pub stale: i64,
    /// True if the client's own changes lag as well.
    pub own: bool,
}

impl ListingLag {
    /// Every change appears after exactly this time.
    pub const fn of(seconds: i64) -> Self {
        Self {
            least: seconds,
            most: seconds,
            stale: 0,
            own: false,
        }
    }

    /// At most this total lag, half of it as old listings.
    pub const fn up_to(seconds: i64) -> Self {
        Self {
            least: 0,
            most: seconds / 2,
            stale: seconds - seconds / 2,
            own: false,
        }
    }
}

/// A change of an object that listings will show.
#[derive(Debug, Clone)]
struct ModelChange {
    /// Real time, in milliseconds since the world was created.
    at: i64,
    client: u32,
    lag: ListingLag,
    /// Each client's delay is derived from it.
    seed: u64,
    /// `None` means deleted.
    meta: Option<ObjectMeta>,
}

impl ModelChange {
    fn shows(&self, client: u32, at: i64) -> bool {
        let own = self.client == client && !self.lag.own;
        let span = u64::try_from(self.lag.most - self.lag.least).unwrap_or(0) * 1000 + 1;
        let drawn = i64::try_from(mix(self.seed ^ u64::from(client)) % span).unwrap_or(0);
        let delay = if own {
            0
        } else {
            self.lag.least * 1000 + drawn
        };
        self.at + delay <= at
    }
}

#[derive(Debug)]
struct ModelState {
    /// Real time in milliseconds, by which delays are measured.
    real: i64,
    seed: u64,
    /// A directory that is not here has no lag.
    lags: BTreeMap<ObjectDir, ListingLag>,
    clients: u32,
    changes: BTreeMap<ObjectKey, Vec<ModelChange>>,
}

impl ModelState {
    fn draw(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.seed)
    }

    fn lag(&self, directory: Option<ObjectDir>) -> ListingLag {
        directory
            .and_then(|directory| self.lags.get(&directory).copied())
            .unwrap_or_default()
    }
}

/// The objects, the clocks, and the changes that listings do not show yet. Clones share one world.
#[derive(Debug, Clone)]
pub struct ModelWorld {
    memory: Arc<MemoryStore>,
    whole_seconds: bool,
    strong: bool,
    state: Arc<Mutex<ModelState>>,
}

impl ModelWorld {
    /// Returns an empty world without lag; delays are derived from the seed.
    pub fn new(clock: &TestClock, seed: u64) -> Self {
        let state = ModelState {
            real: 0,
            seed,
            lags: BTreeMap::new(),
            clients: 0,
            changes: BTreeMap::new(),
        };

        let memory = Arc::new(MemoryStore::with_clock(clock));
        Self {
            memory,
            whole_seconds: false,
            strong: false,
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Makes the store report times in whole seconds only.
    #[must_use]
    pub fn with_whole_seconds(mut self) -> Self {
        self.whole_seconds = true;
        self
    }

    /// Makes the store claim strong listings, as local stores have. Use it without lags.
    #[must_use]
    pub fn with_strong_listing(mut self) -> Self {
        self.strong = true;
        self
    }

    /// Returns the store with the current objects.
    pub fn memory(&self) -> &Arc<MemoryStore> {
        &self.memory
    }

    /// Returns an independent copy of the world: the same objects and the same pending changes of
    /// listings, like a copy of the repository. The store clock is shared.
    pub fn fork(&self) -> Self {
        let state = self.lock();
        let copy = ModelState {
            real: state.real,
            seed: state.seed,
            lags: state.lags.clone(),
            clients: state.clients,
            changes: state.changes.clone(),
        };
        let memory = Arc::new(self.memory.fork());
        Self {
            memory,
            state: Arc::new(Mutex::new(copy)),
            ..self.clone()
        }
    }

    /// Adds a client.
    pub fn client(&self) -> ModelStore {
        let mut state = self.lock();
        state.clients += 1;
        ModelStore {
            world: self.clone(),
            client: state.clients,
        }
    }

    /// Sets the lag of later changes in all directories, and of their listings.
    pub fn set_lag(&self, lag: ListingLag) {
        self.lock().lags = ObjectDir::ALL.map(|directory| (directory, lag)).into();
    }

    /// Sets the lag of later changes in this directory, and of its listings.
    pub fn set_directory_lag(&self, directory: ObjectDir, lag: ListingLag) {
        self.lock().lags.insert(directory, lag);
    }

    /// Advances real time and the store's clock.
    pub fn advance(&self, seconds: i64) {
        self.lock().real += seconds * 1000;
        self.memory.clock().advance(seconds);
    }

    /// Makes the store's clock jump, forwards or back, while no time passes.
    pub fn jump(&self, seconds: i64) {
        self.memory.clock().advance(seconds);
    }

    fn lock(&self) -> MutexGuard<'_, ModelState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reported_meta(&self, mut meta: ObjectMeta) -> ObjectMeta {
        if self.whole_seconds {
            meta.modified = Timestamp::from_seconds(meta.modified.seconds());
        }
        meta
    }
}

/// One client's view of a [`ModelWorld`].
#[derive(Debug)]
pub struct ModelStore {
    world: ModelWorld,
    client: u32,
}

impl ModelStore {
    /// Returns the world of this client.
    pub fn world(&self) -> &ModelWorld {
        &self.world
    }

    /// Changes an object and records the change for the listings.
    fn change(
        &self,
        key: &ObjectKey,
        act: impl FnOnce(&MemoryStore) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        // Under one lock, so that the records have the order of the changes.
        let mut state = self.world.lock();
        act(&self.world.memory)?;
        state.real += 1;
        let meta = self
            .world
            .memory
            .stat(key)
            .ok()
            .map(|meta| self.world.reported_meta(meta));

        let seed = state.draw();
        let lag = state.lag(key.directory());
        let at = state.real;
        let change = ModelChange {
            at,
            client: self.client,
            lag,
            seed,
            meta,
        };
        state.changes.entry(key.clone()).or_default().push(change);
        Ok(())
    }
}

#[deny(clippy::missing_trait_methods)]
impl Store for ModelStore {
    fn address(&self) -> &str {
        "model"
    }

    fn directory(&self) -> Option<FileId> {
        None
    }

    fn local_path(&self) -> Option<&Path> {
        None
    }

    fn properties(&self) -> StoreProperties {
        StoreProperties {
            strong_listing: self.world.strong,
            ..self.world.memory.properties()
        }
    }

    fn put(&self, key: &ObjectKey, body: ObjectBody<'_>, mode: PutMode) -> Result<(), StoreError> {
        self.change(key, |memory| memory.put(key, body, mode))
    }

    fn spool(&self) -> Result<Spool, StoreError> {
        self.world.memory.spool()
    }

    fn get(&self, key: &ObjectKey, limit: u64) -> Result<Vec<u8>, StoreError> {
        self.world.memory.get(key, limit)
    }

    fn read_at(&self, key: &ObjectKey, offset: u64, buf: &mut [u8]) -> Result<(), StoreError> {
        self.world.memory.read_at(key, offset, buf)
    }

    fn stat(&self, key: &ObjectKey) -> Result<ObjectMeta, StoreError> {
        self.world
            .memory
            .stat(key)
            .map(|meta| self.world.reported_meta(meta))
    }

    fn list(
        &self,
        directory: ObjectDir,
        each: &mut dyn FnMut(ObjectMeta) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let listed: Vec<ObjectMeta> = {
            let mut state = self.world.lock();
            let stale = u64::try_from(state.lag(Some(directory)).stale).unwrap_or(0) * 1000;
            let back = i64::try_from(state.draw() % (stale + 1)).unwrap_or(0);

            let now = state.real;
            let newest_shown = |changes: &Vec<ModelChange>| {
                // The latest change that shows determines the object, even if an earlier change
                // shows later. An old listing never hides the client's own changes.
                let shows = |change: &&ModelChange| {
                    let own = change.client == self.client && !change.lag.own;
                    change.shows(self.client, if own { now } else { now - back })
                };
                changes
                    .iter()
                    .rev()
                    .find(shows)
                    .and_then(|change| change.meta.clone())
            };
            let in_directory = state
                .changes
                .iter()
                .filter(|(key, _)| key.directory() == Some(directory));
            in_directory
                .filter_map(|(_, changes)| newest_shown(changes))
                .collect()
        };
        listed.into_iter().try_for_each(each)
    }

    fn rename(&self, from: &ObjectKey, to: &ObjectKey) -> Result<(), StoreError> {
        self.change(from, |memory| memory.rename(from, to))?;
        self.change(to, |_| Ok(()))
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.change(key, |memory| memory.delete(key))
    }

    fn sweep_unfinished(&self, _before: Timestamp) -> Result<(u64, u64), StoreError> {
        Ok((0, 0))
    }

    fn set_reserve(&self, _hold: bool) -> Result<(), StoreError> {
        Ok(())
    }

    fn is_nearly_full(&self) -> bool {
        false
    }
}

/// The finalizer of SplitMix64: similar inputs give unrelated outputs.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{list_all, suite};
    use crate::types::{LeaseId, PackId};

    fn pack(n: u8) -> ObjectKey {
        ObjectKey::Pack(PackId::new([n; 32]))
    }

    fn put(store: &dyn Store, key: &ObjectKey) {
        store
            .put(key, ObjectBody::Bytes(b"bytes"), PutMode::CreateOnly)
            .expect("put");
    }

    fn packs(store: &dyn Store) -> usize {
        list_all(store, ObjectDir::Packs).expect("lists").len()
    }

    #[test]
    fn without_lag_it_keeps_the_contract() {
        suite::run(|| Arc::new(ModelWorld::new(&TestClock::default(), 1).client()));
    }

    #[test]
    fn a_put_shows_later_to_others_and_a_deletion_lingers() {
        let world = ModelWorld::new(&TestClock::default(), 1);
        world.set_lag(ListingLag::of(60));
        let ours = world.client();
        let theirs = world.client();
        put(&ours, &pack(1));
        assert_eq!((packs(&ours), packs(&theirs)), (1, 0));
        assert_eq!(
            theirs
                .get(&pack(1), 9)
                .expect("by name it is there at once"),
            b"bytes"
        );
        world.jump(1800);
        assert_eq!(packs(&theirs), 0, "the clock jumped, no time passed");
        world.advance(60);
        assert_eq!(packs(&theirs), 1);
        ours.delete(&pack(1)).expect("deletes");
        assert_eq!((packs(&ours), packs(&theirs)), (0, 1));
        assert!(theirs.stat(&pack(1)).expect_err("gone").is_not_found());
        world.advance(60);
        assert_eq!(packs(&theirs), 0);
    }

    #[test]
    fn delays_are_bounded_differ_by_client_and_follow_from_the_seed() {
        let seen = |seed| {
            let world = ModelWorld::new(&TestClock::default(), seed);
            world.set_lag(ListingLag {
                own: true,
                ..ListingLag::up_to(100)
            });
            let clients = [world.client(), world.client()];
            for n in 0..50 {
                put(&clients[0], &pack(n));
            }

            world.advance(25);
            let early = clients
                .each_ref()
                .map(|client| list_all(client, ObjectDir::Packs).expect("lists"));
            world.advance(75);
            assert_eq!(
                clients.each_ref().map(|client| packs(client)),
                [50, 50],
                "the bound is kept"
            );
            early.map(|listed| listed.into_iter().map(|meta| meta.key).collect::<Vec<_>>())
        };

        let [one, two] = seen(7);
        assert!(
            one.len() < 50 && two.len() < 50 && one != two,
            "{} and {}",
            one.len(),
            two.len()
        );
        assert_eq!(seen(7), [one, two]);
    }

    #[test]
    fn times_can_be_whole_seconds_and_a_heartbeat_lags_too() {
        let clock = TestClock::at(Timestamp::new(100, 700_000_000).expect("a time"));
        let world = ModelWorld::new(&clock, 1).with_whole_seconds();
        let ours = world.client();
        let theirs = world.client();
        let lease = ObjectKey::Lease(LeaseId::new([1; 16]));
        let listed = || list_all(&theirs, ObjectDir::Leases).expect("lists")[0].modified;
        put(&ours, &lease);
        assert_eq!(listed(), Timestamp::from_seconds(100));
        world.set_directory_lag(ObjectDir::Leases, ListingLag::of(10));
        world.advance(5);
        ours.put(&lease, ObjectBody::Bytes(b"again"), PutMode::Replace)
            .expect("replaced");
        assert_eq!(
            ours.stat(&lease).expect("stats").modified,
            Timestamp::from_seconds(105)
        );
        assert_eq!(listed(), Timestamp::from_seconds(100));
        world.advance(10);
        assert_eq!(listed(), Timestamp::from_seconds(105));
    }
}
