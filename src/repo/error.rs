//! What can go wrong with a repository.

use std::fmt;

use crate::chunk::CodecError;
use crate::index::IndexError;
use crate::store::{ObjectKey, StoreError};
use crate::sys::PathError;
use crate::types::{ChunkId, LeaseId, SnapshotId};

/// Why a repository did not do as asked.
#[derive(Debug)]
pub enum RepoError {
    Store(StoreError),
    Index(IndexError),
    Path(PathError),
    /// There is no `config` at this address.
    NotFound {
        address: String,
    },
    /// `init` found a repository there already.
    AlreadyThere {
        address: String,
    },
    /// No key slot opens with the given passphrase. `costly`: slots that were not tried because
    /// they ask for far more memory or time than those that this version makes.
    WrongKey {
        slots: usize,
        costly: usize,
    },
    /// The repository has a format version above ours.
    NewerFormat {
        found: u32,
        known: u32,
    },
    /// The repository needs a feature that we do not know for this kind of operation.
    UnknownFeature {
        operation: &'static str,
        feature: String,
    },
    /// An object is not what it should be.
    Damaged {
        object: String,
        what: String,
    },
    /// A snapshot that cannot be read may be the latest; `before` is the latest of those that can
    /// be.
    LatestDamaged {
        damage: Box<RepoError>,
        before: SnapshotId,
    },
    /// No copy of a chunk can be read. `now`: a copy could not be read this time, and may be whole.
    ChunkUnreadable {
        id: ChunkId,
        why: String,
        now: bool,
    },
    /// Our lease ended while we worked: what was written is kept, but not committed.
    LostLease {
        id: LeaseId,
        why: String,
    },
    /// A snapshot that ours builds on was removed while we worked: ours was not committed.
    ParentGone {
        id: LeaseId,
        parent: SnapshotId,
    },
    /// A snapshot does not count, and could not be taken back: it is still listed.
    NotWithdrawn {
        id: SnapshotId,
        why: Box<RepoError>,
        failure: StoreError,
    },
    /// No snapshot of this name, or several.
    NoSuchSnapshot {
        text: String,
        why: String,
    },
    /// The last key slot cannot be removed, and the like.
    Refused {
        why: String,
    },
    Codec(CodecError),
    /// Another thread failed first; its error is the one to report.
    Stopped,
}

impl RepoError {
    /// An object that is not what it should be.
    pub fn damaged(object: impl fmt::Display, what: impl fmt::Display) -> Self {
        Self::Damaged {
            object: object.to_string(),
            what: what.to_string(),
        }
    }

    /// The same for an object of the store.
    pub(super) fn bad_object(key: &ObjectKey, what: impl fmt::Display) -> Self {
        Self::damaged(key, what)
    }

    /// True if it is the cache that cannot be made or written: no permission, a read-only file
    /// system, a file in its place. For errors of [`super::Unlocked::open_cache`].
    pub fn is_read_only_cache(&self) -> bool {
        match self {
            Self::Path(error) => error.is_read_only(),
            Self::Index(error) => error.is_read_only(),
            _ => false,
        }
    }

    /// True if it tells of damage in the repository: an object is gone, too short, or was read
    /// whole and is not what it should be. An object that cannot be read at the moment is not
    /// damaged.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } | Self::Codec(_) => true,
            Self::LatestDamaged { damage, .. } => damage.is_damage(),
            Self::ChunkUnreadable { now, .. } => !now,
            Self::Store(err) => matches!(
                err,
                StoreError::Short { .. } | StoreError::TooLong { .. } | StoreError::NotFound { .. }
            ),
            _ => false,
        }
    }

    /// True if an object could not be read this time, whatever it holds: see
    /// [`StoreError::is_unreadable_now`].
    pub fn is_unreadable_now(&self) -> bool {
        match self {
            Self::Store(err) => err.is_unreadable_now(),
            Self::LatestDamaged { damage, .. } => damage.is_unreadable_now(),
            Self::ChunkUnreadable { now, .. } => *now,
            _ => false,
        }
    }

    /// True if one object cannot be had, for now or for good, and others may well be: for who reads
    /// on, and for who has another copy. Who takes an object for lost asks
    /// [`RepoError::is_damage`].
    pub fn is_unavailable(&self) -> bool {
        self.is_damage() || self.is_unreadable_now()
    }
}

impl fmt::Display for RepoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(err) => err.fmt(f),
            Self::Index(err) => err.fmt(f),
            Self::Path(err) => err.fmt(f),
            Self::Codec(err) => err.fmt(f),
            Self::NotFound { address } => write!(f, "there is no repository at {address}"),
            Self::AlreadyThere { address } => {
                write!(f, "there is a repository at {address} already")
            }
            Self::WrongKey { slots, costly } => {
                match slots {
                    0 if *costly > 0 => f.write_str("no key slot of the repository was tried")?,
                    0 => f.write_str("the repository has no readable key slot")?,
                    1 => f.write_str("the passphrase does not open the repository's key slot")?,
                    _ => write!(
                        f,
                        "the passphrase opens none of the repository's {slots} key slots"
                    )?,
                }
                match costly {
                    0 => Ok(()),
                    1 => f.write_str(
                        "; one more asks for unusually much memory or time and was not tried",
                    ),
                    _ => {
                        write!(
                            f,
                            "; {costly} more ask for unusually much memory or time and were not tried"
                        )
                    }
                }
            }
            Self::NewerFormat { found, known } => {
                write!(
                    f,
                    "the repository has format {found}, this icecore knows formats up to {known}"
                )
            }
            Self::UnknownFeature { operation, feature } => {
                write!(
                    f,
                    "to {operation} this repository, an icecore that knows '{feature}' is needed"
                )
            }
            Self::Damaged { object, what } => write!(f, "{object} is damaged: {what}"),
            Self::LatestDamaged { damage, before } => {
                write!(
                    f,
                    "{damage}; it may be the latest, and the one before it is {}",
                    before.short()
                )
            }
            Self::ChunkUnreadable { id, why, .. } => {
                write!(f, "chunk {} cannot be read: {why}", id.short())
            }
            Self::LostLease { id, why } => {
                write!(
                    f,
                    "lost lease {} ({why}), nothing was committed",
                    id.short()
                )
            }
            Self::ParentGone { id, parent } => {
                let (id, parent) = (id.short(), parent.short());
                write!(
                    f,
                    "lost lease {id} (its parent {parent} was removed meanwhile), nothing was committed"
                )
            }
            Self::NotWithdrawn { id, why, failure } => {
                write!(
                    f,
                    "{why}; snapshot {} does not count and could not be removed: {failure}",
                    id.short()
                )
            }
            Self::NoSuchSnapshot { text, why } => write!(f, "no snapshot '{text}': {why}"),
            Self::Refused { why } => f.write_str(why),
            Self::Stopped => f.write_str("stopped because another part failed"),
        }
    }
}

impl std::error::Error for RepoError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(err) => err.source(),
            Self::Index(err) => err.source(),
            Self::Path(err) => err.source(),
            Self::Codec(err) => err.source(),
            Self::LatestDamaged { damage, .. } => damage.source(),
            _ => None,
        }
    }
}

macro_rules! from {
    ($($source:ty => $variant:ident),* $(,)?) => {
        $(impl From<$source> for RepoError {
            fn from(err: $source) -> Self {
                Self::$variant(err)
            }
        })*
    };
}

from!(StoreError => Store, IndexError => Index, PathError => Path, CodecError => Codec);
