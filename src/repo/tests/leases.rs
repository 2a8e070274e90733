//! Which holders are alive, by the store's clock.

use std::sync::Arc;
use std::time::Duration;

use super::{Fixture, lease, snapshot, take_lease};
use crate::format::{LeaseBody, LeaseKind, SnapshotState};
use crate::repo::{FoundLease, Lease, LeaseTimes, RepoError, Repository, Secret};
use crate::store::{
    Fault, FaultEffect, FaultyStore, InjectedError, KeyKind, ModelWorld, ObjectBody, ObjectDir,
    ObjectKey, PutMode, SharedStore, Store, StoreOperation, TestClock, list_all,
};
use crate::types::{LeaseId, SnapshotId, Timestamp};

#[test]
fn a_damaged_lease_counts_as_old_and_alive_until_it_expires() {
    let fixture = Fixture::new();
    let repo = fixture.open("a");
    let times = LeaseTimes::default();
    let held = lease(&repo);
    let other = ObjectKey::Lease(LeaseId::new([7; 16]));
    fixture
        .memory
        .put(&other, ObjectBody::Bytes(b"no lease"), PutMode::CreateOnly)
        .expect("put");

    let found = repo.leases().expect("lists");
    assert_eq!(found.len(), 2);
    let ours = found
        .iter()
        .find(|found| found.id == held.id())
        .expect("is listed");
    let damaged = found
        .iter()
        .find(|found| found.id != held.id())
        .expect("is listed");

    assert_eq!(
        (ours.started(&times), ours.modified),
        (held.started(), held.last_heartbeat())
    );
    assert!(damaged.body.is_none());
    assert!(damaged.started(&times).seconds_since(held.started()) <= -13.0 * 86400.0);

    let now = held.last_heartbeat();
    let later = |seconds| now.plus_seconds(seconds);
    for lease in [ours, damaged] {
        assert!(lease.is_alive(now, &times));
        // A clock that jumped back does not make a holder dead.
        assert!(lease.is_alive(later(-86400), &times));
        assert!(lease.is_alive(later(80 * 60), &times));
        assert!(!lease.is_alive(later(95 * 60), &times));
        assert!(!lease.is_dead_here("host"), "this process runs");
    }
    assert_eq!(times.margin, Duration::from_secs(3600));
}

/// The store's clock may jump: back by half an hour, and forward as long as no heartbeat seems too
/// old.
#[test]
fn a_clock_that_jumps_by_less_than_the_expiry_costs_no_commit() {
    for (jump, is_committed) in [(-1800, true), (1790, true), (1810, false)] {
        let fixture = Fixture::new();
        let repo = fixture.open("a");
        let lease = lease(&repo);
        fixture.memory.clock().advance(jump);
        let result = repo.commit(lease, super::snapshot(&[]));
        assert_eq!(result.is_ok(), is_committed, "{jump}: {result:?}");
        let listed = repo.listed_snapshots().expect("lists").len();
        assert_eq!(
            listed,
            usize::from(is_committed),
            "{jump}: withdrawn, or not"
        );
    }
}

/// A machine was suspended: no heartbeat came for longer than the expiry, by our own clock, which
/// continues during the suspension.
#[test]
fn a_writer_that_slept_too_long_commits_nothing_and_makes_no_checkpoint() {
    let fixture = Fixture::new();
    let repo = fixture.open("a");
    let times = LeaseTimes {
        heartbeat: Duration::from_secs(3600),
        expiry: Duration::from_millis(30),
        ..LeaseTimes::default()
    };
    let lease = super::take_lease(&repo, times).expect("a lease");
    std::thread::sleep(Duration::from_millis(60));
    let checkpoint = repo.put_checkpoint(&lease, super::snapshot(&[]));
    assert!(
        matches!(checkpoint, Err(RepoError::LostLease { .. })),
        "{checkpoint:?}"
    );
    let commit = repo.commit(lease, super::snapshot(&[]));
    assert!(
        matches!(commit, Err(RepoError::LostLease { .. })),
        "{commit:?}"
    );
    assert_eq!(repo.listed_snapshots().expect("lists"), []);
}

