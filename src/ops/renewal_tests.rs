//! Tests of a reading session's renewal: the packs of a long reader stay, and it delays a prune no
//! longer than its lease lasts.

use std::sync::Arc;
use std::time::Duration;

use super::copy::{CopyOptions, copy};
use super::diff::diff;
use super::forget::forget_named;
use super::list::{ListDepth, ListedPath, SnapshotFilter, cat, find, ls, missing, stats};
use super::memory::BUDGET_DEFAULT;
use super::prune::{PruneOptions, PruneReport, prune};
use super::restore::{RestoreOptions, RestoreTarget, SnapshotPath, restore};
use super::testing::{Lab, noise, write};
use crate::Error;
use crate::format::SourceKind;
use crate::observe::{Recording, Severity};
use crate::read::ReadSession;
use crate::repo::{HostChoice, LeaseTimes, Repository, Secret};
use crate::store::{
    Fault, FaultEffect, FaultyStore, HookedStore, InjectedError, KeyKind, Store, StoreOperation,
};
use crate::task::{Cancel, Task};
use crate::types::{Content, LeaseId, RelPath, SnapshotId};

const HOUR: i64 = 3600;

/// A repository with two snapshots, of which only the older one has the first dump.
fn two_dumps() -> (Lab, SnapshotId, SnapshotId) {
    let lab = Lab::new();
    let repo = lab.open();
    write(&lab.tree().join("kept"), &noise(1, 300_000));
    let first = lab.backup(&repo, &noise(2, 3_000_000));
    lab.store.clock().advance(HOUR);
    let second = lab.backup(&repo, &noise(3, 3_000_000));
    lab.store.clock().advance(7 * 24 * HOUR);
    (lab, first, second)
}

/// Opens a client whose sessions renew their lease whenever they can. Its heartbeats follow the
/// store's clock when a test advances it.
fn eager(lab: &Lab) -> Repository {
    lab.open().with_lease_times(LeaseTimes {
        renewal: Duration::ZERO,
        heartbeat: Duration::from_millis(5),
        expiry: Duration::from_secs(26 * 3600),
        ..LeaseTimes::default()
    })
}

