//! The home directory, and paths that may begin with it.

use std::env;
use std::ffi::OsStr;
use std::path::PathBuf;

/// Returns the home directory, if `HOME` names one.
pub fn home() -> Option<PathBuf> {
    env::var_os("HOME")
        .map(PathBuf::from)
        .filter(|home| home.is_absolute())
}

/// Reads a path that no shell may have expanded, with this process's home directory.
pub fn path(text: &OsStr) -> Result<PathBuf, String> {
    icecore::jobs::parse::path(text, home().as_deref())
}
