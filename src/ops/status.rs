//! How a repository is doing: the last good backup of each source, and what else a monitor wants to
//! know.

mod rows;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::Error;
use crate::format::LeaseKind;
use crate::index::{Index, LastSnapshot, PackState};
use crate::observe::{Observer, Phase, Problem, Severity};
use crate::ops::list::{Lacking, Lacks, MissingLister, SnapshotFilter, snapshots};
use crate::ops::walk::reading_lease;
use crate::repo::{FoundLease, Lease, LeaseTimes, Repository, StoredSnapshot};
use crate::store::{ObjectDir, ObjectKey, list_all};
use crate::sys::now;
use crate::types::{PackId, SnapshotId, Timestamp};

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StatusOptions {
    /// This machine's name, for the lease.
    pub host: String,
    /// Which snapshots, and of these which sources, count.
    pub filter: SnapshotFilter,
    /// A source whose last good backup is older than this is told as a problem.
    pub max_age: Option<Duration>,
    /// List what the newest capture of each source lacks, as far as [`SourceStatus::lacking`] says.
    pub list_missing: bool,
}

/// A capture of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capture {
    pub snapshot: SnapshotId,
    /// The store's time of its commit.
    pub committed: Timestamp,
    /// Of this source: all of it was captured, and nothing of it is lost.
    pub complete: bool,
}

/// One source of one host: what has one name and one recorded path, or is a stream of that name.
/// What was captured at a path that the source was moved away from counts as its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceStatus {
    pub host: String,
    pub source: String,
    /// The recorded path of its root; none for a stream.
    pub path: Option<Vec<u8>>,
    /// Committed snapshots that hold it.
    pub snapshots: u64,
    /// The newest that is complete; none: there is none.
    pub good: Option<Capture>,
    /// The newest in whatever state.
    pub newest: Capture,
    /// Why the newest is not to be trusted, if so.
    pub suspect: Option<String>,
    /// It is a tree that must never change: that it is suspect is an alarm.
    pub is_alarm: bool,
    /// How much the newest lacks.
    pub lacks: Lacks,
    /// If that was asked for and it lacks anything: its first paths.
    pub lacking: Option<Lacking>,
}

impl SourceStatus {
    /// The source as people know it: with its path where another one of the host has the same name.
    fn subject(&self, all: &[Self]) -> String {
        let Self { host, source, .. } = self;
        let is_one = all
            .iter()
            .filter(|other| other.host == *host && other.source == *source)
            .count()
            < 2;
        match (&self.path, is_one) {
            (Some(path), false) => {
                format!(
                    "source {source} ({}) on host {host}",
                    String::from_utf8_lossy(path)
                )
            }
            _ => format!("source {source} on host {host}"),
        }
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The store's time, or this machine's where nothing can be written.
    pub now: Timestamp,
    /// Sorted by host, source and path.
    pub sources: Vec<SourceStatus>,
    /// The held pack whose bytes were longest not verified by this machine, and since when: never
    /// verified counts from when it was stored.
    pub longest_unverified: Option<(PackId, Timestamp)>,
    /// When a backup of this machine last listed the packs and compared them with the index; none:
    /// never.
    pub packs_listed: Option<Timestamp>,
    /// Snapshots that this machine remembers as the last of their sources and that are gone.
    pub vanished: Vec<LastSnapshot>,
    /// Held packs, those condemned among them.
    pub packs: u64,
    pub stored_bytes: u64,
    /// Of these: waiting for a sweep.
    pub condemned_packs: u64,
    pub condemned_bytes: u64,
    /// Those of other processes that are at work now, as far as it is known.
    pub leases: Vec<FoundLease>,
}

impl Status {
    /// Seconds since the last good backup of a source, 0 if it lies ahead.
    pub fn age(&self, good: &Capture) -> f64 {
        self.now.seconds_since(good.committed).max(0.0)
    }

