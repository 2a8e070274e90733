//! I/O errors that always carry their path.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// An I/O error with the failed action and its path.
#[derive(Debug)]
pub struct PathError {
    /// The failed action, as a verb: "open", "rename".
    pub action: &'static str,
    pub path: PathBuf,
    pub source: io::Error,
}

impl PathError {
    /// Returns the kind of the I/O error.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }

    /// Returns true if the path cannot be created or written here: no permission, a read-only file
    /// system, or a file where a directory should be.
    pub fn is_read_only(&self) -> bool {
        use io::ErrorKind::{NotADirectory, PermissionDenied, ReadOnlyFilesystem};
        matches!(
            self.kind(),
            PermissionDenied | ReadOnlyFilesystem | NotADirectory
        )
    }
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}", self.action, self.path.display())
    }
}

impl std::error::Error for PathError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Adds the path to an I/O result.
pub trait PathContext<T> {
    /// Adds the action and the path to an error.
    fn context(self, action: &'static str, path: impl AsRef<Path>) -> Result<T, PathError>;
}

impl<T, E: Into<io::Error>> PathContext<T> for Result<T, E> {
    fn context(self, action: &'static str, path: impl AsRef<Path>) -> Result<T, PathError> {
        self.map_err(|source| PathError {
            action,
            path: path.as_ref().to_owned(),
            source: source.into(),
        })
    }
}
