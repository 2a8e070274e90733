//! Damages each object in each way and checks the findings.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::ErrorKind;
use crate::advice::{Advice, RepairAdvice};
use crate::observe::Recording;
use crate::ops::list::{ListedPath, cat};
use crate::ops::repair::{repair_config, repair_index};
use crate::ops::testing::{Lab, noise, reading, write};
use crate::repo::HostChoice;
use crate::store::{HookedStore, KeyKind, ObjectKey, Replica, Store, StoreOperation};
use crate::types::{ByteSize, PackId, RelPath};

fn run(lab: &Lab, options: &VerifyOptions) -> Result<VerifyReport, Error> {
    let repo = lab.try_open()?;
    verify(
        &repo,
        options,
        Task::new(&Recording::default(), &Cancel::new()),
    )
}

fn all_data() -> VerifyOptions {
    VerifyOptions {
        read_data: true,
        memory: ByteSize(96 << 20),
        ..VerifyOptions::default()
    }
}

fn clean(lab: &Lab) {
    let report = run(lab, &all_data()).expect("verified");
    assert!(
        report.is_clean() && report.affected.is_empty(),
        "{report:#?}"
    );
}

/// A repository with two snapshots of two small files, a file of several frames and a stream with
/// list nodes.
fn sample() -> (Lab, Vec<u8>) {
    let lab = Lab::new();
    let tree = lab.tree();
    write(
        &tree.join("a/small"),
        b"some words that are too long to be kept in the entry itself. "
            .repeat(9)
            .as_slice(),
    );
    write(&tree.join("b/large"), &noise(1, 2_500_000));
    let stream = noise(2, 400_000);
    let repo = lab.open();
    lab.backup(&repo, &stream);
    write(&tree.join("c/late"), &noise(3, 50_000));
    lab.backup(&repo, &stream);
    drop(repo);
    (lab, stream)
}

fn keys(lab: &Lab) -> Vec<(ObjectKey, usize)> {
    lab.store
        .objects()
        .into_iter()
        .map(|meta| (meta.key, meta.size as usize))
        .collect()
}

fn packs(lab: &Lab) -> Vec<PackId> {
    let pack = |(key, _)| {
        if let ObjectKey::Pack(id) = key {
            Some(id)
        } else {
            None
        }
    };
    keys(lab).into_iter().filter_map(pack).collect()
}

fn flipped(lab: &Lab, key: &ObjectKey, at: usize) -> Lab {
    let fork = lab.fork();
    assert!(fork.store.damage(key, |bytes| bytes[at] ^= 0x10));
    fork
}

/// Another process with the same cache stores a pack after the listing of packs and before the
/// query of the shared index. The index has a pack that the listing cannot have. This was once
/// reported as damage.
#[test]
fn a_pack_stored_during_a_verify_is_not_missing() {
    let (lab, stream) = sample();
    let lab = Arc::new(lab);
    let other = Arc::clone(&lab);
    let repo = lab.open();
    let hook = move |_: &dyn Store| {
        write(&other.tree().join("d/meanwhile"), &noise(4, 90_000));
        other.backup(&repo, &stream);
    };
    let store = Arc::new(HookedStore::after(
        lab.store.clone(),
        StoreOperation::List,
        KeyKind::Pack,
        Box::new(hook),
    ));

    let repo = lab.try_open_on(store.clone()).expect("opens");
    let report = verify(
        &repo,
        &VerifyOptions::default(),
        Task::new(&Recording::default(), &Cancel::new()),
    );

    let report = report.expect("verified");
    assert!(store.was_called() && report.is_clean(), "{report:#?}");
}

#[test]
fn a_whole_repository_is_clean() {
    let (lab, _) = sample();
    let report = run(&lab, &all_data()).expect("verified");
    assert!(
        report.is_clean() && report.affected_count == 0,
        "{report:#?}"
    );

    assert_eq!(report.snapshots, 2);
    assert_eq!(report.packs_read, report.packs_listed);
    assert_eq!(
        report.bytes_read,
        packs(&lab)
            .iter()
            .map(|id| lab.store.stat(&ObjectKey::Pack(*id)).expect("there").size)
            .sum::<u64>()
    );

    assert_eq!(report.never_verified, 0);
    assert!(
        report.oldest_unverified.is_some() && report.chunks_checked > 40,
        "{report:#?}"
    );
    assert!(
        !keys(&lab)
            .iter()
            .any(|(key, _)| matches!(key, ObjectKey::Lease(_))),
        "the lease is gone"
    );

    let shallow = run(&lab, &VerifyOptions::default()).expect("verified");
    assert!(shallow.is_clean() && shallow.packs_read == 0 && shallow.oldest_unverified.is_some());
}

