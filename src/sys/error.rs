//! I/O errors that never travel without their path.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// An I/O error, with what was tried on which path.
#[derive(Debug)]
pub struct PathError {
    /// What was tried, as a verb: "open", "rename".
    pub action: &'static str,
    pub path: PathBuf,
    pub source: io::Error,
}

impl PathError {
    /// The kind of the I/O error.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }

    /// True if the path cannot be made or written as things are: no permission, a read-only file
    /// system, a file where a directory should be.
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

/// Gives an I/O result its path.
pub trait PathContext<T> {
    /// Names what was tried on which path.
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
