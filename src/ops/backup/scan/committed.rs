//! The last committed capture of a source that builds on a checkpoint.
//!
//! Whether a source has suddenly become empty is judged by its last committed capture. A checkpoint
//! of a backup that was interrupted or refused may already lack everything that the source has
//! lost, and a second try would then be accepted.

use super::previous::PreviousEntries;
use super::walk_error::{WalkError, previous_error};
use crate::format::{RunRef, SourceKind, SourceRecord};
use crate::ops::backup::shared::watch::was_captured;
use crate::repo::{ChunkReader, MergedRuns, OnDamage, RunStreams};

/// Reads the last committed capture of a source.
#[derive(Clone, Copy)]
pub(in crate::ops::backup) struct CommittedCapture<'a> {
    pub reader: &'a ChunkReader<'a>,
    /// `None` if the source builds on a commit, which the walk itself reads, or was never
    /// committed.
    pub record: Option<&'a SourceRecord>,
}

impl<'a> CommittedCapture<'a> {
    /// Returns true if the capture has entries below its root.
    ///
    /// # Errors
    /// [`WalkError::Previous`] if its lists cannot be read.
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
    /// [`WalkError::Previous`] if its lists cannot be read.
    pub fn files(self) -> Result<u64, WalkError> {
        match self.entries()? {
            Some(entries) => count_files(entries, u64::MAX),
            None => Ok(0),
        }
    }

    fn entries(self) -> Result<Option<PreviousEntries<'a>>, WalkError> {
        match self.record.map(|record| &record.kind) {
            Some(SourceKind::Tree { runs, .. }) => open(self.reader, runs),
            _ => Ok(None),
        }
    }
}

/// Returns true if these runs have more captured entries other than directories than this number.
/// Reads their lists only that far.
///
/// # Errors
/// [`WalkError::Previous`] if the lists cannot be read.
pub(in crate::ops::backup) fn has_more_files(
    reader: &ChunkReader<'_>,
    runs: &[RunRef],
    number: u64,
) -> Result<bool, WalkError> {
    match open(reader, runs)? {
        Some(entries) => Ok(count_files(entries, number.saturating_add(1))? > number),
        None => Ok(false),
    }
}

fn open<'a>(
    reader: &'a ChunkReader<'a>,
    runs: &[RunRef],
) -> Result<Option<PreviousEntries<'a>>, WalkError> {
    if runs.is_empty() {
        return Ok(None);
    }
    let runs =
        MergedRuns::open(reader, runs, RunStreams::All, OnDamage::Fail).map_err(previous_error)?;
    Ok(Some(PreviousEntries::new(runs)))
}

/// Counts the captured entries other than directories, at most `limit`.
fn count_files(mut entries: PreviousEntries<'_>, limit: u64) -> Result<u64, WalkError> {
    let mut files = 0;
    while files < limit
        && let Some(entry) = entries.take()?
    {
        files += u64::from(!entry.is_directory() && was_captured(&entry));
    }
    Ok(files)
}
