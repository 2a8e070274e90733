//! Errors of the index. Damage is a separate kind, because its remedy is a new database.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;
use thiserror::Error;

use crate::sys::PathError;
use crate::types::SegmentId;

/// SQLite's extended code for a `-shm` file that could not grow.
const SQLITE_IOERR_SHMSIZE: i32 = 10 | (19 << 8);

/// An error of the index. Each message covers one level only; the cause is in `source()`.
#[derive(Debug, Error)]
pub enum IndexError {
    /// The database contradicts itself. It is derived: recreate it and load the segments again.
    #[error("the index {path} is damaged: {what}", path = path.display())]
    Damaged { path: PathBuf, what: String },
    /// Another process held the database for longer than the timeout of 30 s.
    #[error("the index {path} is in use by another process", path = path.display())]
    Busy {
        path: PathBuf,
        #[source]
        source: rusqlite::Error,
    },
    /// The cache directory's disk is full.
    #[error("no space left for the index {path}", path = path.display())]
    Full {
        path: PathBuf,
        #[source]
        source: rusqlite::Error,
    },
    /// SQLite failed for another reason outside the database: no permission, an I/O error.
    #[error("cannot {action} in the index {path}", path = path.display())]
    Sqlite {
        path: PathBuf,
        /// The failed action, as a verb and its object: "load a segment".
        action: &'static str,
        #[source]
        source: rusqlite::Error,
    },
    /// The index directory could not be read or written.
    #[error(transparent)]
    Io(#[from] PathError),
    /// A segment contains impossible values: lengths that overflow, more chunks than there are
    /// numbers.
    #[error("segment {segment} cannot be loaded: {what}")]
    Refused { segment: SegmentId, what: String },
    /// Claims were to be transferred to a segment that is not loaded.
    #[error("segment {segment} is not loaded")]
    NotLoaded { segment: SegmentId },
}

impl IndexError {
    /// Returns true if the database is damaged, so that `Index::recreate` and loading the segments
    /// again help.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. })
    }

    /// Returns true if the index cannot be created or written here: no permission, or a read-only
    /// file system.
    pub fn is_read_only(&self) -> bool {
        match self {
            Self::Io(error) => error.is_read_only(),
            Self::Sqlite { source, .. } => matches!(
                source.sqlite_error_code(),
                Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied)
            ),
            _ => false,
        }
    }

    pub(super) fn damaged(path: &Path, what: impl Into<String>) -> Self {
        Self::Damaged {
            path: path.to_owned(),
            what: what.into(),
        }
    }

    /// Classifies an SQLite error as damage, busy, full or other.
    pub(super) fn sqlite(path: &Path, action: &'static str, source: rusqlite::Error) -> Self {
        use rusqlite::Error as E;
        match &source {
            E::SqliteFailure(failure, message) => match failure.code {
                ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase
                | ErrorCode::ConstraintViolation
                | ErrorCode::TypeMismatch
                | ErrorCode::TooBig
                | ErrorCode::InternalMalfunction => Self::damaged(path, source.to_string()),
                ErrorCode::DiskFull => Self::Full {
                    path: path.to_owned(),
                    source,
                },
                // SQLite reports only "disk I/O error" if there is no space for its shared memory.
                _ if failure.extended_code == SQLITE_IOERR_SHMSIZE => Self::Full {
                    path: path.to_owned(),
                    source,
                },
                ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::FileLockingProtocolFailed => Self::Busy {
                    path: path.to_owned(),
                    source,
                },
                // Our statements are fixed and correct, so a logic error is caused by the database:
                // a missing table, a schema that does not parse, "unsupported file format".
                ErrorCode::Unknown
                    if message
                        .as_deref()
                        .is_none_or(|text| !text.contains("transaction")) =>
                {
                    Self::damaged(path, source.to_string())
                }
                _ => Self::Sqlite {
                    path: path.to_owned(),
                    action,
                    source,
                },
            },
            E::SqlInputError { .. }
            | E::FromSqlConversionFailure(..)
            | E::IntegralValueOutOfRange(..)
            | E::InvalidColumnType(..)
            | E::Utf8Error(..)
            | E::QueryReturnedNoRows
            | E::StatementChangedRows(_) => Self::damaged(path, source.to_string()),
            _ => Self::Sqlite {
                path: path.to_owned(),
                action,
                source,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_reported_as_a_full_disk() {
        // With no space for its shared memory SQLite returns "disk I/O error", and our message used
        // to repeat only that.
        for code in [13, SQLITE_IOERR_SHMSIZE] {
            let error = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
            let error = IndexError::sqlite(Path::new("x"), "open", error);
            assert!(matches!(error, IndexError::Full { .. }), "{error}");
        }
        let error = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(10 | (3 << 8)), None);
        assert!(matches!(
            IndexError::sqlite(Path::new("x"), "open", error),
            IndexError::Sqlite { .. }
        ));
    }
}
