//! Tests of forgetting, tagging and bringing back, on stores in memory.

mod tags;

use std::collections::BTreeSet;

use jiff::tz::TimeZone;

use super::*;
use crate::format::{ObjectKind, Snapshot, SnapshotState, encode_segment};
use crate::observe::Counters;
use crate::ops::list::{ListedPath, SnapshotFilter, cat, snapshots};
use crate::ops::tag::{TagChange, retag};
use crate::ops::testing::{Lab, marks, noise, reading, write};
use crate::ops::verify::{FindingKind, VerifyOptions, verify};
use crate::repo::{RepoError, Secret, seal_object};
use crate::store::{
    FaultyStore, HookedStore, KeyKind, ObjectBody, ObjectDir, ObjectKey, ObjectMeta, PutMode,
    SharedStore, Store, StoreError, StoreOperation, list_all,
};
use crate::task::Cancel;
use crate::types::{LeaseId, PackId, RelPath, SegmentBody, SegmentId};

pub(super) const DAY: i64 = 86_400;

/// Commits an empty snapshot at the store's present time.
pub(super) fn add(lab: &Lab, repo: &Repository, change: impl FnOnce(&mut Snapshot)) -> SnapshotId {
    let lease = crate::ops::testing::lease(repo);
    let template = {
        let now = lease.started();
        let mut snapshot = empty(now);
        change(&mut snapshot);
        snapshot
    };
    lab.store.clock().advance(1);
    repo.commit(lease, template).expect("committed").id
}

fn empty(now: Timestamp) -> Snapshot {
    Snapshot {
        format: 1,
        state: SnapshotState::Complete,
        host: "host".into(),
        tags: Vec::new(),
        program: "test".into(),
        started: now,
        ended: now,
        lease: LeaseId::new([0; 16]),
        heartbeat: now,
        parents: Vec::new(),
        sources: Vec::new(),
        images: Vec::new(),
        protected: false,
        replaces: None,
        original: None,
        committed: None,
        lost: None,
        other: Default::default(),
    }
}

pub(super) fn options(policy: Policy) -> ForgetOptions {
    ForgetOptions {
        policy,
        filter: SnapshotFilter::default(),
        group_by: GroupBy::default(),
        by_name: BTreeSet::new(),
        zone: TimeZone::UTC,
        force: false,
        dry_run: false,
    }
}

pub(super) fn last(n: u32) -> Policy {
    Policy {
        last: Some(PeriodSlots::Some(n)),
        ..Policy::default()
    }
}

pub(super) fn run(repo: &Repository, options: &ForgetOptions) -> ForgetReport {
    forget_by_policy(
        repo,
        options,
        Task::new(&Counters::default(), &Cancel::new()),
    )
    .expect("judged")
}

pub(super) fn forget(repo: &Repository, id: SnapshotId) -> Result<Vec<StoredSnapshot>, Error> {
    forget_named(
        repo,
        &[id.to_string()],
        &HostChoice::Any,
        false,
        &Counters::default(),
    )
}

pub(super) fn bring_back(repo: &Repository, id: SnapshotId) -> Result<UndeletedSnapshot, Error> {
    undelete(
        repo,
        &id.to_string(),
        Task::new(&Counters::default(), &Cancel::new()),
    )
}

fn tag(repo: &Repository, id: SnapshotId, change: &TagChange) -> Result<SnapshotId, Error> {
    let names = [id.to_string()];
    let done = retag(
        repo,
        &names,
        &HostChoice::Any,
        change,
        Task::new(&Counters::default(), &Cancel::new()),
    )?;
    Ok(done[0].id.unwrap_or(id))
}

fn protect(on: bool) -> TagChange {
    TagChange {
        protect: Some(on),
        ..TagChange::default()
    }
}

pub(super) fn ids(store: &dyn Store, directory: ObjectDir) -> BTreeSet<SnapshotId> {
    let id = |meta: ObjectMeta| match meta.key {
        ObjectKey::Snapshot(id) | ObjectKey::Forgotten(id) => Some(id),
        _ => None,
    };
    list_all(store, directory)
        .expect("listed")
        .into_iter()
        .filter_map(id)
        .collect()
}

