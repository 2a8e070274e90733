//! Stores of whole objects by key. The comments of the trait [`Store`] are the contract; `suite`
//! checks every store against it.

use std::fmt;
use std::io;
use std::sync::Arc;

use crate::sys::FileId;
use crate::types::{LeaseId, PackId, SegmentId, SnapshotId, Timestamp};

mod local;
mod locate;
mod readonly;
mod spool;

// For tests: other stores and decorators, and the suite that checks each of them.
#[cfg(any(test, feature = "testing"))]
mod call;
#[cfg(any(test, feature = "testing"))]
mod faulty;
#[cfg(any(test, feature = "testing"))]
mod hooked;
#[cfg(any(test, feature = "testing"))]
mod memory;
#[cfg(any(test, feature = "testing"))]
mod model;
#[cfg(any(test, feature = "testing"))]
mod recording;
#[cfg(any(test, feature = "testing"))]
pub mod suite;

pub use local::{LocalStore, is_foreign};
pub use locate::{LocateError, StoreLocation};
pub use readonly::ReadOnlyStore;
pub use spool::Spool;

#[cfg(any(test, feature = "testing"))]
pub use self::{
    call::{KeyKind, StoreOperation},
    faulty::{Fault, FaultEffect, FaultyStore, InjectedError},
    hooked::{Hook, HookedStore},
    memory::{MemoryStore, TestClock},
    model::{ListingLag, ModelStore, ModelWorld},
    recording::{RecordedCall, RecordingStore},
};

/// One of the two copies of `config` or a key slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Replica {
    First,
    Second,
}

/// The name of an object. Its text form is its path in the store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKey {
    /// `config`, `config.2`
    Config(Replica),
    /// `keys/<slot>`, `keys/<slot>.2`; a slot's name is 1–64 of `a-z 0-9 -`.
    KeySlot(String, Replica),
    /// `packs/<last byte as 2 hex>/<pack id>`
    Pack(PackId),
    /// `index/<segment id>`
    Segment(SegmentId),
    /// `snapshots/<snapshot id>`
    Snapshot(SnapshotId),
    /// `forgotten/<snapshot id>`
    Forgotten(SnapshotId),
    /// `leases/<random>`
    Lease(LeaseId),
    /// `parity/<last byte as 2 hex>/<pack id>`: recovery data of a pack
    Parity(PackId),
    /// `quarantine/<pack id>.pack`: a damaged pack, set aside by a repair
    QuarantinedPack(PackId),
    /// `quarantine/<snapshot id>.snapshot`: a snapshot with lost chunks, or an object that cannot
    /// be read as a snapshot, set aside by a repair
    QuarantinedSnapshot(SnapshotId),
    /// `quarantine/<segment id>.segment`: an object that cannot be read as an index segment, set
    /// aside by a repair
    QuarantinedSegment(SegmentId),
}

/// A directory of objects, as listed by [`Store::list`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectDir {
    Keys,
    Packs,
    Index,
    Snapshots,
    Forgotten,
    Leases,
    Parity,
    Quarantine,
}

impl ObjectDir {
    /// All directories.
    pub const ALL: [Self; 8] = [
        Self::Keys,
        Self::Packs,
        Self::Index,
        Self::Snapshots,
        Self::Forgotten,
        Self::Leases,
        Self::Parity,
        Self::Quarantine,
    ];

    /// Returns the directory's name in the store.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Keys => "keys",
            Self::Packs => "packs",
            Self::Index => "index",
            Self::Snapshots => "snapshots",
            Self::Forgotten => "forgotten",
            Self::Leases => "leases",
            Self::Parity => "parity",
            Self::Quarantine => "quarantine",
        }
    }
}

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
            Self::Bytes(bytes) => bytes.len() as u64,
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

