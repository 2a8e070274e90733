//! Tests of snapshots with losses, and of their recovery.

use super::*;
use crate::advice::{Advice, RepairAdvice};
use crate::format::SnapshotState;
use crate::ops::repair::{RepairSnapshotsOptions, SnapshotsReport, repair_snapshots};
use crate::ops::testing::{commit, lease, marks, tree_kind, write_runs};
use crate::repo::OnDamage;
use crate::store::Store;
use crate::types::{
    ChunkClass, ChunkId, Content, Entry, EntryFlags, Extent, Metadata, Node, RelPath,
};

fn mend(repo: &Repository) -> Result<SnapshotsReport, crate::Error> {
    repair_snapshots(
        repo,
        &RepairSnapshotsOptions::default(),
        Task::new(&Recording::default(), &Cancel::new()),
    )
}

fn aside(lab: &Lab) -> Vec<ObjectKey> {
    let keys = lab.store.objects().into_iter().map(|meta| meta.key);
    keys.filter(|key| matches!(key, ObjectKey::QuarantinedSnapshot(_)))
        .collect()
}

/// Returns all frames of all packs: pack, offset, class.
fn frames(lab: &Lab) -> Vec<(PackId, u64, ChunkClass)> {
    let repo = lab.open();
    repo.sync().expect("synced");
    let mut out = Vec::new();
    for row in repo.index().packs().expect("packs") {
        for number in 0..row.frames {
            let frame = repo
                .index()
                .frame(&row.id, number)
                .expect("asked")
                .expect("there");
            out.push((row.id, frame.offset.get(), frame.class));
        }
    }
    out
}

/// Makes three backups, so that the tree has several runs: of many entries, of a few more, of
/// fewer.
fn history() -> (Lab, Vec<u8>) {
    let (lab, stream) = sample();
    for n in 0..300u64 {
        write(
            &lab.tree().join(format!("many/{n:03}")),
            &noise(1000 + n, 700),
        );
    }
    lab.backup(&lab.open(), &stream);
    write(&lab.tree().join("many/007"), &noise(77, 900));
    std::fs::remove_file(lab.tree().join("many/100")).expect("removed");
    lab.backup(&lab.open(), &stream);
    (lab, stream)
}

/// Returns true if `bytes` equals `whole` except for holes of zeros.
fn is_holed(bytes: &[u8], whole: &[u8]) -> bool {
    bytes.len() == whole.len()
        && bytes
            .iter()
            .zip(whole)
            .all(|(&is, &was)| is == was || is == 0)
}

