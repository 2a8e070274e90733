//! A store with planned failures: errors, torn and damaged bytes, and death at a given write.

use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::store::{
    KeyKind, ObjectBody, ObjectDir, ObjectKey, ObjectMeta, PutMode, SharedStore, Spool, Store,
    StoreError, StoreOperation, StoreProperties,
};
use crate::sys::FileId;
use crate::types::{Timestamp, to_u64};

/// The error that a fault causes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InjectedError {
    Io,
    /// The error of a bad sector or a loose cable: `EIO`.
    Medium,
    TimedOut,
    Full,
    Denied,
    ReadOnly,
    Unreachable,
}

/// The effect of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultEffect {
    /// Nothing is done and the call fails.
    ErrorBefore(InjectedError),
    /// Everything is done, but the call fails, as after a lost reply. Data that was read is lost.
    ErrorAfter(InjectedError),
    /// Put: only this many bytes are stored, and the call fails. Reads: [`StoreError::Short`].
    Torn(u64),
    /// Put: only this many bytes are stored, but the call succeeds: a store that lies. `get`: only
    /// this many bytes are returned. `read_at`: [`StoreError::Short`].
    Short(u64),
    /// One bit of the byte at this position (modulo the length) is flipped in the stored or read
    /// bytes.
    Corrupt(u64),
}

/// One planned failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fault {
    pub operation: StoreOperation,
    /// `None` means any kind, and `spool`.
    pub kind: Option<KeyKind>,
    /// The number of the matching call that fails, from 1, counted from when the fault was planned.
    pub nth: u32,
    pub effect: FaultEffect,
}

#[derive(Debug, Default)]
struct FaultPlan {
    /// Each with the number of matching calls left until it fires.
    pending: Vec<(Fault, u32)>,
    /// Writes that still succeed before the store dies.
    writes_left: Option<u64>,
    writes: u64,
    dead: bool,
    /// Objects whose bytes cannot be read until the medium is repaired.
    unreadable: Vec<(ObjectKey, InjectedError)>,
}

/// A wrapper of another store with faults planned by call. A fault fires once; if several match a
/// call, the first planned one fires.
#[derive(Debug)]
pub struct FaultyStore {
    inner: SharedStore,
    plan: Mutex<FaultPlan>,
    late: Duration,
    rename: bool,
}

impl FaultyStore {
    /// Wraps a store. Without planned faults it behaves like the wrapped store.
    pub fn new(inner: SharedStore) -> Self {
        Self {
            inner,
            plan: Mutex::default(),
            late: Duration::ZERO,
            rename: true,
        }
    }

    /// Makes renames fail, as object stores do.
    pub fn without_rename(self) -> Self {
        Self {
            rename: false,
            ..self
        }
    }

    /// Delays each fault by this time, like a disk that retries for a while before it gives up.
    pub fn late(self, late: Duration) -> Self {
        Self { late, ..self }
    }

    /// Plans a fault.
    pub fn plan(&self, fault: Fault) {
        self.lock().pending.push((fault, fault.nth.max(1)));
    }

    /// Lets `writes` more puts and deletes succeed. The next one does nothing and fails, and so
    /// does every later call of any kind: the content of the wrapped store is then the state after
    /// a crash.
    pub fn die_after_writes(&self, writes: u64) {
        self.lock().writes_left = Some(writes);
    }

    /// Makes every later read of this object fail with this error. It can still be listed, renamed
    /// and deleted.
    pub fn make_unreadable(&self, key: &ObjectKey, trouble: InjectedError) {
        self.lock().unreadable.push((key.clone(), trouble));
    }

    /// Makes all unreadable objects readable again.
    pub fn make_readable(&self) {
        self.lock().unreadable.clear();
    }

    /// Returns an error for an object that was made unreadable.
    fn read(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let trouble = self
            .lock()
            .unreadable
            .iter()
            .find(|(held, _)| held == key)
            .map(|(_, trouble)| *trouble);
        trouble.map_or(Ok(()), |trouble| Err(self.error(trouble, &key.to_string())))
    }

    /// Returns the number of puts and deletes tried so far.
    pub fn writes(&self) -> u64 {
        self.lock().writes
    }

    /// Returns true once [`FaultyStore::die_after_writes`] has taken effect.
    pub fn is_dead(&self) -> bool {
        self.lock().dead
    }

    /// Panics if a planned fault has not fired: the test would then prove nothing.
    #[track_caller]
    pub fn assert_all_fired(&self) {
        let plan = self.lock();
        assert!(
            plan.pending.is_empty(),
            "planned faults that did not fire: {:?}",
            plan.pending
        );
        assert!(
            plan.writes_left.is_none() || plan.dead,
            "the store was to die and did not"
        );
    }

