//! Tests of merging two copies of a repository that were used separately, and of packs that come
//! back after they were deleted. One copy lists packs as dropped that the other needs. The packs
//! are undamaged in the store, so nothing may be lost.

use super::*;
use crate::ErrorKind;
use crate::advice::{Advice, RepairAdvice};
use crate::format::LeaseKind;
use crate::ops::prune::{PruneOptions, PruneReport, prune};
use crate::ops::repair::SnapshotsReport;
use crate::repo::Lease;
use crate::store::{KeyKind, ObjectBody, PutMode, RecordingStore, Store, StoreOperation};

/// Copies objects that `to` does not have, like `rsync -r`.
fn merge_into(to: &Lab, from: &Lab) {
    for meta in from.store.objects() {
        let bytes = from.store.get(&meta.key, 1 << 30).expect("there");
        match to
            .store
            .put(&meta.key, ObjectBody::Bytes(&bytes), PutMode::CreateOnly)
        {
            Ok(()) | Err(crate::store::StoreError::Exists { .. }) => {}
            Err(err) => panic!("{}: {err}", meta.key),
        }
    }
}

fn try_prune(lab: &Lab) -> Result<PruneReport, crate::Error> {
    let options = PruneOptions {
        now: true,
        ..PruneOptions::default()
    };
    prune(
        &lab.open(),
        &options,
        Task::new(&Recording::default(), &Cancel::new()),
    )
}

fn mend(lab: &Lab) -> Result<SnapshotsReport, crate::Error> {
    let options = RepairSnapshotsOptions::default();
    repair_snapshots(
        &lab.open(),
        &options,
        Task::new(&Recording::default(), &Cancel::new()),
    )
}

/// Forgets a snapshot and immediately deletes the data that only it needed.
fn let_go(lab: &Lab, id: SnapshotId) {
    let repo = lab.open();
    repo.sync().expect("synced");
    let lease = Lease::take(&repo, LeaseKind::Prune).expect("a lease");
    repo.forget_snapshot(&lease, &id).expect("forgotten");
    lease.release().expect("released");
    let report = try_prune(lab).expect("pruned");
    assert!(report.dropped.packs > 0, "{report:?}");
}

/// Returns two copies of a repository with three snapshots. Each snapshot has some files that the
/// others lack and some in common with them. The second copy has forgotten the first snapshot
/// since.
fn diverged() -> (Lab, Lab) {
    let (lab, stream) = sample();
    for n in 0..2 {
        lab.store.clock().advance(3600);
        std::fs::remove_dir_all(lab.tree().join("b")).expect("removed");
        write(
            &lab.tree().join(format!("b/of-{n}")),
            &noise(100 + n, 400_000),
        );
        lab.backup(&lab.open(), &stream[n as usize + 1..]);
    }
    let other = lab.fork();
    let first = listed(&other.open())[0].id;
    let_go(&other, first);
    // The first copy is also used.
    lab.store.clock().advance(3600);
    write(&lab.tree().join("late"), &noise(200, 200_000));
    lab.backup(&lab.open(), &stream[7..]);
    (lab, other)
}

/// Checks that every snapshot can be read and has its old contents.
fn assert_all_there(lab: &Lab, before: &BTreeMap<SnapshotId, Content>) {
    let now = contents(lab);
    assert_eq!(
        now.keys().collect::<Vec<_>>(),
        before.keys().collect::<Vec<_>>()
    );
    assert!(now == *before, "a snapshot reads as something else");
}

/// Runs the repairs that the hints name, then prunes.
fn put_right(lab: &Lab, before: &BTreeMap<SnapshotId, Content>) {
    let report = repair(&lab.open()).expect("repaired");
    assert!(
        report.is_whole() && report.saved_chunks > 0 && report.damaged.is_empty(),
        "{report:?}"
    );
    assert_clean(lab);
    assert_all_there(lab, before);
    assert!(mend(lab).expect("nothing to do").is_whole());
    for _ in 0..2 {
        try_prune(lab).expect("pruned");
        assert_clean(lab);
        assert_all_there(lab, before);
    }
    let again = repair(&lab.open()).expect("again");
    assert_eq!(
        (again.saved_chunks, again.lost_chunks, again.still_lost),
        (0, 0, 0),
        "it converges"
    );
}

