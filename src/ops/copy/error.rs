//! Reasons why a snapshot is not copied.

use crate::Error;
use crate::repo::RepoError;

/// Reason why a snapshot was not copied.
pub(super) enum CopyError {
    /// The source could not be read.
    Source(RepoError),
    /// This icecore cannot copy it.
    Skip(String),
    /// An error that ends the whole operation.
    Other(Error),
}

impl From<RepoError> for CopyError {
    fn from(err: RepoError) -> Self {
        Self::Other(err.into())
    }
}

impl From<Error> for CopyError {
    fn from(err: Error) -> Self {
        Self::Other(err)
    }
}
