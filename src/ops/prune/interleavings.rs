//! The interleavings of docs/protocol.md that need a prune.

use std::time::Duration;

use super::tests::{DAY, HOUR, assert_sound, files, forget, options, read_files, run, two_backups};
use super::*;
use crate::format::{ObjectKind, SourceKind, encode_segment};
use crate::index::Index;
use crate::observe::Counters;
use crate::ops::testing::{Lab, commit, noise, tree_kind, write, write_runs};
use crate::repo::{RepoError, Secret, seal_object};
use crate::store::{ObjectBody, ObjectDir, ObjectKey, PutMode, Store, list_all};
use crate::task::Cancel;
use crate::types::{LeaseId, PackId, SegmentBody, SegmentId};

/// Opens another client of the same repository, with a separate cache.
fn client(lab: &Lab, caches: &tempfile::TempDir, name: &str) -> Repository {
    Repository::open(
        lab.store.clone(),
        &Secret::empty(),
        &caches.path().join(name),
    )
    .expect("opens")
}

fn publish(repo: &Repository, change: impl FnOnce(&mut SegmentBody)) {
    let mut body = SegmentBody::empty(LeaseId::new([9; 16]));
    change(&mut body);
    let (bytes, name) = seal_object(
        repo.keys(),
        ObjectKind::Segment,
        body.writer,
        &encode_segment(&body),
    )
    .expect("seals");
    let key = ObjectKey::Segment(SegmentId::from(name));
    repo.store()
        .put(&key, ObjectBody::Bytes(&bytes), PutMode::CreateOnly)
        .expect("put");
}

fn packs(store: &dyn Store) -> Vec<PackId> {
    let listed = list_all(store, ObjectDir::Packs)
        .expect("listed")
        .into_iter();
    listed
        .filter_map(|meta| {
            if let ObjectKey::Pack(id) = meta.key {
                Some(id)
            } else {
                None
            }
        })
        .collect()
}

/// Advances the clock by `days` and prunes after each day.
fn prune_daily(lab: &Lab, repo: &Repository, days: usize) {
    for _ in 0..days {
        lab.store.clock().advance(DAY + HOUR);
        run(repo, &options());
    }
}

/// I1, I13: a year's worth of segments is merged by two clients at once. Neither undoes the other,
/// superseded segments are deleted only a grace period later, and the number of segments stays
/// small.
#[test]
fn i1_two_prunes_merge_the_same_segments() {
    let lab = Lab::new();
    let caches = tempfile::tempdir().expect("a directory");
    let a = client(&lab, &caches, "a");
    let b = client(&lab, &caches, "b");
    let mut last = None;
    for hour in 0..30 {
        write(&lab.tree().join("file"), &noise(hour, 10_000));
        last = Some(lab.backup(&a, b""));
        lab.store.clock().advance(HOUR);
    }

    b.sync().expect("syncs");
    let segments = || {
        list_all(&*lab.store, ObjectDir::Index)
            .expect("listed")
            .len()
    };
    let before = segments();

    let cancel = Cancel::new();
    let observer = Counters::default();
    let leases = [&a, &b].map(|repo| Lease::take(repo, LeaseKind::Prune).expect("a lease"));
    // Both list, then both merge: neither client knows of the other's merge.
    for (repo, lease) in [&a, &b].into_iter().zip(&leases) {
        let options = options();
        let times = repo.lease_times();
        let report = PruneReport::default();
        let mut run = Pruner {
            repo,
            options: &options,
            task: Task::new(&observer, &cancel),
            times,
            lease: Some(lease),
            marked: false,
            report,
        };
        run.merge_segments(lease).expect("merges");
        assert_eq!(run.report.segments_merged, before as u64);
    }

    drop(leases);
    assert_eq!(segments(), before + 2, "nothing goes at once");
    prune_daily(&lab, &a, 6);
    assert!(segments() < 12, "{} segments", segments());

    for repo in [&a, &b, &client(&lab, &caches, "new")] {
        repo.sync().expect("syncs");
        assert_sound(repo);
        assert_eq!(
            files(repo, last.expect("backed up")),
            read_files(&lab.tree())
        );
    }
}

/// I14: an empty segment claims to supersede all others. No segment is deleted because of it.
#[test]
fn i14_an_empty_segment_supersedes_all() {
    let lab = Lab::new();
    let repo = lab.open();
    let (_, second) = two_backups(&lab, &repo);
    let all: Vec<SegmentId> = repo.listed_segments().expect("lists").into_iter().collect();
    publish(&repo, |body| body.superseded = all.clone());
    prune_daily(&lab, &repo, 3);
    let listed = repo.listed_segments().expect("lists");
    assert!(
        all.iter().all(|id| listed.contains(id)),
        "a segment went that no other stands for"
    );
    assert_eq!(files(&lab.open(), second), read_files(&lab.tree()));
}