    /// Returns true if every planned fault has fired.
    pub fn all_fired(&self) -> bool {
        self.lock().pending.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, FaultPlan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the effect planned for this call; an error if the store is dead.
    fn next(
        &self,
        operation: StoreOperation,
        kind: Option<KeyKind>,
        subject: &str,
    ) -> Result<Option<FaultEffect>, StoreError> {
        let mut plan = self.lock();
        if operation.is_write() {
            plan.writes += 1;
            match &mut plan.writes_left {
                Some(0) => plan.dead = true,
                Some(left) => *left -= 1,
                None => {}
            }
        }
        if plan.dead {
            return Err(self.error(InjectedError::Unreachable, subject));
        }

        let mut fired = None;
        for (at, (fault, left)) in plan.pending.iter_mut().enumerate() {
            if fault.operation == operation && (fault.kind.is_none() || fault.kind == kind) {
                *left = left.saturating_sub(1);
                if *left == 0 && fired.is_none() {
                    fired = Some(at);
                }
            }
        }

        let effect = fired.map(|at| plan.pending.remove(at).0.effect);
        drop(plan);
        if effect.is_some() {
            std::thread::sleep(self.late);
        }

        Ok(effect)
    }

    fn next_on(
        &self,
        operation: StoreOperation,
        key: &ObjectKey,
    ) -> Result<Option<FaultEffect>, StoreError> {
        self.next(operation, Some(key.into()), &key.to_string())
    }

    fn error(&self, trouble: InjectedError, subject: &str) -> StoreError {
        let address = self.inner.address().to_owned();
        let subject = subject.to_owned();
        let source = |kind| io::Error::new(kind, "a planned fault");

        match trouble {
            InjectedError::Io => StoreError::Io {
                action: "use",
                subject,
                source: source(io::ErrorKind::Other),
            },
            InjectedError::Medium => StoreError::Io {
                action: "read",
                subject,
                source: io::Error::from_raw_os_error(5),
            },
            InjectedError::TimedOut => StoreError::Io {
                action: "read",
                subject,
                source: source(io::ErrorKind::TimedOut),
            },
            InjectedError::Full => StoreError::Full {
                address,
                source: source(io::ErrorKind::StorageFull),
            },
            InjectedError::Denied => StoreError::Denied {
                subject,
                source: source(io::ErrorKind::PermissionDenied),
            },
            InjectedError::ReadOnly => StoreError::ReadOnly { address },
            InjectedError::Unreachable => StoreError::Unreachable {
                address,
                source: source(io::ErrorKind::HostUnreachable),
            },
        }
    }

    /// Runs a call that moves no bytes. Effects on bytes are plain errors there.
    fn around<T>(
        &self,
        effect: Option<FaultEffect>,
        subject: &str,
        call: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match effect {
            None => call(),
            Some(FaultEffect::ErrorAfter(trouble)) => {
                call()?;
                Err(self.error(trouble, subject))
            }
            Some(FaultEffect::ErrorBefore(trouble)) => Err(self.error(trouble, subject)),
            Some(FaultEffect::Torn(_) | FaultEffect::Short(_) | FaultEffect::Corrupt(_)) => {
                Err(self.error(InjectedError::Io, subject))
            }
        }
    }
}

fn no_rename(key: &ObjectKey) -> StoreError {
    let source = io::Error::new(io::ErrorKind::Unsupported, "this store cannot rename");
    StoreError::Io {
        action: "rename",
        subject: key.to_string(),
        source,
    }
}

fn flip(bytes: &mut [u8], at: u64) {
    if !bytes.is_empty() {
        let at = usize::try_from(at % to_u64(bytes.len())).expect("less than the length");
        bytes[at] ^= 1;
    }
}

fn cut(bytes: &mut Vec<u8>, keep: u64) {
    bytes.truncate(usize::try_from(keep).unwrap_or(usize::MAX));
}

#[deny(clippy::missing_trait_methods)]
impl Store for FaultyStore {
    fn address(&self) -> &str {
        self.inner.address()
    }

    fn directory(&self) -> Option<FileId> {
        self.inner.directory()
    }

    fn local_path(&self) -> Option<&Path> {
        self.inner.local_path()
    }

    fn properties(&self) -> StoreProperties {
        let inner = self.inner.properties();
        StoreProperties {
            rename: inner.rename && self.rename,
            ..inner
        }
    }

