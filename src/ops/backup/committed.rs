//! The last committed capture of a source that builds on a checkpoint.
//!
//! Whether a source has suddenly become empty is judged by its last committed capture. A checkpoint
//! of a backup that was interrupted or refused may already lack everything that the source has
//! lost, and a second try would then be accepted.

use super::cursor::{PreviousEntries, parent_error};
use super::walk::WalkError;
use super::watch::was_captured;
use crate::format::{SourceKind, SourceRecord};
use crate::repo::{ChunkReader, MergedRuns, RunStreams};

/// Reads the last committed capture of a source.
#[derive(Clone, Copy)]
pub(super) struct CommittedCapture<'a> {
    pub reader: &'a ChunkReader<'a>,
    /// `None` if the source builds on a commit, which the walk itself reads, or was never
    /// committed.
    pub record: Option<&'a SourceRecord>,
}

impl<'a> CommittedCapture<'a> {
    /// Returns true if the capture has entries below its root.
    ///
    /// # Errors
    /// [`WalkError::Parent`] if its lists cannot be read.
    pub fn has_names(self) -> Result<bool, WalkError> {
        let Some(mut entries) = self.entries()? else {
            return Ok(false);
        };
        while let Some(entry) = entries.take()? {
            if !entry.path.is_root() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns the number of captured entries other than directories. Reads all its lists.
    ///
    /// # Errors
    /// [`WalkError::Parent`] if its lists cannot be read.
    pub fn files(self) -> Result<u64, WalkError> {
        let Some(mut entries) = self.entries()? else {
            return Ok(0);
        };
        let mut files = 0;
        while let Some(entry) = entries.take()? {
            files += u64::from(!entry.is_directory() && was_captured(&entry));
        }
        Ok(files)
    }

    fn entries(self) -> Result<Option<PreviousEntries<'a>>, WalkError> {
        match self.record.map(|record| &record.kind) {
            Some(SourceKind::Tree { runs, .. }) if !runs.is_empty() => {
                let runs = MergedRuns::open(self.reader, runs, RunStreams::All, false);
                let runs = runs.map_err(parent_error)?;
                Ok(Some(PreviousEntries::new(runs)))
            }
            _ => Ok(None),
        }
    }
}
