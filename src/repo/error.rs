//! Errors of a repository.

use std::fmt;

use crate::advice::Advice;
use crate::chunk::CodecError;
use crate::index::IndexError;
use crate::store::{ObjectKey, StoreError};
use crate::sys::PathError;
use crate::types::{ChunkId, LeaseId, SnapshotId};

/// The reason why a repository operation failed.
#[derive(Debug)]
pub enum RepoError {
    Store(StoreError),
    Index(IndexError),
    Path(PathError),
    /// This address has no `config`.
    NotFound {
        address: String,
    },
    /// `init` found an existing repository.
    AlreadyThere {
        address: String,
    },
    /// No key slot opens with the given passphrase. `costly` counts the slots that were not tried,
    /// because they ask for far more memory or time than the slots that this version makes.
    WrongKey {
        slots: usize,
        costly: usize,
    },
    /// The repository has a newer format than this version knows.
    NewerFormat {
        found: u32,
        known: u32,
    },
    /// This kind of operation needs a feature that this version does not know.
    UnknownFeature {
        operation: &'static str,
        feature: String,
    },
    /// An object exists, but its content is wrong.
    Damaged {
        object: String,
        what: String,
    },
    /// An unreadable snapshot may be the latest. `before` is the latest of the readable ones.
    LatestDamaged {
        damage: Box<RepoError>,
        before: SnapshotId,
    },
    /// No copy of a chunk can be read. If `now` is set, a copy could not be read this time, but may
    /// be intact.
    ChunkUnreadable {
        id: ChunkId,
        why: String,
        now: bool,
    },
    /// The lease ended while its holder worked: the data it stored is kept, but not committed.
    LostLease {
        id: LeaseId,
        why: String,
    },
    /// A snapshot that the new one builds on was removed in the meantime: the new one was not
    /// committed.
    ParentGone {
        id: LeaseId,
        parent: SnapshotId,
    },
    /// A snapshot failed its commit and could not be deleted: it is still listed.
    NotWithdrawn {
        id: SnapshotId,
        why: Box<RepoError>,
        failure: StoreError,
    },
    /// No snapshot matches this text, or several do.
    NoSuchSnapshot {
        text: String,
        why: String,
        advice: Option<Advice>,
    },
    /// The operation is refused for safety, such as removing the last key slot.
    Refused {
        why: String,
        advice: Option<Advice>,
    },
    Codec(CodecError),
    /// Another thread failed first. Report its error instead.
    Stopped,
}

impl RepoError {
    /// Returns an error about an object with wrong content.
    pub fn damaged(object: impl fmt::Display, what: impl fmt::Display) -> Self {
        Self::Damaged {
            object: object.to_string(),
            what: what.to_string(),
        }
    }

    /// Returns the error of an operation that is refused for safety, without advice.
    pub fn refused(why: impl Into<String>) -> Self {
        Self::Refused {
            why: why.into(),
            advice: None,
        }
    }

    /// Like [`RepoError::damaged`], for an object of the store.
    pub(super) fn bad_object(key: &ObjectKey, what: impl fmt::Display) -> Self {
        Self::damaged(key, what)
    }

    /// Returns true if the cache cannot be created or written: no permission, a read-only file
    /// system, or a file in its place. For errors of [`super::UnlockedRepo::open_cache`].
    pub fn is_read_only_cache(&self) -> bool {
        match self {
            Self::Path(error) => error.is_read_only(),
            Self::Index(error) => error.is_read_only(),
            _ => false,
        }
    }

    /// Returns true if the error shows damage in the repository: an object is missing or too short,
    /// or was read to its end and has wrong content. An object that cannot be read at the moment
    /// does not count as damaged.
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

    /// Returns true if an object could not be read this time, which shows nothing about its
    /// content: see [`StoreError::is_unreadable_now`].
    pub fn is_unreadable_now(&self) -> bool {
        match self {
            Self::Store(err) => err.is_unreadable_now(),
            Self::LatestDamaged { damage, .. } => damage.is_unreadable_now(),
            Self::ChunkUnreadable { now, .. } => *now,
            _ => false,
        }
    }

    /// Returns true if one object is unavailable, for now or for good, while others may be
    /// readable. Callers that read on, or that have another copy, use this. A caller that treats
    /// the object as lost must use [`RepoError::is_damage`].
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
                write!(f, "there is already a repository at {address}")
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
                    "the repository has format {found}, this icecore supports formats up to {known}"
                )
            }
            Self::UnknownFeature { operation, feature } => {
                write!(
                    f,
                    "cannot {operation} this repository: an icecore with '{feature}' is needed"
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
                let id = id.short();
                let parent = parent.short();
                write!(
                    f,
                    "lost lease {id} (its parent {parent} was removed), nothing was committed"
                )
            }
            Self::NotWithdrawn { id, why, failure } => {
                write!(
                    f,
                    "{why}; snapshot {} does not count and could not be removed: {failure}",
                    id.short()
                )
            }
            Self::NoSuchSnapshot { text, why, .. } => write!(f, "no snapshot '{text}': {why}"),
            Self::Refused { why, .. } => f.write_str(why),
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