/// I2: a client sleeps through mark and sweep during its backup. The packs it relied on are gone,
/// so it cannot commit.
#[test]
fn i2_a_client_asleep_during_mark_and_sweep() {
    let lab = Lab::new();
    let caches = tempfile::tempdir().expect("a directory");
    let awake = client(&lab, &caches, "awake");
    let asleep = client(&lab, &caches, "asleep");
    let (first, second) = two_backups(&lab, &awake);
    let lease = crate::ops::testing::lease(&asleep);
    asleep.sync().expect("syncs");
    forget(&*lab.store, first);
    prune_daily(&lab, &awake, 5);
    assert!(lab.store.total_bytes() < 1_000_000, "swept");
    let snapshot = asleep.read_snapshot(&second).expect("reads");
    let err = asleep.commit(lease, snapshot).expect_err("five days late");
    assert!(matches!(err, RepoError::LostLease { .. }), "{err}");
    assert_sound(&awake);
}

/// I5: a client is killed after it stored a pack and before the segment. The orphan is adopted by a
/// mark, judged by a later one, and swept.
#[test]
fn i5_an_orphan_is_adopted_and_swept() {
    let lab = Lab::new();
    let repo = lab.open();
    let (_, second) = two_backups(&lab, &repo);
    write_runs(
        &repo,
        &crate::ops::testing::lease(&repo),
        &[],
        &[&noise(50, 1_000_000)],
    );

    let newest = list_all(&*lab.store, ObjectDir::Index).expect("listed");
    let newest = newest
        .iter()
        .max_by_key(|meta| meta.modified)
        .expect("some");
    lab.store.delete(&newest.key).expect("never published");

    lab.store.clock().advance(2 * DAY);
    assert_eq!(run(&repo, &options()).adopted.packs, 1);

    prune_daily(&lab, &repo, 2);
    assert!(run(&repo, &options()).pending.packs == 0);
    assert_sound(&repo);
    assert_eq!(files(&repo, second), read_files(&lab.tree()));
}

/// I7, I12: a backup of three days under daily prunes. The prunes drop no pack that it needs: its
/// own are younger than its lease, and the packs that it deduplicated against stay while its lease
/// is alive.
#[test]
fn i12_a_long_backup_under_daily_prunes() {
    let lab = Lab::new();
    let caches = tempfile::tempdir().expect("a directory");
    let pruner = client(&lab, &caches, "p");
    let writer = client(&lab, &caches, "w");
    let (first, _) = two_backups(&lab, &pruner);
    lab.store.clock().advance(2 * DAY);
    let lease = crate::ops::testing::lease(&writer);
    writer.sync().expect("syncs");

    forget(&*lab.store, first);
    let old = noise(2, 3_000_000);
    let (runs, _) = write_runs(&writer, &lease, &[], &[&old[..1_000_000]]);
    assert!(runs.is_empty());

    let mut waited = false;
    for step in 0..3 * 60 {
        // A heartbeat every 24 min, a prune every day.
        lab.store.clock().advance(24 * 60);
        lease.refresh(Duration::ZERO).expect("in time");
        if step % 60 == 59 {
            let report = run(&pruner, &options());
            waited |= report
                .kept_waiting
                .iter()
                .any(|why| matches!(why, WaitReason::Lease { .. }));
            assert_eq!(report.dropped.packs, 0, "{report:?}");
        }
    }
    assert!(waited, "the sweep was due and waited for the backup");

    let (runs, contents) = write_runs(&writer, &lease, &[], &[&old[1_000_000..2_000_000]]);
    assert!(runs.is_empty() && contents.len() == 1);
    commit(&writer, lease, vec![("x", tree_kind(&[]))]);

    prune_daily(&lab, &pruner, 4);
    assert!(run(&pruner, &options()).pending.packs == 0);
    assert_sound(&pruner);
}

/// I8: a chunk is in two packs, and two concurrent prunes each condemn a different one. Neither
/// copy is deleted while the other is condemned: the next mark copies the chunk first.
#[test]
fn i8_each_of_two_prunes_condemns_another_copy() {
    let lab = Lab::new();
    let caches = tempfile::tempdir().expect("a directory");
    let a = client(&lab, &caches, "a");
    let b = client(&lab, &caches, "b");

    let chunk = noise(7, 500_000);
    let lease = crate::ops::testing::lease(&a);
    let (_, contents) = write_runs(&a, &lease, &[], &[&chunk]);

    // The same again, by a client that does not see the first segment.
    let listed = list_all(&*lab.store, ObjectDir::Index).expect("listed");
    let bytes = lab.store.get(&listed[0].key, 1 << 20).expect("there");
    lab.store.delete(&listed[0].key).expect("hidden");
    write_runs(&b, &crate::ops::testing::lease(&b), &[], &[&chunk]);
    lab.store
        .put(
            &listed[0].key,
            ObjectBody::Bytes(&bytes),
            PutMode::CreateOnly,
        )
        .expect("shown");

    let content = contents[0].clone();
    let id = commit(
        &a,
        lease,
        vec![(
            "db",
            SourceKind::Stream {
                command: vec![],
                content,
            },
        )],
    );

    let both = packs(&*lab.store);
    assert_eq!(both.len(), 2);
    both.iter()
        .for_each(|pack| publish(&a, |body| body.condemned = vec![*pack]));
    lab.store.clock().advance(2 * DAY);

    // The sweep is due, and drops neither of them.
    let report = run(&b, &options());
    assert_eq!(
        (report.dropped.packs, report.copied.packs),
        (0, 1),
        "{report:?}"
    );
    assert_eq!(report.kept_waiting, [WaitReason::Needed]);
    assert_sound(&b);

    prune_daily(&lab, &b, 2);
    assert!(packs(&*lab.store).iter().all(|pack| !both.contains(pack)));
    assert_sound(&b);
    assert!(b.read_snapshot(&id).is_ok());
}

