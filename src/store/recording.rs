//! A store that records every call, so that tests can assert the amount of work of an operation
//! instead of its duration.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::store::{
    KeyKind, ObjectBody, ObjectDir, ObjectKey, ObjectMeta, PutMode, SharedStore, Spool, Store,
    StoreError, StoreOperation, StoreProperties,
};
use crate::sys::FileId;
use crate::types::{Timestamp, to_u64};

/// One call of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedCall {
    pub operation: StoreOperation,
    /// `None` for `spool`.
    pub kind: Option<KeyKind>,
    /// `None` for `spool` and `list`.
    pub key: Option<ObjectKey>,
    /// Bytes put or read; for `list` the number of objects listed; otherwise 0.
    pub bytes: u64,
    pub ok: bool,
}

/// A wrapper of another store that records calls in the order in which they end.
#[derive(Debug)]
pub struct RecordingStore {
    inner: SharedStore,
    calls: Mutex<Vec<RecordedCall>>,
}

impl RecordingStore {
    /// Wraps a store.
    pub fn new(inner: SharedStore) -> Self {
        Self {
            inner,
            calls: Mutex::default(),
        }
    }

    /// Returns all calls so far.
    pub fn calls(&self) -> Vec<RecordedCall> {
        self.lock().clone()
    }

    /// Returns all calls so far and clears the record.
    pub fn take(&self) -> Vec<RecordedCall> {
        std::mem::take(&mut *self.lock())
    }

    /// Returns the number of calls of this operation on objects of this kind.
    pub fn count(&self, operation: StoreOperation, kind: KeyKind) -> usize {
        self.lock()
            .iter()
            .filter(|call| call.operation == operation && call.kind == Some(kind))
            .count()
    }

    /// Returns the number of calls of this operation.
    pub fn count_all(&self, operation: StoreOperation) -> usize {
        self.lock()
            .iter()
            .filter(|call| call.operation == operation)
            .count()
    }

    /// Returns the bytes that calls of this operation moved for objects of this kind.
    pub fn bytes(&self, operation: StoreOperation, kind: KeyKind) -> u64 {
        let calls = self.lock();
        let of = calls
            .iter()
            .filter(|call| call.operation == operation && call.kind == Some(kind));
        of.map(|call| call.bytes).sum()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<RecordedCall>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record<T>(
        &self,
        operation: StoreOperation,
        key: &ObjectKey,
        bytes: u64,
        result: &Result<T, StoreError>,
    ) {
        let kind = Some(key.into());
        let key = Some(key.clone());
        self.lock().push(RecordedCall {
            operation,
            kind,
            key,
            bytes,
            ok: result.is_ok(),
        });
    }
}

#[deny(clippy::missing_trait_methods)]
impl Store for RecordingStore {
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
        let bytes = body.len();
        let result = self.inner.put(key, body, mode);
        self.record(StoreOperation::Put, key, bytes, &result);
        result
    }

    fn spool(&self) -> Result<Spool, StoreError> {
        let result = self.inner.spool();
        let ok = result.is_ok();
        self.lock().push(RecordedCall {
            operation: StoreOperation::Spool,
            kind: None,
            key: None,
            bytes: 0,
            ok,
        });
        result
    }

    fn get(&self, key: &ObjectKey, limit: u64) -> Result<Vec<u8>, StoreError> {
        let result = self.inner.get(key, limit);
        let bytes = result.as_ref().map_or(0, |bytes| to_u64(bytes.len()));
        self.record(StoreOperation::Get, key, bytes, &result);
        result
    }

    fn read_at(&self, key: &ObjectKey, offset: u64, buf: &mut [u8]) -> Result<(), StoreError> {
        let result = self.inner.read_at(key, offset, buf);
        self.record(StoreOperation::ReadAt, key, to_u64(buf.len()), &result);
        result
    }

    fn stat(&self, key: &ObjectKey) -> Result<ObjectMeta, StoreError> {
        let result = self.inner.stat(key);
        self.record(StoreOperation::Stat, key, 0, &result);
        result
    }

    fn list(
        &self,
        directory: ObjectDir,
        each: &mut dyn FnMut(ObjectMeta) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut listed = 0;
        let result = self.inner.list(directory, &mut |meta| {
            listed += 1;
            each(meta)
        });
        let operation = StoreOperation::List;
        let ok = result.is_ok();
        self.lock().push(RecordedCall {
            operation,
            kind: Some(directory.into()),
            key: None,
            bytes: listed,
            ok,
        });
        result
    }

    fn rename(&self, from: &ObjectKey, to: &ObjectKey) -> Result<(), StoreError> {
        let result = self.inner.rename(from, to);
        self.record(StoreOperation::Rename, from, 0, &result);
        result
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let result = self.inner.delete(key);
        self.record(StoreOperation::Delete, key, 0, &result);
        result
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
    use crate::store::{MemoryStore, suite};
    use crate::types::{PackId, SegmentId};

    #[test]
    fn it_keeps_the_contract() {
        suite::run(|| Arc::new(RecordingStore::new(Arc::new(MemoryStore::new()))));
    }

    #[test]
    fn calls_are_counted_by_operation_and_kind() {
        let store = RecordingStore::new(Arc::new(MemoryStore::new()));
        let pack = ObjectKey::Pack(PackId::new([1; 32]));
        let mut spool = store.spool().expect("spool");
        spool.append(b"12345").expect("append");
        store
            .put(&pack, ObjectBody::Spooled(spool), PutMode::CreateOnly)
            .expect("put");
        assert!(
            store
                .put(&pack, ObjectBody::Bytes(b"123"), PutMode::CreateOnly)
                .is_err()
        );
        store.read_at(&pack, 1, &mut [0; 2]).expect("read");
        assert!(
            store
                .get(&ObjectKey::Segment(SegmentId::new([1; 32])), 9)
                .is_err()
        );
        store.list(ObjectDir::Packs, &mut |_| Ok(())).expect("list");

        assert_eq!(store.count(StoreOperation::Put, KeyKind::Pack), 2);
        assert_eq!(store.bytes(StoreOperation::Put, KeyKind::Pack), 8);
        assert_eq!(store.bytes(StoreOperation::ReadAt, KeyKind::Pack), 2);
        assert_eq!(store.count(StoreOperation::Get, KeyKind::Segment), 1);
        assert_eq!(store.count(StoreOperation::List, KeyKind::Pack), 1);
        assert_eq!(store.count_all(StoreOperation::Spool), 1);

        let calls = store.take();
        let ok: Vec<bool> = calls.iter().map(|call| call.ok).collect();
        assert_eq!(ok, [true, true, false, true, false, true]);
        assert_eq!(store.calls(), []);
    }
}
