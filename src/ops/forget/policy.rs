//! Decides which snapshots of a group a policy keeps, and why. Pure: times and states in, reasons
//! out.
//!
//! The rules are those of restic: the newest snapshot of each period is kept, periods without a
//! snapshot are not counted, and the oldest snapshot fills a slot that is left over. In addition:
//!
//! - Checkpoints, and snapshots dated in the future, are kept and ignored otherwise.
//! - Protected snapshots are kept and take no slot.
//! - There are three ranks: complete; incomplete; suspect, with a suspect source (decision 9).
//!   Complete snapshots are judged as if there were no others, incomplete ones as if there were no
//!   suspect ones. A snapshot of a lower rank is kept in three cases: it is the newest of its rank
//!   and nothing of a higher rank is newer; it fills a period of a rule that has no snapshot of a
//!   higher rank (newest first, up to the rule's number of slots for each rank); or it is itself
//!   among the last ones or within the time. So it never takes the place of a better one. A source
//!   with a file that can never be read still keeps a history, which later damage does not push
//!   out.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use jiff::ZonedDateTime;
use jiff::tz::TimeZone;

use crate::format::SnapshotState;
use crate::types::{SnapshotId, Timestamp};

/// The number of slots of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeriodSlots {
    Some(u32),
    All,
}

impl PeriodSlots {
    fn has(self, number: u32) -> bool {
        match self {
            Self::Some(slots) => number <= slots,
            Self::All => true,
        }
    }
}

/// A calendar period in the given zone. Weeks are ISO weeks; an hour that the clock passes twice
/// counts as two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Period {
    Hour,
    Day,
    Week,
    Month,
    Year,
}

impl Period {
    /// All periods.
    pub const ALL: [Self; 5] = [Self::Hour, Self::Day, Self::Week, Self::Month, Self::Year];

    /// Returns a value that differs between two periods of this kind.
    fn of(self, at: &ZonedDateTime) -> (i32, i32, i32) {
        let (year, month, day) = (
            i32::from(at.year()),
            i32::from(at.month()),
            i32::from(at.day()),
        );
        match self {
            Self::Hour => {
                let hour = i32::from(at.hour());
                (
                    year,
                    month * 100 + day,
                    hour * 1_000_000 + at.offset().seconds(),
                )
            }
            Self::Day => (year, month, day),
            Self::Week => {
                let week = at.date().iso_week_date();
                (i32::from(week.year()), i32::from(week.week()), 0)
            }
            Self::Month => (year, month, 0),
            Self::Year => (year, 0, 0),
        }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hour => "hourly",
            Self::Day => "daily",
            Self::Week => "weekly",
            Self::Month => "monthly",
            Self::Year => "yearly",
        })
    }
}

/// Rules for keeping snapshots. A snapshot that no rule keeps is dropped.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// The newest snapshots.
    pub last: Option<PeriodSlots>,
    /// The newest snapshot of each of the newest periods that have any.
    pub periods: Vec<(Period, PeriodSlots)>,
    /// All snapshots that are less than this older than the group's newest complete one.
    pub within: Option<Duration>,
    /// The newest snapshot of each period, as far back as this.
    pub periods_within: Vec<(Period, Duration)>,
    /// Snapshots with any of these tags.
    pub tags: Vec<String>,
}

impl Policy {
    /// Returns true if the policy would keep nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The properties of a snapshot that a policy looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForgetCandidate<'a> {
    /// See [`crate::repo::StoredSnapshot::time`].
    pub time: Timestamp,
    pub state: SnapshotState,
    /// True if the capture of one of its sources is suspect.
    pub doubtful: bool,
    pub protected: bool,
    pub tags: &'a [String],
}

/// Rank of a snapshot; better ranks come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SnapshotRank {
    Complete,
    Incomplete,
    Doubtful,
}

impl SnapshotRank {
    const ALL: [Self; 3] = [Self::Complete, Self::Incomplete, Self::Doubtful];

    fn of(one: &ForgetCandidate<'_>) -> Self {
        match (one.doubtful, one.state) {
            (true, _) => Self::Doubtful,
            (false, SnapshotState::Incomplete) => Self::Incomplete,
            (false, _) => Self::Complete,
        }
    }
}

impl fmt::Display for SnapshotRank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Complete => "complete",
            Self::Incomplete => "incomplete",
            Self::Doubtful => "suspect",
        })
    }
}