#[test]
fn any_lost_frame_spares_the_rest_and_the_next_backup_heals_it() {
    let (lab, stream) = history();
    let before: Vec<_> = {
        let repo = lab.open();
        listed(&repo)
            .iter()
            .map(|found| (found.clone(), files_of(&repo, found)))
            .collect()
    };

    let mut partials = 0;
    let mut back = 0;
    for (pack, offset, class) in frames(&lab) {
        let fork = lab.fork();
        fork.store.damage(&ObjectKey::Pack(pack), |bytes| {
            bytes[offset as usize + 3] ^= 1;
        });
        let repo = fork.open();
        assert!(repair(&repo).expect("repaired").lost_chunks > 0);

        let report = mend(&repo).expect("mended");
        assert!(
            !report.partial.is_empty() && report.healed.is_empty(),
            "{class:?} {report:?}"
        );
        assert_eq!(aside(&fork).len(), report.partial.len());
        assert_clean(&fork);
        partials += report.partial.len();

        let now = listed(&repo);
        assert_eq!(now.len(), before.len());
        for (old, old_files) in &before {
            let is_it =
                |one: &&StoredSnapshot| one.id == old.id || one.snapshot.original == Some(old.id);
            let new = now.iter().find(is_it).expect("one in its place");
            assert_eq!(new.committed(), old.committed());
            assert_eq!(new.time(), old.time());

            let files = files_of(&repo, new);
            assert!(is_holed(&stream_of(&repo, new).expect("read"), &stream));
            let Some(lost) = &new.snapshot.lost else {
                assert_eq!((new.id, &files), (old.id, old_files));
                continue;
            };

            assert_eq!(new.snapshot.state, SnapshotState::Incomplete);
            assert!(lost.count > 0 && lost.paths.len() as u64 == lost.count);
            if class == ChunkClass::Data {
                assert_eq!(files.len(), old_files.len());
                for (path, bytes) in &files {
                    let is_listed = lost.paths.iter().any(|one| one.path == path.as_bytes());
                    assert!(is_holed(bytes, &old_files[path]), "{path}");
                    assert_eq!(is_listed, *bytes != old_files[path], "{path}");
                }
            }
        }
        // Nothing changed on disk. Only the marks make the backup look again.
        let newest = lab_backup(&lab, &repo, &stream);
        assert_eq!(newest.snapshot.state, SnapshotState::Complete, "{class:?}");
        assert_eq!(files_of(&repo, &newest), files_on_disk(&lab), "{class:?}");
        assert_eq!(stream_of(&repo, &newest).expect("read"), stream);

        let second = mend(&repo).expect("mended");
        assert_eq!(second.partial, []);
        back += second.healed.len();
        assert_clean(&fork);

        for healed in &second.healed {
            let found = listed(&repo)
                .into_iter()
                .find(|one| Some(one.id) == healed.new)
                .expect("listed");
            let old = before
                .iter()
                .find(|(old, _)| Some(old.id) == found.snapshot.original)
                .expect("it");

            assert_eq!(
                (&found.snapshot.sources, found.committed()),
                (&old.0.snapshot.sources, old.0.committed())
            );
            assert_eq!(files_of(&repo, &found), old.1);
            assert!(fork.store.stat(&ObjectKey::Forgotten(healed.old)).is_ok());
        }
        assert_eq!(
            aside(&fork).len(),
            report.partial.len() - second.healed.len()
        );
    }
    // A new backup stores lost data again, but not old metadata.
    assert!(partials >= 8 && back >= 3, "{partials} {back}");
}

/// Backs up the directory of `lab` into the repository of its fork.
fn lab_backup(lab: &Lab, repo: &Repository, stream: &[u8]) -> StoredSnapshot {
    let id = lab.backup(repo, stream);
    listed(repo)
        .into_iter()
        .find(|found| found.id == id)
        .expect("listed")
}

