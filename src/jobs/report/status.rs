//! The age and state of each source's backups.

use serde::Serialize;

use super::missing::MissingParts;
use super::value::{PathField, rfc3339};
use crate::ops::status::{CaptureStatus, RepoStatus, SourceStatus};
use crate::types::to_u64;

/// A source and its last captures.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename = "source_status")]
pub struct SourceStatusRecord {
    /// The host.
    pub host: String,
    /// Name of the source.
    pub source: String,
    /// The absolute path of a tree at the capture; absent for a stream.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathField>,
    /// Committed snapshots that contain it.
    pub snapshots: u64,
    /// The last good capture; absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub good: Option<CaptureRecord>,
    /// The newest capture.
    pub newest: CaptureRecord,
    /// State of the newest: `complete`, `incomplete`, `suspect` or `alarm`.
    pub state: &'static str,
    /// Why the newest is suspect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspect: Option<String>,
    /// The parts that the newest lacks; absent if nothing is known to be missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<MissingParts>,
}

impl SourceStatusRecord {
    /// Creates the record of a source in `status`.
    pub fn new(status: &RepoStatus, source: &SourceStatus) -> Self {
        let good = source.good.as_ref();
        Self {
            host: source.host.clone(),
            source: source.source.clone(),
            path: source.path.as_deref().map(PathField::new),
            snapshots: source.snapshots,
            good: good.map(|good| CaptureRecord::new(status, good)),
            newest: CaptureRecord::new(status, &source.newest),
            state: newest_state(source),
            suspect: source.suspect.clone(),
            missing: MissingParts::new(&source.lacks, source.lacking.as_ref()),
        }
    }
}

/// Returns the state of a source's newest capture.
fn newest_state(source: &SourceStatus) -> &'static str {
    match (&source.suspect, source.is_alarm, source.newest.complete) {
        (Some(_), true, _) => "alarm",
        (Some(_), false, _) => "suspect",
        (None, _, true) => "complete",
        (None, _, false) => "incomplete",
    }
}

/// A capture of a source.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CaptureRecord {
    /// The snapshot that has it.
    pub snapshot: String,
    /// When the snapshot was committed, by the store's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub committed: Option<String>,
    /// Its age, 0 if the commit is dated in the future.
    pub age_seconds: f64,
    /// All of the source was captured, and nothing of it is lost.
    pub complete: bool,
}

impl CaptureRecord {
    /// Creates the record of a capture in `status`.
    pub fn new(status: &RepoStatus, capture: &CaptureStatus) -> Self {
        Self {
            snapshot: capture.snapshot.to_string(),
            committed: rfc3339(capture.committed),
            age_seconds: status.age(capture),
            complete: capture.complete,
        }
    }
}

/// The state of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StatusSummary {
    /// Number of sources.
    pub sources: u64,
    /// Known packs, condemned ones included.
    pub packs: u64,
    /// Bytes of these packs in the store.
    pub stored_bytes: u64,
    /// Packs that wait for deletion.
    pub condemned_packs: u64,
    /// Stored bytes of the condemned packs.
    pub condemned_bytes: u64,
    /// Leases of other running processes.
    pub live_leases: u64,
    /// When this machine last verified the pack that has been unverified for the longest time, or
    /// when that pack was stored if never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unverified_since: Option<String>,
    /// When a backup of this machine last compared the packs in the store with the index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packs_listed: Option<String>,
    /// Snapshots that this machine saw and that are gone without having been forgotten, each once.
    pub vanished_snapshots: Vec<String>,
}

impl From<&RepoStatus> for StatusSummary {
    fn from(status: &RepoStatus) -> Self {
        let unverified = status.longest_unverified;
        Self {
            sources: to_u64(status.sources.len()),
            packs: status.packs,
            stored_bytes: status.stored_bytes,
            condemned_packs: status.condemned_packs,
            condemned_bytes: status.condemned_bytes,
            live_leases: to_u64(status.leases.len()),
            unverified_since: unverified.and_then(|(_, since)| rfc3339(since)),
            packs_listed: status.packs_listed.and_then(rfc3339),
            vanished_snapshots: vanished_snapshots(status),
        }
    }
}

/// Returns the ids of the vanished snapshots, each once.
fn vanished_snapshots(status: &RepoStatus) -> Vec<String> {
    let mut ids: Vec<String> = status
        .vanished
        .iter()
        .map(|last| last.snapshot.to_string())
        .collect();
    ids.sort();
    ids.dedup();
    ids
}