/// Issue 2, point 6: for every flipped byte there is a finding that names the object, or the
/// repository is refused.
#[test]
fn every_flipped_byte_is_found() {
    let (lab, _) = sample();
    for (key, size) in keys(&lab) {
        let step = (size / 7).max(1);
        let mut spread: Vec<usize> = (0..size).step_by(step).chain([size - 1]).collect();
        if matches!(key, ObjectKey::Pack(_)) {
            // The envelope's header and the trailer. Frames and the directory have separate tests.
            spread.extend([9, 11, 12, 13, 44, 45, 60, size - 24, size - 16, size - 8]);
        }

        for at in spread {
            let bad = flipped(&lab, &key, at);
            match run(&bad, &all_data()) {
                Ok(report) => {
                    let named = report
                        .findings
                        .iter()
                        .any(|found| key.to_string().starts_with(&found.object));
                    assert!(named, "{key} at {at}: {report:#?}");
                }
                Err(err) => assert!(
                    matches!(
                        err.kind(),
                        ErrorKind::Damage | ErrorKind::WrongKey | ErrorKind::NeedsNewer
                    ),
                    "{key} at {at}: {err}"
                ),
            }
        }
    }
}

#[test]
fn a_flip_in_a_frame_names_frame_and_paths_and_one_in_the_directory_none() {
    let (lab, _) = sample();
    let repo = lab.open();
    repo.sync().expect("synced");
    for id in packs(&lab) {
        let key = ObjectKey::Pack(id);
        let size = lab.store.stat(&key).expect("there").size;
        let info = repo.read_directory(&id, size).expect("opens");
        let directory = info
            .frames
            .last()
            .map(|frame| frame.offset.get() as usize + frame.stored.to_usize())
            .expect("frames");

        for (number, frame) in info.frames.iter().enumerate() {
            for at in [0, frame.stored.get() / 2, frame.stored.get() - 1] {
                let bad = flipped(&lab, &key, frame.offset.get() as usize + at as usize);
                let report = run(&bad, &all_data()).expect("verified");
                let kinds: Vec<FindingKind> =
                    report.findings.iter().map(|found| found.kind).collect();
                assert!(kinds.contains(&FindingKind::HashMismatch), "{report:#?}");
                let named = report.findings.iter().any(|found| {
                    found.kind == FindingKind::FrameDamaged
                        && found.what.starts_with(&format!("frame {number} "))
                });
                assert!(named && report.affected_count > 0, "{report:#?}");
                assert_eq!(report.never_verified, 1, "a damaged pack has not passed");
            }
        }

        for at in [directory, directory + 1, directory + 9, size as usize - 30] {
            let report = run(&flipped(&lab, &key, at), &all_data()).expect("verified");
            let kinds: Vec<FindingKind> = report.findings.iter().map(|found| found.kind).collect();
            assert_eq!(
                kinds,
                [FindingKind::SealBroken, FindingKind::HashMismatch],
                "{report:#?}"
            );
            assert_eq!(report.affected_count, 0);
        }
    }
}