/// Uses hand-made entries: real ones, just created, would all be racy and be marked anyway.
#[test]
fn directories_above_lost_data_are_marked_for_a_revisit() {
    let lab = Lab::new();
    let repo = lab.open();
    let held = lease(&repo);
    let file = |name: &str, content: Content| {
        let meta = Metadata {
            mode: 0o644,
            nlink: 1,
            ..Metadata::default()
        };
        entry(name, Node::File { meta, content })
    };

    let hit = noise(1, 70_000);
    let spared = noise(2, 1_200_000);
    let (_, contents) = write_runs(&repo, &held, &[], &[&spared, &hit]);
    let directory = |name: &str| {
        entry(
            name,
            Node::Directory {
                meta: Metadata::default(),
            },
        )
    };
    let old = vec![
        directory(""),
        directory("a"),
        directory("a/b"),
        file("a/b/f", contents[1].clone()),
        directory("c"),
    ];
    // The newer run has the directory too; the mark must take precedence over both entries.
    let new = vec![directory("a"), file("c/g", contents[0].clone())];
    let (runs, _) = write_runs(&repo, &held, &[new, old], &[]);
    commit(&repo, held, vec![("tree", tree_kind(&runs))]);

    let place = repo
        .locate(&chunk_of(&contents[1]))
        .expect("asked")
        .expect("there");
    let frame = repo
        .index()
        .frame(&place.pack, place.frame)
        .expect("asked")
        .expect("there");
    lab.store.damage(&ObjectKey::Pack(place.pack), |bytes| {
        bytes[frame.offset.get() as usize + 3] ^= 1;
    });

    repair(&repo).expect("repaired");
    mend(&repo).expect("mended");
    let found = listed(&repo).pop().expect("one");
    let lost = found.snapshot.lost.clone().expect("repaired");
    assert_eq!(
        (
            lost.count,
            lost.paths[0].path.as_slice(),
            lost.paths[0].bytes
        ),
        (1, b"a/b/f".as_slice(), Some(70_000))
    );

    let SourceKind::Tree { runs, .. } = &found.snapshot.source("tree").expect("it").kind else {
        panic!()
    };
    let reader = ChunkReader::new(&repo, 1 << 20);
    let mut merged =
        MergedRuns::open(&reader, runs, RunStreams::All, OnDamage::Fail).expect("opens");
    let mut marks = Vec::new();
    while let Some(entry) = merged.next_entry().expect("read") {
        marks.push((entry.path.to_string(), entry.flags));
    }

    let none = EntryFlags::empty();
    let revisit = EntryFlags::REVISIT;
    let expected = [
        ("/", revisit),
        ("a", revisit),
        ("a/b", revisit),
        ("a/b/f", EntryFlags::TORN),
        ("c", none),
        ("c/g", none),
    ];
    assert_eq!(
        marks,
        expected.map(|(path, flags)| (path.to_owned(), flags))
    );
}

fn entry(path: &str, node: Node) -> Entry {
    Entry {
        path: RelPath::from_slashed(path.as_bytes()).expect("a path"),
        flags: EntryFlags::empty(),
        node,
    }
}