fn dropped_and_there(lab: &Lab) -> Vec<PackId> {
    let repo = lab.open();
    repo.sync().expect("synced");
    let there: std::collections::BTreeSet<PackId> =
        packs(lab).into_iter().map(|(id, _)| id).collect();
    crate::ops::repair::dropped::dropped_and_there(&repo, |id| there.contains(id)).expect("asked")
}

#[test]
fn data_in_packs_that_another_copy_dropped_is_stored_again() {
    let (lab, other) = diverged();
    let before = contents(&lab);
    merge_into(&lab, &other);
    assert!(!dropped_and_there(&lab).is_empty());
    let found = check(&lab);
    assert!(!found.is_clean() && found.affected_count > 0, "{found:#?}");
    put_right(&lab, &before);
    assert_eq!(
        dropped_and_there(&lab),
        [],
        "what is needed by nobody any more goes"
    );
}

/// No segment lists the contents of the dropped packs. Runs must be stored again before a walk can
/// see which chunks they reference.
#[test]
fn data_in_packs_that_no_segment_lists_is_stored_again() {
    let (lab, other) = diverged();
    let before = contents(&lab);
    let merged = merge_into_as_superseded(&lab, &other);
    let rows = merged.open();
    rows.sync().expect("synced");
    let dropped = dropped_and_there(&merged);
    assert!(dropped.iter().all(|id| {
        rows.index()
            .pack(id)
            .expect("asked")
            .is_none_or(|row| !row.added)
    }));
    assert!(!dropped.is_empty() && !check(&merged).is_clean());
    put_right(&merged, &before);
}

/// Merges so that no segment adds the dropped packs: a prune has merged the segments that did, and
/// deleted them.
fn merge_into_as_superseded(lab: &Lab, other: &Lab) -> Lab {
    merge_into(lab, other);
    let repo = lab.open();
    repo.sync().expect("synced");
    let dropped = dropped_and_there(lab);

    let lease = Lease::take(&repo, LeaseKind::Prune).expect("a lease");
    let mut body = crate::types::SegmentBody::empty(lease.id());
    let segments = repo.listed_segments().expect("listed");
    for id in &segments {
        let segment = repo.read_segment(id).expect("read");
        body.packs.extend(
            segment
                .packs
                .into_iter()
                .filter(|pack| !dropped.contains(&pack.id)),
        );
        body.condemned.extend(
            segment
                .condemned
                .into_iter()
                .filter(|pack| !dropped.contains(pack)),
        );
        body.dropped.extend(segment.dropped);
    }

    body.packs.sort_by_key(|pack| pack.id);
    body.packs.dedup_by_key(|pack| pack.id);
    for ids in [&mut body.condemned, &mut body.dropped] {
        ids.sort_unstable();
        ids.dedup();
    }

    repo.publish_segment(lease.id(), &body).expect("published");
    lease.release().expect("released");

    for id in segments {
        lab.store.delete(&ObjectKey::Segment(id)).expect("deleted");
    }
    // A fork has a new cache, without the contents of the deleted segments.
    lab.fork()
}

#[test]
fn nothing_is_given_up_before_the_dropped_packs_are_read() {
    let (lab, other) = diverged();
    let before = contents(&lab);
    merge_into(&lab, &other);
    let there = packs(&lab);

    let refused = mend(&lab).expect_err("refused");
    assert_eq!(
        refused.advice(),
        Some(Advice::Repair(RepairAdvice::StoreDroppedAgain)),
        "{refused}"
    );
    let refused = try_prune(&lab).expect_err("refused");
    assert_eq!(refused.kind(), ErrorKind::Damage, "{refused}");
    let dry = RepairSnapshotsOptions {
        dry_run: true,
        ..RepairSnapshotsOptions::default()
    };
    assert!(
        repair_snapshots(
            &lab.open(),
            &dry,
            Task::new(&Recording::default(), &Cancel::new())
        )
        .is_err()
    );

    assert_eq!(packs(&lab), there);
    assert_all_there(&lab, &before);
    put_right(&lab, &before);
}