pub(super) fn assert_clean(repo: &Repository) {
    let options = VerifyOptions {
        read_data: true,
        ..VerifyOptions::default()
    };
    let report = verify(
        repo,
        &options,
        Task::new(&Counters::default(), &Cancel::new()),
    )
    .expect("verified");
    assert!(
        report.is_clean() && report.affected.is_empty(),
        "{report:#?}"
    );
}

pub(super) fn read_stream(repo: &Repository, id: SnapshotId) -> Vec<u8> {
    let what = ListedPath {
        snapshot: id.to_string(),
        hosts: HostChoice::Any,
        source: Some("db".into()),
        path: RelPath::root(),
    };
    let mut out = Vec::new();
    reading(repo, &Counters::default(), |session| {
        cat(session, &what, &mut out)
    })
    .expect("read");
    out
}

fn latest(repo: &Repository) -> SnapshotId {
    repo.find_snapshot("latest", &HostChoice::Any)
        .expect("there")
        .id
}

#[test]
fn a_policy_forgets_what_it_does_not_keep() {
    let lab = Lab::new();
    let repo = lab.open();
    let all: Vec<SnapshotId> = (0..10)
        .map(|_| {
            lab.store.clock().advance(DAY);
            add(&lab, &repo, |_| {})
        })
        .collect();
    let before = lab.store.objects();
    let report = run(&repo, &options(last(3)));
    assert_eq!(
        (report.kept, report.dropped, report.refused.len()),
        (10, 0, 1)
    );

    let report = run(
        &repo,
        &ForgetOptions {
            dry_run: true,
            ..options(last(5))
        },
    );
    assert_eq!(
        (report.kept, report.dropped, report.refused.len()),
        (5, 5, 0)
    );
    assert_eq!(
        lab.store.objects(),
        before,
        "neither a refused nor a dry run touches anything"
    );

    run(&repo, &options(last(5)));
    let listed = ids(repo.store(), ObjectDir::Snapshots);
    assert_eq!(listed, all[5..].iter().copied().collect());
    assert_eq!(
        ids(repo.store(), ObjectDir::Forgotten),
        all[..5].iter().copied().collect()
    );

    let forced = ForgetOptions {
        force: true,
        ..options(last(1))
    };
    assert_eq!(run(&repo, &forced).dropped, 4);
    assert_eq!(
        ids(repo.store(), ObjectDir::Snapshots),
        BTreeSet::from([all[9]])
    );
    assert!(
        list_all(repo.store(), ObjectDir::Leases)
            .expect("listed")
            .is_empty()
    );

    let nothing = forget_by_policy(
        &repo,
        &options(Policy::default()),
        Task::new(&Counters::default(), &Cancel::new()),
    );
    assert!(matches!(nothing, Err(Error::Usage { .. })));
    assert_clean(&repo);
}

#[test]
fn groups_are_judged_by_themselves_and_filters_leave_the_rest_alone() {
    let lab = Lab::new();
    let repo = lab.open();
    let mut hosts = [Vec::new(), Vec::new()];
    for _ in 0..4 {
        for (n, host) in ["a", "b"].into_iter().enumerate() {
            lab.store.clock().advance(3600);
            hosts[n].push(add(&lab, &repo, |snapshot| snapshot.host = host.into()));
        }
    }

    let [a, b] = hosts;
    run(&repo, &options(last(2)));
    let expected = a[2..].iter().chain(&b[2..]).copied().collect();
    assert_eq!(ids(repo.store(), ObjectDir::Snapshots), expected);

    let filter = SnapshotFilter {
        host: Some("a".into()),
        ..SnapshotFilter::default()
    };
    run(
        &repo,
        &ForgetOptions {
            filter,
            ..options(last(1))
        },
    );
    assert_eq!(
        ids(repo.store(), ObjectDir::Snapshots),
        BTreeSet::from([a[3], b[2], b[3]])
    );

    let group_by = GroupBy {
        host: false,
        sources: false,
        paths: false,
        tags: false,
    };
    let report = run(
        &repo,
        &ForgetOptions {
            group_by,
            ..options(last(2))
        },
    );
    assert_eq!((report.groups.len(), report.dropped), (1, 1));
}

