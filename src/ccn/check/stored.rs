//! Stored files in the order of their paths: one side of the join, either a snapshot or a
//! directory.

use crate::ccn::NodeError;

/// The reason why a stored file does not match its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileFault {
    /// Its content has another hash.
    Name,
    /// It changed while it was captured.
    Torn,
}

/// The file at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeldFile {
    File {
        /// `None` if the size was not queried.
        size: Option<u64>,
        /// The reporter of a fault takes it, so that it is reported once.
        fault: Option<FileFault>,
    },
    /// It was listed, but had vanished when it was read.
    Vanished,
    /// A directory, or a path that could not be captured.
    NoFile,
}

/// A path, and the file at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredFile {
    /// A path's key, as in runs.
    pub key: Vec<u8>,
    /// True if the name is a hash. Other files do not belong to the node.
    pub is_hash: bool,
    pub held: HeldFile,
}

/// Returns the stored files, in ascending order of keys.
pub(super) trait FileSide {
    fn next(&mut self) -> Result<Option<StoredFile>, NodeError>;
}

/// An empty side.
pub(super) struct NoFiles;

impl FileSide for NoFiles {
    fn next(&mut self) -> Result<Option<StoredFile>, NodeError> {
        Ok(None)
    }
}
