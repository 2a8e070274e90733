//! A copied source, which later copies of the same source build on.

use crate::format::{RunRef, SourceKind};
use crate::types::{Content, SnapshotId};

/// One source of a snapshot, as both repositories have it.
pub(super) struct CopyBase {
    /// The destination's snapshot that has it.
    pub owner: SnapshotId,
    pub from: SourceKind,
    pub to: SourceKind,
}

impl CopyBase {
    pub fn runs(&self) -> Option<(&[RunRef], &[RunRef])> {
        match (&self.from, &self.to) {
            (SourceKind::Tree { runs: from, .. }, SourceKind::Tree { runs: to, .. }) => {
                Some((from, to))
            }
            _ => None,
        }
    }

    pub fn contents(&self) -> Option<(&Content, &Content)> {
        match (&self.from, &self.to) {
            (SourceKind::Stream { content: from, .. }, SourceKind::Stream { content: to, .. }) => {
                Some((from, to))
            }
            _ => None,
        }
    }
}
