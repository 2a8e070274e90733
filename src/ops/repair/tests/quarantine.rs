//! Tests of quarantine: which objects go there, how long they hold back other deletions, and when
//! they are deleted.

use super::unreadable::contents_by_first;
use super::*;
use crate::ops::forget::forget_named;
use crate::ops::prune::{PruneOptions, PruneReport, prune};
use crate::ops::repair::repair_index;
use crate::repo::HostChoice;
use crate::store::{ObjectBody, ObjectDir, PutMode, Store, list_all};
use crate::types::SegmentId;

const DAY: i64 = 24 * 3600;

/// Advances the clock by `seconds` and prunes. Writes objects on the way, since time counts only
/// where the store's clock is witnessed.
fn prune_later(lab: &Lab, seconds: i64) -> Result<PruneReport, crate::Error> {
    let mut left = seconds;
    while left > 0 {
        let step = left.min(10 * DAY);
        lab.store.clock().advance(step);
        left -= step;
        let repo = lab.open();
        let lease = crate::ops::testing::lease(&repo);
        let body = crate::types::SegmentBody::empty(lease.id());
        repo.publish_segment(lease.id(), &body)?;
        let _ = lease.release();
    }
    prune(
        &lab.open(),
        &PruneOptions::default(),
        Task::new(&Recording::default(), &Cancel::new()),
    )
}

fn repair_all_snapshots(repo: &Repository) -> crate::ops::repair::SnapshotsReport {
    let options = RepairSnapshotsOptions::default();
    repair_snapshots(
        repo,
        &options,
        Task::new(&Recording::default(), &Cancel::new()),
    )
    .expect("repaired")
}

fn aside(lab: &Lab) -> Vec<ObjectKey> {
    let listed = list_all(&*lab.store, ObjectDir::Quarantine).expect("listed");
    listed.into_iter().map(|meta| meta.key).collect()
}

/// Creates two snapshots without common data; returns both ids.
fn two() -> (Lab, SnapshotId, SnapshotId) {
    let lab = Lab::new();
    let repo = lab.open();
    write(&lab.tree().join("first"), &noise(1, 300_000));
    let first = lab.backup(&repo, &noise(5, 5000));
    std::fs::remove_file(lab.tree().join("first")).expect("removed");
    write(&lab.tree().join("second"), &noise(2, 300_000));
    lab.store.clock().advance(DAY);
    let second = lab.backup(&repo, &noise(6, 5000));
    drop(repo);
    // As another machine, with an empty cache.
    (lab.fork(), first, second)
}

#[test]
fn data_that_a_damaged_snapshot_may_need_is_kept_thirty_days() {
    let (lab, first, second) = two();
    lab.store
        .damage(&ObjectKey::Snapshot(first), |bytes| bytes[70] ^= 1);
    assert!(matches!(
        prune_later(&lab, 2 * DAY),
        Err(crate::Error::Unresolved { .. })
    ));

    let report = repair_all_snapshots(&lab.open());
    assert!(
        report.set_aside.len() == 1 && !report.is_whole(),
        "{report:?}"
    );
    assert_eq!(aside(&lab).len(), 1);
    assert!(lab.store.stat(&ObjectKey::Snapshot(first)).is_err());
    assert!(repair_all_snapshots(&lab.open()).is_whole());

    let bytes = lab.store.total_bytes();
    let report = prune_later(&lab, 2 * DAY).expect("it is in nobody's way");
    assert!(
        report.held.bytes > 250_000 && report.held_until.is_some(),
        "{report:?}"
    );
    assert!(
        report.dropped.packs == 0 && report.condemned.packs == 0,
        "{report:?}"
    );

    prune_later(&lab, 26 * DAY).expect("pruned");
    assert!(
        lab.store.total_bytes() + 2000 > bytes,
        "nothing went so far"
    );

    let report = prune_later(&lab, 3 * DAY).expect("pruned");
    assert!(
        report.held_until.is_none() && report.condemned.packs > 0,
        "{report:?}"
    );
    assert!(
        report.quarantine_deleted.packs == 1 && aside(&lab).is_empty(),
        "{report:?}"
    );

    prune_later(&lab, 2 * DAY).expect("pruned");
    assert!(
        lab.store.total_bytes() + 250_000 < bytes,
        "what only that one needed is gone"
    );

    let left = contents_by_first(&lab);
    assert!(left.keys().eq([&second]) && left[&second].0["second"] == noise(2, 300_000));
    assert_clean(&lab);
}

