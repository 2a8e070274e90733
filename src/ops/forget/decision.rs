//! Decisions of a policy about snapshots that are judged together.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;

use super::group::GroupKey;
use super::policy::{ForgetCandidate, KeepReason, Policy, judge};
use crate::repo::StoredSnapshot;
use crate::types::{SnapshotId, Timestamp};

/// The decision about one snapshot.
#[derive(Debug, Clone, PartialEq)]
pub struct ForgetDecision {
    pub found: StoredSnapshot,
    pub keep: bool,
    /// Why it is kept or dropped; never empty.
    pub reasons: Vec<KeepReason>,
}

/// Snapshots that were judged together.
#[derive(Debug, Clone, PartialEq)]
pub struct ForgetGroup {
    pub key: GroupKey,
    /// Decisions, oldest snapshot first.
    pub decisions: Vec<ForgetDecision>,
}

/// Judges the members of a group by a policy. `replaced`: snapshots with their successors.
pub(super) fn decide(
    policy: &Policy,
    zone: &TimeZone,
    horizon: Timestamp,
    members: Vec<StoredSnapshot>,
    replaced: &BTreeMap<SnapshotId, SnapshotId>,
) -> Vec<ForgetDecision> {
    let counted: Vec<&StoredSnapshot> = members
        .iter()
        .filter(|found| !replaced.contains_key(&found.id))
        .collect();
    let candidates: Vec<ForgetCandidate<'_>> = counted
        .iter()
        .map(|found| ForgetCandidate {
            time: found.time(),
            state: found.snapshot.state,
            doubtful: found
                .snapshot
                .sources
                .iter()
                .any(|source| source.suspect.is_some()),
            protected: found.snapshot.protected,
            tags: &found.snapshot.tags,
        })
        .collect();

    let judged = judge(policy, zone, horizon, &candidates);
    let mut reasons: BTreeMap<SnapshotId, Vec<KeepReason>> =
        counted.iter().map(|found| found.id).zip(judged).collect();

    let decide = |found: StoredSnapshot| {
        let reasons = match replaced.get(&found.id) {
            Some(by) => vec![KeepReason::Replaced(*by)],
            None => reasons.remove(&found.id).unwrap_or_default(),
        };
        let keep = !reasons.is_empty() && !replaced.contains_key(&found.id);
        let reasons = if reasons.is_empty() {
            vec![KeepReason::NoRule]
        } else {
            reasons
        };
        ForgetDecision {
            found,
            keep,
            reasons,
        }
    };
    members.into_iter().map(decide).collect()
}