#[test]
fn deleted_objects_are_reported_by_name() {
    let (lab, stream) = sample();
    for (key, _) in keys(&lab) {
        let fork = lab.fork();
        fork.store.delete(&key).expect("deleted");
        let report = run(&fork, &VerifyOptions::default()).expect("verified");

        let find = |kind| {
            report
                .findings
                .iter()
                .any(|found| found.kind == kind && found.object == key.to_string())
        };

        match &key {
            ObjectKey::Pack(_) => {
                assert!(
                    find(FindingKind::ObjectMissing) && report.affected_count > 0,
                    "{report:#?}"
                );
            }
            ObjectKey::Config(_) => assert!(find(FindingKind::ConfigDamaged), "{report:#?}"),
            // An interrupted key command leaves one copy: reported, but not as damage.
            ObjectKey::KeySlot(..) => {
                let observer = Recording::default();
                let repo = fork.open();
                let report = verify(&repo, &all_data(), Task::new(&observer, &Cancel::new()))
                    .expect("verified");
                assert!(report.is_clean(), "{report:#?}");
                assert!(
                    observer
                        .problems()
                        .iter()
                        .any(|problem| problem.subject == key.to_string())
                );
            }
            ObjectKey::Segment(_) => {
                assert!(
                    report.orphan_packs > 0 && report.affected_count > 0,
                    "{report:#?}"
                );
                let repo = fork.open();
                let rebuilt = repair_index(&repo, Task::new(&Recording::default(), &Cancel::new()))
                    .expect("repaired");
                assert_eq!(rebuilt.packs, report.orphan_packs);
                drop(repo);
                clean(&fork);
            }
            // A machine that never saw the snapshot cannot report it as vanished.
            _ => assert!(report.is_clean() && report.snapshots == 1, "{report:#?}"),
        }

        if matches!(key, ObjectKey::Config(_) | ObjectKey::KeySlot(..)) {
            assert_eq!(
                repair_config(&fork.open(), &Cancel::new()).expect("repaired"),
                [key.to_string()]
            );
            clean(&fork);
        }
    }

    // A repository without any segment: the index is rebuilt from the packs.
    let fork = lab.fork();
    let segments: Vec<ObjectKey> = keys(&lab)
        .into_iter()
        .map(|(key, _)| key)
        .filter(|key| matches!(key, ObjectKey::Segment(_)))
        .collect();
    segments
        .iter()
        .for_each(|key| fork.store.delete(key).expect("deleted"));
    let repo = fork.open();
    repair_index(&repo, Task::new(&Recording::default(), &Cancel::new())).expect("repaired");

    let mut out = Vec::new();
    let what = ListedPath {
        snapshot: "latest".into(),
        hosts: HostChoice::Any,
        source: Some("db".into()),
        path: RelPath::root(),
    };
    reading(&repo, &Recording::default(), |session| {
        cat(session, &what, &mut out)
    })
    .expect("read");
    assert!(out == stream);

    drop(repo);
    clean(&fork);
}

#[test]
fn objects_that_changed_places_are_found() {
    let (lab, _) = sample();
    let all = keys(&lab);
    let same =
        |a: &ObjectKey, b: &ObjectKey| std::mem::discriminant(a) == std::mem::discriminant(b);
    for (n, (first, _)) in all.iter().enumerate() {
        let Some((second, _)) = all[n + 1..].iter().find(|(other, _)| same(first, other)) else {
            continue;
        };
        if matches!(first, ObjectKey::Config(_) | ObjectKey::KeySlot(..)) {
            continue; // equal copies
        }
        let fork = lab.fork();
        let get = |key| fork.store.get(key, 1 << 30).expect("there");
        let one = get(first);
        let two = get(second);
        fork.store.damage(first, |bytes| *bytes = two);
        fork.store.damage(second, |bytes| *bytes = one);

        let report = run(&fork, &all_data()).expect("verified");

        for key in [first, second] {
            assert!(
                report
                    .findings
                    .iter()
                    .any(|found| found.object == key.to_string()),
                "{report:#?}"
            );
        }
    }
}

#[test]
fn affected_paths_are_those_of_the_frame() {
    let lab = Lab::new();
    let tree = lab.tree();
    write(&tree.join("good"), &noise(1, 3000));
    let repo = lab.open();
    lab.backup(&repo, b"");

    let before = packs(&lab);
    write(&tree.join("deep/bad"), &noise(2, 3000));
    lab.backup(&repo, b"");
    std::fs::remove_file(tree.join("deep/bad")).expect("removed");
    let last = lab.backup(&repo, b"");

    let pack = packs(&lab)
        .into_iter()
        .filter(|id| !before.contains(id))
        .find(|id| {
            let size = lab.store.stat(&ObjectKey::Pack(*id)).expect("there").size;
            repo.read_directory(id, size)
                .expect("opens")
                .frames
                .iter()
                .any(|frame| frame.class == crate::types::ChunkClass::Data)
        });
    let pack = pack.expect("a pack with data");
    let size = lab.store.stat(&ObjectKey::Pack(pack)).expect("there").size;
    let frames = repo.read_directory(&pack, size).expect("opens").frames;

    let data = frames
        .iter()
        .find(|frame| frame.class == crate::types::ChunkClass::Data)
        .expect("data");

    let report = run(
        &flipped(&lab, &ObjectKey::Pack(pack), data.offset.get() as usize),
        &all_data(),
    )
    .expect("verified");

    let paths: Vec<String> = report
        .affected
        .iter()
        .map(|hit| hit.path.to_string())
        .collect();
    assert_eq!(paths, ["deep/bad"], "{report:#?}");
    assert_ne!(
        report.affected[0].snapshot, last,
        "the newest no longer has it"
    );
    assert_eq!(report.affected[0].hit, DamageHit::Content);
}

