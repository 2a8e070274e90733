//! What can go wrong with the index. Damage is a kind of its own: the answer to it is a new
//! database.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;
use thiserror::Error;

use crate::sys::PathError;
use crate::types::SegmentId;

/// SQLite's extended code for a `-shm` file that could not grow.
const SQLITE_IOERR_SHMSIZE: i32 = 10 | (19 << 8);

/// Why the index could not answer. Each message is its own only; the cause is in `source()`.
#[derive(Debug, Error)]
pub enum IndexError {
    /// The database contradicts itself. It is derived: recreate it and load the segments again.
    #[error("the index {path} is damaged: {what}", path = path.display())]
    Damaged { path: PathBuf, what: String },
    /// Another process held the database for longer than the timeout of 30 s.
    #[error("the index {path} is held by another process", path = path.display())]
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
        /// What was tried, as a verb and its object: "load a segment".
        action: &'static str,
        #[source]
        source: rusqlite::Error,
    },
    /// The index directory could not be read or written.
    #[error(transparent)]
    Io(#[from] PathError),
    /// A segment says what no segment can say: lengths that overflow, more chunks than there are
    /// numbers.
    #[error("segment {segment} cannot be loaded: {what}")]
    Refused { segment: SegmentId, what: String },
    /// Claims were to go over to a segment that is not loaded.
    #[error("segment {segment} is not loaded")]
    NotLoaded { segment: SegmentId },
}

impl IndexError {
    /// True if the database is damaged, so that `Index::recreate` and a new load help.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. })
    }

    /// True if the index cannot be made or written as things are: no permission, a read-only file
    /// system.
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

    /// Sorts an error of SQLite into damage, busy and the rest.
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
                // "disk I/O error" is all that SQLite says where its shared memory finds no room.
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
                // Our statements are fixed and right, so a logic error is the database's: a missing
                // table, a schema that does not parse, "unsupported file format".
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
    fn a_full_disk_is_told_as_one() {
        // With no room for its shared memory SQLite says "disk I/O error", and we said no more.
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
