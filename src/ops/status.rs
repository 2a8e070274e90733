//! Reports the state of a repository: the last good backup of each source, and other data for
//! monitoring.

mod report;
mod rows;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub use report::{CaptureStatus, RepoStatus, SourceStatus, StatusOptions};

use crate::Error;
use crate::format::LeaseKind;
use crate::index::{Index, PackState};
use crate::observe::{Observer, Phase, Problem, Severity};
use crate::ops::list::{MissingLister, SnapshotFilter, snapshots};
use crate::read::reading_lease;
use crate::repo::{ChunkReader, FoundLease, Lease, Repository, StoredSnapshot};
use crate::store::{ObjectDir, ObjectKey, list_all};
use crate::sys::now;
use crate::types::{PackId, SnapshotId, Timestamp};

/// Memory for frames of the lists of files.
const CACHE_BYTES: usize = 16 << 20;

/// Reads snapshots, segments and leases. Packs are only read to list missing paths.
///
/// With a maximum age, a source that is too old is reported to the observer as missing, and so is a
/// repository without any backup.
pub fn status(
    repo: &Repository,
    options: &StatusOptions,
    observer: &dyn Observer,
) -> Result<RepoStatus, Error> {
    observer.phase(&Phase::Index);
    // Ages are measured with the store's clock, which only a write returns.
    let lease = reading_lease(repo, LeaseKind::Verify)?;

    let found = snapshots(repo, &options.filter, observer)?;
    crate::read::sync(repo, observer)?;
    let newest = found.iter().map(StoredSnapshot::committed).max();
    let now = lease.as_ref().map_or_else(
        || newest.map_or_else(now, |at| at.max(now())),
        Lease::last_heartbeat,
    );

    let mut sources = rows::rows(&found, options.filter.source.as_deref(), now);
    if options.list_missing {
        list_missing(repo, &found, &mut sources);
    }

    let mut status = RepoStatus {
        now,
        sources,
        longest_unverified: None,
        packs_listed: repo.memory().packs_listed(),
        vanished: repo.vanished(),
        packs: 0,
        stored_bytes: 0,
        condemned_packs: 0,
        condemned_bytes: 0,
        leases: leases(repo, lease.as_ref(), now)?,
    };

    status.look_at_packs(repo)?;
    drop(lease);

    report_suspects(&status, options.max_age.is_some(), observer);
    if let Some(max_age) = options.max_age {
        report_late(&status, max_age, &options.filter, observer);
    }

    Ok(status)
}

/// Lists the first missing paths of the newest capture of each source.
fn list_missing(repo: &Repository, found: &[StoredSnapshot], sources: &mut [SourceStatus]) {
    let reader = ChunkReader::new(repo, CACHE_BYTES);
    let lister = MissingLister::new(&reader);
    for one in sources.iter_mut().filter(|one| !one.lacks.is_nothing()) {
        let newest = found.iter().find(|found| found.id == one.newest.snapshot);
        one.lacking =
            newest.and_then(|newest| lister.list(newest, newest.snapshot.source(&one.source)?));
    }
}

fn leases(
    repo: &Repository,
    own: Option<&Lease>,
    now: Timestamp,
) -> Result<Vec<FoundLease>, Error> {
    let mut leases = repo.leases()?;
    leases.retain(|found| {
        let is_own = own.is_some_and(|own| own.id() == found.id);
        !is_own && found.is_alive(now, &repo.lease_times()) && !found.is_dead_here(repo.client())
    });
    Ok(leases)
}

impl RepoStatus {
    fn look_at_packs(&mut self, repo: &Repository) -> Result<(), Error> {
        let verified = repo.memory().verified_all();
        let mut stored: BTreeMap<PackId, Timestamp> = BTreeMap::new();
        for meta in list_all(repo.store(), ObjectDir::Packs)? {
            if let ObjectKey::Pack(id) = meta.key {
                stored.insert(id, meta.modified);
            }
        }
        for pack in repo.with_index(Index::packs)? {
            if !pack.added || pack.state == PackState::Dropped {
                continue;
            }
            self.packs += 1;
            self.stored_bytes += pack.size;
            if pack.state == PackState::Condemned {
                self.condemned_packs += 1;
                self.condemned_bytes += pack.size;
            }
            let since = verified.get(&pack.id).or_else(|| stored.get(&pack.id));
            if let Some(&since) = since
                && self
                    .longest_unverified
                    .is_none_or(|(_, longest)| since < longest)
            {
                self.longest_unverified = Some((pack.id, since));
            }
        }
        Ok(())
    }
}

/// Reports sources whose newest backup is suspect. The alarm of a source that must never change is
/// raised with or without a maximum age.
fn report_suspects(status: &RepoStatus, is_judged: bool, observer: &dyn Observer) {
    for one in &status.sources {
        let Some(reason) = &one.suspect else { continue };
        let (severity, what) = match (one.is_alarm, is_judged) {
            (true, _) => (Severity::Alarm, "alarm"),
            (false, true) => (Severity::Missing, "suspect"),
            (false, false) => (Severity::Note, "suspect"),
        };
        let good = match &one.good {
            Some(good) => format!("the last good one is {}", good.snapshot.short()),
            None => "there is no good one".to_owned(),
        };
        let subject = one.subject(&status.sources);
        let message = format!(
            "{what} since snapshot {}: {reason}; {good}",
            one.newest.snapshot.short()
        );
        observer.problem(&Problem::new(severity, subject, message));
    }
}

