//! What forgetting by policy refuses without being forced
//! (docs/decisions/0012-most-of-the-time-covered.md).
//!
//! Guarded against is a policy or a clock that is wrong. Both show in the time that the kept
//! snapshots reach back over; the number that goes says little, since thinning out is what policies
//! are for.

use std::collections::BTreeMap;
use std::fmt;

use super::{Decision, Group, GroupKey, Reason};
use crate::format::SnapshotState;
use crate::types::{SnapshotId, Timestamp};

/// A group that covers less time than this is not guarded: a day.
const GUARDED_SECONDS: f64 = 24.0 * 3600.0;

/// How far a store's clock may go back without being wrong: an hour, the protocol's margin.
const CLOCK_JUMP_SECONDS: f64 = 3600.0;

/// What is kept must reach over this part of the time.
const KEPT_PARTS: f64 = 3.0;

/// A group that is left as it is, since it would lose too much.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    pub key: GroupKey,
    /// How many would go, of how many that were judged.
    pub dropped: u64,
    pub judged: u64,
    /// From the oldest to the newest of those that would stay, and of all.
    pub kept_seconds: f64,
    pub seconds: f64,
    /// Two snapshots whose sealed times contradict what the later one names as its parent: it and
    /// the parent. Then no time of the group says how old anything is.
    pub disorder: Option<(SnapshotId, SnapshotId)>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = |seconds: f64| seconds / GUARDED_SECONDS;
        write!(
            f,
            "{}: {} of {} would go",
            self.key, self.dropped, self.judged
        )?;
        if let Some((child, parent)) = self.disorder {
            let (child, parent) = (child.short(), parent.short());
            return write!(
                f,
                ", but the store's clock was wrong: {child} was built on {parent} and is dated before it"
            );
        }
        match self.dropped == self.judged {
            true => f.write_str(", none would stay"),
            false => write!(
                f,
                ", the others cover {:.1} of {:.1} days",
                days(self.kept_seconds),
                days(self.seconds)
            ),
        }
    }
}

impl Group {
    /// Why nothing of this group should be forgotten unasked, if so: more than half of it would go
    /// and what stays covers less than a third of its time, which is at least a day; or nothing at
    /// all would stay; or the times that are sealed in its snapshots cannot be right, since one is
    /// dated before the one that it was built on.
    ///
    /// What the policy does not judge counts for nothing here either: one protected snapshot of
    /// last year would else stand for the whole year.
    pub fn refusal(&self) -> Option<Refusal> {
        let judged: Vec<&Decision> = self.decisions.iter().filter(|one| is_judged(one)).collect();
        let kept = || {
            judged
                .iter()
                .filter(|one| one.keep)
                .map(|one| one.found.time())
        };
        let dropped = judged.len() - kept().count();
        let (seconds, kept_seconds) = (
            span(judged.iter().map(|one| one.found.time())),
            span(kept()),
        );
        let most_goes = 2 * dropped > judged.len();
        let little_stays = seconds >= GUARDED_SECONDS && KEPT_PARTS * kept_seconds < seconds;
        let none_stays = dropped > 0 && !self.decisions.iter().any(|one| one.keep && counts(one));
        let disorder = (dropped > 0).then(|| disorder(&judged)).flatten();
        (none_stays || most_goes && little_stays || disorder.is_some()).then(|| Refusal {
            key: self.key.clone(),
            dropped: dropped as u64,
            judged: judged.len() as u64,
            kept_seconds,
            seconds,
            disorder,
        })
    }
}

/// True unless it is of no count at all: of a backup under way, left by a re-tag, or from the
/// future.
fn counts(one: &Decision) -> bool {
    one.found.snapshot.state != SnapshotState::Checkpoint
        && !one
            .reasons
            .iter()
            .any(|reason| matches!(reason, Reason::Replaced(_) | Reason::Future))
}

fn is_judged(one: &Decision) -> bool {
    counts(one) && !one.found.snapshot.protected
}

/// A snapshot that is dated before its own parent by more than a store's clock may jump, and that
/// parent. What is copied or put in another's place has the time of its first and parents of
/// another kind, and tells nothing.
fn disorder(judged: &[&Decision]) -> Option<(SnapshotId, SnapshotId)> {
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

/// Seconds from the oldest to the newest; zero if there are none.
fn span(times: impl Iterator<Item = Timestamp> + Clone) -> f64 {
    match (times.clone().min(), times.max()) {
        (Some(oldest), Some(newest)) => newest.seconds_since(oldest),
        _ => 0.0,
    }
}
