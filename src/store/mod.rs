//! Stores: whole objects by key. The trait's comments are the contract; `suite` holds every store
//! to it.

use std::fmt;
use std::io;
use std::sync::Arc;

use crate::sys::FileId;
use crate::types::{LeaseId, PackId, SegmentId, SnapshotId, Timestamp};

mod local;
mod locate;
mod readonly;
mod spool;

// For tests: other stores and decorators, and what holds each of them to the contract.
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
pub use locate::{LocateError, Location};
pub use readonly::ReadOnlyStore;
pub use spool::Spool;

#[cfg(any(test, feature = "testing"))]
pub use self::{
    call::{KeyKind, Operation},
    faulty::{Effect, Fault, FaultyStore, Trouble},
    hooked::{Hook, HookedStore},
    memory::{Clock, MemoryStore},
    model::{Lag, ModelStore, ModelWorld},
    recording::{Call, RecordingStore},
};

/// Which of the two copies of `config` or a key slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Copy {
    First,
    Second,
}

/// The name of an object. Its text form is its path in the store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKey {
    /// `config`, `config.2`
    Config(Copy),
    /// `keys/<slot>`, `keys/<slot>.2`; a slot's name is 1–64 of `a-z 0-9 -`.
    KeySlot(String, Copy),
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
    /// `quarantine/<snapshot id>.snapshot`: a snapshot with lost chunks, or what cannot be read as
    /// one, set aside by a repair
    QuarantinedSnapshot(SnapshotId),
    /// `quarantine/<segment id>.segment`: what cannot be read as an index segment, set aside by a
    /// repair
    QuarantinedSegment(SegmentId),
}

/// What `list` lists.
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
    /// All of them.
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

    /// The directory's name in the store.
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

/// What the store tells of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMeta {
    pub key: ObjectKey,
    /// Stored bytes.
    pub size: u64,
    /// When it was last written, by the store's clock: not before the moment at which these bytes
    /// became visible under this name. Until `put` returns others may see an earlier time.
    pub modified: Timestamp,
}

/// What to do if the name is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PutMode {
    /// Fail with [`StoreError::Exists`].
    CreateOnly,
    /// Replace it atomically: readers see the old bytes or the new. For leases and `config` only.
    Replace,
}

/// The bytes of an object to be put.
#[derive(Debug)]
pub enum Body<'a> {
    Bytes(&'a [u8]),
    /// A file written with [`Store::spool`] of the same store.
    Spooled(Spool),
}

impl Body<'_> {
    /// Bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Spooled(spool) => spool.len(),
        }
    }

    /// True for an object without any byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// How far a store's promises go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Properties {
    /// `CreateOnly` is atomic against other clients.
    pub create_only: bool,
    /// What `put` returned from survives a power cut of the store.
    pub durable_put: bool,
    /// A listing shows everything whose `put` returned before it began.
    pub strong_listing: bool,
    /// Writes are refused: the store or its mount is read-only.
    pub read_only: bool,
    /// [`Store::rename`] works: an object can be set aside without being read.
    pub rename: bool,
    /// How many requests the store serves well at once.
    pub connections: usize,
}

/// Why a store did not do as asked.
#[derive(Debug)]
pub enum StoreError {
    /// No object of this name.
    NotFound { key: ObjectKey },
    /// `CreateOnly`, and the name is taken.
    Exists { key: ObjectKey },
    /// The object is shorter than what was asked of it.
    Short {
        key: ObjectKey,
        wanted: u64,
        found: u64,
    },
    /// The object is longer than what the caller may take.
    TooLong {
        key: ObjectKey,
        limit: u64,
        found: u64,
    },
    /// The store or its medium refuses writes.
    ReadOnly { address: String },
    /// No room left.
    Full { address: String, source: io::Error },
    /// Access was denied.
    Denied { subject: String, source: io::Error },
    /// A store cannot be made here: the directory holds other files, such as the one of this name.
    Occupied { address: String, name: String },
    /// The store is not there (no such directory, no such host).
    Unreachable { address: String, source: io::Error },
    /// Anything else; `subject` is the object or the address.
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
            Self::Exists { key } => write!(f, "{key} exists already"),
            Self::Short { key, wanted, found } => {
                write!(f, "{key} ends at byte {found}, {wanted} were expected")
            }
            Self::TooLong { key, limit, found } => {
                write!(f, "{key} has {found} bytes, at most {limit} are legal")
            }
            Self::ReadOnly { address } => write!(f, "{address} is read-only"),
            Self::Full { address, .. } => write!(f, "no space left in {address}"),
            Self::Denied { subject, .. } => write!(f, "permission denied for {subject}"),
            Self::Occupied { address, name } => {
                write!(
                    f,
                    "cannot make a repository in {address}: it holds other files, such as '{name}'"
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
    /// True if there is no such object.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// True if the medium cannot read some bytes (`EIO`): a bad sector, or a cable, on a store that
    /// is there otherwise.
    pub fn is_bad_medium(&self) -> bool {
        matches!(self, Self::Io { action: "read", source, .. } if source.raw_os_error() == Some(5))
    }

    /// True for an error of reading one object that says nothing about its bytes: a bad sector or
    /// cable, a timeout, a stale handle, a permission, a read that ended before the object does.
    /// The next try may succeed, so nobody may take the object for damaged. A store that is not
    /// there at all is [`StoreError::Unreachable`], which ends a command.
    pub fn is_unreadable_now(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::Denied { .. })
    }
}

/// Where objects live. Blocking, used from many threads at once.
pub trait Store: Send + Sync + fmt::Debug {
    /// The store's address in one canonical spelling, without secrets: what names its cache.
    fn address(&self) -> &str;