/// Formats a duration in the largest unit of which it has at least two, with one digit if the value
/// is small.
fn rounded(seconds: f64) -> String {
    let units = [(86_400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s")];
    let (unit, name) = units
        .into_iter()
        .find(|(unit, _)| seconds >= 2.0 * unit)
        .unwrap_or((1.0, "s"));
    let value = seconds / unit;
    let digits = usize::from(value < 10.0 && value.fract() >= 0.05);
    format!("{value:.digits$} {name}")
}

fn report_late(
    status: &RepoStatus,
    max_age: Duration,
    filter: &SnapshotFilter,
    observer: &dyn Observer,
) {
    let warn = |subject: String, what: String| {
        observer.problem(&Problem::new(Severity::Missing, subject, what));
    };
    if status.sources.is_empty() {
        let what = if *filter == SnapshotFilter::default() {
            "there is no backup"
        } else {
            "there is no backup of this host or source"
        };
        warn("the repository".into(), what.into());
    }

    // As problems, not only as warnings: a monitor reads the exit code.
    for id in status
        .vanished
        .iter()
        .map(|one| one.snapshot)
        .collect::<BTreeSet<SnapshotId>>()
    {
        warn(
            format!("snapshot {}", id.short()),
            "it is gone and was not forgotten".into(),
        );
    }

    for one in &status.sources {
        let subject = one.subject(&status.sources);
        match &one.good {
            None => warn(subject, "there is no good backup".into()),
            Some(good) if status.is_ahead(good) => {
                let id = good.snapshot.short();
                warn(
                    subject,
                    format!(
                        "the last good backup, {id}, is dated in the future: its age is unknown"
                    ),
                );
            }
            Some(good) if status.age(good) > max_age.as_secs_f64() => {
                let age = rounded(status.age(good));
                let limit = rounded(max_age.as_secs_f64());
                let id = good.snapshot.short();
                warn(
                    subject,
                    format!("the last good backup, {id}, is {age} old, the limit is {limit}"),
                );
            }
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::SnapshotState;
    use crate::observe::Recording;
    use crate::ops::testing::{Lab, lease, noise, write};
    use crate::repo::Repository;
    use crate::types::LeaseId;

    fn ask(repo: &Repository, hours: Option<u64>) -> (RepoStatus, Vec<String>) {
        let observer = Recording::default();
        let max_age = hours.map(|hours| Duration::from_secs(hours * 3600));
        let options = StatusOptions {
            max_age,
            ..StatusOptions::default()
        };
        let status = status(repo, &options, &observer).expect("asked");
        (
            status,
            observer
                .problems()
                .iter()
                .map(ToString::to_string)
                .collect(),
        )
    }

    /// Commits another snapshot of the same sources with other counts, at the current store time.
    fn again(repo: &Repository, id: SnapshotId, incomplete: u64) -> SnapshotId {
        let mut snapshot = repo.read_snapshot(&id).expect("there");
        for source in snapshot
            .sources
            .iter_mut()
            .filter(|source| source.name == "tree")
        {
            source.counts.incomplete = incomplete;
        }
        snapshot.state = if incomplete > 0 {
            SnapshotState::Incomplete
        } else {
            SnapshotState::Complete
        };
        snapshot.lease = LeaseId::new([1; 16]);
        repo.commit(lease(repo), snapshot).expect("committed").id
    }

    #[test]
    fn the_last_good_backup_of_each_source_is_reported() {
        let lab = Lab::new();
        let repo = lab.open();
        let (empty, problems) = ask(&repo, Some(1));
        assert!(
            empty.sources.is_empty() && problems[0].contains("there is no backup"),
            "{problems:?}"
        );

        write(&lab.tree().join("a"), b"a");
        let first = lab.backup(&repo, &noise(1, 5000));
        lab.store.clock().advance(5 * 3600);
        let second = again(&repo, first, 3);
        lab.store.clock().advance(3600);

        let (status, problems) = ask(&repo, Some(2));
        let [db, tree] = status.sources.as_slice() else {
            panic!("two: {status:?}")
        };
        assert_eq!((db.source.as_str(), db.snapshots), ("db", 2));
        // The stream is complete in the incomplete snapshot too.
        assert_eq!((db.good, db.newest.snapshot), (Some(db.newest), second));
        assert_eq!(
            (tree.good.expect("one").snapshot, tree.newest.snapshot),
            (first, second)
        );
        assert!(!tree.newest.complete);
        let hours = status.age(&tree.good.expect("one")) / 3600.0;
        assert!((5.9..6.1).contains(&hours), "{hours}");
        assert_eq!(problems.len(), 1);
        assert!(
            problems[0].starts_with("source tree on host host: "),
            "{problems:?}"
        );
        assert!(ask(&repo, Some(7)).1.is_empty() && ask(&repo, None).1.is_empty());
        assert!(
            list_all(repo.store(), ObjectDir::Leases)
                .expect("listed")
                .is_empty()
        );
    }

    #[test]
    fn packs_and_leases_are_counted() {
        let lab = Lab::new();
        let repo = lab.open();
        lab.backup(&repo, &noise(1, 5000));
        let (before, _) = ask(&repo, None);
        let (pack, since) = before.longest_unverified.expect("one pack");
        assert_eq!(
            (before.packs, before.condemned_packs, before.leases.len()),
            (1, 0, 0)
        );

        lab.store.clock().advance(1000);
        repo.memory()
            .set_verified(&[(pack, since.plus_seconds(500))]);
        let held = lease(&repo);
        let (after, _) = ask(&repo, None);
        assert_eq!(
            after.longest_unverified,
            Some((pack, since.plus_seconds(500)))
        );
        assert_eq!(
            after
                .leases
                .iter()
                .map(|found| found.id)
                .collect::<Vec<_>>(),
            [held.id()]
        );
        assert_eq!(after.stored_bytes, before.stored_bytes);
    }
}