    fn put(&self, key: &ObjectKey, body: ObjectBody<'_>, mode: PutMode) -> Result<(), StoreError> {
        let effect = self.next_on(StoreOperation::Put, key)?;
        let Some(FaultEffect::Torn(_) | FaultEffect::Short(_) | FaultEffect::Corrupt(_)) = effect
        else {
            return self.around(effect, &key.to_string(), || self.inner.put(key, body, mode));
        };
        let mut bytes = match body {
            ObjectBody::Bytes(bytes) => bytes.to_vec(),
            ObjectBody::Spooled(spool) => spool.into_bytes()?,
        };
        match effect {
            Some(FaultEffect::Torn(keep) | FaultEffect::Short(keep)) => cut(&mut bytes, keep),
            Some(FaultEffect::Corrupt(at)) => flip(&mut bytes, at),
            _ => {}
        }
        self.inner.put(key, ObjectBody::Bytes(&bytes), mode)?;
        match effect {
            Some(FaultEffect::Torn(_)) => Err(self.error(InjectedError::Io, &key.to_string())),
            _ => Ok(()),
        }
    }

    fn spool(&self) -> Result<Spool, StoreError> {
        let effect = self.next(StoreOperation::Spool, None, "a spool")?;
        self.around(effect, "a spool", || self.inner.spool())
    }

    fn get(&self, key: &ObjectKey, limit: u64) -> Result<Vec<u8>, StoreError> {
        let effect = self.next_on(StoreOperation::Get, key)?;
        self.read(key)?;
        match effect {
            Some(FaultEffect::Torn(found)) => {
                let wanted = to_u64(self.inner.get(key, limit)?.len());
                Err(StoreError::Short {
                    key: key.clone(),
                    wanted,
                    found,
                })
            }
            Some(FaultEffect::Short(keep)) => {
                let mut bytes = self.inner.get(key, limit)?;
                cut(&mut bytes, keep);
                Ok(bytes)
            }
            Some(FaultEffect::Corrupt(at)) => {
                let mut bytes = self.inner.get(key, limit)?;
                flip(&mut bytes, at);
                Ok(bytes)
            }
            _ => self.around(effect, &key.to_string(), || self.inner.get(key, limit)),
        }
    }

    fn read_at(&self, key: &ObjectKey, offset: u64, buf: &mut [u8]) -> Result<(), StoreError> {
        let effect = self.next_on(StoreOperation::ReadAt, key)?;
        self.read(key)?;
        match effect {
            Some(FaultEffect::Torn(found) | FaultEffect::Short(found)) => {
                let wanted = offset.saturating_add(to_u64(buf.len()));
                Err(StoreError::Short {
                    key: key.clone(),
                    wanted,
                    found,
                })
            }
            Some(FaultEffect::Corrupt(at)) => {
                self.inner.read_at(key, offset, buf)?;
                flip(buf, at);
                Ok(())
            }
            _ => self.around(effect, &key.to_string(), || {
                self.inner.read_at(key, offset, buf)
            }),
        }
    }

    fn stat(&self, key: &ObjectKey) -> Result<ObjectMeta, StoreError> {
        let effect = self.next_on(StoreOperation::Stat, key)?;
        self.around(effect, &key.to_string(), || self.inner.stat(key))
    }

    fn list(
        &self,
        directory: ObjectDir,
        each: &mut dyn FnMut(ObjectMeta) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let effect = self.next(
            StoreOperation::List,
            Some(directory.into()),
            directory.name(),
        )?;
        self.around(effect, directory.name(), || {
            self.inner.list(directory, each)
        })
    }

    fn rename(&self, from: &ObjectKey, to: &ObjectKey) -> Result<(), StoreError> {
        let effect = self.next_on(StoreOperation::Rename, from)?;
        self.around(effect, &from.to_string(), || {
            if self.rename {
                self.inner.rename(from, to)
            } else {
                Err(no_rename(from))
            }
        })?;
        // The bad sectors move with the name.
        let mut plan = self.lock();
        for (key, _) in plan.unreadable.iter_mut().filter(|(key, _)| key == from) {
            key.clone_from(to);
        }
        Ok(())
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let effect = self.next_on(StoreOperation::Delete, key)?;
        self.around(effect, &key.to_string(), || self.inner.delete(key))
    }

    fn sweep_unfinished(&self, before: Timestamp) -> Result<(u64, u64), StoreError> {
        if self.is_dead() {
            return Err(self.error(InjectedError::Io, "unfinished writes"));
        }
        self.inner.sweep_unfinished(before)
    }