/// Waits until every lease has a heartbeat of the store's present time.
fn wait_for_heartbeats(lab: &Lab, repo: &Repository) {
    let now = lab.store.clock().now();
    for _ in 0..10_000 {
        let leases = repo.leases().expect("listed");
        if leases.iter().all(|lease| lease.modified >= now) {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    panic!("no heartbeat");
}

fn lease_ids(repo: &Repository) -> Vec<LeaseId> {
    let leases = repo.leases().expect("listed");
    leases.into_iter().map(|lease| lease.id).collect()
}

fn prune_once(lab: &Lab) -> PruneReport {
    let seen = Recording::default();
    let options = PruneOptions::default();
    prune(&lab.open(), &options, Task::new(&seen, &Cancel::new())).expect("pruned")
}

fn forget(lab: &Lab, id: SnapshotId) {
    let names = [id.to_string()];
    let seen = Recording::default();
    forget_named(&lab.open(), &names, &HostChoice::Any, false, &seen).expect("forgotten");
}

fn dump_of(repo: &Repository, id: &SnapshotId) -> Content {
    let snapshot = repo.read_snapshot(id).expect("read");
    match &snapshot.source("db").expect("the dump").kind {
        SourceKind::Stream { content, .. } => content.clone(),
        SourceKind::Tree { .. } => panic!("a stream"),
    }
}

/// A sweep waits for every lease that is older than its mark. A reader that holds one lease for
/// days would stop every prune for days.
#[test]
fn a_prune_waits_for_a_long_reader_only_until_the_reader_renews_its_lease() {
    let (lab, first, second) = two_dumps();
    let seen = Recording::default();
    let cancel = Cancel::new();
    let repo = eager(&lab);
    let session = ReadSession::open(&repo, Task::new(&seen, &cancel)).expect("a session");
    let found = session
        .choose(&second.to_string(), &HostChoice::Any, None)
        .expect("found");
    session.sync().expect("synced");

    forget(&lab, first);
    lab.store.clock().advance(25 * HOUR);
    assert!(prune_once(&lab).condemned.packs > 0);
    lab.store.clock().advance(25 * HOUR);
    wait_for_heartbeats(&lab, &repo);
    let waits = prune_once(&lab);
    assert_eq!(waits.dropped.packs, 0, "the lease is older than the mark");

    assert!(session.keep().expect("kept"), "renewed");
    assert_eq!(lease_ids(&repo).len(), 1, "the old lease is released");
    assert!(prune_once(&lab).dropped.packs > 0);

    let mut out = Vec::new();
    let content = dump_of(&repo, &found.id);
    session
        .write_content(&content, &mut out, session.task())
        .expect("written");
    assert!(out == noise(3, 3_000_000));
}

/// A new lease does not protect a snapshot that was forgotten before it.
#[test]
fn a_forgotten_snapshot_keeps_the_old_lease() {
    let (lab, first, _) = two_dumps();
    let seen = Recording::default();
    let cancel = Cancel::new();
    let repo = eager(&lab);
    let session = ReadSession::open(&repo, Task::new(&seen, &cancel)).expect("a session");
    session
        .choose(&first.to_string(), &HostChoice::Any, None)
        .expect("found");
    session.sync().expect("synced");
    let before = lease_ids(&repo);

    assert!(session.keep().expect("kept"), "renewed");
    let renewed = lease_ids(&repo);
    assert_ne!(renewed, before);

    forget(&lab, first);
    std::thread::sleep(Duration::from_millis(200));
    assert!(!session.keep().expect("kept"));
    assert_eq!(lease_ids(&repo), renewed);
    assert_eq!(seen.problems(), []);
}

/// A machine that slept for longer than a lease lives has none when it wakes.
#[test]
fn a_lost_lease_is_replaced_and_a_forgotten_snapshot_is_reported() {
    let (lab, first, _) = two_dumps();
    let seen = Recording::default();
    let cancel = Cancel::new();
    let repo = lab.open().with_lease_times(LeaseTimes {
        expiry: Duration::from_millis(200),
        heartbeat: Duration::from_secs(3600),
        ..LeaseTimes::default()
    });
    let session = ReadSession::open(&repo, Task::new(&seen, &cancel)).expect("a session");
    session
        .choose(&first.to_string(), &HostChoice::Any, None)
        .expect("found");
    session.sync().expect("synced");
    let before = lease_ids(&repo);
    assert!(!session.keep().expect("kept"), "neither old nor lost");

    forget(&lab, first);
    std::thread::sleep(Duration::from_millis(300));
    assert!(session.keep().expect("kept"), "replaced");
    assert_ne!(lease_ids(&repo), before);

    let problems = seen.problems();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].severity, Severity::Warning);
    assert!(
        problems[0]
            .message
            .contains("forgotten while its reader had no lease"),
        "{problems:?}"
    );
}

#[test]
fn a_store_that_fails_during_a_renewal_leaves_the_old_lease() {
    let (lab, _, second) = two_dumps();
    for (operation, kind) in [
        (StoreOperation::Put, KeyKind::Lease),
        (StoreOperation::List, KeyKind::Snapshot),
        (StoreOperation::List, KeyKind::Segment),
    ] {
        let faulty = Arc::new(FaultyStore::new(lab.store.clone()));
        let cache = tempfile::tempdir().expect("a directory");
        let repo = Repository::open(faulty.clone(), &Secret::empty(), cache.path())
            .expect("opens")
            .with_lease_times(LeaseTimes {
                renewal: Duration::ZERO,
                ..LeaseTimes::default()
            });
        let seen = Recording::default();
        let cancel = Cancel::new();
        let session = ReadSession::open(&repo, Task::new(&seen, &cancel)).expect("a session");
        let found = session
            .choose(&second.to_string(), &HostChoice::Any, None)
            .expect("found");
        session.sync().expect("synced");
        let before = lease_ids(&repo);

        faulty.plan(Fault {
            operation,
            kind: Some(kind),
            nth: 1,
            effect: FaultEffect::ErrorBefore(InjectedError::Io),
        });
        assert!(!session.keep().expect("kept"), "{operation:?} of {kind:?}");
        assert_eq!(lease_ids(&repo), before, "{operation:?} of {kind:?}");
        assert!(
            !session.keep().expect("kept"),
            "it is not tried again at once"
        );

        faulty.assert_all_fired();

        let mut out = Vec::new();
        let content = dump_of(&repo, &found.id);
        session
            .write_content(&content, &mut out, session.task())
            .expect("written");
        assert!(out == noise(3, 3_000_000));
    }
}

