//! The policy against a naive model of it, in zones with unusual offsets and around their changes.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::policy::{ForgetCandidate, KeepReason, Period, PeriodSlots, Policy, judge};
use crate::format::SnapshotState;
use crate::types::Timestamp;

/// 2026-01-01 00:00 UTC, a Thursday.
const START: i64 = 1_767_225_600;
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
const ZONES: [&str; 5] = [
    "UTC0",
    "EST5EDT,M3.2.0,M11.1.0",
    "LHST-10:30LHDT-11,M10.1.0,M4.1.0",
    "<+1245>-12:45",
    "<-12>12",
];

#[derive(Debug, Clone)]
struct One {
    /// Seconds after [`START`].
    at: i64,
    state: SnapshotState,
    doubtful: bool,
    protected: bool,
    tags: Vec<String>,
}

fn complete(at: i64) -> One {
    One {
        at,
        state: SnapshotState::Complete,
        doubtful: false,
        protected: false,
        tags: Vec::new(),
    }
}

fn incomplete(at: i64) -> One {
    One {
        state: SnapshotState::Incomplete,
        ..complete(at)
    }
}

fn doubtful(at: i64) -> One {
    One {
        doubtful: true,
        ..incomplete(at)
    }
}

fn run(policy: &Policy, zone: &TimeZone, ones: &[One]) -> Vec<Vec<KeepReason>> {
    let candidates: Vec<ForgetCandidate<'_>> = ones
        .iter()
        .map(|one| ForgetCandidate {
            time: Timestamp::from_seconds(START + one.at),
            state: one.state,
            doubtful: one.doubtful,
            protected: one.protected,
            tags: &one.tags,
        })
        .collect();
    judge(
        policy,
        zone,
        Timestamp::from_seconds(START + 4000 * DAY),
        &candidates,
    )
}

fn kept(policy: &Policy, zone: &TimeZone, ones: &[One]) -> Vec<bool> {
    run(policy, zone, ones)
        .iter()
        .map(|reasons| !reasons.is_empty())
        .collect()
}

fn reason_lines(policy: &Policy, ones: &[One]) -> Vec<String> {
    let line = |reasons: &Vec<KeepReason>| {
        reasons
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    };
    run(policy, &TimeZone::UTC, ones).iter().map(line).collect()
}

fn period(period: Period, slots: u32) -> Policy {
    Policy {
        periods: vec![(period, PeriodSlots::Some(slots))],
        ..Policy::default()
    }
}

fn zone(text: &str) -> TimeZone {
    TimeZone::posix(text).expect("a zone")
}

#[test]
fn the_newest_of_each_period_is_kept_and_the_oldest_fills_up() {
    let ones = [0, 1, 2, DAY, 3 * DAY, 3 * DAY + 1].map(complete);
    assert_eq!(
        reason_lines(&period(Period::Day, 2), &ones),
        ["", "", "", "daily 2", "", "daily 1"]
    );
    let all = [
        "daily 4, the oldest",
        "",
        "daily 3",
        "daily 2",
        "",
        "daily 1",
    ];
    assert_eq!(reason_lines(&period(Period::Day, 5), &ones), all);
    assert_eq!(
        reason_lines(&period(Period::Year, 2), &ones),
        ["yearly 2, the oldest", "", "", "", "", "yearly 1"]
    );

    let last = Policy {
        last: Some(PeriodSlots::Some(2)),
        ..Policy::default()
    };
    assert_eq!(
        reason_lines(&last, &ones),
        ["", "", "", "", "last 2", "last 1"]
    );

    let all = Policy {
        last: Some(PeriodSlots::All),
        ..Policy::default()
    };
    assert!(
        kept(&all, &TimeZone::UTC, &ones)
            .into_iter()
            .all(|kept| kept)
    );
}

#[test]
fn weeks_are_those_of_iso_8601() {
    // 2026-01-04 is a Sunday, 2025-12-29 the Monday of the same week; 2027-01-01 is in week 53 of
    // 2026.
    let ones = [
        -4 * DAY,
        -3 * DAY,
        3 * DAY + 23 * HOUR,
        4 * DAY,
        361 * DAY,
        365 * DAY,
    ]
    .map(complete);
    let policy = period(Period::Week, 9);
    let expected = ["weekly 4", "", "weekly 3", "weekly 2", "", "weekly 1"];
    assert_eq!(reason_lines(&policy, &ones), expected);
}

