//! The decisions of a retention policy, and its result.

use serde::Serialize;

use super::prune::PruneSummary;
use super::value::rfc3339;
use crate::repo::StoredSnapshot;

/// A snapshot and the decision about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename = "decision")]
pub struct DecisionRecord {
    /// Id of the snapshot.
    pub snapshot: String,
    /// Its host.
    pub host: String,
    /// Names of its sources.
    pub sources: Vec<String>,
    /// Its tags.
    pub tags: Vec<String>,
    /// The time by which it was judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// `complete`, `incomplete` or `checkpoint`.
    pub state: String,
    /// `keep`, `drop`, or `refused` (would be dropped if forced).
    pub action: &'static str,
    /// The rules that keep it, or the reason to drop it.
    pub reasons: Vec<String>,
}

impl DecisionRecord {
    /// Creates the record of a decision about `found`.
    pub fn new(found: &StoredSnapshot, action: &'static str, reasons: Vec<String>) -> Self {
        let snapshot = &found.snapshot;
        Self {
            snapshot: found.id.to_string(),
            host: snapshot.host.clone(),
            sources: snapshot
                .sources
                .iter()
                .map(|source| source.name.clone())
                .collect(),
            tags: snapshot.tags.clone(),
            time: rfc3339(found.time()),
            state: snapshot.state.to_string(),
            action,
            reasons,
        }
    }
}

/// The result of forgetting snapshots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ForgetSummary {
    /// Nothing was forgotten.
    pub dry_run: bool,
    /// Snapshots that a rule keeps.
    pub kept: u64,
    /// Snapshots that were forgotten, or in a dry run would be.
    pub dropped: u64,
    /// Groups that were left as they are because they would lose too much.
    pub refused: u64,
    /// The result of a prune that followed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prune: Option<PruneSummary>,
}
