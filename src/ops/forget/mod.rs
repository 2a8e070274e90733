//! Forgetting snapshots, by name or by policy, and bringing them back.
//!
//! A forgotten snapshot moves to `forgotten/`, which frees nothing by itself: `prune` does that
//! after its grace period. Until then the snapshot can be brought back.

#[cfg(test)]
mod copied_tests;
mod decision;
mod group;
#[cfg(test)]
mod group_tests;
mod guard;
#[cfg(test)]
mod guard_tests;
mod last_good;
mod policy;
#[cfg(test)]
mod policy_tests;
#[cfg(test)]
mod prune_tests;
mod report;
#[cfg(test)]
mod tests;
mod undelete;
mod unsettled;

use std::collections::BTreeMap;

pub use self::decision::{ForgetDecision, ForgetGroup};
pub(super) use self::group::SourceNames;
pub use self::group::{GroupBy, GroupKey};
pub use self::guard::GuardRefusal;
pub use self::policy::{
    ForgetCandidate, KeepReason, Period, PeriodSlots, Policy, SnapshotRank, judge,
};
pub use self::report::{ForgetOptions, ForgetReport};
pub use self::undelete::{UndeletedSnapshot, restorable, undelete};

use crate::Error;
use crate::advice::{Advice, SnapshotAdvice};
use crate::format::LeaseKind;
use crate::observe::{Counter, Observer, Phase, Problem, ProgressUnit, Severity, Subject};
use crate::read::reading_lease;
use crate::repo::{HostChoice, Lease, RepoError, Repository, StoredSnapshot};
use crate::sys;
use crate::task::Task;
use crate::types::{SnapshotId, Timestamp, to_u64};
use decision::decide;
use unsettled::UnsettledGroup;

/// Forgets the snapshots that a policy does not keep.
///
/// A group that would lose too much ([`ForgetGroup::refusal`]) is left unchanged unless `force` is set,
/// also in a dry run. The report lists it in `refused`, and the other groups are carried out. A
/// crash on the way leaves some snapshots forgotten and others not.
///
/// # Errors
/// [`Error::Usage`] for an empty policy: it would keep nothing.
pub fn forget_by_policy(
    repo: &Repository,
    options: &ForgetOptions,
    task: Task<'_>,
) -> Result<ForgetReport, Error> {
    if options.policy.is_empty() {
        return Err(Error::usage(
            "no rule says what to keep; everything would be forgotten".into(),
        ));
    }

    let lease = if options.dry_run {
        reading_lease(repo, LeaseKind::Repair)?
    } else {
        repo.check_writable()?;
        Some(Lease::take(repo, LeaseKind::Repair)?)
    };

    task.observer.phase(&Phase::Plan);
    let all = crate::read::readable_snapshots(repo, task.observer)?;
    crate::read::report_vanished(repo, task.observer);
    crate::read::report_times(repo, &all, task.observer);

    // The store's time. Without write access, this machine's time or the newest heartbeat in the
    // repository, whichever is later.
    let newest = all.iter().map(|one| one.snapshot.heartbeat).max();
    let now = || newest.map_or_else(sys::now, |newest| newest.max(sys::now()));
    let now = lease.as_ref().map_or_else(now, Lease::last_heartbeat);

    let unsettled = UnsettledGroup::find(repo, &all)?;
    let names = SourceNames::new(&all, &options.by_name);

    for (host, name, things) in names.moved() {
        let message = format!(
            "it was {}; treated as one source, by its name",
            things.join(", then ")
        );
        task.observer.problem(&Problem::new(
            Severity::Note,
            format!("source '{name}' of host {host}"),
            message,
        ));
    }

    let report = plan(repo, options, all, now, (&names, &unsettled));

    if let Some(lease) = lease {
        if !options.dry_run {
            carry_out(repo, &lease, &report, task)?;
        }
        drop(lease);
    }

    Ok(report)
}