#[test]
fn twenty_samples_of_a_twentieth_cover_all() {
    let lab = Lab::new();
    let repo = lab.open();
    for n in 0..33 {
        write(
            &lab.tree().join("file"),
            &noise(n, 500 + 3000 * (n as usize % 5)),
        );
        lab.backup(&repo, b"");
    }

    let sample = VerifyOptions {
        sample: Some(0.05),
        ..all_data()
    };
    for n in 0..20 {
        let report = verify(
            &repo,
            &sample,
            Task::new(&Recording::default(), &Cancel::new()),
        )
        .expect("verified");
        assert!(report.is_clean() && report.packs_read > 0);
        assert!(report.packs_read < 8, "run {n} read {}", report.packs_read);
        assert_eq!(
            report.never_verified == 0,
            report.oldest_unverified.is_some()
        );
        if n == 19 {
            assert_eq!(report.never_verified, 0);
        }
    }

    let tiny = VerifyOptions {
        max_bytes: Some(1),
        max_time: Some(Duration::ZERO),
        ..all_data()
    };
    let report = verify(
        &repo,
        &tiny,
        Task::new(&Recording::default(), &Cancel::new()),
    )
    .expect("verified");
    assert_eq!(report.packs_read, 1, "at least one a run");

    assert!(
        verify(
            &repo,
            &VerifyOptions {
                sample: Some(1.5),
                ..all_data()
            },
            Task::new(&Recording::default(), &Cancel::new())
        )
        .is_err()
    );
}

#[test]
fn late_and_vanished_snapshots_are_reported() {
    let (lab, _) = sample();
    let repo = lab.open();
    let options = VerifyOptions::default();
    assert!(
        verify(
            &repo,
            &options,
            Task::new(&Recording::default(), &Cancel::new())
        )
        .expect("verified")
        .is_clean()
    );

    let (last, _) = *repo
        .listed_snapshots()
        .expect("listed")
        .last()
        .expect("two");
    let key = ObjectKey::Snapshot(last);
    let bytes = lab.store.get(&key, 1 << 20).expect("there");
    lab.store.delete(&key).expect("deleted");

    for _ in 0..2 {
        let report = verify(
            &repo,
            &options,
            Task::new(&Recording::default(), &Cancel::new()),
        )
        .expect("verified");
        let kinds: Vec<FindingKind> = report.findings.iter().map(|found| found.kind).collect();
        assert_eq!(
            kinds,
            [FindingKind::SnapshotVanished; 2],
            "one a source: {report:#?}"
        );
    }

    lab.store.clock().advance(3600);
    lab.store
        .put(
            &key,
            crate::store::ObjectBody::Bytes(&bytes),
            crate::store::PutMode::CreateOnly,
        )
        .expect("put");

    // It has all its data: its odd time only adds a note.
    let observer = Recording::default();
    let report = verify(&repo, &options, Task::new(&observer, &Cancel::new())).expect("verified");
    assert!(report.is_clean(), "{report:#?}");

    let notes: Vec<String> = observer
        .problems()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(
        notes
            .iter()
            .any(|note| note.contains("sealed time of 1 snapshot differ")),
        "{notes:?}"
    );

    // Without its packs, as after a prune, it is a finding.
    let packs = packs(&lab);
    packs
        .iter()
        .for_each(|pack| lab.store.delete(&ObjectKey::Pack(*pack)).expect("deleted"));
    let report = verify(
        &repo,
        &options,
        Task::new(&Recording::default(), &Cancel::new()),
    )
    .expect("verified");

    let late = report
        .findings
        .iter()
        .filter(|found| found.kind == FindingKind::LateSnapshot);
    assert_eq!(late.count(), 1, "{report:#?}");
}