/// The packs were missing while snapshots were repaired, so partial snapshots replaced the
/// originals. Then the packs come back.
#[test]
fn packs_that_return_after_a_repair_heal_partial_snapshots() {
    let (lab, other) = diverged();
    let before = contents(&lab);
    merge_into(&lab, &other);

    let away: Vec<(ObjectKey, Vec<u8>)> = dropped_and_there(&lab)
        .into_iter()
        .map(|id| {
            (
                ObjectKey::Pack(id),
                lab.store.get(&ObjectKey::Pack(id), 1 << 30).expect("there"),
            )
        })
        .collect();

    away.iter()
        .for_each(|(key, _)| lab.store.delete(key).expect("deleted"));
    assert!(!mend(&lab).expect("mended").partial.is_empty());
    assert_clean(&lab);

    for (key, bytes) in &away {
        lab.store
            .put(key, ObjectBody::Bytes(bytes), PutMode::CreateOnly)
            .expect("put back");
    }

    for _ in 0..2 {
        let observer = Recording::default();
        let options = PruneOptions {
            now: true,
            ..PruneOptions::default()
        };
        prune(&lab.open(), &options, Task::new(&observer, &Cancel::new())).expect("pruned");
        assert!(
            !dropped_and_there(&lab).is_empty(),
            "what a snapshot in quarantine lacks stays"
        );
    }
    repair(&lab.open()).expect("repaired");

    let healed = mend(&lab).expect("mended");
    assert!(
        !healed.healed.is_empty() && healed.partial.is_empty(),
        "{healed:?}"
    );
    try_prune(&lab).expect("pruned");
    assert_eq!(dropped_and_there(&lab), []);
    assert_clean(&lab);

    let repo = lab.open();
    let now = listed(&repo);
    assert_eq!(now.len(), before.len());
    for found in &now {
        let content = (
            files_of(&repo, found),
            stream_of(&repo, found).expect("read"),
        );
        assert!(
            content == before[&found.first()],
            "{} is not what it was",
            found.id
        );
    }
}

/// Chunks that the dropped packs cannot provide are reported as lost. After that the repair of
/// snapshots can run.
#[test]
fn only_the_damaged_data_of_a_dropped_pack_is_lost() {
    let (lab, other) = diverged();
    merge_into(&lab, &other);
    let largest = |ids: Vec<PackId>| {
        let sizes: BTreeMap<PackId, u64> = packs(&lab).into_iter().collect();
        ids.into_iter().max_by_key(|id| sizes[id]).expect("one")
    };
    let key = ObjectKey::Pack(largest(dropped_and_there(&lab)));
    lab.store.damage(&key, |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });

    let dry = RepairPacksOptions {
        dry_run: true,
        ..packs_options()
    };
    let objects = lab.store.objects();
    let planned = repair_packs(
        &lab.open(),
        &dry,
        Task::new(&Recording::default(), &Cancel::new()),
    )
    .expect("told");
    assert_eq!(lab.store.objects(), objects);

    let report = repair(&lab.open()).expect("repaired");
    assert_eq!(planned, report);
    assert!(
        report.lost_chunks > 0 && report.saved_chunks > 0,
        "{report:?}"
    );

    let again = repair(&lab.open()).expect("again");
    assert_eq!(
        (again.saved_chunks, again.lost_chunks, again.still_lost),
        (0, 0, report.lost_chunks),
        "{again:?}"
    );

    assert!(!mend(&lab).expect("mended").partial.is_empty());
    assert_clean(&lab);
    try_prune(&lab).expect("pruned");
    assert_clean(&lab);
}

/// Interrupts a repair after each write.
#[test]
fn the_next_repair_completes_an_interrupted_one() {
    let (lab, other) = diverged();
    let before = contents(&lab);
    merge_into(&lab, &other);
    for writes in 0.. {
        let fork = lab.fork();
        let faulty = Arc::new(FaultyStore::new(fork.store.clone()));
        faulty.die_after_writes(writes);
        let cache = tempfile::tempdir().expect("a directory");
        let done = repair(&on_faulty(&fork, &faulty, &cache)).is_ok();
        assert_all_there(&fork, &before);
        let report = repair(&fork.open()).expect("repaired");
        assert!(report.is_whole(), "{report:?}");
        assert_clean(&fork);
        try_prune(&fork).expect("pruned");
        assert_all_there(&fork, &before);
        if done {
            assert!(writes > 2);
            break;
        }
    }
}

