//! A path that may be captured, and what the file system says about it.

use std::sync::Arc;

use crate::ops::backup::run::sink::DirectoryNode;
use crate::source::{SourceDir, SourceStat};
use crate::types::{Entry, MissingNames, RelPath, Timestamp};

/// A path that may be captured: a name in an open directory.
pub(super) struct PathCandidate<'c> {
    pub directory: &'c SourceDir,
    pub name: &'c [u8],
    pub path: RelPath,
    /// The entry of this path in the previous snapshot.
    pub previous: Option<Entry>,
    /// The new entry of `directory`. `None` if the source is a single file.
    pub parent: Option<&'c Arc<DirectoryNode>>,
}

impl PathCandidate<'_> {
    /// Marks the directory to be listed again next time.
    pub fn revisit_parent(&self) {
        if let Some(parent) = self.parent {
            parent.revisit();
        }
    }

    /// Records that the snapshot lacks this name of the directory.
    pub fn mark_missing_in_parent(&self, why: MissingNames) {
        if let Some(parent) = self.parent {
            parent.lacks(why);
        }
    }

    /// Returns true if the path was a directory in the previous snapshot.
    pub fn was_directory(&self) -> bool {
        self.previous.as_ref().is_some_and(Entry::is_directory)
    }
}

/// The stat of an existing path.
#[derive(Debug, Clone, Copy)]
pub(in crate::ops::backup) struct TimedStat {
    pub stat: SourceStat,
    /// Our clock just before the stat.
    pub clock: Timestamp,
}
