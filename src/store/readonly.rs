//! A store that refuses writes: for operations that guarantee not to write, and for dry runs.

use std::path::Path;

use crate::store::{
    ObjectBody, ObjectDir, ObjectKey, ObjectMeta, PutMode, SharedStore, Spool, Store, StoreError,
    StoreProperties,
};
use crate::sys::FileId;
use crate::types::Timestamp;

/// A read-only wrapper of another store: every write fails with [`StoreError::ReadOnly`] before it
/// reaches that store.
#[derive(Debug, Clone)]
pub struct ReadOnlyStore {
    inner: SharedStore,
}

impl ReadOnlyStore {
    /// Wraps a store.
    pub fn new(inner: SharedStore) -> Self {
        Self { inner }
    }

    fn refused<T>(&self) -> Result<T, StoreError> {
        Err(StoreError::ReadOnly {
            address: self.inner.address().to_owned(),
        })
    }
}

#[deny(clippy::missing_trait_methods)]
impl Store for ReadOnlyStore {
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
        StoreProperties {
            read_only: true,
            ..self.inner.properties()
        }
    }

    fn put(
        &self,
        _key: &ObjectKey,
        _body: ObjectBody<'_>,
        _mode: PutMode,
    ) -> Result<(), StoreError> {
        self.refused()
    }

    fn spool(&self) -> Result<Spool, StoreError> {
        self.refused()
    }

    fn get(&self, key: &ObjectKey, limit: u64) -> Result<Vec<u8>, StoreError> {
        self.inner.get(key, limit)
    }

    fn read_at(&self, key: &ObjectKey, offset: u64, buf: &mut [u8]) -> Result<(), StoreError> {
        self.inner.read_at(key, offset, buf)
    }

    fn stat(&self, key: &ObjectKey) -> Result<ObjectMeta, StoreError> {
        self.inner.stat(key)
    }

    fn list(
        &self,
        directory: ObjectDir,
        each: &mut dyn FnMut(ObjectMeta) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.inner.list(directory, each)
    }

    fn rename(&self, _from: &ObjectKey, _to: &ObjectKey) -> Result<(), StoreError> {
        self.refused()
    }

    fn delete(&self, _key: &ObjectKey) -> Result<(), StoreError> {
        self.refused()
    }

    fn sweep_unfinished(&self, _before: Timestamp) -> Result<(u64, u64), StoreError> {
        self.refused()
    }

    fn set_reserve(&self, _hold: bool) -> Result<(), StoreError> {
        self.refused()
    }

    fn is_nearly_full(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::{MemoryStore, suite};
    use crate::types::LeaseId;

    #[test]
    fn it_reads_and_never_writes() {
        let memory = Arc::new(MemoryStore::new());
        let store = ReadOnlyStore::new(memory.clone());
        suite::run_reading(&*memory, &store);
        let before = memory.objects();
        let lease = ObjectKey::Lease(LeaseId::new([9; 16]));
        let read_only = |result| matches!(result, Err(StoreError::ReadOnly { .. }));
        assert!(read_only(store.put(
            &lease,
            ObjectBody::Bytes(b"x"),
            PutMode::Replace
        )));
        assert!(read_only(store.delete(&before[0].key)));
        assert!(read_only(store.rename(&before[0].key, &lease)));
        assert!(read_only(store.spool().map(drop)));
        assert!(read_only(
            store.sweep_unfinished(Timestamp::default()).map(drop)
        ));
        assert!(read_only(store.set_reserve(true)));
        assert!(store.properties().read_only);
        assert_eq!(memory.objects(), before);
    }
}
