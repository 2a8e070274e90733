//! Names for the calls of a store, with which tests count them or make them fail.

use crate::store::{ObjectDir, ObjectKey};

/// A method of `Store` that reaches the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StoreOperation {
    Put,
    Spool,
    Get,
    ReadAt,
    Stat,
    List,
    Delete,
    /// Counted for the old name of the object.
    Rename,
}

impl StoreOperation {
    /// Returns true if the operation changes the content of the store.
    pub const fn is_write(self) -> bool {
        matches!(self, Self::Put | Self::Delete | Self::Rename)
    }
}

/// The kind of object that a call concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyKind {
    Config,
    KeySlot,
    Pack,
    Segment,
    Snapshot,
    Forgotten,
    Lease,
    Parity,
    Quarantined,
}

impl From<&ObjectKey> for KeyKind {
    fn from(key: &ObjectKey) -> Self {
        match key {
            ObjectKey::Config(_) => Self::Config,
            ObjectKey::KeySlot(..) => Self::KeySlot,
            ObjectKey::Pack(_) => Self::Pack,
            ObjectKey::Segment(_) => Self::Segment,
            ObjectKey::Snapshot(_) => Self::Snapshot,
            ObjectKey::Forgotten(_) => Self::Forgotten,
            ObjectKey::Lease(_) => Self::Lease,
            ObjectKey::Parity(_) => Self::Parity,
            ObjectKey::QuarantinedPack(_)
            | ObjectKey::QuarantinedSnapshot(_)
            | ObjectKey::QuarantinedSegment(_) => Self::Quarantined,
        }
    }
}

impl From<ObjectDir> for KeyKind {
    fn from(directory: ObjectDir) -> Self {
        match directory {
            ObjectDir::Keys => Self::KeySlot,
            ObjectDir::Packs => Self::Pack,
            ObjectDir::Index => Self::Segment,
            ObjectDir::Snapshots => Self::Snapshot,
            ObjectDir::Forgotten => Self::Forgotten,
            ObjectDir::Leases => Self::Lease,
            ObjectDir::Parity => Self::Parity,
            ObjectDir::Quarantine => Self::Quarantined,
        }
    }
}
