//! Tests of forgetting and bringing back between prunes.

use super::tests::{assert_clean, at_every_write, bring_back, forget, ids, packs, read_stream};
use crate::format::{ObjectKind, encode_segment};
use crate::observe::Counters;
use crate::ops::prune::{PruneOptions, PruneReport, prune};
use crate::ops::tag::{TagChange, retag};
use crate::ops::testing::{Lab, noise, write};
use crate::repo::{HostChoice, Repository, seal_object};
use crate::store::{ObjectBody, ObjectDir, ObjectKey, PutMode};
use crate::task::{Cancel, Task};
use crate::types::{LeaseId, SegmentBody, SegmentId, SnapshotId};

const DAY: i64 = 86_400;

fn run_prune(repo: &Repository) -> PruneReport {
    let options = PruneOptions {
        threads: 1,
        ..PruneOptions::default()
    };
    prune(
        repo,
        &options,
        Task::new(&Counters::default(), &Cancel::new()),
    )
    .expect("pruned")
}

/// Makes a snapshot with data that only it needs, and a later one. Both are old enough for a prune
/// to judge their packs.
fn sample() -> (Lab, SnapshotId, Vec<u8>) {
    let lab = Lab::new();
    let stream = noise(1, 600_000);
    write(&lab.tree().join("a"), &noise(5, 3000));
    let id = lab.backup(&lab.open(), &stream);
    lab.store.clock().advance(60);
    write(&lab.tree().join("a"), &noise(6, 3000));
    lab.backup(&lab.open(), &noise(2, 1000));
    lab.store.clock().advance(2 * DAY);
    (lab, id, stream)
}

/// A mark that did not count the snapshot as a root has condemned all its packs, and died before it
/// deleted the forgotten object.
#[test]
fn a_snapshot_brought_back_from_condemned_packs_is_kept() {
    let (lab, id, stream) = sample();
    let repo = lab.open();
    forget(&repo, id).expect("forgotten");
    assert_eq!(run_prune(&repo).condemned.packs, 0, "a young one is a root");

    let mut body = SegmentBody::empty(LeaseId::new([9; 16]));
    body.condemned = packs(repo.store());
    body.condemned.sort_unstable();
    let plain = encode_segment(&body);
    let (bytes, name) =
        seal_object(repo.keys(), ObjectKind::Segment, body.writer, &plain).expect("sealed");
    let key = ObjectKey::Segment(SegmentId::from(name));
    repo.store()
        .put(&key, ObjectBody::Bytes(&bytes), PutMode::CreateOnly)
        .expect("put");

    let back = bring_back(&repo, id).expect("back");
    for _ in 0..4 {
        lab.store.clock().advance(DAY + 3600);
        run_prune(&repo);
        assert_eq!(read_stream(&lab.open(), back.id), stream);
        assert_clean(&repo);
    }
    assert!(
        packs(repo.store())
            .iter()
            .all(|id| !body.condemned.contains(id)),
        "the condemned ones are gone"
    );
}

#[test]
fn a_swept_snapshot_cannot_return_and_a_re_tag_survives() {
    let (lab, id, stream) = sample();
    let repo = lab.open();
    let change = TagChange {
        add: vec!["t".into()],
        ..TagChange::default()
    };
    let tag = |id: SnapshotId| {
        let names = [id.to_string()];
        let done = retag(
            &repo,
            &names,
            &HostChoice::Any,
            &change,
            Task::new(&Counters::default(), &Cancel::new()),
        );
        done.expect("tagged")[0].id.expect("changed")
    };

    let next = tag(id);
    for _ in 0..4 {
        lab.store.clock().advance(DAY + 3600);
        run_prune(&repo);
        assert_clean(&repo);
    }

    assert!(
        ids(repo.store(), ObjectDir::Forgotten).is_empty(),
        "the old object was swept"
    );
    assert_eq!(read_stream(&repo, next), stream);

    forget(&repo, next).expect("forgotten");
    for _ in 0..4 {
        lab.store.clock().advance(DAY + 3600);
        run_prune(&repo);
    }

    assert!(bring_back(&repo, next).is_err());
    assert_eq!(ids(repo.store(), ObjectDir::Snapshots).len(), 1);
    assert_clean(&repo);
}

#[test]
fn a_crash_during_an_undelete_leaves_a_prunable_repository() {
    let (lab, id, stream) = sample();
    forget(&lab.open(), id).expect("forgotten");
    lab.store.clock().advance(3600);
    at_every_write(
        &lab,
        |repo| bring_back(repo, id).map(drop),
        |fork, repo| {
            assert_clean(repo);
            let back = ids(repo.store(), ObjectDir::Snapshots).len() == 2;
            for _ in 0..3 {
                // After the end of the grace period and of the dead lease.
                fork.store.clock().advance(DAY + 3600);
                run_prune(repo);
                assert_clean(repo);
            }
            let held = repo
                .snapshots(&mut |_, err| panic!("{err}"))
                .expect("listed");
            let found = held
                .iter()
                .find(|found| found.snapshot.original == Some(id));
            assert_eq!(found.is_some(), back);
            if let Some(found) = found {
                assert_eq!(read_stream(repo, found.id), stream);
            }
        },
    );
}
