//! Who is alive, by the store's clock.

use std::time::Duration;

use super::{Fixture, lease};
use crate::repo::LeaseTimes;
use crate::store::{Body, ObjectKey, PutMode, Store};
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
