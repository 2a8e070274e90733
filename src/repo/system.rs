//! Random bytes from the system, and its errors as errors of a repository.

use std::io;
use std::path::PathBuf;

use super::RepoError;
use crate::sys::{PathError, random_bytes};

/// Returns random bytes from the system.
pub(super) fn random<const N: usize>() -> Result<[u8; N], RepoError> {
    random_bytes().map_err(|source| io_error("read", "the system's random source", source))
}

/// Returns the error of an action on a part of the system that has no path, such as a thread.
pub(super) fn io_error(action: &'static str, what: &str, source: io::Error) -> RepoError {
    RepoError::Path(PathError {
        action,
        path: PathBuf::from(what),
        source,
    })
}
