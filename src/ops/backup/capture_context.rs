//! The data that all sources of a backup share.

use super::checkpoint::Checkpoints;
use super::heal::LostChunks;
use super::options::{BackupOptions, TreeSpec};
use crate::ops::memory::MemoryPlan;
use crate::repo::{ChunkReader, Repository};
use crate::source::OwnerNames;
use crate::task::Task;

/// The data that all sources of a backup share.
pub(super) struct CaptureContext<'e> {
    pub repo: &'e Repository,
    pub reader: &'e ChunkReader<'e>,
    pub options: &'e BackupOptions,
    pub plan: MemoryPlan,
    pub owners: &'e OwnerNames,
    pub task: Task<'e>,
    pub lost: &'e LostChunks<'e>,
    pub checkpoints: &'e Checkpoints<'e>,
}

impl CaptureContext<'_> {
    /// Returns true if nothing in the source may change, and a change is not accepted.
    pub(super) fn is_watched(&self, spec: &TreeSpec) -> bool {
        spec.unchanged && !self.options.accept.contains(&spec.name)
    }
}
