//! The library's public error: its kind, its message and a hint.

use std::fmt;

use crate::index::IndexError;
use crate::repo::RepoError;
use crate::source::{CommandError, FilterError};
use crate::store::{ObjectDir, StoreError};
use crate::sys::PathError;
use crate::task::Cancelled;

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
    Usage(String),
    /// The snapshot does not contain the requested item.
    NotThere(String),
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
        hint: &'static str,
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
    /// Returns the kind of the error, for callers to act on.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Usage(_) | Self::Filter(_) => ErrorKind::Usage,
            Self::Interrupted => ErrorKind::Interrupted,
            Self::Path(_)
            | Self::NotDurable(_)
            | Self::Command(_)
            | Self::NotThere(_)
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
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Repo(err) => match err {
                RepoError::Store(StoreError::Unreachable { source, .. })
                    if source.kind() != std::io::ErrorKind::NotFound
                        && source.kind() != std::io::ErrorKind::NotADirectory =>
                {
                    Some(
                        "is it mounted, and does its server answer? A stale mount must be unmounted and mounted again",
                    )
                }
                RepoError::NotFound { .. } | RepoError::Store(StoreError::Unreachable { .. }) => {
                    Some("check the address given with --repo; 'icecore init' creates a repository")
                }
                RepoError::AlreadyThere { .. } => {
                    Some("choose another directory, or use this repository as it is")
                }
                RepoError::Store(StoreError::Occupied { .. }) => Some(
                    "give the repository a separate directory, such as --repo DIRECTORY/icecore",
                ),
                RepoError::WrongKey { costly: 1.., .. } => Some(
                    "give the right passphrase; --costly-key also tries the skipped slots, with up to 1 GiB of memory and minutes of time each",
                ),
                RepoError::WrongKey { .. } => Some(
                    "give the right passphrase with --passphrase-file, --passphrase-command or ICECORE_PASSPHRASE",
                ),
                RepoError::NewerFormat { .. } | RepoError::UnknownFeature { .. } => {
                    Some("install a newer icecore")
                }
                RepoError::LostLease { .. } | RepoError::ParentGone { .. } => {
                    Some("run it again: data that is already stored is not stored again")
                }
                RepoError::NotWithdrawn { .. } => Some(
                    "run it again: 'icecore verify' names that snapshot, no backup uses it as a parent, and it can be deleted or forgotten",
                ),
                RepoError::Store(StoreError::Full { .. }) => {
                    Some("free space and run it again; the repository is intact")
                }
                RepoError::Store(StoreError::Denied { .. }) => Some(
                    "run it as the owner of the repository's files, or give this user the permission",
                ),
                RepoError::Store(StoreError::ReadOnly { .. }) => {
                    Some("mount it writable, or use a command that only reads")
                }
                RepoError::Index(IndexError::Full { .. }) => Some(
                    "free space there, or set ICECORE_CACHE_DIR to a directory with room; the repository is intact",
                ),
                RepoError::Index(_) => Some("the cache directory can be deleted at any time"),
                RepoError::NoSuchSnapshot { text, .. } if text.starts_with("latest") => Some(
                    "'icecore snapshots' lists ids, hosts and sources; choose whose 'latest' with --host HOST or --any-host",
                ),
                RepoError::NoSuchSnapshot { .. } => Some(
                    "'icecore snapshots' lists the ids, 'icecore snapshots --forgotten' those that 'undelete' brings back",
                ),
                RepoError::LatestDamaged { .. } => Some(
                    "to restore the previous snapshot, give its id; 'icecore verify' lists further damage",
                ),
                RepoError::Damaged { object, .. }
                    if object.starts_with(ObjectDir::Snapshots.name()) =>
                {
                    Some(
                        "'icecore repair snapshots' moves unreadable snapshots to quarantine, and heals those that a cache has",
                    )
                }
                err if err.is_damage() => {
                    Some("run 'icecore verify --read-data' to list the affected files")
                }
                // The error itself names the alternative.
                RepoError::Store(StoreError::Io { source, .. })
                    if source.kind() == std::io::ErrorKind::Unsupported =>
                {
                    None
                }
                RepoError::ChunkUnreadable { .. } | RepoError::Store(StoreError::Io { .. }) => {
                    Some(INTACT)
                }
                _ => None,
            },
            Self::NotDurable(_) => Some(
                "check the disk and its free space, then run it again: files that may be incomplete are written again",
            ),
            Self::Refused { hint, .. } => Some(hint),
            Self::Unresolved { now: true, .. } => Some(INTACT),
            Self::Unresolved { .. } => Some(
                "'icecore verify' lists the affected files; run 'icecore repair packs', then 'icecore repair snapshots'",
            ),
            Self::Empty { .. } => Some(
                "nothing was stored; if the source is meant to be empty, run it again with --allow-empty",
            ),
            Self::Source { .. } => Some("nothing was stored; existing snapshots are unchanged"),
            _ => None,
        }
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
            Self::Usage(what) | Self::NotThere(what) | Self::Refused { why: what, .. } => {
                f.write_str(what)
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