/// I9: repack, then sweep, then a look-up by a client that has not synced since: it syncs once and
/// finds the copy.
#[test]
fn i9_a_reader_finds_what_was_copied_away() {
    let lab = Lab::new();
    let caches = tempfile::tempdir().expect("a directory");
    let pruner = client(&lab, &caches, "p");
    let reader = client(&lab, &caches, "r");
    let (first, second) = two_backups(&lab, &pruner);
    reader.sync().expect("syncs");
    let before = reader.with_index(Index::packs).expect("asks");

    forget(&*lab.store, first);
    let report = run(
        &pruner,
        &PruneOptions {
            now: true,
            ..options()
        },
    );
    assert!(
        report.copied.packs > 0 && report.dropped.packs == before.len() as u64,
        "{report:?}"
    );

    let snapshot = reader.read_snapshot(&second).expect("reads");
    let SourceKind::Tree { runs, .. } = &snapshot.sources[0].kind else {
        panic!("a tree")
    };
    let chunks = crate::repo::ChunkReader::new(&reader, 0);
    chunks
        .chunk(crate::types::ChunkClass::Metadata, &runs[0].root)
        .expect("found after a sync");
    assert_eq!(files(&reader, second), read_files(&lab.tree()));
}

/// I10: the parent is forgotten after the writer listed it, and marked before the writer's lease
/// names it. The snapshot is a root for the grace period, and the sweep waits for the lease.
#[test]
fn i10_a_parent_is_forgotten_under_a_backup() {
    let lab = Lab::new();
    let caches = tempfile::tempdir().expect("a directory");
    let pruner = client(&lab, &caches, "p");
    let writer = client(&lab, &caches, "w");
    let (first, second) = two_backups(&lab, &pruner);

    lab.store.clock().advance(2 * DAY);
    let lease = crate::ops::testing::lease(&writer);
    writer.sync().expect("syncs");
    lease.set_parents(&[first]).expect("few");
    forget(&*lab.store, first);

    // Without another living lease the snapshot would be deleted at once. This lease is alive, and
    // it names its parent after a heartbeat.
    let now = PruneOptions {
        now: true,
        ..options()
    };
    assert_eq!(run(&pruner, &now).forgotten_deleted, 0);

    for _ in 0..120 {
        lab.store.clock().advance(24 * 60);
        lease.refresh(Duration::ZERO).expect("in time");
    }
    assert_eq!(
        run(&pruner, &options()).forgotten_deleted,
        0,
        "two days old, and named"
    );

    let mut snapshot = writer
        .read_snapshot_at(&ObjectKey::Forgotten(first))
        .expect("reads");
    snapshot.parents = vec![first];
    let id = writer.commit(lease, snapshot).expect("commits").id;

    prune_daily(&lab, &pruner, 4);
    assert_sound(&pruner);
    assert_eq!(files(&pruner, id).get("old"), Some(&noise(2, 3_000_000)));
    assert_eq!(files(&pruner, second), read_files(&lab.tree()));
}

/// A client that has the key condemns and drops every pack. A prune deletes nothing because of
/// that, and restores still work.
#[test]
fn a_rogue_condemns_and_drops_everything() {
    let lab = Lab::new();
    let repo = lab.open();
    let (_, second) = two_backups(&lab, &repo);
    let all = packs(&*lab.store);
    publish(&repo, |body| {
        (body.condemned, body.dropped) = (all.clone(), all.clone());
    });
    for now in [false, true] {
        lab.store.clock().advance(2 * DAY);
        let options = PruneOptions { now, ..options() };
        let err = prune(
            &repo,
            &options,
            Task::new(&Counters::default(), &Cancel::new()),
        )
        .expect_err("refused");
        assert!(matches!(err, Error::Unresolved { .. }), "{err}");
    }
    assert_eq!(packs(&*lab.store), all);
    assert_eq!(files(&repo, second), read_files(&lab.tree()));
}

/// A mark of everything is undone: the next prune copies the live chunks.
#[test]
fn a_rogue_condemns_everything() {
    let lab = Lab::new();
    let repo = lab.open();
    let (_, second) = two_backups(&lab, &repo);
    let all = packs(&*lab.store);
    publish(&repo, |body| body.condemned = all.clone());
    prune_daily(&lab, &repo, 3);
    assert_sound(&repo);
    assert!(
        packs(&*lab.store).iter().all(|id| !all.contains(id)),
        "all that lives was copied"
    );
    assert_eq!(files(&repo, second), read_files(&lab.tree()));
}