/// A client's clock is wrong by years: the store's time counts, and a snapshot dated in the store's
/// future is kept.
#[test]
fn the_store_s_time_overrules_a_lying_clock() {
    let lab = Lab::new();
    let repo = lab.open();
    let year = 365 * DAY;
    let mut made = Vec::new();
    for claimed in [0, 20 * year, -20 * year, 0] {
        lab.store.clock().advance(DAY);
        made.push(add(&lab, &repo, |snapshot| {
            snapshot.started = snapshot.started.plus_seconds(claimed);
        }));
    }

    let report = run(&repo, &options(last(2)));
    assert_eq!(report.dropped, 2);
    assert_eq!(
        ids(repo.store(), ObjectDir::Snapshots),
        made[2..].iter().copied().collect()
    );

    // The store's clock was ahead for a while, and was then corrected.
    lab.store.clock().advance(30 * DAY);
    let ahead = add(&lab, &repo, |_| {});
    lab.store.clock().advance(-30 * DAY);
    let report = run(
        &repo,
        &ForgetOptions {
            force: true,
            ..options(last(1))
        },
    );
    assert_eq!(
        ids(repo.store(), ObjectDir::Snapshots),
        BTreeSet::from([made[3], ahead])
    );
    let reasons: Vec<&KeepReason> = report.groups[0]
        .decisions
        .iter()
        .flat_map(|one| &one.reasons)
        .collect();
    assert!(reasons.contains(&&KeepReason::Future), "{reasons:?}");
}

#[test]
fn protected_ones_are_not_forgotten_by_name() {
    let lab = Lab::new();
    let repo = lab.open();
    let one = add(&lab, &repo, |_| {});
    let two = add(&lab, &repo, |_| {});
    let held = tag(&repo, one, &protect(true)).expect("protected");
    let names = [two.to_string(), held.to_string()];
    let refused = forget_named(&repo, &names, &HostChoice::Any, false, &Counters::default());
    assert!(matches!(refused, Err(Error::Refused { .. })));
    assert_eq!(
        ids(repo.store(), ObjectDir::Snapshots),
        BTreeSet::from([two, held]),
        "not the other either"
    );
    let free = tag(&repo, held, &protect(false)).expect("let go");
    forget(&repo, free).expect("forgotten");
    assert_eq!(
        ids(repo.store(), ObjectDir::Snapshots),
        BTreeSet::from([two])
    );
}

/// Runs `act` on a copy of the repository that dies at its n-th write, for every n, and checks the
/// result with `look`.
pub(super) fn at_every_write(
    lab: &Lab,
    act: impl Fn(&Repository) -> Result<(), Error>,
    look: impl Fn(&Lab, &Repository),
) {
    for writes in 0..100 {
        let fork = lab.fork();
        let faulty = std::sync::Arc::new(FaultyStore::new(fork.store.clone()));
        let store: SharedStore = faulty.clone();
        let cache = tempfile::tempdir().expect("a directory");
        let repo = Repository::open(store, &Secret::empty(), cache.path()).expect("opens");
        faulty.die_after_writes(writes);
        let done = act(&repo);
        drop(repo);
        look(&fork, &fork.open());
        if !faulty.is_dead() {
            done.expect("no crash");
            assert!(writes > 2, "it writes more than {writes} times");
            return;
        }
    }
    panic!("it does not end");
}