/// An error of a store operation.
#[derive(Debug)]
pub enum StoreError {
    /// There is no object of this name.
    NotFound { key: ObjectKey },
    /// `CreateOnly`, but the name is taken.
    Exists { key: ObjectKey },
    /// The object is shorter than the requested range.
    Short {
        key: ObjectKey,
        wanted: u64,
        found: u64,
    },
    /// The object is longer than the caller's limit.
    TooLong {
        key: ObjectKey,
        limit: u64,
        found: u64,
    },
    /// The store or its medium refuses writes.
    ReadOnly { address: String },
    /// There is no space left.
    Full { address: String, source: io::Error },
    /// Access was denied.
    Denied { subject: String, source: io::Error },
    /// A store cannot be created here: the directory contains other files, such as the named one.
    Occupied { address: String, name: String },
    /// The store does not exist or cannot be reached (no such directory, no such host).
    Unreachable { address: String, source: io::Error },
    /// Any other error; `subject` is the object or the address.
    Io {
        action: &'static str,
        subject: String,
        source: io::Error,
    },
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound { key } => write!(f, "{key} is not in the store"),
            Self::Exists { key } => write!(f, "{key} already exists"),
            Self::Short { key, wanted, found } => {
                write!(f, "{key} ends at byte {found}, expected {wanted}")
            }
            Self::TooLong { key, limit, found } => {
                write!(f, "{key} has {found} bytes, the limit is {limit}")
            }
            Self::ReadOnly { address } => write!(f, "{address} is read-only"),
            Self::Full { address, .. } => write!(f, "no space left in {address}"),
            Self::Denied { subject, .. } => write!(f, "permission denied for {subject}"),
            Self::Occupied { address, name } => {
                write!(
                    f,
                    "cannot create a repository in {address}: it holds other files, such as '{name}'"
                )
            }
            Self::Unreachable { address, .. } => write!(f, "cannot reach {address}"),
            Self::Io {
                action, subject, ..
            } => write!(f, "cannot {action} {subject}"),
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Full { source, .. }
            | Self::Denied { source, .. }
            | Self::Unreachable { source, .. }
            | Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl StoreError {
    /// Returns true if there is no such object.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// Returns true if the medium cannot read some bytes (`EIO`): a bad sector or a cable, in a
    /// store that is otherwise available.
    pub fn is_bad_medium(&self) -> bool {
        matches!(self, Self::Io { action: "read", source, .. } if source.raw_os_error() == Some(5))
    }

    /// Returns true for an error of reading one object that says nothing about its bytes: a bad
    /// sector or cable, a timeout, a stale handle, a permission, a read that ended before the
    /// object does. The next try may succeed, so the object must not be treated as damaged. A store
    /// that is not available at all is [`StoreError::Unreachable`], which ends a command.
    pub fn is_unreadable_now(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::Denied { .. })
    }
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

impl fmt::Display for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::First => "",
            Self::Second => ".2",
        })
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(copy) => write!(f, "config{copy}"),
            Self::KeySlot(slot, copy) => write!(f, "keys/{slot}{copy}"),
            Self::Pack(id) => write!(f, "packs/{:02x}/{id}", id.as_bytes()[31]),
            Self::Segment(id) => write!(f, "index/{id}"),
            Self::Snapshot(id) => write!(f, "snapshots/{id}"),
            Self::Forgotten(id) => write!(f, "forgotten/{id}"),
            Self::Lease(id) => write!(f, "leases/{id}"),
            Self::Parity(id) => write!(f, "parity/{:02x}/{id}", id.as_bytes()[31]),
            Self::QuarantinedPack(id) => write!(f, "quarantine/{id}{QUARANTINED_PACK}"),
            Self::QuarantinedSnapshot(id) => write!(f, "quarantine/{id}{QUARANTINED_SNAPSHOT}"),
            Self::QuarantinedSegment(id) => write!(f, "quarantine/{id}{QUARANTINED_SEGMENT}"),
        }
    }
}

/// Suffixes of names in quarantine.
const QUARANTINED_PACK: &str = ".pack";
const QUARANTINED_SNAPSHOT: &str = ".snapshot";
const QUARANTINED_SEGMENT: &str = ".segment";

impl ObjectKey {
    /// Returns the directory in which `list` shows the object, or `None` for `config`.
    pub const fn directory(&self) -> Option<ObjectDir> {
        match self {
            Self::Config(_) => None,
            Self::KeySlot(..) => Some(ObjectDir::Keys),
            Self::Pack(_) => Some(ObjectDir::Packs),
            Self::Segment(_) => Some(ObjectDir::Index),
            Self::Snapshot(_) => Some(ObjectDir::Snapshots),
            Self::Forgotten(_) => Some(ObjectDir::Forgotten),
            Self::Lease(_) => Some(ObjectDir::Leases),
            Self::Parity(_) => Some(ObjectDir::Parity),
            Self::QuarantinedPack(_)
            | Self::QuarantinedSnapshot(_)
            | Self::QuarantinedSegment(_) => Some(ObjectDir::Quarantine),
        }
    }

    /// Returns the key for a file name in a directory, or `None` if the name does not belong to an
    /// object.
    pub fn from_name(directory: ObjectDir, name: &str) -> Option<Self> {
        match directory {
            ObjectDir::Keys => {
                let (slot, copy) = match name.strip_suffix(".2") {
                    Some(slot) => (slot, Replica::Second),
                    None => (name, Replica::First),
                };
                let legal = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-');
                ((1..=64).contains(&slot.len()) && slot.bytes().all(legal))
                    .then(|| Self::KeySlot(slot.to_owned(), copy))
            }
            ObjectDir::Packs => name.parse().ok().map(Self::Pack),
            ObjectDir::Index => name.parse().ok().map(Self::Segment),
            ObjectDir::Snapshots => name.parse().ok().map(Self::Snapshot),
            ObjectDir::Forgotten => name.parse().ok().map(Self::Forgotten),
            ObjectDir::Leases => name.parse().ok().map(Self::Lease),
            ObjectDir::Parity => name.parse().ok().map(Self::Parity),
            ObjectDir::Quarantine => {
                let (id, suffix) = name.split_at_checked(name.find('.')?)?;
                match suffix {
                    QUARANTINED_PACK => id.parse().ok().map(Self::QuarantinedPack),
                    QUARANTINED_SNAPSHOT => id.parse().ok().map(Self::QuarantinedSnapshot),
                    QUARANTINED_SEGMENT => id.parse().ok().map(Self::QuarantinedSegment),
                    _ => None,
                }
            }
        }
    }
}