#[test]
fn a_damaged_snapshot_is_put_back_from_a_cache_that_has_it() {
    let lab = Lab::new();
    write(&lab.tree().join("f"), &noise(1, 50_000));
    let stream = noise(2, 9000);
    let id = lab.backup(&lab.open(), &stream);
    let before = contents_by_first(&lab);
    lab.store
        .damage(&ObjectKey::Snapshot(id), |bytes| bytes.truncate(100));
    let report = repair_all_snapshots(&lab.open());
    assert!(
        report.healed.len() == 1 && report.healed[0].old == id,
        "{report:?}"
    );
    let after = contents_by_first(&lab.fork());
    assert!(after == before, "under another id, the same snapshot");
    assert_clean(&lab);
}

#[test]
fn snapshots_that_changed_places_are_found_again() {
    let (lab, first, second) = two();
    let before = contents_by_first(&lab);
    let lab = lab.fork();
    let one = ObjectKey::Snapshot(first);
    let other = ObjectKey::Snapshot(second);
    let a = lab.store.get(&one, 1 << 20).expect("read");
    let b = lab.store.get(&other, 1 << 20).expect("read");
    lab.store.damage(&one, |bytes| bytes.clone_from(&b));
    lab.store.damage(&other, |bytes| bytes.clone_from(&a));
    assert_eq!(repair_all_snapshots(&lab.open()).healed.len(), 2);
    assert!(contents_by_first(&lab) == before);
    repair_all_snapshots(&lab.open());
    assert!(
        aside(&lab).is_empty(),
        "nothing in quarantine that is not listed too"
    );
}

#[test]
fn junk_under_any_name_is_set_aside_and_then_deleted() {
    let (lab, ..) = two();
    let before = contents_by_first(&lab);
    let lab = lab.fork();

    let junk = [
        ObjectKey::Snapshot(SnapshotId::new([1; 32])),
        ObjectKey::Forgotten(SnapshotId::new([2; 32])),
        ObjectKey::Segment(SegmentId::new([3; 32])),
        ObjectKey::Pack(PackId::new([4; 32])),
        ObjectKey::Snapshot(SnapshotId::new([5; 32])),
    ];

    let ours = contents_of_any(&lab);
    for (n, key) in (0..).zip(&junk) {
        // Empty, short, and with the first bytes of a real object.
        let mut bytes = noise(n, [0, 7, 100, 300, 4000][n as usize]);
        if n == 4 {
            bytes[..61].copy_from_slice(&ours[..61]);
        }
        lab.store
            .put(key, ObjectBody::Bytes(&bytes), PutMode::CreateOnly)
            .expect("put");
    }

    for round in 0..2 {
        repair_index(
            &lab.open(),
            Task::new(&Recording::default(), &Cancel::new()),
        )
        .expect("repaired");
        run_repairs(&lab.open()).expect("repaired");
        for key in &junk {
            assert!(lab.store.stat(key).is_err(), "{key} was set aside");
        }
        assert_clean(&lab);
        prune_later(&lab, 2 * DAY).expect("pruned");
        // The same names appear once more, with other bytes.
        if round == 0 {
            for key in &junk {
                lab.store
                    .put(key, ObjectBody::Bytes(b"other bytes"), PutMode::CreateOnly)
                    .expect("put");
            }
        }
    }

    assert!(contents_by_first(&lab) == before);
    for _ in 0..3 {
        prune_later(&lab, 32 * DAY).expect("pruned");
    }
    assert!(aside(&lab).is_empty(), "{:?}", aside(&lab));
    assert!(contents_by_first(&lab) == before);
}