    /// Which directory of this machine holds the objects, as told by the open handle, whatever its
    /// path is called; `None` for a store that is none, or whose handle cannot be asked. What walks
    /// a tree leaves this directory alone.
    fn directory(&self) -> Option<FileId>;

    /// How far this store's promises go.
    fn properties(&self) -> Properties;

    /// Stores an object whole or not at all.
    ///
    /// When it returns `Ok`, the object is readable and listed (see [`Properties`]), and durable
    /// where the store can promise that; after an error or a crash there may be the whole object,
    /// or none, and leftovers under temporary names that `list` does not show. A failed put may be
    /// tried again from fresh bytes.
    fn put(&self, key: &ObjectKey, body: Body<'_>, mode: PutMode) -> Result<(), StoreError>;

    /// Opens a file in which a large object can be written before its name is known.
    fn spool(&self) -> Result<Spool, StoreError>;

    /// Reads an object whole; one longer than `limit` bytes is refused unread.
    fn get(&self, key: &ObjectKey, limit: u64) -> Result<Vec<u8>, StoreError>;

    /// Fills `buf` from the object's bytes at `offset`; [`StoreError::Short`] if it ends before.
    fn read_at(&self, key: &ObjectKey, offset: u64, buf: &mut [u8]) -> Result<(), StoreError>;

    /// Size and store time of one object.
    fn stat(&self, key: &ObjectKey) -> Result<ObjectMeta, StoreError>;

    /// Calls `each` for every object in the directory, in no order. Names that are no object's are
    /// passed over; a directory that is not there is empty. An error of `each` ends the listing and
    /// is returned.
    fn list(
        &self,
        directory: ObjectDir,
        each: &mut dyn FnMut(ObjectMeta) -> Result<(), StoreError>,
    ) -> Result<(), StoreError>;

    /// Gives an object another name without touching its bytes, which need not be readable. For
    /// setting objects aside, and for taking them back.
    ///
    /// Durable when it returns. A crash leaves the object under one of its names, or under both. An
    /// object that comes to `quarantine/` gets the time of this call as its store time, where the
    /// store can set it; another keeps its time.
    ///
    /// # Errors
    /// [`StoreError::Exists`] if the new name is taken by another object, [`StoreError::NotFound`]
    /// if the old one is not there. Always fails where [`Properties::rename`] is false.
    fn rename(&self, from: &ObjectKey, to: &ObjectKey) -> Result<(), StoreError>;

    /// Removes an object; [`StoreError::NotFound`] if there is none.
    fn delete(&self, key: &ObjectKey) -> Result<(), StoreError>;

    /// Removes what unfinished writes left under temporary names that were last written before
    /// `before`, by the store's clock; returns how many there were and their bytes. Most stores
    /// leave nothing.
    fn sweep_unfinished(&self, _before: Timestamp) -> Result<(u64, u64), StoreError> {
        Ok((0, 0))
    }

    /// Holds some room back for the day that the store is full, or gives it back, so that a prune
    /// can write the little that it must before it can free more. Nothing happens where room cannot
    /// be held or is (not) held already.
    fn set_reserve(&self, _hold: bool) -> Result<(), StoreError> {
        Ok(())
    }

    /// True if the store may have no room for a few small objects, so that its reserve is of use.
    /// False where it cannot tell.
    fn is_nearly_full(&self) -> bool {
        false
    }
}

/// A store shared by the threads of an operation.
pub type SharedStore = Arc<dyn Store>;

/// The directory's objects, sorted by key.
pub fn list_all(store: &dyn Store, directory: ObjectDir) -> Result<Vec<ObjectMeta>, StoreError> {
    let mut out = Vec::new();
    store.list(directory, &mut |meta| {
        out.push(meta);
        Ok(())
    })?;
    out.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(out)
}

impl fmt::Display for Copy {
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

/// What the names of objects in quarantine end in.
const QUARANTINED_PACK: &str = ".pack";
const QUARANTINED_SNAPSHOT: &str = ".snapshot";
const QUARANTINED_SEGMENT: &str = ".segment";

impl ObjectKey {
    /// The directory in which `list` shows the object; none for `config`.
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

    /// The key of an object from its file name in a directory; none if the name is no object's.
    pub fn from_name(directory: ObjectDir, name: &str) -> Option<Self> {
        match directory {
            ObjectDir::Keys => {
                let (slot, copy) = match name.strip_suffix(".2") {
                    Some(slot) => (slot, Copy::Second),
                    None => (name, Copy::First),
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
