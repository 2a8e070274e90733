//! A store that runs a test's hook after one of its calls, to simulate another host in between.

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::store::{
    KeyKind, ObjectBody, ObjectDir, ObjectKey, ObjectMeta, PutMode, SharedStore, Spool, Store,
    StoreError, StoreOperation, StoreProperties,
};
use crate::sys::FileId;
use crate::types::Timestamp;

/// The hook; it gets the wrapped store.
pub type Hook = Box<dyn FnOnce(&dyn Store) + Send>;

/// A wrapper of another store, with one hook.
pub struct HookedStore {
    inner: SharedStore,
    at: (StoreOperation, KeyKind),
    /// Number of matching calls left, including the one that triggers the hook.
    left: AtomicU32,
    hook: Mutex<Option<Hook>>,
}

impl fmt::Debug for HookedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HookedStore({:?})", self.at)
    }
}

impl HookedStore {
    /// Calls `hook` once: after the first put, deletion, listing, rename or stat (`operation`) of
    /// objects of this kind.
    pub fn after(inner: SharedStore, operation: StoreOperation, kind: KeyKind, hook: Hook) -> Self {
        Self::after_nth(inner, operation, kind, 1, hook)
    }

    /// Works like [`HookedStore::after`] for the `nth` such call, from 1.
    pub fn after_nth(
        inner: SharedStore,
        operation: StoreOperation,
        kind: KeyKind,
        nth: u32,
        hook: Hook,
    ) -> Self {
        Self {
            inner,
            at: (operation, kind),
            left: AtomicU32::new(nth),
            hook: Mutex::new(Some(hook)),
        }
    }

    /// Returns true once the hook was called.
    pub fn was_called(&self) -> bool {
        self.hook
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_none()
    }

    fn after_call(&self, operation: StoreOperation, kind: KeyKind) {
        if self.at == (operation, kind) && self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            let hook = self
                .hook
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            hook.into_iter().for_each(|hook| hook(self.inner.as_ref()));
        }
    }
}

#[deny(clippy::missing_trait_methods)]
impl Store for HookedStore {
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
        self.inner.properties()
    }

    fn put(&self, key: &ObjectKey, body: ObjectBody<'_>, mode: PutMode) -> Result<(), StoreError> {
        self.inner.put(key, body, mode)?;
        self.after_call(StoreOperation::Put, key.into());
        Ok(())
    }

    fn spool(&self) -> Result<Spool, StoreError> {
        self.inner.spool()
    }

    fn get(&self, key: &ObjectKey, limit: u64) -> Result<Vec<u8>, StoreError> {
        self.inner.get(key, limit)
    }

    fn read_at(&self, key: &ObjectKey, offset: u64, buf: &mut [u8]) -> Result<(), StoreError> {
        self.inner.read_at(key, offset, buf)
    }

    fn stat(&self, key: &ObjectKey) -> Result<ObjectMeta, StoreError> {
        let found = self.inner.stat(key);
        self.after_call(StoreOperation::Stat, key.into());
        found
    }

    fn list(
        &self,
        directory: ObjectDir,
        each: &mut dyn FnMut(ObjectMeta) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.inner.list(directory, each)?;
        self.after_call(StoreOperation::List, directory.into());
        Ok(())
    }

    fn rename(&self, from: &ObjectKey, to: &ObjectKey) -> Result<(), StoreError> {
        self.inner.rename(from, to)?;
        self.after_call(StoreOperation::Rename, from.into());
        Ok(())
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.inner.delete(key)?;
        self.after_call(StoreOperation::Delete, key.into());
        Ok(())
    }

    fn sweep_unfinished(&self, before: Timestamp) -> Result<(u64, u64), StoreError> {
        self.inner.sweep_unfinished(before)
    }

    fn set_reserve(&self, hold: bool) -> Result<(), StoreError> {
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
    use crate::store::{MemoryStore, list_all, suite};

    #[test]
    fn it_keeps_the_contract() {
        let hooked = |inner| {
            HookedStore::after(inner, StoreOperation::List, KeyKind::Pack, Box::new(|_| {}))
        };
        suite::run(|| Arc::new(hooked(Arc::new(MemoryStore::new()))));
    }

    #[test]
    fn the_hook_is_called_once_after_the_call() {
        let lease = ObjectKey::Lease(crate::types::LeaseId::new([1; 16]));
        let put = lease.clone();
        let taken = lease.clone();
        let hook = move |store: &dyn Store| store.delete(&taken).expect("it was put");
        let memory = Arc::new(MemoryStore::new());
        let store = HookedStore::after(
            memory.clone(),
            StoreOperation::Put,
            KeyKind::Lease,
            Box::new(hook),
        );
        list_all(&store, ObjectDir::Leases).expect("lists");
        assert!(!store.was_called());
        store
            .put(&put, ObjectBody::Bytes(b"1"), PutMode::CreateOnly)
            .expect("put");
        assert!(store.was_called() && store.stat(&lease).is_err());
        store
            .put(&put, ObjectBody::Bytes(b"1"), PutMode::CreateOnly)
            .expect("put");
        assert!(store.stat(&lease).is_ok());
    }
}