/// Why a snapshot is kept or dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeepReason {
    /// The n-th of the last ones.
    Last(u32),
    /// The n-th slot of a period's rule. `oldest`: the slot was left over and the oldest snapshot
    /// fills it.
    Slot {
        period: Period,
        number: u32,
        oldest: bool,
    },
    /// The n-th snapshot of this rank in a period without a better one.
    Gap {
        period: Period,
        number: u32,
        rank: SnapshotRank,
    },
    Within(Duration),
    /// The newest of its period, within this time.
    PeriodWithin {
        period: Period,
        time: Duration,
    },
    Tag(String),
    Protected,
    /// Its time is ahead of the store's clock.
    Future,
    /// The checkpoint of a backup that is running or was interrupted.
    Checkpoint,
    /// The newest of this rank, and nothing better is newer.
    Newest(SnapshotRank),
    /// The newest good capture of this source, which is suspect in all newer snapshots.
    LastGood(String),
    /// Dropped: another snapshot replaces it.
    Replaced(SnapshotId),
    /// Dropped: no rule keeps it.
    NoRule,
}

impl fmt::Display for KeepReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Last(number) => write!(f, "last {number}"),
            Self::Slot {
                period,
                number,
                oldest: false,
            } => write!(f, "{period} {number}"),
            Self::Slot {
                period,
                number,
                oldest: true,
            } => write!(f, "{period} {number}, the oldest"),
            Self::Gap {
                period,
                number,
                rank,
            } => write!(f, "{period} {number} of {rank} ones"),
            Self::Within(time) => write!(f, "within {}", KeepSpan(*time)),
            Self::PeriodWithin { period, time } => write!(f, "{period} within {}", KeepSpan(*time)),
            Self::Tag(tag) => write!(f, "tag {tag}"),
            Self::Protected => f.write_str("protected"),
            Self::Future => f.write_str("from the future"),
            Self::Checkpoint => f.write_str("checkpoint"),
            Self::Newest(rank) => write!(f, "{rank}, but nothing is newer"),
            Self::LastGood(source) => write!(f, "last good {source}"),
            Self::Replaced(by) => write!(f, "replaced by {}", by.short()),
            Self::NoRule => f.write_str("no rule keeps it"),
        }
    }
}

/// Formats a duration in the largest unit that divides it.
struct KeepSpan(Duration);

impl fmt::Display for KeepSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        for (unit, name) in [(365 * 86_400, "y"), (86_400, "d"), (3600, "h"), (60, "min")] {
            if seconds.is_multiple_of(unit) {
                return write!(f, "{} {name}", seconds / unit);
            }
        }
        write!(f, "{seconds} s")
    }
}

/// Judges the snapshots of one group, oldest first by time. Snapshots without a reason are dropped.
///
/// Snapshots later than `horizon` count as dated in the future.
pub fn judge(
    policy: &Policy,
    zone: &TimeZone,
    horizon: Timestamp,
    candidates: &[ForgetCandidate<'_>],
) -> Vec<Vec<KeepReason>> {
    let mut judge = PolicyJudge {
        policy,
        reasons: vec![Vec::new(); candidates.len()],
    };

    let mut rows = PolicyRows::default();
    for (at, one) in candidates.iter().enumerate().rev() {
        if one.state == SnapshotState::Checkpoint {
            judge.reasons[at].push(KeepReason::Checkpoint);
            continue;
        }
        if one.protected {
            judge.reasons[at].push(KeepReason::Protected);
        }
        if one.time > horizon {
            judge.reasons[at].push(KeepReason::Future);
            continue;
        }

        let wanted = policy.tags.iter().filter(|tag| one.tags.contains(tag));
        judge.reasons[at].extend(wanted.map(|tag| KeepReason::Tag(tag.clone())));

        let row = PolicyRow {
            at,
            time: one.time,
            local: local(one.time, zone),
        };

        let rank = SnapshotRank::of(one);
        let list = if one.protected {
            &mut rows.protected
        } else {
            &mut rows.judged
        };
        list.push((rank, row));
    }

    judge.complete(&rows);
    judge.lower(&rows, SnapshotRank::Incomplete);
    judge.lower(&rows, SnapshotRank::Doubtful);
    judge.reasons
}

/// Returns the time in the zone. A time outside the calendar's range becomes the nearest one inside
/// it.
fn local(at: Timestamp, zone: &TimeZone) -> ZonedDateTime {
    let nanos = i32::try_from(at.nanos()).unwrap_or_default();
    let limit = if at.seconds() < 0 {
        jiff::Timestamp::MIN
    } else {
        jiff::Timestamp::MAX
    };
    jiff::Timestamp::new(at.seconds(), nanos)
        .unwrap_or(limit)
        .to_zoned_datetime(zone.clone())
}

struct PolicyRow {
    /// Index among the candidates.
    at: usize,
    time: Timestamp,
    local: ZonedDateTime,
}

/// Snapshots, newest first, without checkpoints and those dated in the future.
#[derive(Default)]
struct PolicyRows {
    judged: Vec<(SnapshotRank, PolicyRow)>,
    protected: Vec<(SnapshotRank, PolicyRow)>,
}

impl PolicyRows {
    /// Returns the judged snapshots of this rank.
    fn of(&self, rank: SnapshotRank) -> Vec<&PolicyRow> {
        self.judged
            .iter()
            .filter(|one| one.0 == rank)
            .map(|one| &one.1)
            .collect()
    }

    /// Returns the snapshots of a better rank, protected or not.
    fn better(&self, rank: SnapshotRank) -> impl Iterator<Item = &PolicyRow> {
        let all = self.judged.iter().chain(&self.protected);
        all.filter(move |one| one.0 < rank).map(|one| &one.1)
    }

    /// Returns the time from which the rules count back: that of the newest snapshot of the best
    /// existing rank. It compares places among the candidates, which order equal times too.
    /// Protected snapshots count if they are complete.
    fn anchor(&self) -> Option<Timestamp> {
        let complete = self
            .better(SnapshotRank::Incomplete)
            .max_by_key(|row| row.at);
        let newest = |rank| self.of(rank).first().copied();
        complete
            .or_else(|| SnapshotRank::ALL.into_iter().find_map(newest))
            .map(|row| row.time)
    }
}

struct PolicyJudge<'a> {
    policy: &'a Policy,
    reasons: Vec<Vec<KeepReason>>,
}

