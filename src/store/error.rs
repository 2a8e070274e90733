//! The error of a store operation.

use std::fmt;
use std::io;

use crate::store::ObjectKey;

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
