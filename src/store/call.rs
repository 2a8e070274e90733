//! Names for the calls of a store, by which tests count them and make them fail.

use crate::store::{Folder, ObjectKey};

/// A method of `Store` that reaches the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    Put,
    Spool,
    Get,
    ReadAt,
    Stat,
    List,
    Delete,
    /// Counted for the object as it was named before.
    Rename,
}

impl Operation {
    /// True if the operation changes what the store holds.
    pub const fn is_write(self) -> bool {
        matches!(self, Self::Put | Self::Delete | Self::Rename)
    }
}

/// What kind of object a call is about.
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

impl From<Folder> for KeyKind {
    fn from(folder: Folder) -> Self {
        match folder {
            Folder::Keys => Self::KeySlot,
            Folder::Packs => Self::Pack,
            Folder::Index => Self::Segment,
            Folder::Snapshots => Self::Snapshot,
            Folder::Forgotten => Self::Forgotten,
            Folder::Leases => Self::Lease,
            Folder::Parity => Self::Parity,
            Folder::Quarantine => Self::Quarantined,
        }
    }
}
