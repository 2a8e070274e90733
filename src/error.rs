//! The library's public error: its kind, its message and advice.

use std::fmt;

use crate::advice::{AccessAdvice, Advice, BackupAdvice, RepairAdvice, SnapshotAdvice};
use crate::index::IndexError;
use crate::repo::RepoError;
use crate::source::{CommandError, FilterError};
use crate::store::{ObjectDir, StoreError};
use crate::sys::PathError;
use crate::task::Cancelled;
use crate::types::RelPath;

/// The kind of an error, for callers to act on. It determines the binary's exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The operation failed and nothing was committed: exit code 1.
    Failed,
    /// The request is invalid: 2.
    Usage,
    /// The repository is damaged: 4.
    Damage,
    /// There is no repository at the address: 10.
    NoRepository,
    /// The passphrase opens no key slot: 11.
    WrongKey,
    /// The repository needs a newer icecore: 12.
    NeedsNewer,
    /// Stopped by a signal, and nothing was lost: 130.
    Interrupted,
}

/// The reason why an operation failed.
#[derive(Debug)]
pub enum Error {
    Repo(RepoError),
    Path(PathError),
    /// A sync failed, so written data may not survive a crash.
    NotDurable(PathError),
    Command(CommandError),
    Filter(FilterError),
    /// The request is invalid.
    Usage {
        why: String,
        advice: Option<Advice>,
    },
    /// The snapshot does not contain the requested item.
    NotThere(String),
    /// The snapshot's source has no such path. `why` names the obstacle, if there is one.
    NoPath {
        source: String,
        path: RelPath,
        why: Option<String>,
        advice: Option<Box<Advice>>,
    },
    /// A source is not in a state that can be backed up; nothing was stored.
    Source {
        name: String,
        why: String,
    },
    /// A source is empty; nothing was stored. This is more likely a failed dump or an unmounted
    /// volume than data to be kept.
    Empty {
        name: String,
        why: String,
    },
    /// The request is valid, but refused for safety.
    Refused {
        why: String,
        advice: Advice,
    },
    /// Snapshots need unavailable data, so nothing may be deleted. `count` is the number of
    /// unavailable items, `example` one of them.
    Unresolved {
        count: u64,
        example: String,
        /// All of them cannot be read now, but may be intact.
        now: bool,
    },
    /// Stopped on request.
    Interrupted,
}

/// Advice for data that cannot be read now.
const INTACT: &str =
    "the data may be intact: check the disk, its cable or the mount, then run it again";

impl Error {
    /// Returns the error of an invalid request, without advice.
    pub fn usage(why: String) -> Self {
        Self::Usage { why, advice: None }
    }

    /// Returns the kind of the error, for callers to act on.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Usage { .. } | Self::Filter(_) => ErrorKind::Usage,
            Self::Interrupted => ErrorKind::Interrupted,
            Self::Path(_)
            | Self::NotDurable(_)
            | Self::Command(_)
            | Self::NotThere(_)
            | Self::NoPath { .. }
            | Self::Source { .. }
            | Self::Empty { .. }
            | Self::Refused { .. } => ErrorKind::Failed,
            Self::Unresolved { now: true, .. } => ErrorKind::Failed,
            Self::Unresolved { .. } => ErrorKind::Damage,
            Self::Repo(err) => match err {
                RepoError::NotFound { .. } => ErrorKind::NoRepository,
                RepoError::Store(StoreError::Unreachable { source, .. })
                    if source.kind() == std::io::ErrorKind::NotFound =>
                {
                    ErrorKind::NoRepository
                }
                RepoError::WrongKey { .. } => ErrorKind::WrongKey,
                RepoError::NewerFormat { .. } | RepoError::UnknownFeature { .. } => {
                    ErrorKind::NeedsNewer
                }
                // Data that cannot be read now may be intact.
                RepoError::ChunkUnreadable { now: true, .. } => ErrorKind::Failed,
                RepoError::ChunkUnreadable { .. } | RepoError::LatestDamaged { .. } => {
                    ErrorKind::Damage
                }
                RepoError::Store(err) if err.is_bad_medium() => ErrorKind::Damage,
                err if err.is_damage() => ErrorKind::Damage,
                _ => ErrorKind::Failed,
            },
        }
    }

    /// Returns advice for the user, if there is any.
    pub fn advice(&self) -> Option<Advice> {
        match self {
            Self::Repo(err) => repo_advice(err),
            Self::NotDurable(_) => Some(
                "check the disk and its free space, then run it again: files that may be incomplete are written again".into(),
            ),
            Self::Refused { advice, .. } => Some(advice.clone()),
            Self::Usage { advice, .. } => advice.clone(),
            Self::NoPath { advice, .. } => advice.as_deref().cloned(),
            Self::Unresolved { now: true, .. } => Some(INTACT.into()),
            Self::Unresolved { .. } => Some(Advice::Repair(RepairAdvice::RepairPacksAndSnapshots)),
            Self::Empty { .. } => Some(Advice::Backup(BackupAdvice::AllowEmpty)),
            Self::Source { .. } => Some("nothing was stored; existing snapshots are unchanged".into()),
            _ => None,
        }
    }
}

