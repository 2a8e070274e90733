//! A file to be read, and the batches in which files go to the reader threads.

use std::sync::Arc;

use crate::ops::backup::run::sink::DirectoryNode;
use crate::source::{SourceDir, SourceStat};
use crate::types::{Entry, RelPath};

/// A batch for a reader thread holds at most this many files, this many bytes, or files of this
/// many directories, each of which is held open.
const BATCH_FILES: usize = 32;
const BATCH_BYTES: u64 = 1 << 20;
const BATCH_DIRECTORIES: usize = 8;

/// A file to be read.
pub(in crate::ops::backup) struct FileJob {
    pub directory: SourceDir,
    pub name: Vec<u8>,
    pub path: RelPath,
    pub stat: SourceStat,
    /// Modified so recently that another change may not be visible in the stat.
    pub is_racy: bool,
    /// The window for `is_racy`: see [`SourceStat::is_racy`].
    pub window_seconds: i64,
    pub previous: Option<Box<Entry>>,
    pub node: Option<Arc<DirectoryNode>>,
}

impl Drop for FileJob {
    /// Marks the directory of a file that is dropped unread, so that its state does not count as
    /// complete.
    fn drop(&mut self) {
        if let Some(node) = self.node.take() {
            node.give_up();
        }
    }
}

impl FileJob {
    pub fn was_directory(&self) -> bool {
        self.previous
            .as_ref()
            .is_some_and(|previous| previous.is_directory())
    }
}

/// Files collected for a reader thread.
#[derive(Default)]
pub(in crate::ops::backup) struct JobBatch {
    pub jobs: Vec<FileJob>,
    bytes: u64,
    directories: usize,
}

impl JobBatch {
    /// Adds a file. Returns true if the batch is to be sent.
    pub fn push(&mut self, job: FileJob) -> bool {
        self.bytes = self.bytes.saturating_add(job.stat.size);
        // Files come directory by directory, so a new id means one more directory, or one more
        // handle of the same one.
        let is_same = self
            .jobs
            .last()
            .is_some_and(|last| last.directory.id() == job.directory.id());
        self.directories += usize::from(!is_same);
        self.jobs.push(job);
        self.jobs.len() >= BATCH_FILES
            || self.bytes >= BATCH_BYTES
            || self.directories >= BATCH_DIRECTORIES
    }
}
