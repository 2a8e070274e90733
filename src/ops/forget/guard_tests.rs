//! Tests of the guard: policies that it refuses, and policies that it allows.

use std::collections::BTreeSet;

use super::tests::{DAY, add, ids, last, options, run};
use super::*;
use crate::ops::testing::Lab;
use crate::store::ObjectDir;

const HOUR: i64 = 3600;

/// Makes `count` snapshots, `seconds` apart.
fn every(lab: &Lab, seconds: i64, count: usize, host: &str) -> Vec<SnapshotId> {
    let repo = lab.open();
    let one = || {
        // `add` takes a second.
        lab.store.clock().advance(seconds - 1);
        add(lab, &repo, |snapshot| snapshot.host = host.into())
    };
    (0..count).map(|_| one()).collect()
}

fn daily(n: u32) -> Policy {
    Policy {
        periods: vec![(Period::Day, PeriodSlots::Some(n))],
        ..Policy::default()
    }
}

/// Seven daily snapshots over hourly backups drop 23 of 30 snapshots each day. That must not be
/// refused as the loss of most of the group: the prune after it would then be skipped every day.
#[test]
fn a_daily_forget_over_hourly_backups_is_never_refused() {
    let lab = Lab::new();
    let repo = lab.open();
    for day in 0..20 {
        every(&lab, 2 * HOUR, 12, "host");
        let report = run(&repo, &options(daily(7)));
        assert_eq!(report.refused, [], "day {day}");
    }
    assert!(ids(repo.store(), ObjectDir::Snapshots).len() <= 8);
}

/// `keep_last = 7` instead of `keep_daily = 7`, over a month of hourly backups.
#[test]
fn a_policy_that_leaves_a_few_hours_of_a_month_is_refused() {
    let lab = Lab::new();
    let repo = lab.open();
    let all = every(&lab, 4 * HOUR, 6 * 30, "host");
    let report = run(&repo, &options(last(7)));
    assert_eq!((report.dropped, report.kept), (0, all.len() as u64));
    let message = report.refused[0].to_string();
    assert_eq!(
        message,
        "host host, sources : 173 of 180 would be forgotten, the others cover 1.0 of 29.8 days"
    );
    assert_eq!(ids(repo.store(), ObjectDir::Snapshots).len(), all.len());
    assert_eq!(
        run(
            &repo,
            &ForgetOptions {
                force: true,
                ..options(last(7))
            }
        )
        .dropped,
        173
    );
}

/// A refused group is left unchanged; groups of other hosts do not wait for it.
#[test]
fn a_refused_group_holds_up_no_other() {
    let lab = Lab::new();
    let repo = lab.open();
    let days = every(&lab, DAY, 12, "days");
    let hours = every(&lab, HOUR, 12, "hours");
    let report = run(&repo, &options(last(2)));
    let refused: Vec<_> = report
        .refused
        .iter()
        .map(|one| one.key.host.as_deref())
        .collect();
    assert_eq!(refused, [Some("days")]);
    assert_eq!((report.kept, report.dropped), (14, 10));
    let expected: BTreeSet<_> = days.iter().chain(&hours[10..]).copied().collect();
    assert_eq!(
        ids(repo.store(), ObjectDir::Snapshots),
        expected,
        "less than a day is not guarded"
    );
}

/// The store's clock was a year ahead for some backups: counted back from these, all others are too
/// old.
#[test]
fn a_clock_that_was_ahead_is_refused() {
    let lab = Lab::new();
    let repo = lab.open();
    every(&lab, HOUR, 10, "host");
    lab.store.clock().advance(365 * DAY);
    every(&lab, HOUR, 2, "host");
    let month = Policy {
        within: Some(std::time::Duration::from_secs(30 * 86_400)),
        ..Policy::default()
    };
    let report = run(&repo, &options(month));
    assert_eq!((report.dropped, report.refused.len()), (0, 1));
}

/// A protected snapshot of long ago does not count as time that the policy keeps. So it does not
/// hide that a policy drops most of the time, and it does not make an ordinary policy look as if it
/// kept little.
#[test]
fn protected_ones_do_not_count_as_covered_time() {
    let lab = Lab::new();
    let repo = lab.open();
    add(&lab, &repo, |snapshot| snapshot.protected = true);
    lab.store.clock().advance(100 * DAY);
    every(&lab, 12 * HOUR, 16, "host");
    assert_eq!(
        run(
            &repo,
            &ForgetOptions {
                dry_run: true,
                ..options(last(2))
            }
        )
        .refused
        .len(),
        1
    );
    let report = run(&repo, &options(daily(7)));
    assert_eq!((report.refused.len(), report.dropped), (0, 9));
}

#[test]
fn no_policy_removes_the_last_of_a_group_without_force() {
    let lab = Lab::new();
    let repo = lab.open();
    every(&lab, HOUR, 1, "host");
    let tagged = Policy {
        tags: vec!["misspelt".into()],
        ..Policy::default()
    };
    let report = run(&repo, &options(tagged.clone()));
    assert_eq!((report.dropped, report.kept), (0, 1));
    assert!(
        report.refused[0]
            .to_string()
            .ends_with("1 of 1 would be forgotten, none would remain")
    );
    assert_eq!(
        run(
            &repo,
            &ForgetOptions {
                force: true,
                ..options(tagged)
            }
        )
        .dropped,
        1
    );
}

/// The store's clock went back by a month (a dead battery): later backups are dated before their
/// parents, and a policy would drop the newest as the oldest.
#[test]
fn a_group_whose_sealed_times_contradict_its_parents_is_refused() {
    let lab = Lab::new();
    let repo = lab.open();
    let mut made = every(&lab, DAY, 3, "host");
    lab.store.clock().advance(-30 * DAY);
    for _ in 0..2 {
        lab.store.clock().advance(DAY);
        let parents = made.last().copied().into_iter().collect();
        made.push(add(&lab, &repo, |snapshot| snapshot.parents = parents));
    }

    lab.store.clock().advance(30 * DAY);
    let report = run(&repo, &options(last(3)));
    assert_eq!((report.dropped, report.refused.len()), (0, 1));
    assert_eq!(report.refused[0].disorder, Some((made[3], made[2])));
    let why = report.refused[0].to_string();
    assert!(
        why.contains("the store's clock was wrong") && why.contains(&made[3].short()),
        "{why}"
    );
    // Without a snapshot to drop there is nothing to refuse.
    assert_eq!(run(&repo, &options(last(9))).refused, []);

    let forced = run(
        &repo,
        &ForgetOptions {
            force: true,
            ..options(last(3))
        },
    );
    assert_eq!(
        (
            forced.dropped,
            ids(repo.store(), ObjectDir::Snapshots).len()
        ),
        (2, 3)
    );

    // A jump within the protocol's margin is accepted.
    let other = Lab::new();
    let repo = other.open();
    let first = add(&other, &repo, |_| {});
    other.store.clock().advance(-1800);
    add(&other, &repo, |snapshot| snapshot.parents = vec![first]);
    assert_eq!(run(&repo, &options(last(1))).refused, []);
}