fn plan(
    repo: &Repository,
    options: &ForgetOptions,
    all: Vec<StoredSnapshot>,
    now: Timestamp,
    (names, unsettled): (&SourceNames<'_>, &UnsettledGroup),
) -> ForgetReport {
    let margin = i64::try_from(repo.lease_times().margin.as_secs()).unwrap_or(i64::MAX);
    let horizon = now.plus_seconds(margin);
    let replaced = replaced(&all, unsettled);

    // Find the last good captures among all snapshots, not only the judged ones: a source continues
    // when the set of sources changes.
    let counted = all
        .iter()
        .filter(|one| !replaced.contains_key(&one.id) && one.time() <= horizon);
    let last_good = last_good::find(counted, unsettled, names);

    let mut groups: BTreeMap<GroupKey, Vec<StoredSnapshot>> = BTreeMap::new();
    for found in all
        .into_iter()
        .filter(|found| options.filter.accepts(found))
    {
        groups
            .entry(options.group_by.key(&found, names))
            .or_default()
            .push(found);
    }

    let groups: Vec<ForgetGroup> = groups
        .into_iter()
        .map(|(key, mut members)| {
            members.sort_by_key(|found| (found.time(), found.order()));
            let mut decisions = decide(&options.policy, &options.zone, horizon, members, &replaced);
            last_good::keep(&mut decisions, &last_good);
            ForgetGroup { key, decisions }
        })
        .collect();

    let refused: Vec<GuardRefusal> = if options.force {
        Vec::new()
    } else {
        groups.iter().filter_map(ForgetGroup::refusal).collect()
    };

    let mut report = ForgetReport {
        groups,
        kept: 0,
        dropped: 0,
        refused,
    };
    let all = report
        .groups
        .iter()
        .map(|group| group.decisions.len())
        .sum::<usize>();
    report.dropped = to_u64(to_forget(&report).count());
    report.kept = to_u64(all) - report.dropped;
    report
}

/// Returns the decisions to forget, without those of refused groups.
fn to_forget(report: &ForgetReport) -> impl Iterator<Item = &ForgetDecision> {
    let groups = report
        .groups
        .iter()
        .filter(|group| !report.is_refused(&group.key));
    groups
        .flat_map(|group| &group.decisions)
        .filter(|one| !one.keep)
}

/// Returns the snapshots whose successor is listed too, each with its successor. An interrupted
/// re-tag or repair leaves such pairs. A successor that may be withdrawn is ignored.
fn replaced(
    all: &[StoredSnapshot],
    unsettled: &UnsettledGroup,
) -> BTreeMap<SnapshotId, SnapshotId> {
    let first: BTreeMap<SnapshotId, SnapshotId> =
        all.iter().map(|one| (one.id, one.first())).collect();
    let settled = all.iter().filter(|one| !unsettled.has(one));
    settled
        .filter_map(|one| {
            let old = one.snapshot.replaces?;
            (first.get(&old) == Some(&one.first())).then_some((old, one.id))
        })
        .collect()
}

fn carry_out(
    repo: &Repository,
    lease: &Lease,
    report: &ForgetReport,
    task: Task<'_>,
) -> Result<(), Error> {
    task.observer.phase(&Phase::Forget);
    task.observer.expect(report.dropped, ProgressUnit::Items);
    for one in to_forget(report) {
        task.check()?;
        repo.forget_snapshot(lease, &one.found.id)?;
        task.observer
            .detail("forgotten", &Subject::from(one.found.id));
        task.observer.add(Counter::Done, 1);
    }
    Ok(())
}

/// Forgets snapshots given by id, prefix or `latest`, and returns them in that order. A dry run
/// changes nothing. If an id names a vanished snapshot, it is no longer reported as missing; it is
/// not returned.
///
/// # Errors
/// [`Error::Refused`] if one of them is protected: nothing is forgotten then.
pub fn forget_named(
    repo: &Repository,
    names: &[String],
    hosts: &HostChoice,
    dry_run: bool,
    observer: &dyn Observer,
) -> Result<Vec<StoredSnapshot>, Error> {
    let lease = if dry_run {
        None
    } else {
        repo.check_writable()?;
        Some(Lease::take(repo, LeaseKind::Repair)?)
    };

    // Find all of them before the first one is forgotten.
    let mut found: Vec<StoredSnapshot> = Vec::new();
    for name in names {
        let one = match (repo.find_snapshot(name, hosts), repo.vanished_named(name)) {
            (Err(RepoError::NoSuchSnapshot { .. }), Some(id)) => {
                no_longer_missed(repo, &id, dry_run, observer);
                continue;
            }
            (found, _) => found?,
        };
        if one.snapshot.protected {
            let why = format!("snapshot {} is protected", one.id.short());
            return Err(Error::Refused {
                why,
                advice: Advice::Snapshot(SnapshotAdvice::Unprotect),
            });
        }
        if found.iter().all(|other| other.id != one.id) {
            found.push(one);
        }
    }

    crate::read::report_vanished(repo, observer);

    if let Some(lease) = lease {
        observer.phase(&Phase::Forget);
        for one in &found {
            repo.forget_snapshot(&lease, &one.id)?;
            observer.detail("forgotten", &Subject::from(one.id));
        }
        drop(lease);
    }

    Ok(found)
}

/// Stops reporting a vanished snapshot as missing, after the user named it in a forget.
fn no_longer_missed(repo: &Repository, id: &SnapshotId, dry_run: bool, observer: &dyn Observer) {
    if !dry_run {
        repo.memory().forget_snapshot(id);
    }
    let what = "it is gone from the repository, and is no longer reported as missing";
    observer.problem(&Problem::new(
        Severity::Note,
        format!("snapshot {}", id.short()),
        what,
    ));
}

/// Forgets a snapshot whose successor is committed.
pub(super) fn forget_replaced(repo: &Repository, id: &SnapshotId) -> Result<(), Error> {
    let lease = Lease::take(repo, LeaseKind::Repair)?;
    repo.forget_snapshot(&lease, id)?;
    drop(lease);
    Ok(())
}
