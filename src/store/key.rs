//! Names of objects and of their directories.

use std::fmt;

use crate::types::{LeaseId, PackId, SegmentId, SnapshotId};

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

/// A directory of objects, as listed by [`Store::list`](super::Store::list).
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