#[test]
fn a_crash_while_forgetting_loses_nothing_and_a_second_try_ends_it() {
    let lab = Lab::new();
    let stream = noise(1, 100_000);
    write(&lab.tree().join("a"), b"a");
    let first = lab.backup(&lab.open(), &stream);
    lab.store.clock().advance(3600);
    lab.backup(&lab.open(), &noise(2, 1000));

    at_every_write(
        &lab,
        |repo| forget(repo, first).map(drop),
        |fork, repo| {
            let known =
                &ids(repo.store(), ObjectDir::Snapshots) | &ids(repo.store(), ObjectDir::Forgotten);
            assert!(known.contains(&first));
            assert_clean(repo);

            if ids(repo.store(), ObjectDir::Snapshots).contains(&first) {
                // Much later, so that a sweep would delete the object that the crash left.
                fork.store.clock().advance(3 * DAY);
                forget(repo, first).expect("forgotten");
            }

            let forgotten = repo
                .forgotten_snapshots(&mut |_, err| panic!("{err}"))
                .expect("listed");
            assert_eq!(forgotten.len(), 1);
            let age = fork
                .store
                .clock()
                .now()
                .seconds_since(forgotten[0].forgotten);
            assert!(age < 3600.0, "a young copy: {age} s");

            let back = bring_back(repo, first).expect("back");
            assert_eq!(read_stream(repo, back.id), stream);
            assert_clean(repo);
        },
    );
}

/// The bytes of a forgotten snapshot under their old name would have the store's present time: a
/// snapshot of last month would become `latest`, and verify would report that it landed too late.
#[test]
fn an_undeleted_snapshot_keeps_its_time() {
    let lab = Lab::new();
    let repo = lab.open();
    let stream = noise(1, 100_000);
    write(&lab.tree().join("a"), b"a");
    let old = lab.backup(&repo, &stream);
    let time = repo
        .find_snapshot(&old.to_string(), &HostChoice::Any)
        .expect("there")
        .time();
    lab.store.clock().advance(600);
    let new = lab.backup(&repo, &noise(2, 1000));
    lab.store.clock().advance(60);

    forget(&repo, old).expect("forgotten");
    assert_eq!(latest(&repo), new);
    let listed = restorable(&repo, &Counters::default()).expect("listed");
    assert_eq!(
        listed.iter().map(|one| one.found.id).collect::<Vec<_>>(),
        [old]
    );

    lab.store.clock().advance(10 * DAY);
    let back = bring_back(&repo, old).expect("back");
    assert_eq!((back.from, latest(&repo)), (old, new));
    let found = repo
        .find_snapshot(&back.id.to_string(), &HostChoice::Any)
        .expect("there");
    assert!(found.time().seconds_since(time).abs() < 60.0);
    assert_eq!(found.first(), old);
    assert_eq!(read_stream(&repo, back.id), stream);
    assert_clean(&repo);

    assert!(
        restorable(&repo, &Counters::default())
            .expect("listed")
            .is_empty()
    );
    assert!(
        bring_back(&repo, old)
            .expect_err("once is enough")
            .to_string()
            .contains("it was replaced by")
    );
    assert!(
        bring_back(&repo, new)
            .expect_err("it is there")
            .to_string()
            .contains("not forgotten")
    );

    // Forgotten and brought back once more.
    forget(&repo, back.id).expect("forgotten");
    let again = bring_back(&repo, back.id).expect("back");
    let found = repo
        .find_snapshot(&again.id.to_string(), &HostChoice::Any)
        .expect("there");
    assert_eq!((found.first(), found.time()), (old, time.max(found.time())));
    assert_clean(&repo);
}

#[test]
fn nothing_is_brought_back_while_a_prune_is_running() {
    let lab = Lab::new();
    let repo = lab.open();
    let id = lab.backup(&repo, &noise(1, 5000));
    forget(&repo, id).expect("forgotten");

    let other = lab.open().with_client("other");
    let prune = Lease::take(&other, LeaseKind::Prune).expect("a lease");
    let refused = bring_back(&repo, id).expect_err("refused").to_string();
    assert!(
        refused.contains("prune is running (from other)"),
        "{refused}"
    );
    assert!(
        ids(repo.store(), ObjectDir::Snapshots).is_empty(),
        "it was withdrawn"
    );
    assert_eq!(
        ids(repo.store(), ObjectDir::Forgotten),
        BTreeSet::from([id])
    );
    prune.release().expect("released");

    // A lease that cannot be read may be a prune's. Long after its last heartbeat it has no holder.
    let key = ObjectKey::Lease(LeaseId::new([7; 16]));
    lab.store
        .put(&key, ObjectBody::Bytes(b"no lease"), PutMode::CreateOnly)
        .expect("put");
    assert!(bring_back(&repo, id).is_err());
    lab.store.clock().advance(2 * 3600);
    bring_back(&repo, id).expect("back");
    assert_clean(&repo);
}