#[test]
fn an_hour_that_comes_twice_is_two_and_days_are_the_zone_s() {
    let new_york = zone(ZONES[1]);

    // 2026-11-01 05:30 UTC is 01:30 in summer time, 06:30 UTC is 01:30 in standard time.
    let fold = 304 * DAY + 5 * HOUR + HOUR / 2;
    let ones = [fold, fold + HOUR].map(complete);
    assert_eq!(
        kept(&period(Period::Hour, 2), &new_york, &ones),
        [true, true]
    );

    let ones = [
        complete(fold - 2 * HOUR),
        complete(fold),
        complete(fold + HOUR),
    ];
    assert_eq!(
        kept(&period(Period::Day, 1), &new_york, &ones),
        [false, false, true]
    );

    // 23:30 and 00:30 in New York: two days there, one in UTC.
    let policy = period(Period::Day, 2);
    let ones = [
        complete(fold - DAY),
        complete(fold - 2 * HOUR),
        complete(fold - HOUR),
        complete(fold),
    ];
    assert_eq!(kept(&policy, &new_york, &ones), [false, true, false, true]);
    assert_eq!(
        kept(&policy, &TimeZone::UTC, &ones),
        [true, false, false, true]
    );
}

#[test]
fn times_within_count_back_from_the_newest_complete_one() {
    let ones = [
        complete(0),
        complete(DAY),
        complete(DAY + HOUR),
        complete(2 * DAY),
        incomplete(900 * DAY),
    ];
    let policy = Policy {
        within: Some(Duration::from_secs(DAY as u64)),
        ..Policy::default()
    };
    let newest = "incomplete, but nothing is newer, within 1 d";
    assert_eq!(
        reason_lines(&policy, &ones),
        ["", "", "within 1 d", "within 1 d", newest]
    );
    let two_days = Duration::from_secs(2 * DAY as u64);
    let policy = Policy {
        periods_within: vec![(Period::Day, two_days)],
        ..Policy::default()
    };
    let daily = "daily within 2 d";
    assert_eq!(reason_lines(&policy, &ones[..4]), ["", "", daily, daily]);
}

#[test]
fn protected_ones_take_no_slot_and_tags_and_checkpoints_are_kept() {
    let mut ones = [0, HOUR, 2 * HOUR, 3 * HOUR, 4 * HOUR].map(complete);
    ones[4].protected = true;
    ones[3].state = SnapshotState::Checkpoint;
    ones[0].tags = vec!["b".into(), "a".into()];
    let policy = Policy {
        last: Some(PeriodSlots::Some(1)),
        tags: vec!["a".into(), "x".into()],
        ..Policy::default()
    };
    assert_eq!(
        reason_lines(&policy, &ones),
        ["tag a", "", "last 1", "checkpoint", "protected"]
    );
}

#[test]
fn snapshots_from_the_future_are_kept_and_take_no_slot() {
    let ones = [complete(0), complete(DAY), complete(5000 * DAY)];
    let policy = Policy {
        last: Some(PeriodSlots::Some(1)),
        within: Some(Duration::from_secs(HOUR as u64)),
        ..Policy::default()
    };
    assert_eq!(
        reason_lines(&policy, &ones),
        ["", "last 1, within 1 h", "from the future"]
    );

    // Times outside the calendar's range are judged too.
    let policy = period(Period::Year, 2);
    assert_eq!(
        kept(
            &policy,
            &TimeZone::UTC,
            &[complete(i64::MIN / 2), complete(0)]
        ),
        [true, true]
    );
}

#[test]
fn incomplete_ones_stand_beside_complete_ones() {
    let at = |day: i64, hour: i64| day * DAY + hour * HOUR;
    let ones = [
        incomplete(at(0, 1)),
        incomplete(at(0, 2)),
        complete(at(1, 1)),
        incomplete(at(1, 2)),
        complete(at(2, 1)),
        incomplete(at(2, 2)),
        incomplete(at(2, 3)),
    ];
    let newest = "incomplete, but nothing is newer";
    let daily = reason_lines(&period(Period::Day, 2), &ones);
    // Day 0 has no complete snapshot: the newest incomplete one of that day is kept, without a
    // slot.
    assert_eq!(
        daily,
        [
            "",
            "daily 1 of incomplete ones",
            "daily 2",
            "",
            "daily 1",
            "",
            newest
        ]
    );

    let last = Policy {
        last: Some(PeriodSlots::Some(2)),
        ..Policy::default()
    };
    let newest = format!("{newest}, last 1");
    assert_eq!(
        reason_lines(&last, &ones),
        ["", "", "last 2", "", "last 1", "last 2", &newest]
    );
}

/// A file that can never be read makes every snapshot incomplete. The policy then chooses among
/// them and does not keep them all.
#[test]
fn a_source_that_is_never_complete_still_has_a_history() {
    let ones: Vec<One> = (0..100).map(|day| incomplete(day * DAY)).collect();
    let kept = kept(&period(Period::Day, 7), &TimeZone::UTC, &ones);
    assert_eq!(kept.iter().filter(|&&kept| kept).count(), 7);
    assert!(kept[93..].iter().all(|&kept| kept));
}