/// The oldest snapshot was once remembered as the last one, so that the loss of the newest was
/// noticed only on the machine that made it.
#[test]
fn the_newest_snapshot_is_remembered() {
    let (lab, _) = sample();
    let repo = lab.open();
    let cache = tempfile::tempdir().expect("a directory");
    let other = Repository::open(
        lab.store.clone(),
        &crate::repo::Secret::empty(),
        cache.path(),
    )
    .expect("opens");

    let check = || {
        verify(
            &other,
            &VerifyOptions::default(),
            Task::new(&Recording::default(), &Cancel::new()),
        )
    };
    assert!(check().expect("verified").is_clean());

    let (last, _) = *repo
        .listed_snapshots()
        .expect("listed")
        .last()
        .expect("two");
    lab.store
        .delete(&ObjectKey::Snapshot(last))
        .expect("deleted");

    let report = check().expect("verified");
    let kinds: Vec<FindingKind> = report.findings.iter().map(|found| found.kind).collect();
    assert_eq!(
        kinds,
        [FindingKind::SnapshotVanished; 2],
        "one a source: {report:#?}"
    );
}

#[test]
fn a_slots_good_copy_opens_and_mends_the_bad_one() {
    let (lab, _) = sample();
    for (key, size) in keys(&lab) {
        let ObjectKey::KeySlot(name, copy) = &key else {
            continue;
        };
        let fork = lab.fork();
        // Changes a digit of the wrapped key: the copy still decodes.
        assert!(fork.store.damage(&key, |bytes| bytes[size - 10] =
            if bytes[size - 10] == b'0' { b'1' } else { b'0' }));

        let report = run(&fork, &VerifyOptions::default()).expect("verified");
        assert!(
            report
                .findings
                .iter()
                .any(|found| found.kind == FindingKind::KeySlotDamaged),
            "{report:#?}"
        );
        assert_eq!(
            repair_config(&fork.open(), &Cancel::new()).expect("repaired"),
            [key.to_string()]
        );

        let twin = if *copy == Replica::First {
            Replica::Second
        } else {
            Replica::First
        };
        let twin = ObjectKey::KeySlot(name.clone(), twin);
        assert_eq!(
            fork.store.get(&key, 1 << 16).ok(),
            lab.store.get(&twin, 1 << 16).ok()
        );
        clean(&fork);
    }
}

#[test]
fn key_slots_without_a_whole_copy_need_icecore_key_remove() {
    let (lab, _) = sample();
    let name = keys(&lab).into_iter().find_map(|(key, _)| match key {
        ObjectKey::KeySlot(name, _) => Some(name),
        _ => None,
    });
    let other = ObjectKey::KeySlot(name.expect("a slot").replace(|_| true, "a"), Replica::First);
    let junk = crate::store::ObjectBody::Bytes(b"junk");
    lab.store
        .put(&other, junk, crate::store::PutMode::CreateOnly)
        .expect("put");
    let report = run(&lab, &VerifyOptions::default()).expect("verified");
    let kinds: Vec<FindingKind> = report.findings.iter().map(|found| found.kind).collect();
    assert_eq!(kinds, [FindingKind::KeySlotLost; 2], "{report:#?}");
    assert!(
        report.findings.iter().all(|found| matches!(
            found.advice,
            Some(Advice::Repair(RepairAdvice::RemoveKeySlot { .. }))
        )),
        "{report:#?}"
    );
}

#[test]
fn a_store_that_cannot_be_written_is_verified_too() {
    let (lab, _) = sample();
    let dir = tempfile::tempdir().expect("a directory");
    let store = Arc::new(crate::store::ReadOnlyStore::new(lab.store.clone()));
    let repo = Repository::open(store, &crate::repo::Secret::empty(), dir.path()).expect("opens");
    assert!(
        verify(
            &repo,
            &all_data(),
            Task::new(&Recording::default(), &Cancel::new())
        )
        .expect("verified")
        .is_clean()
    );
    let stopped = Cancel::new();
    stopped.cancel();
    let result = verify(
        &repo,
        &all_data(),
        Task::new(&Recording::default(), &stopped),
    );
    assert!(matches!(result, Err(Error::Interrupted)));
}
