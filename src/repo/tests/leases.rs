//! Who is alive, by the store's clock.

use std::sync::Arc;
use std::time::Duration;

use super::{Fixture, lease, snapshot, take_lease};
use crate::format::LeaseKind;
use crate::repo::{Lease, LeaseTimes, Repository, Secret};
use crate::store::{Body, Clock, Folder, ModelWorld, ObjectKey, PutMode, SharedStore, Store, list_all};
use crate::types::LeaseId;

#[test]
fn leases_are_told_by_their_age_and_damaged_ones_count_as_old_and_alive() {
    let fixture = Fixture::new();
    let repo = fixture.open("a");
    let times = LeaseTimes::default();
    let held = lease(&repo);
    let other = ObjectKey::Lease(LeaseId::new([7; 16]));
    fixture.memory.put(&other, Body::Bytes(b"no lease"), PutMode::CreateOnly).expect("put");
    let found = repo.leases().expect("lists");
    assert_eq!(found.len(), 2);
    let ours = found.iter().find(|found| found.id == held.id()).expect("is listed");
    let damaged = found.iter().find(|found| found.id != held.id()).expect("is listed");
    assert_eq!((ours.started(&times), ours.modified), (held.started(), held.last_heartbeat()));
    assert!(damaged.body.is_none());
    assert!(damaged.started(&times).seconds_since(held.started()) <= -13.0 * 86400.0);
    let now = held.last_heartbeat();
    let later = |seconds| now.plus_seconds(seconds);
    for lease in [ours, damaged] {
        assert!(lease.is_alive(now, &times));
        // A clock that jumped back does not bury anyone.
        assert!(lease.is_alive(later(-86400), &times));
        assert!(lease.is_alive(later(80 * 60), &times));
        assert!(!lease.is_alive(later(95 * 60), &times));
        assert!(!lease.is_dead_here("host"), "this process runs");
    }
    assert_eq!(times.margin, Duration::from_secs(3600));
}

/// A sweep takes "no lease" for "its snapshot is listed". Where listings are delayed that is no promise, and the sweep
/// let go of packs that a backup needed which had committed a moment before it. There the lease stays until it
/// expires, by when the snapshot is listed.
#[test]
fn where_listings_are_delayed_a_writers_lease_outlives_its_commit() {
    let left = |world: ModelWorld| {
        let store: SharedStore = Arc::new(world.client());
        Repository::init(&store, &Secret::empty(), "test").expect("init");
        let caches = tempfile::tempdir().expect("a folder");
        let repo = Repository::open(store, &Secret::empty(), caches.path()).expect("opens");
        let reader = Lease::take(&repo, LeaseKind::Restore, "host", LeaseTimes::default()).expect("a lease");
        reader.release().expect("released");
        repo.commit(lease(&repo), snapshot(&[])).expect("commits");
        drop(take_lease(&repo, LeaseTimes::default()).expect("a lease"));
        list_all(repo.store(), Folder::Leases).expect("lists").len()
    };
    assert_eq!(left(ModelWorld::new(&Clock::default(), 1)), 2);
    assert_eq!(left(ModelWorld::new(&Clock::default(), 1).with_strong_listing()), 0);
}