/// Returns advice about an error of the repository, if there is any.
fn repo_advice(err: &RepoError) -> Option<Advice> {
    match err {
        RepoError::NotFound { .. } => Some(Advice::Access(AccessAdvice::CheckAddress)),
        RepoError::AlreadyThere { .. } => {
            Some("choose another directory, or use this repository as it is".into())
        }
        RepoError::WrongKey { costly: 1.., .. } => {
            Some(Advice::Access(AccessAdvice::TryCostlySlots))
        }
        RepoError::WrongKey { .. } => Some(Advice::Access(AccessAdvice::GivePassphrase)),
        RepoError::NewerFormat { .. } | RepoError::UnknownFeature { .. } => {
            Some(Advice::Access(AccessAdvice::Upgrade))
        }
        RepoError::LostLease { .. } | RepoError::ParentGone { .. } => {
            Some("run it again: data that is already stored is not stored again".into())
        }
        RepoError::NotWithdrawn { .. } => {
            Some(Advice::Snapshot(SnapshotAdvice::ForgetNotWithdrawn))
        }
        RepoError::Index(IndexError::Full { .. }) => Some(Advice::Access(AccessAdvice::MoveCache)),
        RepoError::Index(_) => Some("the cache directory can be deleted at any time".into()),
        RepoError::NoSuchSnapshot { advice, .. } | RepoError::Refused { advice, .. } => {
            advice.clone()
        }
        RepoError::LatestDamaged { .. } => Some(Advice::Snapshot(SnapshotAdvice::UsePrevious)),
        RepoError::Damaged { object, .. } if object.starts_with(ObjectDir::Snapshots.name()) => {
            Some(Advice::Repair(RepairAdvice::RepairSnapshots))
        }
        err if err.is_damage() => Some(Advice::Repair(RepairAdvice::VerifyData)),
        RepoError::ChunkUnreadable { .. } => Some(INTACT.into()),
        RepoError::Store(err) => store_advice(err),
        _ => None,
    }
}

/// Returns advice about an error of the store, if there is any.
fn store_advice(err: &StoreError) -> Option<Advice> {
    match err {
        StoreError::Unreachable { source, .. }
            if source.kind() != std::io::ErrorKind::NotFound
                && source.kind() != std::io::ErrorKind::NotADirectory =>
        {
            Some(
                "is it mounted, and does its server answer? A stale mount must be unmounted and mounted again".into(),
            )
        }
        StoreError::Unreachable { .. } => Some(Advice::Access(AccessAdvice::CheckAddress)),
        StoreError::Occupied { .. } => Some(Advice::Access(AccessAdvice::SeparateDirectory)),
        StoreError::Full { .. } => {
            Some("free space and run it again; the repository is intact".into())
        }
        StoreError::Denied { .. } => Some(
            "run it as the owner of the repository's files, or give this user the permission".into(),
        ),
        StoreError::ReadOnly { .. } => {
            Some("mount it writable, or use a command that only reads".into())
        }
        // The error itself names the alternative.
        StoreError::Io { source, .. } if source.kind() == std::io::ErrorKind::Unsupported => None,
        StoreError::Io { .. } => Some(INTACT.into()),
        _ => None,
    }
}

impl From<Cancelled> for Error {
    fn from(_: Cancelled) -> Self {
        Self::Interrupted
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Repo(err) => err.fmt(f),
            Self::Path(err) | Self::NotDurable(err) => err.fmt(f),
            Self::Command(err) => err.fmt(f),
            Self::Filter(err) => err.fmt(f),
            Self::NotThere(why) | Self::Usage { why, .. } | Self::Refused { why, .. } => {
                f.write_str(why)
            }
            Self::NoPath {
                source, path, why, ..
            } => {
                write!(f, "source '{source}' has no path '{path}' in this snapshot")?;
                why.as_ref().map_or(Ok(()), |why| write!(f, ": {why}"))
            }
            Self::Source { name, why } => write!(f, "source '{name}': {why}"),
            Self::Empty { name, why } => write!(f, "cannot capture '{name}': {why}"),
            Self::Unresolved {
                count,
                example,
                now,
            } => match (count, now) {
                (1, false) => write!(
                    f,
                    "cannot prune: snapshots reference missing data: {example}"
                ),
                (_, false) => write!(
                    f,
                    "cannot prune: snapshots reference {count} missing objects, such as {example}"
                ),
                (1, true) => write!(
                    f,
                    "cannot prune: snapshots need data that cannot be read now: {example}"
                ),
                (_, true) => write!(
                    f,
                    "cannot prune: snapshots need {count} objects that cannot be read now, such as {example}"
                ),
            },
            Self::Interrupted => f.write_str("interrupted, nothing was lost"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Repo(err) => err.source(),
            Self::Path(err) | Self::NotDurable(err) => err.source(),
            Self::Command(err) => err.source(),
            Self::Filter(err) => err.source(),
            _ => None,
        }
    }
}

impl From<RepoError> for Error {
    fn from(err: RepoError) -> Self {
        Self::Repo(err)
    }
}

impl From<StoreError> for Error {
    fn from(err: StoreError) -> Self {
        Self::Repo(err.into())
    }
}

impl From<crate::index::IndexError> for Error {
    fn from(err: crate::index::IndexError) -> Self {
        Self::Repo(err.into())
    }
}

impl From<PathError> for Error {
    fn from(err: PathError) -> Self {
        Self::Path(err)
    }
}

impl From<CommandError> for Error {
    fn from(err: CommandError) -> Self {
        Self::Command(err)
    }
}

impl From<FilterError> for Error {
    fn from(err: FilterError) -> Self {
        Self::Filter(err)
    }
}
