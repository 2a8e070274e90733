//! A store in memory for tests, stricter than real ones, with a clock that the test sets.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::store::{
    ObjectBody, ObjectDir, ObjectKey, ObjectMeta, PutMode, Spool, Store, StoreError,
    StoreProperties,
};
use crate::sys::FileId;
use crate::types::{Timestamp, to_u64};

/// A clock that the test controls. Clones share one clock.
#[derive(Debug, Clone)]
pub struct TestClock {
    state: Arc<Mutex<ClockTicks>>,
}

#[derive(Debug)]
struct ClockTicks {
    now: Timestamp,
    step_nanos: u64,
}

impl TestClock {
    /// Returns a clock that stays at `now`.
    pub fn at(now: Timestamp) -> Self {
        Self::stepping(now, 0)
    }

    /// Returns a clock that advances by `step_nanos` at every reading, so that no two writes have
    /// the same time.
    pub fn stepping(now: Timestamp, step_nanos: u64) -> Self {
        Self {
            state: Arc::new(Mutex::new(ClockTicks { now, step_nanos })),
        }
    }

    /// Returns the current time, then advances the clock by its step.
    pub fn now(&self) -> Timestamp {
        let mut state = lock(&self.state);
        let now = state.now;
        let nanos = u64::from(now.nanos()) + state.step_nanos;
        let seconds = i64::try_from(nanos / 1_000_000_000).expect("2^64 ns are few seconds");
        let rest = u32::try_from(nanos % 1_000_000_000).expect("less than a second");
        state.now = Timestamp::new(now.seconds().saturating_add(seconds), rest)
            .expect("less than a second");
        now
    }

    /// Sets the clock, forwards or back.
    pub fn set(&self, now: Timestamp) {
        lock(&self.state).now = now;
    }

    /// Moves the clock by seconds, forwards or back.
    pub fn advance(&self, seconds: i64) {
        let mut state = lock(&self.state);
        state.now = state.now.plus_seconds(seconds);
    }
}

impl Default for TestClock {
    /// Returns 2026-01-01 00:00 UTC, advancing by a millisecond at every reading.
    fn default() -> Self {
        Self::stepping(Timestamp::from_seconds(1_767_225_600), 1_000_000)
    }
}

#[derive(Debug, Clone)]
struct StoredObject {
    bytes: Arc<Vec<u8>>,
    modified: Timestamp,
}

/// A store in memory. It is stricter than others: `Replace` is refused except for leases, packs in quarantine, `config`
/// and key slots.
#[derive(Debug, Default)]
pub struct MemoryStore {
    clock: TestClock,
    objects: Mutex<BTreeMap<ObjectKey, StoredObject>>,
}

impl MemoryStore {
    /// Returns an empty store with a new clock.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns an empty store with this clock.
    pub fn with_clock(clock: &TestClock) -> Self {
        Self {
            clock: clock.clone(),
            objects: Mutex::default(),
        }
    }

    /// Returns the store's clock.
    pub fn clock(&self) -> &TestClock {
        &self.clock
    }

    /// Returns an independent store with the same objects and times, on the same clock: the state
    /// after a crash at this moment.
    pub fn fork(&self) -> Self {
        Self {
            clock: self.clock.clone(),
            objects: Mutex::new(lock(&self.objects).clone()),
        }
    }

    /// Returns all objects, sorted by key.
    pub fn objects(&self) -> Vec<ObjectMeta> {
        lock(&self.objects)
            .iter()
            .map(|(key, object)| meta_of(key, object))
            .collect()
    }

    /// Returns the stored bytes of all objects together.
    pub fn total_bytes(&self) -> u64 {
        self.objects().iter().map(|meta| meta.size).sum()
    }

    /// Changes an object directly and keeps its time. Returns false if there is no such object.
    pub fn damage(&self, key: &ObjectKey, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut objects = lock(&self.objects);
        let Some(object) = objects.get_mut(key) else {
            return false;
        };
        change(Arc::make_mut(&mut object.bytes));
        true
    }

    fn find(&self, key: &ObjectKey) -> Result<StoredObject, StoreError> {
        let found = lock(&self.objects).get(key).cloned();
        found.ok_or_else(|| StoreError::NotFound { key: key.clone() })
    }
}

#[deny(clippy::missing_trait_methods)]
impl Store for MemoryStore {
    fn address(&self) -> &str {
        "memory"
    }

    fn directory(&self) -> Option<FileId> {
        None
    }

    fn local_path(&self) -> Option<&Path> {
        None
    }

    fn properties(&self) -> StoreProperties {
        StoreProperties {
            create_only: true,
            durable_put: true,
            strong_listing: true,
            read_only: false,
            rename: true,
            connections: 8,
        }
    }

    fn put(&self, key: &ObjectKey, body: ObjectBody<'_>, mode: PutMode) -> Result<(), StoreError> {
        if let ObjectKey::KeySlot(slot, copy) = key
            && ObjectKey::from_name(ObjectDir::Keys, &format!("{slot}{copy}")).as_ref() != Some(key)
        {
            return Err(refused(key, "not a key slot's name"));
        }
        let replaceable = matches!(
            key,
            ObjectKey::Config(_)
                | ObjectKey::KeySlot(..)
                | ObjectKey::Lease(_)
                | ObjectKey::QuarantinedPack(_)
        );
        if mode == PutMode::Replace && !replaceable {
            return Err(refused(key, "objects of this kind are never replaced"));
        }
        let bytes = match body {
            ObjectBody::Bytes(bytes) => bytes.to_vec(),
            ObjectBody::Spooled(spool) => spool.into_bytes()?,
        };
        let mut objects = lock(&self.objects);
        if mode == PutMode::CreateOnly && objects.contains_key(key) {
            return Err(StoreError::Exists { key: key.clone() });
        }
        let object = StoredObject {
            bytes: Arc::new(bytes),
            modified: self.clock.now(),
        };
        objects.insert(key.clone(), object);
        Ok(())
    }

