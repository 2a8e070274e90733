//! What can go wrong with the index. Damage is a kind of its own: the answer to it is a new database.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;
use thiserror::Error;

use crate::sys::PathError;
use crate::types::SegmentId;

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
    /// SQLite failed for a reason outside the database: a full disk, no permission.
    #[error("cannot {action} in the index {path}", path = path.display())]
    Sqlite {
        path: PathBuf,
        /// What was tried, as a verb and its object: "load a segment".
        action: &'static str,
        #[source]
        source: rusqlite::Error,
    },
    /// The index folder could not be read or written.
    #[error(transparent)]
    Io(#[from] PathError),
    /// A segment says what no segment can say: lengths that overflow, more chunks than there are numbers.
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

    pub(super) fn damaged(path: &Path, what: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), what: what.into() }
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
                ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::FileLockingProtocolFailed => Self::Busy { path: path.to_owned(), source },
                // Our statements are fixed and right, so a logic error is the database's: a missing table, a schema
                // that does not parse, "unsupported file format".
                ErrorCode::Unknown if message.as_deref().is_none_or(|text| !text.contains("transaction")) => {
                    Self::damaged(path, source.to_string())
                }
                _ => Self::Sqlite { path: path.to_owned(), action, source },
            },
            E::SqlInputError { .. }
            | E::FromSqlConversionFailure(..)
            | E::IntegralValueOutOfRange(..)
            | E::InvalidColumnType(..)
            | E::Utf8Error(..)
            | E::QueryReturnedNoRows
            | E::StatementChangedRows(_) => Self::damaged(path, source.to_string()),
            _ => Self::Sqlite { path: path.to_owned(), action, source },
        }
    }
}
