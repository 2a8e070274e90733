//! What must survive a rebuild of the index: when each pack was verified, the last snapshots seen.

use std::collections::HashMap;
use std::path::Path;

use crate::types::{PackId, SnapshotId, Timestamp};

/// The newest snapshot of a source that this machine committed or saw.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LastSnapshot {
    pub host: String,
    pub source: String,
    pub snapshot: SnapshotId,
    pub time: Timestamp,
}

/// A small database of hints beside the index. It never fails: what cannot be read is forgotten.
pub struct Memory;

#[expect(unused_variables, reason = "bodies follow")]
impl Memory {
    /// Opens `state.sqlite` in `dir`, or begins a new one if it is damaged, or keeps all in memory if that fails.
    pub fn open(dir: &Path) -> Self {
        Self
    }
    /// What kept this from being durable, for people.
    pub fn problem(&self) -> Option<String> {
        None
    }
    /// When the pack's stored bytes were last verified.
    pub fn verified(&self, pack: &PackId) -> Option<Timestamp> {
        None
    }
    /// All times of verification.
    pub fn verified_all(&self) -> HashMap<PackId, Timestamp> {
        HashMap::new()
    }
    /// Remembers when packs were verified, in one transaction.
    pub fn set_verified(&self, packs: &[(PackId, Timestamp)]) {}
    /// Forgets packs that are gone.
    pub fn forget_packs(&self, packs: &[PackId]) {}
    /// The last snapshot of each host and source, sorted by both.
    pub fn last_snapshots(&self) -> Vec<LastSnapshot> {
        Vec::new()
    }
    /// Remembers the last snapshot of a source.
    pub fn set_last_snapshot(&self, host: &str, source: &str, snapshot: SnapshotId, time: Timestamp) {}
}
