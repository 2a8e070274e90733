//! Interleavings that are dangerous only with a clock outside the protocol's margin or a deletion
//! by name.

use std::sync::Arc;

use super::tests::{DAY, HOUR, assert_sound, files, forget, options, read_files, run, two_backups};
use super::*;
use crate::observe::Counters;
use crate::ops::forget::{forget_named, undelete};
use crate::ops::testing::{Lab, lease};
use crate::repo::{HostChoice, RepoError};
use crate::store::{
    HookedStore, KeyKind, ObjectBody, ObjectDir, ObjectKey, PutMode, Store, StoreOperation,
    list_all,
};
use crate::task::Cancel;
use crate::types::SnapshotId;

fn forget_one(repo: &Repository, id: SnapshotId) {
    let names = [id.to_string()];
    forget_named(repo, &names, &HostChoice::Any, false, &Counters::default()).expect("forgotten");
}

fn undelete_now(lab: &Lab, id: SnapshotId) -> Result<SnapshotId, Error> {
    let back = undelete(
        &lab.open(),
        &id.to_string(),
        Task::new(&Counters::default(), &Cancel::new()),
    )?;
    Ok(back.id)
}

/// Leaves the state of a forget that was interrupted between its copy and its deletion.
fn leave_a_copy(lab: &Lab, id: SnapshotId) {
    let bytes = lab
        .store
        .get(&ObjectKey::Snapshot(id), 1 << 20)
        .expect("there");
    lab.store
        .put(
            &ObjectKey::Forgotten(id),
            ObjectBody::Bytes(&bytes),
            PutMode::CreateOnly,
        )
        .expect("put");
}

/// A forget that was interrupted long ago left a copy. After a sweep has listed it and before the
/// sweep deletes it, another client forgets the snapshot: the object under that name is now a new
/// copy.
#[test]
fn a_sweep_does_not_delete_a_copy_that_was_made_since_its_listing() {
    // Before the walk through the snapshots, and before each of the sweep's own checks.
    for (operation, kind, nth) in [
        (StoreOperation::List, KeyKind::Quarantined, 1),
        (StoreOperation::List, KeyKind::Snapshot, 3),
        (StoreOperation::List, KeyKind::Segment, 3),
        (StoreOperation::Stat, KeyKind::Snapshot, 1),
        (StoreOperation::Stat, KeyKind::Forgotten, 1),
    ] {
        let lab = Lab::new();
        let repo = lab.open();
        let (first, _second) = two_backups(&lab, &repo);
        leave_a_copy(&lab, first);
        lab.store.clock().advance(3 * DAY);

        let other = lab.open().with_client("other");
        let hook = Box::new(move |_: &dyn Store| forget_one(&other, first));
        let store = HookedStore::after_nth(lab.store.clone(), operation, kind, nth, hook);
        let hooked = lab.try_open_on(Arc::new(store)).expect("opens");
        run(&hooked, &options());

        let is_there = |key| lab.store.stat(&key).is_ok();
        assert!(
            is_there(ObjectKey::Snapshot(first)) || is_there(ObjectKey::Forgotten(first)),
            "behind {operation:?} {nth} of {kind:?}: forgotten a second ago, and in neither directory"
        );
        if is_there(ObjectKey::Snapshot(first)) {
            forget_one(&lab.open(), first);
        }
        undelete_now(&lab, first).expect("brought back");
    }
}

/// A forget considers the old copy stale, deletes it and puts its own, just before a sweep deletes
/// the old copy.
#[test]
fn a_sweep_deletes_only_the_copy_that_it_judged() {
    let lab = Lab::new();
    let repo = lab.open();
    let (first, _second) = two_backups(&lab, &repo);
    forget(&*lab.store, first);
    lab.store.clock().advance(3 * DAY);
    let hook = Box::new(move |store: &dyn Store| {
        let key = ObjectKey::Forgotten(first);
        let bytes = store.get(&key, 1 << 20).expect("there");
        store.delete(&key).expect("deleted");
        store
            .put(&key, ObjectBody::Bytes(&bytes), PutMode::CreateOnly)
            .expect("put");
    });
    let store = HookedStore::after(
        lab.store.clone(),
        StoreOperation::List,
        KeyKind::Quarantined,
        hook,
    );
    let report = run(
        &lab.try_open_on(Arc::new(store)).expect("opens"),
        &options(),
    );
    assert_eq!(report.forgotten_deleted, 0, "{report:?}");
    undelete_now(&lab, first).expect("brought back");
}

/// A snapshot that is still in `snapshots/` was not forgotten, however old its copy is: no sweep
/// deletes that copy.
#[test]
fn a_copy_of_a_listed_snapshot_is_never_spent() {
    let lab = Lab::new();
    let repo = lab.open();
    let (first, _) = two_backups(&lab, &repo);
    leave_a_copy(&lab, first);
    lab.store.clock().advance(10 * DAY);
    let report = run(&repo, &options());
    assert_eq!(
        (report.forgotten_deleted, report.condemned.packs),
        (0, 0),
        "{report:?}"
    );
}