#[test]
fn a_checkpoint_leaves_the_lease_and_is_replaced() {
    let fixture = Fixture::new();
    let repo = fixture.open("a");
    let lease = lease(&repo);
    let first = repo
        .put_checkpoint(&lease, super::snapshot(&[]))
        .expect("put")
        .id;
    let found = repo.read_snapshot(&first).expect("reads");
    assert_eq!(
        (found.state, found.lease),
        (SnapshotState::Checkpoint, lease.id())
    );
    assert_eq!(found.heartbeat, lease.last_heartbeat());

    let second = repo
        .put_checkpoint(&lease, super::snapshot(&[first]))
        .expect("the first is a root")
        .id;
    repo.delete_checkpoint(&first).expect("deleted");
    repo.delete_checkpoint(&first).expect("as good");

    let committed = repo.commit_with(lease, super::snapshot(&[second]), |lease, _| {
        assert!(
            repo.leases()
                .expect("lists")
                .iter()
                .any(|found| found.id == lease.id()),
            "not yet ended"
        );
        repo.delete_checkpoint(&second).expect("deleted");
    });

    let listed = repo.listed_snapshots().expect("lists");
    assert_eq!(
        listed.iter().map(|one| one.0).collect::<Vec<_>>(),
        [committed.expect("committed").id]
    );
    assert_eq!(repo.leases().expect("lists"), []);
}

/// A sweep concludes from a missing lease that its snapshot is listed. With delayed listings that
/// is wrong: the sweep dropped packs that a backup needed which had committed a moment before. On
/// such a store the lease stays until it expires, and by then the snapshot is listed.
#[test]
fn where_listings_are_delayed_a_writers_lease_outlives_its_commit() {
    let left = |world: ModelWorld| {
        let store: SharedStore = Arc::new(world.client());
        Repository::init(&store, &Secret::empty(), "test").expect("init");
        let caches = tempfile::tempdir().expect("a directory");
        let repo = Repository::open(store, &Secret::empty(), caches.path()).expect("opens");
        let reader =
            Lease::take_with(&repo, LeaseKind::Restore, LeaseTimes::default()).expect("a lease");
        reader.release().expect("released");
        repo.commit(lease(&repo), snapshot(&[])).expect("commits");
        drop(take_lease(&repo, LeaseTimes::default()).expect("a lease"));
        list_all(repo.store(), ObjectDir::Leases)
            .expect("lists")
            .len()
    };
    assert_eq!(left(ModelWorld::new(&TestClock::default(), 1)), 2);
    assert_eq!(
        left(ModelWorld::new(&TestClock::default(), 1).with_strong_listing()),
        0
    );
}

/// `prune --now` does not wait for a process that is gone. But the process must have been one of
/// this boot, these process numbers and this host name, and its file must be here. Otherwise it may
/// still run elsewhere.
#[test]
fn a_holder_is_dead_here_only_if_it_was_here() {
    let mut child = std::process::Command::new("true").spawn().expect("runs");
    let pid = child.id();
    child.wait().expect("ends");
    let body = LeaseBody {
        id: LeaseId::new([1; 16]),
        kind: LeaseKind::Backup,
        host: "host".into(),
        boot: crate::sys::boot_id(),
        pid,
        started: None,
        parents: Vec::new(),
    };
    let dead = |body: &LeaseBody| {
        let id = body.id;
        let modified = Timestamp::from_seconds(1);
        FoundLease {
            id,
            modified,
            body: Some(body.clone()),
            is_orphan: true,
        }
        .is_dead_here("host")
    };
    assert!(dead(&body));

    let modified = Timestamp::from_seconds(1);
    let unproved = FoundLease {
        id: body.id,
        modified,
        body: Some(body.clone()),
        is_orphan: false,
    };
    assert!(
        !unproved.is_dead_here("host"),
        "a clone of this machine may run it"
    );

    assert!(!dead(&LeaseBody {
        host: "other".into(),
        ..body.clone()
    }));
    assert!(!dead(&LeaseBody {
        boot: "another boot".into(),
        ..body.clone()
    }));
    assert!(!dead(&LeaseBody {
        pid: std::process::id(),
        ..body.clone()
    }));
}

