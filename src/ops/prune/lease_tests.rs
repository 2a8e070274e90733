//! Tests of prune beside other leases: of active clients, of clients that died, and of none.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::tests::{DAY, HOUR, assert_sound, forget, options, run, two_backups};
use super::*;
use crate::format::LeaseKind;
use crate::observe::Recording;
use crate::ops::backup::{BackupOptions, SourceSpec, backup};
use crate::ops::testing::Lab;
use crate::repo::{HostChoice, Lease};
use crate::store::{HookedStore, KeyKind, ObjectBody, ObjectKey, PutMode, Store, StoreOperation};
use crate::task::Cancel;
use crate::types::LeaseId;

#[test]
fn a_prune_yields_to_a_running_one() {
    let lab = Lab::new();
    let repo = lab.open();
    two_backups(&lab, &repo);
    let other =
        Lease::take(&lab.open().with_client("elsewhere"), LeaseKind::Prune).expect("a lease");
    let before = lab.store.objects();
    assert!(run(&repo, &options()).other_prune);
    assert_eq!(lab.store.objects(), before);
    other.release().expect("released");
    assert!(!run(&repo, &options()).other_prune);
}

#[test]
fn leases_of_the_dead_and_checkpoints_given_up_are_swept() {
    let lab = Lab::new();
    let repo = lab.open();
    let (first, _) = two_backups(&lab, &repo);
    let mut checkpoint = repo.read_snapshot(&first).expect("reads");
    checkpoint.state = crate::format::SnapshotState::Checkpoint;
    let lease = crate::ops::testing::lease(&repo);
    let id = repo.commit(lease, checkpoint).expect("committed").id;
    let lease = crate::ops::testing::lease(&repo);
    let left = lab
        .store
        .get(&ObjectKey::Lease(lease.id()), 1 << 20)
        .expect("there");
    let key = ObjectKey::Lease(lease.id());
    lease.release().expect("released");
    lab.store
        .put(&key, ObjectBody::Bytes(&left), PutMode::CreateOnly)
        .expect("left by a crash");
    lab.store.clock().advance(HOUR);
    let report = run(&repo, &options());
    assert_eq!((report.leases_swept, report.checkpoints_deleted), (0, 0));
    lab.store.clock().advance(7 * DAY);
    let report = run(&repo, &options());
    assert_eq!((report.leases_swept, report.checkpoints_deleted), (1, 1));
    assert!(lab.store.get(&ObjectKey::Snapshot(id), 1 << 20).is_err());
    assert_sound(&repo);
}

/// Some objects among the leases belong to no active client: one that is no lease, one of another
/// repository, and some that the store dates years ahead because its clock was wrong.
#[test]
fn junk_among_the_leases_does_not_stop_a_prune_for_ever() {
    let lab = Lab::new();
    let repo = lab.open();
    let (first, _) = two_backups(&lab, &repo);
    forget(&*lab.store, first);
    let left_by = |lab: &Lab, kind| {
        let elsewhere = lab.open().with_client("elsewhere");
        let lease = Lease::take(&elsewhere, kind).expect("taken");
        let key = ObjectKey::Lease(lease.id());
        let bytes = lab.store.get(&key, 1 << 20).expect("there");
        lease.release().expect("released");
        (key, bytes)
    };
    let foreign = left_by(&Lab::new(), LeaseKind::Prune);
    let no_lease = |n| {
        (
            ObjectKey::Lease(LeaseId::new([n; 16])),
            b"no lease".to_vec(),
        )
    };
    let own =
        [LeaseKind::Prune, LeaseKind::Backup, LeaseKind::Repair].map(|kind| left_by(&lab, kind));

    let now = lab.store.clock().now();
    let put = |(key, bytes): &(ObjectKey, Vec<u8>), ahead: i64| {
        lab.store.clock().set(now.plus_seconds(ahead));
        lab.store
            .put(key, ObjectBody::Bytes(bytes), PutMode::CreateOnly)
            .expect("put");
        lab.store.clock().set(now);
    };

    put(&no_lease(1), 0);
    put(&foreign, 0);
    put(&no_lease(2), 3 * DAY);
    put(&no_lease(3), 15_000 * DAY);
    own.iter().for_each(|lease| put(lease, 15_000 * DAY));

    let mut dropped = 0;
    for day in 0..8 {
        lab.store.clock().set(now.plus_seconds(day * DAY));
        let report = run(&repo, &options());
        assert!(!report.other_prune, "day {day}");
        dropped += report.dropped.packs;
        // One object is dated three days ahead. Its holder may have begun at any time, until the
        // object expires too.
        assert!(day > 3 || dropped == 0, "day {day}");
    }
    assert!(
        dropped > 0,
        "what the forgotten snapshot alone needs is gone"
    );
    assert_sound(&repo);
}

#[test]
fn now_waits_for_other_leases_and_reports_them() {
    let lab = Lab::new();
    let repo = lab.open();
    let (first, _) = two_backups(&lab, &repo);
    lab.store.clock().advance(2 * DAY);
    let other = crate::ops::testing::lease(&repo);
    forget(&*lab.store, first);
    lab.store.clock().advance(DAY + HOUR);
    other
        .refresh(Duration::ZERO)
        .expect_err("a day without a heartbeat");
    drop(other);
    let other = crate::ops::testing::lease(&repo);
    let now = PruneOptions {
        now: true,
        ..options()
    };
    let report = run(&repo, &now);
    assert!(
        report.condemned.packs > 0 && report.dropped.packs == 0,
        "{report:?}"
    );
    let waits_for =
        |why: &WaitReason| matches!(why, WaitReason::Lease { id, .. } if *id == other.id());
    assert!(report.kept_waiting.iter().any(waits_for), "{report:?}");
    drop(other);
    assert!(run(&repo, &now).dropped.packs > 0);
    assert_sound(&repo);
}

/// A machine recognises its own dead holders by the name in their leases. `backup --host` names
/// the host of the snapshot, and a lease under that name would never be recognised.
#[test]
fn a_backup_for_another_host_holds_its_lease_under_the_name_of_its_own_machine() {
    let lab = Lab::new();
    let names = Arc::new(Mutex::new(Vec::new()));
    let in_hook = Arc::clone(&names);
    let listing = lab.open();
    let hook = Box::new(move |_: &dyn Store| {
        let leases = listing.leases().expect("listed");
        let hosts = leases
            .into_iter()
            .filter_map(|lease| Some(lease.body?.host));
        in_hook.lock().expect("no panic").extend(hosts);
    });
    let store = HookedStore::after(
        lab.store.clone(),
        StoreOperation::List,
        KeyKind::Segment,
        hook,
    );
    let repo = lab.try_open_on(Arc::new(store)).expect("opens");

    let input = Box::new(std::io::Cursor::new(b"a dump".to_vec()));
    let name = "db".into();
    let options = BackupOptions::new("elsewhere", vec![SourceSpec::Stream { name, input }]);
    let observer = Recording::default();
    let cancel = Cancel::new();
    backup(&repo, options, Task::new(&observer, &cancel)).expect("backed up");

    assert_eq!(*names.lock().expect("no panic"), [repo.client()]);
    let found = repo
        .find_snapshot("latest", &HostChoice::Any)
        .expect("found");
    assert_eq!(found.snapshot.host, "elsewhere");
}
