//! The contract of a store: its operations, and their arguments and results.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::store::{ObjectDir, ObjectKey, Spool, StoreError};
use crate::sys::FileId;
use crate::types::{Timestamp, to_u64};

/// Attributes of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMeta {
    pub key: ObjectKey,
    /// Stored bytes.
    pub size: u64,
    /// Time of the last write by the store's clock: not before the moment at which these bytes
    /// became visible under this name. Until `put` returns, other clients may see an earlier time.
    pub modified: Timestamp,
}

/// Behavior of a put if the name is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PutMode {
    /// Fail with [`StoreError::Exists`].
    CreateOnly,
    /// Replace it atomically: readers see the old bytes or the new ones. For leases, `config`,
    /// key slots and packs in quarantine only.
    Replace,
}

/// The bytes of an object to put.
#[derive(Debug)]
pub enum ObjectBody<'a> {
    Bytes(&'a [u8]),
    /// A file written with [`Store::spool`] of the same store.
    Spooled(Spool),
}

impl ObjectBody<'_> {
    /// Returns the number of bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => to_u64(bytes.len()),
            Self::Spooled(spool) => spool.len(),
        }
    }

    /// Returns true for an object without bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Guarantees of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StoreProperties {
    /// `CreateOnly` is atomic against other clients.
    pub create_only: bool,
    /// An object survives a power failure of the store once its `put` has returned.
    pub durable_put: bool,
    /// A listing includes every object whose `put` returned before the listing began.
    pub strong_listing: bool,
    /// Writes are refused: the store or its mount is read-only.
    pub read_only: bool,
    /// [`Store::rename`] works, so an object can be set aside without being read.
    pub rename: bool,
    /// Number of concurrent requests that the store serves well.
    pub connections: usize,
}

/// A place where objects are stored. Calls block and may come from many threads at once.
pub trait Store: Send + Sync + fmt::Debug {
    /// Returns the store's address in one canonical spelling, without secrets. The name of the
    /// store's cache is derived from it.
    fn address(&self) -> &str;

    /// Returns the directory of this machine that holds the objects, from the open handle and so
    /// regardless of its path. Returns `None` if the store is not a directory or its handle cannot
    /// be queried. Tree walks skip this directory.
    fn directory(&self) -> Option<FileId>;

    /// Returns the path of the directory that holds the objects, absolute and without links, as it
    /// was when the store was opened. Returns `None` if the store is not a directory of this
    /// machine. The address is no substitute: it may be escaped.
    fn local_path(&self) -> Option<&Path>;

    /// Returns the guarantees of this store.
    fn properties(&self) -> StoreProperties;

    /// Stores an object completely or not at all.
    ///
    /// When it returns `Ok`, the object is readable and listed (see [`StoreProperties`]), and durable if
    /// the store can guarantee that. After an error or a crash the whole object may exist, or
    /// nothing, and temporary files may remain that `list` does not show. A failed put may be
    /// retried with a new body.
    fn put(&self, key: &ObjectKey, body: ObjectBody<'_>, mode: PutMode) -> Result<(), StoreError>;

    /// Opens a file for writing a large object before its name is known.
    fn spool(&self) -> Result<Spool, StoreError>;

    /// Reads a whole object. An object longer than `limit` bytes is refused without reading it.
    fn get(&self, key: &ObjectKey, limit: u64) -> Result<Vec<u8>, StoreError>;

    /// Fills `buf` with the object's bytes at `offset`; [`StoreError::Short`] if the object is too
    /// short.
    fn read_at(&self, key: &ObjectKey, offset: u64, buf: &mut [u8]) -> Result<(), StoreError>;

    /// Returns the size and the store time of one object.
    fn stat(&self, key: &ObjectKey) -> Result<ObjectMeta, StoreError>;

    /// Calls `each` for every object in the directory, in no order. Names that do not belong to an
    /// object are skipped; a missing directory is empty. An error of `each` ends the listing and is
    /// returned.
    fn list(
        &self,
        directory: ObjectDir,
        each: &mut dyn FnMut(ObjectMeta) -> Result<(), StoreError>,
    ) -> Result<(), StoreError>;

    /// Renames an object without touching its bytes, which need not be readable. For setting
    /// objects aside, and for restoring them.
    ///
    /// The rename is durable when it returns. A crash leaves the object under one of its names, or
    /// under both. An object that is moved to `quarantine/` gets the time of this call as its store
    /// time, if the store can set it; any other object keeps its time.
    ///
    /// # Errors
    /// [`StoreError::Exists`] if the new name is taken by another object, [`StoreError::NotFound`]
    /// if there is no object of the old name. Always fails if [`StoreProperties::rename`] is false.
    fn rename(&self, from: &ObjectKey, to: &ObjectKey) -> Result<(), StoreError>;

    /// Removes an object; [`StoreError::NotFound`] if there is none.
    fn delete(&self, key: &ObjectKey) -> Result<(), StoreError>;

    /// Removes temporary files of unfinished writes that were last written before `before`, by the
    /// store's clock. Returns their number and total bytes. Most stores have none.
    fn sweep_unfinished(&self, _before: Timestamp) -> Result<(u64, u64), StoreError> {
        Ok((0, 0))
    }

    /// Reserves some space for the time when the store is full, or releases it, so that a prune can
    /// write the few objects that it needs before it can free more. Does nothing if the store
    /// cannot reserve space, or is already in the requested state.
    fn set_reserve(&self, _hold: bool) -> Result<(), StoreError> {
        Ok(())
    }

    /// Returns true if the store may have no space for a few small objects, so that releasing the
    /// reserve helps. Always false for a store without a reserve.
    fn is_nearly_full(&self) -> bool {
        false
    }
}

/// A store shared by the threads of an operation.
pub type SharedStore = Arc<dyn Store>;

/// Returns the directory's objects, sorted by key.
pub fn list_all(store: &dyn Store, directory: ObjectDir) -> Result<Vec<ObjectMeta>, StoreError> {
    let mut out = Vec::new();
    store.list(directory, &mut |meta| {
        out.push(meta);
        Ok(())
    })?;
    out.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(out)
}
