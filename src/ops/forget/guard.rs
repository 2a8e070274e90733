//! Refuses to forget by policy, unless forced, if too much would be lost
//! (docs/decisions/0012-forget-guard-counts-time.md).
//!
//! This guards against a wrong policy or a wrong clock. Both show in the time that the kept
//! snapshots cover. The number of dropped snapshots means little, since policies exist to thin out
//! snapshots.

use std::collections::BTreeMap;
use std::fmt;

use super::decision::{ForgetDecision, ForgetGroup};
use super::group::GroupKey;
use super::policy::KeepReason;
use crate::format::SnapshotState;
use crate::types::{SnapshotId, Timestamp, to_u64};

/// A group that covers less time than this is not guarded: one day.
const GUARDED_SECONDS: f64 = 24.0 * 3600.0;

/// How far a store's clock may go back without being wrong: one hour, the protocol's margin.
const CLOCK_JUMP_SECONDS: f64 = 3600.0;

/// The kept snapshots must cover at least 1/`KEPT_PARTS` of the time.
const KEPT_PARTS: f64 = 3.0;

/// A group that is left unchanged because it would lose too much.
#[derive(Debug, Clone, PartialEq)]
pub struct GuardRefusal {
    pub key: GroupKey,
    /// Number of judged snapshots that would be dropped, and number of all judged snapshots.
    pub dropped: u64,
    pub judged: u64,
    /// Time from the oldest to the newest snapshot, of those that would stay and of all.
    pub kept_seconds: f64,
    pub seconds: f64,
    /// A snapshot and its parent whose sealed times contradict each other: the child is dated
    /// before the parent. Then the times of the group say nothing about ages.
    pub disorder: Option<(SnapshotId, SnapshotId)>,
}

impl fmt::Display for GuardRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = |seconds: f64| seconds / GUARDED_SECONDS;
        write!(
            f,
            "{}: {} of {} would be forgotten",
            self.key, self.dropped, self.judged
        )?;
        if let Some((child, parent)) = self.disorder {
            let child = child.short();
            let parent = parent.short();
            return write!(
                f,
                ", but the store's clock was wrong: {child} was built on {parent} and is dated before it"
            );
        }

        if self.dropped == self.judged {
            f.write_str(", none would remain")
        } else {
            write!(
                f,
                ", the others cover {:.1} of {:.1} days",
                days(self.kept_seconds),
                days(self.seconds)
            )
        }
    }
}

impl ForgetGroup {
    /// Returns the reason to leave this group unchanged, if there is one:
    ///
    /// - More than half of it would be dropped, and the rest covers less than a third of its time.
    ///   Groups that cover less than a day are exempt.
    /// - Nothing would stay.
    /// - The times sealed in its snapshots cannot be right: one is dated before its parent.
    ///
    /// Snapshots that the policy does not judge are not counted here either: otherwise one
    /// protected snapshot of last year would stand for the whole year.
    pub fn refusal(&self) -> Option<GuardRefusal> {
        let judged: Vec<&ForgetDecision> =
            self.decisions.iter().filter(|one| is_judged(one)).collect();
        let kept = || {
            judged
                .iter()
                .filter(|one| one.keep)
                .map(|one| one.found.time())
        };
        let dropped = judged.len() - kept().count();
        let seconds = span(judged.iter().map(|one| one.found.time()));
        let kept_seconds = span(kept());

        let most_goes = 2 * dropped > judged.len();
        let little_stays = seconds >= GUARDED_SECONDS && KEPT_PARTS * kept_seconds < seconds;
        let none_stays = dropped > 0 && !self.decisions.iter().any(|one| one.keep && counts(one));
        let disorder = (dropped > 0).then(|| disorder(&judged)).flatten();

        (none_stays || most_goes && little_stays || disorder.is_some()).then(|| GuardRefusal {
            key: self.key.clone(),
            dropped: to_u64(dropped),
            judged: to_u64(judged.len()),
            kept_seconds,
            seconds,
            disorder,
        })
    }
}

/// Returns false for snapshots that do not count: checkpoints, those left by an interrupted re-tag,
/// and those dated in the future.
fn counts(one: &ForgetDecision) -> bool {
    one.found.snapshot.state != SnapshotState::Checkpoint
        && !one
            .reasons
            .iter()
            .any(|reason| matches!(reason, KeepReason::Replaced(_) | KeepReason::Future))
}

fn is_judged(one: &ForgetDecision) -> bool {
    counts(one) && !one.found.snapshot.protected
}

/// Finds a snapshot that is dated before its own parent by more than a store's clock may jump;
/// returns it and the parent. Copied snapshots and replacements are skipped: they have the time of
/// their original and parents of another kind.
fn disorder(judged: &[&ForgetDecision]) -> Option<(SnapshotId, SnapshotId)> {
    let times: BTreeMap<SnapshotId, Timestamp> = judged
        .iter()
        .map(|one| (one.found.id, one.found.committed()))
        .collect();
    let own = judged
        .iter()
        .map(|one| &one.found)
        .filter(|found| found.snapshot.committed.is_none());
    own.flat_map(|found| {
        found
            .snapshot
            .parents
            .iter()
            .map(move |parent| (found, parent))
    })
    .find_map(|(found, parent)| {
        let early = times.get(parent)?.seconds_since(found.committed());
        (early > CLOCK_JUMP_SECONDS).then_some((found.id, *parent))
    })
}

/// Returns the seconds from the oldest to the newest time; zero if there are none.
fn span(times: impl Iterator<Item = Timestamp> + Clone) -> f64 {
    match (times.clone().min(), times.max()) {
        (Some(oldest), Some(newest)) => newest.seconds_since(oldest),
        _ => 0.0,
    }
}
