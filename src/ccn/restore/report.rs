//! The result of a node's restore.

use super::plan::NodePart;
use crate::types::SnapshotId;

/// The result of restoring one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartReport {
    pub part: NodePart,
    pub source: String,
    pub snapshot: SnapshotId,
    /// For messages: a path or a volume; empty for the database.
    pub place: String,
    pub written: u64,
    pub bytes_written: u64,
    pub unchanged: u64,
    pub deleted: u64,
    /// Paths that could not be restored.
    pub failed: u64,
    /// Entries that are incomplete in the snapshot.
    pub incomplete: u64,
    /// Files that were left out because their content does not match their name. The network must
    /// refill them.
    pub left_out: u64,
    pub refused_meta: u64,
    /// Ranges of paths that could not be read from the repository.
    pub uncertain: u64,
}

/// The result of a restore.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeRestoreReport {
    pub parts: Vec<PartReport>,
}

impl NodeRestoreReport {
    /// Returns true if everything was restored as it was backed up.
    pub fn is_complete(&self) -> bool {
        let lacks = |part: &PartReport| {
            part.failed + part.incomplete + part.left_out + part.refused_meta + part.uncertain
        };
        self.parts.iter().all(|part| lacks(part) == 0)
    }

    /// Returns true if parts of the repository could not be read.
    pub fn has_damage(&self) -> bool {
        self.parts.iter().any(|part| part.uncertain > 0)
    }
}