    fn set_reserve(&self, hold: bool) -> Result<(), StoreError> {
        if self.is_dead() {
            return Err(self.error(InjectedError::Io, "the reserve"));
        }
        self.inner.set_reserve(hold)
    }

    fn is_nearly_full(&self) -> bool {
        self.inner.is_nearly_full()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::{MemoryStore, suite};
    use crate::types::{PackId, SegmentId};

    fn pack(n: u8) -> ObjectKey {
        ObjectKey::Pack(PackId::new([n; 32]))
    }

    fn stores() -> (Arc<MemoryStore>, FaultyStore) {
        let memory = Arc::new(MemoryStore::new());
        (memory.clone(), FaultyStore::new(memory))
    }

    fn fault(operation: StoreOperation, nth: u32, effect: FaultEffect) -> Fault {
        Fault {
            operation,
            kind: Some(KeyKind::Pack),
            nth,
            effect,
        }
    }

    fn put(store: &dyn Store, key: &ObjectKey) -> Result<(), StoreError> {
        store.put(key, ObjectBody::Bytes(b"bytes"), PutMode::CreateOnly)
    }

    #[test]
    fn without_faults_it_keeps_the_contract() {
        suite::run(|| Arc::new(FaultyStore::new(Arc::new(MemoryStore::new()))));
    }

    #[test]
    fn the_nth_matching_call_fails_once() {
        let (memory, store) = stores();
        store.plan(fault(
            StoreOperation::Put,
            2,
            FaultEffect::ErrorBefore(InjectedError::Full),
        ));
        put(&store, &pack(1)).expect("the first");
        put(&store, &ObjectKey::Segment(SegmentId::new([1; 32]))).expect("another kind");
        assert!(matches!(
            put(&store, &pack(2)),
            Err(StoreError::Full { .. })
        ));
        store.assert_all_fired();
        put(&store, &pack(2)).expect("again");
        assert_eq!(memory.objects().len(), 3);
    }

    #[test]
    fn an_error_after_leaves_the_work_done() {
        let (memory, store) = stores();
        store.plan(fault(
            StoreOperation::Put,
            1,
            FaultEffect::ErrorAfter(InjectedError::Unreachable),
        ));
        assert!(matches!(
            put(&store, &pack(1)),
            Err(StoreError::Unreachable { .. })
        ));
        assert_eq!(memory.objects().len(), 1);
    }

    #[test]
    fn bytes_are_torn_and_damaged_on_the_way_in_and_out() {
        let (memory, store) = stores();
        store.plan(fault(StoreOperation::Put, 1, FaultEffect::Torn(2)));
        assert!(put(&store, &pack(1)).is_err());
        assert_eq!(memory.get(&pack(1), 9).expect("get"), b"by");
        store.plan(fault(StoreOperation::Put, 1, FaultEffect::Short(3)));
        put(&store, &pack(2)).expect("it lies");
        assert_eq!(memory.get(&pack(2), 9).expect("get"), b"byt");
        put(&store, &pack(3)).expect("put");
        store.plan(fault(StoreOperation::Get, 1, FaultEffect::Corrupt(5)));
        assert_eq!(store.get(&pack(3), 9).expect("get"), b"cytes");
        assert_eq!(store.get(&pack(3), 9).expect("get"), b"bytes");
        store.plan(fault(StoreOperation::ReadAt, 1, FaultEffect::Short(1)));
        let error = store.read_at(&pack(3), 0, &mut [0; 4]).expect_err("short");
        assert!(matches!(
            error,
            StoreError::Short {
                wanted: 4,
                found: 1,
                ..
            }
        ));
        store.assert_all_fired();
    }

    #[test]
    fn a_dead_store_does_nothing_more() {
        let (memory, store) = stores();
        store.die_after_writes(2);
        put(&store, &pack(1)).expect("first");
        store.delete(&pack(1)).expect("second");
        assert!(!store.is_dead());
        assert!(put(&store, &pack(2)).is_err());
        assert!(store.is_dead() && store.writes() == 3);
        assert!(store.list(ObjectDir::Packs, &mut |_| Ok(())).is_err());
        assert_eq!(memory.objects(), []);
        store.assert_all_fired();
    }

    #[test]
    #[should_panic(expected = "did not fire")]
    fn a_fault_that_did_not_fire_fails_the_test() {
        let (_, store) = stores();
        store.plan(fault(
            StoreOperation::Get,
            1,
            FaultEffect::ErrorBefore(InjectedError::Io),
        ));
        store.assert_all_fired();
    }
}