    fn spool(&self) -> Result<Spool, StoreError> {
        Ok(Spool::memory())
    }

    fn get(&self, key: &ObjectKey, limit: u64) -> Result<Vec<u8>, StoreError> {
        let bytes = self.find(key)?.bytes;
        let found = to_u64(bytes.len());
        if found > limit {
            return Err(StoreError::TooLong {
                key: key.clone(),
                limit,
                found,
            });
        }
        Ok(bytes.to_vec())
    }

    fn read_at(&self, key: &ObjectKey, offset: u64, buf: &mut [u8]) -> Result<(), StoreError> {
        let bytes = self.find(key)?.bytes;
        let wanted = offset.saturating_add(to_u64(buf.len()));
        let found = to_u64(bytes.len());
        if wanted > found {
            return Err(StoreError::Short {
                key: key.clone(),
                wanted,
                found,
            });
        }
        let start = usize::try_from(offset).expect("within a vector");
        buf.copy_from_slice(&bytes[start..start + buf.len()]);
        Ok(())
    }

    fn stat(&self, key: &ObjectKey) -> Result<ObjectMeta, StoreError> {
        Ok(meta_of(key, &self.find(key)?))
    }

    fn list(
        &self,
        directory: ObjectDir,
        each: &mut dyn FnMut(ObjectMeta) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        // Not under the lock, since `each` may call the store.
        self.objects()
            .into_iter()
            .filter(|meta| meta.key.directory() == Some(directory))
            .try_for_each(each)
    }

    fn rename(&self, from: &ObjectKey, to: &ObjectKey) -> Result<(), StoreError> {
        let mut objects = lock(&self.objects);
        if objects.contains_key(to) {
            return Err(StoreError::Exists { key: to.clone() });
        }
        let mut object = objects
            .remove(from)
            .ok_or_else(|| StoreError::NotFound { key: from.clone() })?;
        if to.directory() == Some(ObjectDir::Quarantine) {
            object.modified = self.clock.now();
        }
        objects.insert(to.clone(), object);
        Ok(())
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let removed = lock(&self.objects).remove(key);
        removed
            .map(drop)
            .ok_or_else(|| StoreError::NotFound { key: key.clone() })
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

fn meta_of(key: &ObjectKey, object: &StoredObject) -> ObjectMeta {
    ObjectMeta {
        key: key.clone(),
        size: to_u64(object.bytes.len()),
        modified: object.modified,
    }
}

fn refused(key: &ObjectKey, why: &str) -> StoreError {
    let source = io::Error::new(io::ErrorKind::InvalidInput, why);
    StoreError::Io {
        action: "put",
        subject: key.to_string(),
        source,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Replica, suite};
    use crate::types::{LeaseId, PackId};

    #[test]
    fn it_keeps_the_contract() {
        suite::run(|| Arc::new(MemoryStore::new()));
    }

    #[test]
    fn invalid_calls_are_refused() {
        let store = MemoryStore::new();
        let pack = ObjectKey::Pack(PackId::new([1; 32]));
        assert!(
            store
                .put(&pack, ObjectBody::Bytes(b"x"), PutMode::Replace)
                .is_err()
        );
        let slot = ObjectKey::KeySlot("../up".to_owned(), Replica::First);
        assert!(
            store
                .put(&slot, ObjectBody::Bytes(b"x"), PutMode::CreateOnly)
                .is_err()
        );
        assert!(store.delete(&pack).expect_err("missing").is_not_found());
    }

    #[test]
    fn times_come_from_the_clock() {
        let clock = TestClock::stepping(Timestamp::from_seconds(100), 600_000_000);
        let store = MemoryStore::with_clock(&clock);
        let lease = ObjectKey::Lease(LeaseId::new([1; 16]));
        let put = || {
            store
                .put(&lease, ObjectBody::Bytes(b"x"), PutMode::Replace)
                .expect("put");
        };
        let time = || store.stat(&lease).expect("stat").modified;
        put();
        assert_eq!(time(), Timestamp::from_seconds(100));
        put();
        put();
        assert_eq!(Some(time()), Timestamp::new(101, 200_000_000));
        clock.advance(-50);
        put();
        assert_eq!(Some(time()), Timestamp::new(51, 800_000_000));
    }

    #[test]
    fn a_fork_goes_its_own_way_and_damage_keeps_the_time() {
        let store = MemoryStore::new();
        let key = ObjectKey::Pack(PackId::new([1; 32]));
        store
            .put(&key, ObjectBody::Bytes(b"bytes"), PutMode::CreateOnly)
            .expect("put");
        let fork = store.fork();
        let before = fork.stat(&key).expect("stat");
        assert!(fork.damage(&key, |bytes| bytes[0] ^= 1));
        assert_eq!(fork.stat(&key).expect("stat"), before);
        assert_eq!(fork.get(&key, 9).expect("get"), b"cytes");
        assert_eq!(store.get(&key, 9).expect("get"), b"bytes");
        assert_eq!(store.total_bytes(), 5);
    }
}