/// The store's clock is a day ahead for a minute, between two heartbeats of a writer, and a prune
/// runs just then: the writer looks dead to it. The writer's commit detects that packs it relied on
/// were dropped.
#[test]
fn a_clock_that_jumps_ahead_and_back_between_two_heartbeats() {
    let lab = Lab::new();
    let repo = lab.open();
    let (first, second) = two_backups(&lab, &repo);
    let old = repo.read_snapshot(&first).expect("reads");
    lab.store.clock().advance(2 * DAY);
    let writer = lab.open();
    let held = lease(&writer);
    writer.sync().expect("syncs");
    lab.store.clock().advance(-DAY);

    forget(&*lab.store, first);
    lab.store.clock().advance(DAY + 60);
    let marked = run(&repo, &options());
    assert!(marked.condemned.packs > 0, "{marked:?}");

    lab.store.clock().advance(60 + DAY + 3 * HOUR);
    let swept = run(&repo, &options());
    assert!(swept.dropped.packs > 0, "the writer looks dead: {swept:?}");

    // The clock is right again, and the writer commits.
    lab.store.clock().advance(-(DAY + 3 * HOUR));
    let snapshot = crate::format::Snapshot {
        parents: vec![],
        ..old
    };

    let err = writer
        .commit(held, snapshot)
        .expect_err("its packs are gone");
    assert!(matches!(&err, RepoError::LostLease { .. }), "{err}");
    assert!(err.to_string().contains("was dropped since"), "{err}");

    assert_sound(&lab.open());
    assert_eq!(files(&lab.open(), second), read_files(&lab.tree()));
}

/// The same jump, but the writer's snapshot lands while the sweep is judging: the sweep lists again
/// and keeps the packs that this snapshot needs.
#[test]
fn a_sweep_sees_the_snapshot_of_a_writer_that_it_took_for_dead() {
    let lab = Lab::new();
    let repo = lab.open();
    let (first, second) = two_backups(&lab, &repo);
    let old = repo.read_snapshot(&first).expect("reads");
    lab.store.clock().advance(2 * DAY);

    let writer = lab.open();
    let held = lease(&writer);
    writer.sync().expect("syncs");
    lab.store.clock().advance(-DAY);

    forget(&*lab.store, first);
    lab.store.clock().advance(DAY + 60);
    assert!(run(&repo, &options()).condemned.packs > 0);
    lab.store.clock().advance(60 + DAY + 3 * HOUR);

    // The writer commits, with the clock right, after the survey has listed the snapshots.
    let clock = lab.store.clock().clone();
    let hook = Box::new(move |_: &dyn Store| {
        clock.advance(-(DAY + 3 * HOUR));
        let snapshot = crate::format::Snapshot {
            parents: vec![],
            ..old.clone()
        };
        writer
            .commit(held, snapshot)
            .expect("nothing was dropped yet");
        clock.advance(DAY + 3 * HOUR);
    });
    let store = HookedStore::after(
        lab.store.clone(),
        StoreOperation::List,
        KeyKind::Quarantined,
        hook,
    );

    let hooked = lab.try_open_on(Arc::new(store)).expect("opens");
    let report = run(&hooked, &options());
    assert!(
        report.kept_waiting.contains(&WaitReason::Needed),
        "{report:?}"
    );
    assert_sound(&lab.open());
    assert_eq!(files(&lab.open(), second), read_files(&lab.tree()));

    let listed = lab.open().listed_snapshots().expect("listed");
    let revived = listed
        .iter()
        .find(|(id, _)| *id != second)
        .expect("the writer's");
    assert!(files(&lab.open(), revived.0).contains_key("old"));
}

/// The store's clock is ten years ahead for a while (a machine without a clock battery). This ends
/// no grace period, including that of a pack that a mark condemned.
#[test]
fn a_clock_far_ahead_ends_no_grace() {
    for is_marked in [false, true] {
        let lab = Lab::new();
        let repo = lab.open();
        let (first, second) = two_backups(&lab, &repo);
        lab.store.clock().advance(2 * DAY);
        run(&repo, &options());
        forget_one(&repo, first);
        if is_marked {
            lab.store.clock().advance(DAY + HOUR);
            assert!(run(&repo, &options()).condemned.packs > 0);
        }

        // The clock jumps ahead.
        lab.store.clock().advance(60 + 3650 * DAY);
        let far = run(&repo, &options());
        assert_eq!(
            (far.dropped.packs, far.forgotten_deleted),
            (0, 0),
            "{far:?}"
        );

        // The first prune wrote a segment that shows the present time; the second needs no other.
        let witnesses = list_all(&*lab.store, ObjectDir::Index)
            .expect("listed")
            .len();
        lab.store.clock().advance(HOUR);
        let far = run(&repo, &options());
        assert_eq!(
            (far.dropped.packs, far.forgotten_deleted),
            (0, 0),
            "{far:?}"
        );
        assert_eq!(
            list_all(&*lab.store, ObjectDir::Index)
                .expect("listed")
                .len(),
            witnesses,
            "one file is enough"
        );

        // The clock is right again.
        lab.store.clock().advance(-(3650 * DAY));
        if !is_marked {
            undelete_now(&lab, first).expect("it was forgotten an hour ago");
        }
        assert_sound(&lab.open());
        assert_eq!(files(&lab.open(), second), read_files(&lab.tree()));
    }
}

/// A repository that was not used for months is swept one grace period after the next prune, with
/// nothing else written.
#[test]
fn after_a_long_rest_one_more_grace_passes() {
    let lab = Lab::new();
    let repo = lab.open();
    let (first, _) = two_backups(&lab, &repo);
    forget_one(&repo, first);
    lab.store.clock().advance(90 * DAY);
    let report = run(&repo, &options());
    assert_eq!(
        (report.forgotten_deleted, report.condemned.packs),
        (0, 0),
        "{report:?}"
    );
    lab.store.clock().advance(DAY + HOUR);
    let report = run(&repo, &options());
    assert!(
        report.forgotten_deleted == 1 && report.condemned.packs > 0,
        "{report:?}"
    );
    assert_sound(&lab.open());
}
