//! Sizes of a repository.

use serde::Serialize;

use crate::ops::list::RepoStats;

/// The size of a repository and of its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename = "stats")]
pub struct StatsRecord {
    /// Committed snapshots.
    pub snapshots: u64,
    /// Checkpoints of running or interrupted backups.
    pub checkpoints: u64,
    /// Index segments.
    pub segments: u64,
    /// Known packs, condemned ones included.
    pub packs: u64,
    /// Packs that wait for deletion.
    pub condemned_packs: u64,
    /// Chunks in these packs.
    pub chunks: u64,
    /// Plain bytes of data in packs, each chunk counted once.
    pub data_bytes: u64,
    /// Plain bytes of metadata in packs.
    pub metadata_bytes: u64,
    /// Bytes of the packs in the store.
    pub stored_bytes: u64,
    /// Sources of the newest snapshot of each host and source.
    pub latest_sources: u64,
    /// Files in these sources; a stream is one file.
    pub latest_files: u64,
    /// Plain bytes of these files when restored.
    pub latest_bytes: u64,
    /// Bytes of the local cache.
    pub cache_bytes: u64,
}

impl From<&RepoStats> for StatsRecord {
    fn from(stats: &RepoStats) -> Self {
        Self {
            snapshots: stats.snapshots,
            checkpoints: stats.checkpoints,
            segments: stats.segments,
            packs: stats.packs,
            condemned_packs: stats.condemned_packs,
            chunks: stats.chunks,
            data_bytes: stats.data_bytes,
            metadata_bytes: stats.metadata_bytes,
            stored_bytes: stats.stored_bytes,
            latest_sources: stats.latest_sources,
            latest_files: stats.latest_files,
            latest_bytes: stats.latest_bytes,
            cache_bytes: stats.cache_bytes,
        }
    }
}