/// A file that can never be read makes every snapshot incomplete. Then the database is damaged, and
/// each hourly dump is suspect. The suspect snapshots must not take the slots of the incomplete
/// ones, which are the best that such a source ever gets.
#[test]
fn suspect_ones_push_no_incomplete_one_out() {
    let good = (0..10).map(|day| incomplete(day * DAY));
    let bad = (0..240).map(|hour| doubtful(10 * DAY + hour * HOUR));
    let ones: Vec<One> = good.chain(bad).collect();
    let seven = period(Period::Day, 7);
    let reasons = reason_lines(&seven, &ones);
    assert_eq!(reasons[3], "daily 7 of incomplete ones");
    assert!(
        reasons[3..9]
            .iter()
            .all(|why| why.ends_with("of incomplete ones")),
        "{reasons:?}"
    );
    assert_eq!(
        reasons[9],
        "incomplete, but nothing is newer, daily 1 of incomplete ones"
    );
    assert_eq!(
        reasons[249],
        "suspect, but nothing is newer, daily 1 of suspect ones"
    );
    assert_eq!(
        reasons[10..].iter().filter(|why| !why.is_empty()).count(),
        7
    );

    // Among the last ones, suspect snapshots are numbered after all better and newer ones. A period
    // with a better snapshot is taken.
    let ones = [incomplete(0), doubtful(1), incomplete(2), doubtful(3)];
    let last = Policy {
        last: Some(PeriodSlots::Some(2)),
        ..Policy::default()
    };
    let newest =
        ["incomplete", "suspect"].map(|rank| format!("{rank}, but nothing is newer, last 1"));
    assert_eq!(
        reason_lines(&last, &ones),
        ["last 2", "", &newest[0], &newest[1]]
    );
    let seven = reason_lines(&seven, &ones);
    assert_eq!(
        (seven[1].as_str(), seven[3].as_str()),
        ("", "suspect, but nothing is newer")
    );
}

fn arb_ones() -> impl Strategy<Value = Vec<One>> {
    let at = prop_oneof![
        (0..200i64).prop_map(|n| n * 600),
        (0..90i64).prop_map(|n| n * 5 * HOUR),
        (0..2000i64).prop_map(|n| n * 13 * HOUR),
        // Around the clock changes of New York and of Lord Howe.
        (0..40i64).prop_map(|n| 304 * DAY + n * 15 * 60),
        (0..40i64).prop_map(|n| 93 * DAY + 10 * HOUR + n * 15 * 60),
    ];
    let state = prop_oneof![
        3 => Just(SnapshotState::Complete),
        2 => Just(SnapshotState::Incomplete),
        1 => Just(SnapshotState::Checkpoint),
    ];

    let one = (
        at,
        state,
        prop::bool::ANY,
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.1),
    )
        .prop_map(|(at, state, suspect, protected, tagged)| {
            let tags = if tagged {
                vec!["t".to_owned()]
            } else {
                Vec::new()
            };
            let doubtful = suspect && state == SnapshotState::Incomplete;
            One {
                at,
                state,
                doubtful,
                protected,
                tags,
            }
        });

    prop::collection::vec(one, 0..60).prop_map(|mut ones| {
        ones.sort_by_key(|one| one.at);
        ones
    })
}

fn arb_policy() -> impl Strategy<Value = Policy> {
    let slots =
        prop_oneof![4 => (1..8u32).prop_map(PeriodSlots::Some), 1 => Just(PeriodSlots::All)];
    let index = 0..Period::ALL.len();
    let periods = prop::collection::vec((index.clone(), slots.clone()), 0..4);
    let periods =
        periods.prop_map(|list| list.into_iter().map(|(n, s)| (Period::ALL[n], s)).collect());
    let span = (1..400u64).prop_map(|n| Duration::from_secs(n * 7 * 3600));
    let timed = prop::collection::vec((index, span.clone()), 0..3);
    let timed = timed.prop_map(|list| list.into_iter().map(|(n, s)| (Period::ALL[n], s)).collect());
    let tags = prop::bool::ANY.prop_map(|on| if on { vec!["t".to_owned()] } else { Vec::new() });
    (
        prop::option::of(slots),
        periods,
        prop::option::of(span),
        timed,
        tags,
    )
        .prop_map(|(last, periods, within, periods_within, tags)| Policy {
            last,
            periods,
            within,
            periods_within,
            tags,
        })
}

/// Returns the name of a period, computed in another way than the policy does.
fn name(period: Period, at: i64, zone: &TimeZone) -> String {
    let format = match period {
        Period::Hour => "%Y-%m-%d %H %:z",
        Period::Day => "%Y-%m-%d",
        Period::Week => "%G-%V",
        Period::Month => "%Y-%m",
        Period::Year => "%Y",
    };
    let time = jiff::Timestamp::from_second(START + at)
        .expect("in range")
        .to_zoned_datetime(zone.clone());
    time.strftime(format).to_string()
}