fn contents_of_any(lab: &Lab) -> Vec<u8> {
    let key = list_all(&*lab.store, ObjectDir::Snapshots)
        .expect("listed")
        .swap_remove(0)
        .key;
    lab.store.get(&key, 1 << 20).expect("read")
}

#[test]
fn a_damaged_pack_leaves_quarantine_once_it_could_save_nothing() {
    let (lab, stream) = sample();
    let before = contents_by_first(&lab);
    let (id, _) = packs(&lab)
        .into_iter()
        .max_by_key(|pack| pack.1)
        .expect("one");

    lab.store.damage(&ObjectKey::Pack(id), |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    run_repairs(&lab.open()).expect("repaired");
    assert!(aside(&lab).contains(&ObjectKey::QuarantinedPack(id)));

    let report = prune_later(&lab, 2 * DAY).expect("pruned");
    assert!(report.quarantined.packs > 0, "{report:?}");
    assert!(
        aside(&lab).contains(&ObjectKey::QuarantinedPack(id)),
        "the original may still gain from it"
    );
    // The source still has the lost data.
    lab.backup(&lab.open(), &stream);
    run_repairs(&lab.open()).expect("repaired");
    let report = prune_later(&lab, DAY).expect("pruned");
    assert!(
        aside(&lab).is_empty() && report.quarantine_deleted.bytes > 1_000_000,
        "{report:?}"
    );
    assert!(
        report.freed_bytes >= report.quarantine_deleted.bytes,
        "its bytes are counted"
    );

    let after = contents_by_first(&lab);
    assert!(before.iter().all(|(id, content)| after[id] == *content));
    assert_clean(&lab);
}

/// The pack with a snapshot's lists of entries is missing, a partial snapshot replaces the
/// snapshot, and a prune follows at once. The contents of the lost lists are unknown, so all data
/// is kept for 30 days. If the pack comes back in that time, the snapshot is healed.
#[test]
fn data_that_lost_lists_may_have_named_is_kept_thirty_days() {
    for days in [0, 29, 31] {
        let lab = Lab::new();
        let file = noise(1, 300_000);
        write(&lab.tree().join("file"), &file);
        let first = lab.backup(&lab.open(), &noise(5, 5000));
        let known = packs(&lab);

        write(&lab.tree().join("other"), &noise(2, 1000));
        let second = lab.backup(&lab.open(), &noise(5, 5000));
        let new = packs(&lab)
            .into_iter()
            .find(|pack| !known.contains(pack))
            .expect("a pack")
            .0;

        std::fs::remove_file(lab.tree().join("file")).expect("removed");
        lab.backup(&lab.open(), &noise(5, 5000));
        let names = [first.to_string()];
        forget_named(
            &lab.open(),
            &names,
            &HostChoice::Any,
            false,
            &Recording::default(),
        )
        .expect("forgotten");
        let key = ObjectKey::Pack(new);
        let bytes = lab.store.get(&key, 64 << 20).expect("read");
        lab.store.delete(&key).expect("deleted");

        let repair = |lab: &Lab| {
            let options = RepairPacksOptions::default();
            let report = repair_packs(
                &lab.open(),
                &options,
                Task::new(&Recording::default(), &Cancel::new()),
            );
            repair_all_snapshots(&lab.open());
            report.expect("repaired")
        };

        assert!(repair(&lab).lost_chunks > 0);
        prune_later(&lab, days * DAY).expect("pruned");
        let options = PruneOptions {
            now: true,
            ..PruneOptions::default()
        };
        let report = prune(
            &lab.open(),
            &options,
            Task::new(&Recording::default(), &Cancel::new()),
        )
        .expect("pruned");
        assert_eq!(report.held_until.is_some(), days < 30, "{days}: {report:?}");

        lab.store
            .put(&key, ObjectBody::Bytes(&bytes), PutMode::CreateOnly)
            .expect("put");
        repair(&lab);
        let left = contents_by_first(&lab);
        let is_healed = left
            .get(&second)
            .is_some_and(|held| held.0.get("file") == Some(&file));
        assert_eq!(is_healed, days < 30, "{days} days later");
    }
}