fn chunk_of(content: &Content) -> ChunkId {
    match &content.extents[..] {
        [Extent::Chunk { id, .. }] => *id,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_repair_of_snapshots_refuses_missing_packs() {
    let (lab, _) = sample();
    lab.store
        .delete(&ObjectKey::Pack(packs(&lab)[0].0))
        .expect("deleted");
    let before = lab.store.objects();
    let err = mend(&lab.open()).expect_err("refused");
    assert_eq!(
        err.advice(),
        Some(Advice::Repair(RepairAdvice::RepairPacksFirst)),
        "{err}"
    );
    assert_eq!(
        lab.store.objects(),
        before,
        "nothing was changed, and the lease is gone"
    );
}

/// A chunk that recovery data could restore must not be given up.
#[test]
fn metadata_that_no_repair_tried_to_save_is_not_given_up() {
    let (lab, _) = sample();
    let (pack, offset, _) = frames(&lab)
        .into_iter()
        .find(|frame| frame.2 == ChunkClass::Metadata)
        .expect("one");
    lab.store.damage(&ObjectKey::Pack(pack), |bytes| {
        bytes[offset as usize + 3] ^= 1;
    });
    let before = lab.store.objects();
    let err = mend(&lab.open()).expect_err("refused");
    assert_eq!(
        err.advice(),
        Some(Advice::Repair(RepairAdvice::RepairPacksFirst)),
        "{err}"
    );
    assert_eq!(lab.store.objects(), before);
}

#[test]
fn a_dry_run_of_snapshots_writes_nothing() {
    let (lab, _) = history();
    let (pack, offset, _) = frames(&lab)[0];
    lab.store.damage(&ObjectKey::Pack(pack), |bytes| {
        bytes[offset as usize + 3] ^= 1;
    });
    let repo = lab.open();
    repair(&repo).expect("repaired");
    let before = lab.store.objects();
    let dry = RepairSnapshotsOptions {
        dry_run: true,
        ..RepairSnapshotsOptions::default()
    };
    let planned = repair_snapshots(
        &repo,
        &dry,
        Task::new(&Recording::default(), &Cancel::new()),
    )
    .expect("told");
    assert_eq!(lab.store.objects(), before);
    let mut done = mend(&repo).expect("mended");
    done.partial.iter_mut().for_each(|one| one.new = None);
    assert_eq!(planned, done);
}

/// Interrupts a repair, and then a healing repair, after each write.
#[test]
fn the_next_repair_completes_an_interrupted_repair_of_snapshots() {
    let (lab, stream) = sample();
    write(&lab.tree().join("z/late"), &noise(9, 200_000));
    lab.backup(&lab.open(), &stream);
    let (pack, offset, _) = frames(&lab)
        .into_iter()
        .find(|frame| frame.2 == ChunkClass::Data)
        .expect("one");
    lab.store.damage(&ObjectKey::Pack(pack), |bytes| {
        bytes[offset as usize + 3] ^= 1;
    });
    repair(&lab.open()).expect("repaired");

    let mut cuts = 0;
    for heals in [false, true] {
        if heals {
            let repo = lab.open();
            mend(&repo).expect("mended");
            lab.backup(&repo, &stream);
        }

        let reference = lab.fork();
        let expected = mend(&reference.open()).expect("mended");
        for writes in 0.. {
            let fork = lab.fork();
            let faulty = Arc::new(FaultyStore::new(fork.store.clone()));
            let cache = tempfile::tempdir().expect("a directory");
            let repo = on_faulty(&fork, &faulty, &cache);
            faulty.die_after_writes(writes);
            let first = mend(&repo);
            drop(repo);
            if !faulty.is_dead() {
                first.expect("went through");
                break;
            }

            cuts += 1;
            let repo = fork.open();
            mend(&repo).expect("mended");
            assert_clean(&fork);

            let names = |repo: &Repository| -> Vec<_> {
                let one = |found: StoredSnapshot| {
                    (
                        found.snapshot.sources,
                        found.snapshot.lost,
                        found.snapshot.original,
                    )
                };
                listed(repo).into_iter().map(one).collect()
            };
            assert_eq!(
                names(&repo),
                names(&reference.open()),
                "heals {heals}, cut after {writes} writes"
            );
            // Leftovers in quarantine are deleted by the next repair at the latest.
            mend(&repo).expect("again");
            assert_eq!(
                aside(&fork),
                aside(&reference),
                "heals {heals}, cut after {writes} writes"
            );
        }
        assert!(expected.partial.is_empty() == heals && expected.healed.is_empty() != heals);
    }
    assert!(cuts >= 15, "{cuts} cuts");
}

/// Marked directories stay marked, also those above lost data. Their number is not known any more.
#[test]
fn a_repaired_snapshot_keeps_the_marks_of_the_original() {
    let lab = Lab::new();
    let repo = lab.open();
    write(&lab.tree().join("a/large"), &noise(1, 200_000));
    for file in ["a/x.log", "b/y.log", "b/keep", "own/file"] {
        write(&lab.tree().join(file), b"1");
    }
    let old = lab.backup_in_part(&repo);
    let before = marks(&repo, old);
    assert_eq!((before.0.len(), before.1), (3, Some(3)), "{before:?}");

    let (pack, offset, _) = frames(&lab)
        .into_iter()
        .find(|frame| frame.2 == ChunkClass::Data)
        .expect("one");
    lab.store.damage(&ObjectKey::Pack(pack), |bytes| {
        bytes[offset as usize + 3] ^= 1;
    });

    repair(&repo).expect("repaired");
    let partial = mend(&repo).expect("mended").partial[0]
        .new
        .expect("committed");
    assert_eq!(marks(&repo, partial), (before.0.clone(), None));

    let next = lab.backup_in_part(&repo);
    assert_eq!(marks(&repo, next), before);
    let healed = mend(&repo).expect("mended").healed[0]
        .new
        .expect("committed");
    assert_eq!(marks(&repo, healed), before);
}