    /// True if the capture is dated later than the store's clock may jump: how old it is is not
    /// known.
    pub fn is_ahead(&self, capture: &Capture) -> bool {
        is_ahead(capture, self.now)
    }
}

/// Looks at snapshots, segments and leases. No pack is read, but for what is to be listed of
/// sources that lack something.
///
/// What is too old is told to the observer as missing, also if there is no backup at all.
pub fn status(
    repo: &Repository,
    options: &StatusOptions,
    observer: &dyn Observer,
) -> Result<Status, Error> {
    observer.phase(&Phase::Index);
    // Ages are by the store's clock, which only a write tells.
    let lease = reading_lease(repo, LeaseKind::Verify, &options.host)?;
    let found = snapshots(repo, &options.filter, observer)?;
    crate::ops::sync(repo, observer)?;
    let newest = found.iter().map(StoredSnapshot::committed).max();
    let now = lease.as_ref().map_or_else(
        || newest.map_or_else(now, |at| at.max(now())),
        Lease::last_heartbeat,
    );
    let mut sources = rows::rows(&found, options.filter.source.as_deref(), now);
    if options.list_missing {
        list_missing(repo, &found, &mut sources);
    }
    let mut status = Status {
        now,
        sources,
        longest_unverified: None,
        packs_listed: repo.memory().packs_listed(),
        vanished: repo.vanished(),
        packs: 0,
        stored_bytes: 0,
        condemned_packs: 0,
        condemned_bytes: 0,
        leases: leases(repo, lease.as_ref(), &options.host, now)?,
    };
    status.look_at_packs(repo)?;
    if let Some(lease) = lease {
        // A lease that cannot be deleted expires by itself.
        let _ = lease.release();
    }
    tell_suspects(&status, options.max_age.is_some(), observer);
    if let Some(max_age) = options.max_age {
        tell_late(&status, max_age, observer);
    }
    Ok(status)
}

fn is_ahead(capture: &Capture, now: Timestamp) -> bool {
    capture.committed.seconds_since(now) > LeaseTimes::default().margin.as_secs_f64()
}

/// Lists the first paths of what the newest capture of each source lacks.
fn list_missing(repo: &Repository, found: &[StoredSnapshot], sources: &mut [SourceStatus]) {
    let lister = MissingLister::new(repo);
    for one in sources.iter_mut().filter(|one| !one.lacks.is_nothing()) {
        let newest = found.iter().find(|found| found.id == one.newest.snapshot);
        one.lacking =
            newest.and_then(|newest| lister.list(newest, newest.snapshot.source(&one.source)?));
    }
}

fn leases(
    repo: &Repository,
    own: Option<&Lease>,
    host: &str,
    now: Timestamp,
) -> Result<Vec<FoundLease>, Error> {
    let mut leases = repo.leases()?;
    leases.retain(|found| {
        let is_own = own.is_some_and(|own| own.id() == found.id);
        !is_own && found.is_alive(now, &repo.lease_times()) && !found.is_dead_here(host)
    });
    Ok(leases)
}

impl Status {
    fn look_at_packs(&mut self, repo: &Repository) -> Result<(), Error> {
        let verified = repo.memory().verified_all();
        let mut stored: BTreeMap<PackId, Timestamp> = BTreeMap::new();
        for meta in list_all(repo.store(), ObjectDir::Packs)? {
            if let ObjectKey::Pack(id) = meta.key {
                stored.insert(id, meta.modified);
            }
        }
        for pack in repo.ask_index(Index::packs)? {
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

/// What is suspect in the newest backup of a source; what must never change, in any case.
fn tell_suspects(status: &Status, is_judged: bool, observer: &dyn Observer) {
    for one in &status.sources {
        let Some(reason) = &one.suspect else { continue };
        let (severity, what) = match (one.is_alarm, is_judged) {
            (true, _) => (Severity::Alarm, "an alarm stands"),
            (false, true) => (Severity::Missing, "it is suspect"),
            (false, false) => (Severity::Note, "it is suspect"),
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

/// A span in the largest unit of which it has at least two, to one digit where that is a few.
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

fn tell_late(status: &Status, max_age: Duration, observer: &dyn Observer) {
    let tell = |subject: String, what: String| {
        observer.problem(&Problem::new(Severity::Missing, subject, what));
    };
    if status.sources.is_empty() {
        tell("the repository".into(), "there is no backup".into());
    }
    // Whoever monitors reads the exit code.
    for id in status
        .vanished
        .iter()
        .map(|one| one.snapshot)
        .collect::<BTreeSet<SnapshotId>>()
    {
        tell(
            format!("snapshot {}", id.short()),
            "it is gone, and nobody forgot it".into(),
        );
    }
    for one in &status.sources {
        let subject = one.subject(&status.sources);
        match &one.good {
            None => tell(subject, "there is no good backup".into()),
            Some(good) if status.is_ahead(good) => {
                let id = good.snapshot.short();
                tell(
                    subject,
                    format!(
                        "the last good backup, {id}, is dated in the future: how old it is is not known"
                    ),
                );
            }
            Some(good) if status.age(good) > max_age.as_secs_f64() => {
                let (age, limit) = (rounded(status.age(good)), rounded(max_age.as_secs_f64()));
                let id = good.snapshot.short();
                tell(
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

    fn ask(repo: &Repository, hours: Option<u64>) -> (Status, Vec<String>) {
        let observer = Recording::default();
        let max_age = hours.map(|hours| Duration::from_secs(hours * 3600));
        let options = StatusOptions {
            host: "host".into(),
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

    /// Puts another snapshot of the same sources with other counts, at the store's time now.
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
    fn the_last_good_backup_of_each_source_is_told() {
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
        // Of the incomplete snapshot the stream is whole.
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
