//! The compose project to read: its path, and files in memory that take precedence.

use std::collections::BTreeMap;
use std::path::Path;

/// The project to read, and the variables to read it with.
#[derive(Clone, Copy)]
pub struct ComposeRequest<'a> {
    /// The absolute path of a compose file, or of a directory that has one.
    pub path: &'a Path,
    /// The environment that compose would have.
    pub environment: &'a BTreeMap<String, String>,
    /// The project's name, if the caller sets one.
    pub project: Option<&'a str>,
}

/// Files in memory that take precedence over those on disk. A restore passes the files that it is
/// about to write.
#[derive(Clone, Copy, Default)]
pub struct ComposeFiles<'a>(Option<&'a ReadComposeFile<'a>>);

/// Returns the content of a file by its absolute path; `None` if the file is not in memory.
pub type ReadComposeFile<'a> = dyn Fn(&Path) -> Option<Vec<u8>> + 'a;

impl<'a> ComposeFiles<'a> {
    /// Wraps a function that returns files.
    pub fn new(read: &'a ReadComposeFile<'a>) -> Self {
        Self(Some(read))
    }

    pub(super) fn get(self, file: &Path) -> Option<Vec<u8>> {
        self.0.and_then(|read| read(file))
    }
}
