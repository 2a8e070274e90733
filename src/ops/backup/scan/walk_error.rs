//! Why the walk of a tree ended early.

use crate::Error;
use crate::repo::RepoError;
use crate::sys::PathError;

/// Why a walk ended early.
#[derive(Debug)]
pub(in crate::ops::backup) enum WalkError {
    /// The runs of the previous snapshot cannot be read: the source is captured again without them
    /// ([R10](docs/protocol.md#r10)).
    Previous(RepoError),
    Other(Error),
}

impl From<Error> for WalkError {
    fn from(err: Error) -> Self {
        Self::Other(err)
    }
}

impl From<PathError> for WalkError {
    fn from(err: PathError) -> Self {
        Self::Other(Error::Path(err))
    }
}

/// Classifies an error of the previous snapshot: after damage it is not used, anything else ends
/// the backup.
pub(in crate::ops::backup) fn previous_error(err: RepoError) -> WalkError {
    if err.is_unavailable() {
        WalkError::Previous(err)
    } else {
        WalkError::Other(err.into())
    }
}