impl PolicyJudge<'_> {
    fn complete(&mut self, rows: &PolicyRows) {
        let list = &rows.of(SnapshotRank::Complete);
        if let Some(slots) = self.policy.last {
            for (row, number) in list
                .iter()
                .zip(1..)
                .take_while(|&(_, number)| slots.has(number))
            {
                self.reasons[row.at].push(KeepReason::Last(number));
            }
        }

        for &(period, slots) in &self.policy.periods {
            let mut seen = HashSet::new();
            let mut number = 1;
            for (n, row) in list.iter().enumerate() {
                let is_first = seen.insert(period.of(&row.local));
                if slots.has(number) && (is_first || n + 1 == list.len()) {
                    self.reasons[row.at].push(KeepReason::Slot {
                        period,
                        number,
                        oldest: !is_first,
                    });
                    number += 1;
                }
            }
        }

        let Some(anchor) = rows.anchor() else { return };
        self.within(list, anchor);
        for &(period, time) in &self.policy.periods_within {
            let mut seen = HashSet::new();
            let near = list.iter().filter(|row| is_within(anchor, row.time, time));
            for row in near {
                let is_first = seen.insert(period.of(&row.local));
                if is_first || list.last().is_some_and(|last| last.at == row.at) {
                    self.reasons[row.at].push(KeepReason::PeriodWithin { period, time });
                }
            }
        }
    }

    /// Judges the snapshots of a rank below complete.
    fn lower(&mut self, rows: &PolicyRows, rank: SnapshotRank) {
        let list = &rows.of(rank);
        if let Some(newest) = list.first()
            && rows.better(rank).all(|better| better.at < newest.at)
        {
            self.reasons[newest.at].push(KeepReason::Newest(rank));
        }

        // Better and newer snapshots take a number too.
        if let Some(slots) = self.policy.last {
            let better = |row: &PolicyRow| {
                let newer = rows.judged.iter().take_while(|one| one.1.at > row.at);
                newer.filter(|one| one.0 < rank).count()
            };
            for (before, row) in list.iter().enumerate() {
                let number = u32::try_from(before + better(row) + 1).unwrap_or(u32::MAX);
                if !slots.has(number) {
                    break;
                }
                self.reasons[row.at].push(KeepReason::Last(number));
            }
        }

        // Fill only periods without a better snapshot.
        for &(period, slots) in &self.policy.periods {
            let mut seen: HashSet<_> = rows.better(rank).map(|row| period.of(&row.local)).collect();
            let alone = seen.is_empty();
            let mut number = 1;
            for (n, row) in list.iter().enumerate() {
                let is_first = seen.insert(period.of(&row.local));
                let fills = alone && n + 1 == list.len();
                if slots.has(number) && (is_first || fills) {
                    self.reasons[row.at].push(KeepReason::Gap {
                        period,
                        number,
                        rank,
                    });
                    number += 1;
                }
            }
        }

        let Some(anchor) = rows.anchor() else { return };
        self.within(list, anchor);
        for &(period, time) in &self.policy.periods_within {
            let mut seen: HashSet<_> = rows.better(rank).map(|row| period.of(&row.local)).collect();
            for row in list.iter().filter(|row| is_within(anchor, row.time, time)) {
                if seen.insert(period.of(&row.local)) {
                    self.reasons[row.at].push(KeepReason::PeriodWithin { period, time });
                }
            }
        }
    }

    fn within(&mut self, list: &[&PolicyRow], anchor: Timestamp) {
        let Some(time) = self.policy.within else {
            return;
        };
        for row in list.iter().filter(|row| is_within(anchor, row.time, time)) {
            self.reasons[row.at].push(KeepReason::Within(time));
        }
    }
}

/// Returns true if `at` is less than `time` before the anchor.
fn is_within(anchor: Timestamp, at: Timestamp, time: Duration) -> bool {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    at > anchor.plus_seconds(seconds.saturating_neg())
}