type Operation<'a> = &'a dyn Fn(&Repository, Task<'_>) -> Result<(), Error>;

/// Every operation that may read for long renews its lease.
#[test]
fn reading_operations_renew_their_lease() {
    let target = tempfile::tempdir().expect("a directory");
    let elsewhere = Lab::new();
    let place = |source: &str| ListedPath {
        snapshot: "latest".into(),
        hosts: HostChoice::Any,
        source: Some(source.into()),
        path: RelPath::root(),
    };

    let operations: [(&str, Operation<'_>); 8] = [
        ("ls", &|repo, task| {
            let session = ReadSession::open(repo, task)?;
            ls(&session, &place("tree"), ListDepth::Everything, &mut |_| {
                Ok(())
            })
        }),
        ("missing", &|repo, task| {
            let session = ReadSession::open(repo, task)?;
            missing(&session, &place("tree"), &mut |_| Ok(()))
        }),
        ("find", &|repo, task| {
            let session = ReadSession::open(repo, task)?;
            let all = SnapshotFilter::default();
            find(&session, "kept".as_ref(), &all, &mut |_| Ok(())).map(drop)
        }),
        ("stats", &|repo, task| {
            stats(&ReadSession::open(repo, task)?).map(drop)
        }),
        ("diff", &|repo, task| {
            let session = ReadSession::open(repo, task)?;
            let old = oldest(repo).to_string();
            diff(&session, &old, "latest", &HostChoice::Any, &mut |_| Ok(()))
        }),
        ("cat", &|repo, task| {
            let session = ReadSession::open(repo, task)?;
            let mut out = Vec::new();
            cat(&session, &place("db"), &mut out)?;
            assert!(out == noise(3, 3_000_000));
            Ok(())
        }),
        ("restore", &|repo, task| {
            let what = SnapshotPath {
                snapshot: "latest".into(),
                source: Some("tree".into()),
                path: RelPath::root(),
            };
            let to = RestoreTarget::Directory(target.path().join("to"));
            let report = restore(repo, &what, to, &RestoreOptions::default(), task)?;
            assert_eq!(report.failed, 0);
            Ok(())
        }),
        ("copy", &|repo, task| {
            let options = CopyOptions {
                names: Vec::new(),
                hosts: HostChoice::Any,
                filter: SnapshotFilter::default(),
                level: 3,
                threads: 1,
                memory: BUDGET_DEFAULT,
                dry_run: false,
            };
            copy(repo, &elsewhere.open(), &options, task).map(drop)
        }),
    ];

    for (name, operation) in operations {
        let (lab, _, _) = two_dumps();
        write(&lab.tree().join("new"), &noise(4, 5000));
        lab.backup(&lab.open(), &noise(3, 3_000_000));

        // The second lease is put by the renewal: no heartbeat is due before that.
        let noticed = Box::new(|_: &dyn Store| ());
        let put = StoreOperation::Put;
        let hooked = HookedStore::after_nth(lab.store.clone(), put, KeyKind::Lease, 2, noticed);
        let hooked = Arc::new(hooked);
        let cache = tempfile::tempdir().expect("a directory");
        let repo = Repository::open(hooked.clone(), &Secret::empty(), cache.path())
            .expect("opens")
            .with_lease_times(LeaseTimes {
                renewal: Duration::ZERO,
                ..LeaseTimes::default()
            });

        let seen = Recording::default();
        let cancel = Cancel::new();
        operation(&repo, Task::new(&seen, &cancel)).unwrap_or_else(|err| panic!("{name}: {err}"));
        assert!(hooked.was_called(), "{name}");
        assert_eq!(lease_ids(&repo), [], "{name}");
    }
}

fn oldest(repo: &Repository) -> SnapshotId {
    let all = repo.listed_snapshots().expect("listed");
    let (first, _) = all.iter().min_by_key(|(_, stored)| *stored).expect("one");
    *first
}