/// Publishes a segment that drops the packs, as a sweep does.
fn drop_packs(repo: &Repository, packs: &[PackId]) {
    let mut body = SegmentBody::empty(LeaseId::new([9; 16]));
    body.dropped = packs.to_vec();
    let plain = encode_segment(&body);
    let (bytes, name) =
        seal_object(repo.keys(), ObjectKind::Segment, body.writer, &plain).expect("sealed");
    let key = ObjectKey::Segment(SegmentId::from(name));
    repo.store()
        .put(&key, ObjectBody::Bytes(&bytes), PutMode::CreateOnly)
        .expect("put");
}

pub(super) fn packs(store: &dyn Store) -> Vec<PackId> {
    let id = |meta: ObjectMeta| {
        if let ObjectKey::Pack(id) = meta.key {
            Some(id)
        } else {
            None
        }
    };
    list_all(store, ObjectDir::Packs)
        .expect("listed")
        .into_iter()
        .filter_map(id)
        .collect()
}

#[test]
fn a_snapshot_without_its_data_stays_forgotten() {
    let lab = Lab::new();
    let repo = lab.open();
    write(&lab.tree().join("a"), &noise(3, 1000));
    let id = lab.backup(&repo, &noise(1, 5000));
    forget(&repo, id).expect("forgotten");
    let all = packs(repo.store());
    let cases: [&dyn Fn(&Lab); 2] = [
        // Dropped, although the objects still exist.
        &|fork| drop_packs(&fork.open(), &all),
        // Deleted outside icecore.
        &|fork| {
            all.iter()
                .for_each(|id| fork.store.delete(&ObjectKey::Pack(*id)).expect("deleted"));
        },
    ];
    for case in cases {
        let fork = lab.fork();
        case(&fork);
        let refused = bring_back(&fork.open(), id).expect_err("refused");
        assert!(matches!(refused, Error::Refused { .. }), "{refused}");
        assert!(ids(fork.store.as_ref(), ObjectDir::Snapshots).is_empty());
    }
    bring_back(&repo, id).expect("the original is whole");
}

/// A sweep lists `snapshots/` just before the snapshot comes back and ends just after: when the
/// leases are listed, its lease is gone and its packs are dropped.
#[test]
fn a_sweep_that_ends_while_a_snapshot_comes_back_is_noticed() {
    let lab = Lab::new();
    let repo = lab.open();
    let id = lab.backup(&repo, &noise(1, 5000));
    forget(&repo, id).expect("forgotten");
    let all = packs(repo.store());

    let sweeper = lab.open();
    let act = move |store: &dyn Store| {
        drop_packs(&sweeper, &all);
        all.iter()
            .for_each(|id| store.delete(&ObjectKey::Pack(*id)).expect("deleted"));
    };
    let store = HookedStore::after(
        lab.store.clone(),
        StoreOperation::Put,
        KeyKind::Snapshot,
        Box::new(act),
    );
    let store = std::sync::Arc::new(store);
    let cache = tempfile::tempdir().expect("a directory");
    let repo = Repository::open(store.clone(), &Secret::empty(), cache.path()).expect("opens");

    let refused = bring_back(&repo, id).expect_err("refused");
    assert!(store.was_called());
    assert!(
        refused
            .to_string()
            .contains("data that it needs is missing"),
        "{refused}"
    );
    assert!(
        ids(lab.store.as_ref(), ObjectDir::Snapshots).is_empty(),
        "it was withdrawn"
    );
}
