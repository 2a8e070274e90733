//! Stored files in the order of their paths: one side of the join, either a snapshot or a
//! directory.

use super::report::{BlamedPlace, CheckTally};
use crate::node::NodeError;
use crate::node::dump::PinRows;

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

/// A position in the stored files, which only moves forward.
pub(super) struct FileCursor<'a> {
    side: Box<dyn FileSide + 'a>,
    held: Option<StoredFile>,
    begun: bool,
}

impl<'a> FileCursor<'a> {
    pub fn new(side: Box<dyn FileSide + 'a>) -> Self {
        Self {
            side,
            held: None,
            begun: false,
        }
    }

    /// Returns the file at `key`. Keys must be in ascending order, and one key may be repeated.
    /// Files before it that were not asked for are skipped, and their faults are reported.
    pub fn at(
        &mut self,
        key: &[u8],
        tally: &mut CheckTally<'_, '_>,
    ) -> Result<Option<&mut HeldFile>, NodeError> {
        while !self.begun
            || self
                .held
                .as_ref()
                .is_some_and(|held| held.key.as_slice() < key)
        {
            self.step(tally)?;
        }
        Ok(self
            .held
            .as_mut()
            .filter(|held| held.key == key)
            .map(|held| &mut held.held))
    }

    /// Skips all remaining files.
    pub fn rest(&mut self, tally: &mut CheckTally<'_, '_>) -> Result<(), NodeError> {
        while !self.begun || self.held.is_some() {
            self.step(tally)?;
        }
        Ok(())
    }

    fn step(&mut self, tally: &mut CheckTally<'_, '_>) -> Result<(), NodeError> {
        self.begun = true;
        if let Some(StoredFile {
            key,
            held: HeldFile::File {
                fault: Some(fault), ..
            },
            ..
        }) = &self.held
        {
            let hash = key.rsplit(|&byte| byte == 0).next().unwrap_or_default();
            tally.fault(
                *fault,
                BlamedPlace {
                    hash,
                    path: key,
                    pins: PinRows::default(),
                },
            )?;
        }
        self.held = self.side.next()?;
        if let Some(held) = &self.held {
            tally.stored(held);
        }
        Ok(())
    }
}