/// State after a prune that was interrupted between the drop and the deletions: dropped packs that
/// no snapshot needs.
#[test]
fn dropped_packs_that_no_snapshot_needs_are_deleted_unread() {
    let (_, copy) = diverged();
    let ids: Vec<SnapshotId> = listed(&copy.open()).iter().map(|found| found.id).collect();
    let all: Vec<(ObjectKey, Vec<u8>)> = packs(&copy)
        .into_iter()
        .map(|(id, _)| {
            (
                ObjectKey::Pack(id),
                copy.store
                    .get(&ObjectKey::Pack(id), 1 << 30)
                    .expect("there"),
            )
        })
        .collect();

    let_go(&copy, ids[0]);
    for (key, bytes) in &all {
        let _ = copy
            .store
            .put(key, ObjectBody::Bytes(bytes), PutMode::CreateOnly);
    }
    let dropped = dropped_and_there(&copy);
    assert!(!dropped.is_empty());

    let recording = Arc::new(RecordingStore::new(copy.store.clone()));
    let repo = copy.try_open_on(recording.clone()).expect("opens");
    repair(&repo).expect("repaired");

    let options = PruneOptions {
        now: true,
        ..PruneOptions::default()
    };
    prune(
        &repo,
        &options,
        Task::new(&Recording::default(), &Cancel::new()),
    )
    .expect("pruned");

    let is_read = |key: &ObjectKey| {
        recording.calls().iter().any(|call| {
            call.kind == Some(KeyKind::Pack)
                && matches!(call.operation, StoreOperation::Get | StoreOperation::ReadAt)
                && call.key.as_ref() == Some(key)
        })
    };
    assert!(dropped.iter().all(|id| !is_read(&ObjectKey::Pack(*id))));
    assert_eq!(dropped_and_there(&copy), []);
    assert_clean(&copy);
}

/// Both copies back up, forget and prune at random. They are merged in either direction, sometimes
/// followed by a repair or prune that must refuse. Snapshots that were complete before the merge
/// must be complete after the repairs.
#[test]
fn copies_that_were_used_apart_at_random_merge_without_a_loss() {
    let mut seed = u64::from(std::process::id());
    println!("seed {seed}");
    let mut random = move |below: u64| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };

    for _ in 0..6 {
        let (one, stream) = sample();
        let two = one.fork();
        let mut before: BTreeMap<SnapshotId, Content> = BTreeMap::new();
        for step in 0..8 {
            let lab = if random(2) == 0 { &one } else { &two };
            lab.store.clock().advance(3600);
            let held = listed(&lab.open());
            if random(3) == 0 && held.len() > 1 {
                let repo = lab.open();
                let lease = Lease::take(&repo, LeaseKind::Prune).expect("a lease");
                let id = held[random(held.len() as u64) as usize].id;
                repo.forget_snapshot(&lease, &id).expect("forgotten");
                lease.release().expect("released");
                try_prune(lab).expect("pruned");
            } else {
                let tree = lab.tree();
                write(
                    &tree.join(format!("f{}", random(3))),
                    &noise(random(50), 150_000),
                );
                write(&tree.join(format!("g{step}")), &noise(random(50), 2_000));
                lab.backup(&lab.open(), &stream[random(9) as usize..]);
            }

            before.extend(contents(lab));
        }

        let (to, from) = if random(2) == 0 {
            (&one, &two)
        } else {
            (&two, &one)
        };
        merge_into(to, from);
        let held: Vec<SnapshotId> = listed(&to.open()).iter().map(|found| found.id).collect();
        before.retain(|id, _| held.contains(id));

        match random(3) {
            0 => assert!(
                mend(to).is_err_and(|err| err.kind() == ErrorKind::Failed) || check(to).is_clean()
            ),
            1 => assert!(
                try_prune(to).is_err_and(|err| err.kind() == ErrorKind::Damage)
                    || check(to).is_clean()
            ),
            _ => {}
        }

        let report = repair(&to.open()).expect("repaired");
        assert!(report.is_whole(), "{report:?}");
        assert_clean(to);
        assert_all_there(to, &before);
        try_prune(to).expect("pruned");
        assert_clean(to);
        assert_all_there(to, &before);
    }
}