/// Returns the kept complete, unprotected snapshots, rule by rule from the definition.
fn model(policy: &Policy, zone: &TimeZone, ones: &[One]) -> BTreeSet<usize> {
    let is_complete = |n: &usize| ones[*n].state == SnapshotState::Complete;
    let list: Vec<usize> = (0..ones.len())
        .filter(is_complete)
        .filter(|&n| !ones[n].protected)
        .collect();
    let mut kept: BTreeSet<usize> = list
        .iter()
        .copied()
        .filter(|&n| ones[n].tags.iter().any(|tag| policy.tags.contains(tag)))
        .collect();
    let count = |slots| match slots {
        PeriodSlots::Some(n) => n as usize,
        PeriodSlots::All => usize::MAX,
    };

    let newest_first: Vec<usize> = list.iter().rev().copied().collect();
    kept.extend(newest_first.iter().take(policy.last.map_or(0, count)));

    // The newest of each period among some of them, newest first.
    let leaders = |period, among: &[usize]| {
        let mut names = BTreeSet::new();
        let mut leaders = among.to_vec();
        leaders.retain(|&n| names.insert(name(period, ones[n].at, zone)));
        leaders
    };

    for &(period, slots) in &policy.periods {
        let leaders = leaders(period, &newest_first);
        kept.extend(leaders.iter().take(count(slots)));
        if leaders.len() < count(slots) {
            kept.extend(list.first());
        }
    }

    let newest = (0..ones.len()).rev().find(is_complete);
    let near = |time: Duration| {
        let bound = newest.map_or(0, |newest| ones[newest].at - time.as_secs() as i64);
        newest_first
            .iter()
            .copied()
            .filter(|&n| ones[n].at > bound)
            .collect::<Vec<_>>()
    };

    kept.extend(policy.within.map(near).unwrap_or_default());
    for &(period, time) in &policy.periods_within {
        let near = near(time);
        kept.extend(leaders(period, &near));
        kept.extend(near.iter().filter(|&n| list.first() == Some(n)));
    }
    kept
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn complete_ones_are_judged_as_the_model_does(
        ones in arb_ones(), policy in arb_policy(), zone_at in 0..ZONES.len(),
    ) {
        let zone = zone(ZONES[zone_at]);
        let kept = kept(&policy, &zone, &ones);
        let model = model(&policy, &zone, &ones);
        for (n, one) in ones.iter().enumerate() {
            let expected = match one.state {
                _ if one.protected => true,
                SnapshotState::Checkpoint => true,
                SnapshotState::Complete => model.contains(&n),
                SnapshotState::Incomplete => continue,
            };
            prop_assert_eq!(kept[n], expected, "{}", n);
        }
    }

    /// Incomplete snapshots and checkpoints change nothing for complete ones, and suspect ones
    /// nothing for all others: neither whether they are kept, nor why.
    #[test]
    fn worse_ones_never_push_a_better_one_out(
        ones in arb_ones(), policy in arb_policy(), zone_at in 0..ZONES.len(),
    ) {
        let zone = zone(ZONES[zone_at]);
        let all = run(&policy, &zone, &ones);
        let better: [fn(&One) -> bool; 2] = [
            |one| one.state == SnapshotState::Complete,
            |one| one.state != SnapshotState::Checkpoint && !one.doubtful,
        ];
        for is_better in better {
            let alone: Vec<One> = ones.iter().filter(|one| is_better(one)).cloned().collect();
            let among: Vec<_> =
                ones.iter().zip(&all).filter(|(one, _)| is_better(one)).map(|(_, why)| why.clone()).collect();
            prop_assert_eq!(run(&policy, &zone, &alone), among);
        }
    }

    /// Nor do they pile up: each rule keeps at most as many of a rank as it has slots, and the
    /// newest.
    #[test]
    fn worse_ones_are_bounded(ones in arb_ones(), slots in 1..6u32, n in 0..Period::ALL.len()) {
        let all = run(&period(Period::ALL[n], slots), &TimeZone::UTC, &ones);
        for doubtful in [false, true] {
            let is_of = |one: &One| {
                !one.protected && one.state == SnapshotState::Incomplete && one.doubtful == doubtful
            };
            let kept = ones.iter().zip(&all).filter(|(one, why)| is_of(one) && !why.is_empty() && one.tags.is_empty());
            prop_assert!(kept.count() <= slots as usize + 1);
        }
        if let Some(newest) = ones.iter().rposition(|one| one.state != SnapshotState::Checkpoint) {
            let counted = ones[newest].state == SnapshotState::Complete || !ones[newest].protected;
            prop_assert!(!counted || !all[newest].is_empty());
        }
    }
}