/// Two clones of one machine have the same boot id, host name and process numbers, but each has its
/// own disk. A process of one is missing in the other, and must not count as dead there.
#[test]
fn only_the_disk_of_the_holder_proves_that_it_is_gone() {
    let fixture = Fixture::new();
    let (one, clone) = (fixture.open("one"), fixture.open("clone"));
    let orphans = |repo: &crate::repo::Repository| {
        let found = repo.leases().expect("lists");
        found
            .iter()
            .map(|lease| lease.is_orphan)
            .collect::<Vec<_>>()
    };

    let held = lease(&one);
    held.refresh(Duration::ZERO).expect("beats");
    assert_eq!(
        (orphans(&one), orphans(&clone)),
        (vec![false], vec![false]),
        "it lives"
    );

    let id = held.id();
    let marker = one.cache_dir().join("leases").join(id.to_string());
    let text = std::fs::read(&marker).expect("there");
    let bytes = fixture
        .memory
        .get(&ObjectKey::Lease(id), 1 << 20)
        .expect("there");
    let stamp = fixture
        .memory
        .stat(&ObjectKey::Lease(id))
        .expect("there")
        .modified;
    held.release().expect("released");
    assert!(!marker.exists(), "it went with the lease");

    // The lease and the file as a killed process leaves them, at the same store time.
    let clock = fixture.memory.clock();
    let later = clock.now();
    clock.set(stamp);
    fixture
        .memory
        .put(
            &ObjectKey::Lease(id),
            ObjectBody::Bytes(&bytes),
            PutMode::CreateOnly,
        )
        .expect("put");
    clock.set(later);
    std::fs::write(&marker, &text).expect("written");
    assert_eq!(
        (orphans(&one), orphans(&clone)),
        (vec![true], vec![false]),
        "killed here, unknown there"
    );

    // The clone's process continues to write the lease, so the holder that died here was not the
    // only one.
    fixture
        .memory
        .put(
            &ObjectKey::Lease(id),
            ObjectBody::Bytes(&bytes),
            PutMode::Replace,
        )
        .expect("put");
    assert_eq!(orphans(&one), [false]);
}

/// Two clones that continue one backup write one lease. The first to notice stops.
#[test]
fn a_lease_written_by_another_process_is_lost() {
    let fixture = Fixture::new();
    let repo = fixture.open("one");
    let held = lease(&repo);
    held.refresh(Duration::ZERO).expect("beats");
    let key = ObjectKey::Lease(held.id());
    let bytes = fixture.memory.get(&key, 1 << 20).expect("there");
    fixture
        .memory
        .put(&key, ObjectBody::Bytes(&bytes), PutMode::Replace)
        .expect("put");
    let err = held.refresh(Duration::ZERO).expect_err("not ours alone");
    assert!(
        err.to_string().contains("another process writes it"),
        "{err}"
    );
    held.check().expect_err("it stays lost");
}

/// A `copy` to a repository with years of hourly backups names all its snapshots in its lease.
/// Other clients must be able to read that lease, so that the snapshots stay roots.
#[test]
fn a_lease_of_many_parents_is_read() {
    let fixture = Fixture::new();
    let repo = fixture.open("one");
    let held = lease(&repo);
    let parents: Vec<SnapshotId> = (0..20_000_u32)
        .map(|n| SnapshotId::new(*blake3::hash(&n.to_le_bytes()).as_bytes()))
        .collect();
    held.set_parents(&parents).expect("possible");
    held.refresh(Duration::ZERO).expect("beats");
    let found = repo.leases().expect("lists");
    assert_eq!(found[0].body.as_ref().expect("read").parents, parents);
    held.set_parents(&vec![parents[0]; 300_000])
        .expect_err("nobody would read it");
}

/// A quota may be exhausted on a disk with free space. The reserve is released if the lease itself
/// does not fit.
#[test]
fn a_lease_to_forget_under_uses_the_reserve_where_it_does_not_fit() {
    let full = Fault {
        operation: StoreOperation::Put,
        kind: Some(KeyKind::Lease),
        nth: 1,
        effect: FaultEffect::ErrorBefore(InjectedError::Full),
    };
    for (kind, is_taken) in [(LeaseKind::Repair, true), (LeaseKind::Backup, false)] {
        let fixture = Fixture::new();
        let faulty = Arc::new(FaultyStore::new(fixture.store()));
        let repo = fixture.open_on(faulty.clone(), "a").expect("opens");
        faulty.plan(full);
        let lease = Lease::take(&repo, kind);
        faulty.assert_all_fired();
        assert_eq!(lease.is_ok(), is_taken, "{kind:?}");
        drop(lease);
        assert_eq!(
            list_all(repo.store(), ObjectDir::Leases).expect("lists"),
            []
        );
    }
}
