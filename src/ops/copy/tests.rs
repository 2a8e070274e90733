//! Tests of copies between repositories in memory.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use super::*;
use crate::observe::{Counter, Counters, ProgressUnit, Recording};
use crate::ops::list::{ListedPath, cat};
use crate::ops::testing::{Lab, marks, noise, reading, write};
use crate::ops::verify::{VerifyOptions, verify};
use crate::repo::{ChunkReader, HostChoice, Secret};
use crate::store::{FaultyStore, MemoryStore, SharedStore, Store};
use crate::task::Cancel;
use crate::types::{ByteSize, ChunkId, MissingNames, PackId, RelPath};

fn options() -> CopyOptions {
    CopyOptions {
        names: Vec::new(),
        hosts: HostChoice::Any,
        filter: SnapshotFilter::default(),
        level: 1,
        threads: 1,
        memory: ByteSize(96 << 20),
        dry_run: false,
    }
}

fn run(from: &Lab, to: &Lab, options: &CopyOptions) -> (CopyReport, Recording) {
    let observer = Recording::default();
    let report = copy(
        &from.open(),
        &to.open(),
        options,
        Task::new(&observer, &Cancel::new()),
    )
    .expect("copied");
    (report, observer)
}

fn copied(report: &CopyReport) -> Vec<SnapshotId> {
    let id = |item: &CopyItem| match item.outcome {
        CopyOutcome::Copied(id) => id,
        ref other => panic!("not copied: {other:?}"),
    };
    report.items.iter().map(id).collect()
}

/// Writes files of all sizes: empty, stored in the entry, as one chunk, and as a list of chunks.
fn fill(lab: &Lab, seed: u64) {
    let tree = lab.tree();
    write(&tree.join("tiny"), b"tiny");
    write(&tree.join("empty"), b"");
    write(&tree.join("a/small"), &noise(seed, 5_000));
    write(
        &tree.join("b/large"),
        &[
            noise(100, 2_500_000),
            noise(seed, 30_000),
            noise(101, 300_000),
        ]
        .concat(),
    );
    for n in 0..40 {
        write(&tree.join(format!("many/{n}")), &noise(1000 + n, 400));
    }
    std::fs::set_permissions(tree.join("tiny"), std::fs::Permissions::from_mode(0o640))
        .expect("set");
}

fn stream(seed: u64) -> Vec<u8> {
    [noise(7, 300_000), noise(seed, 10_000), noise(8, 600_000)].concat()
}

/// Returns all content of a snapshot: the tree as tar, and the bytes of the stream.
fn contents(lab: &Lab, id: SnapshotId) -> Vec<(String, Vec<u8>)> {
    let repo = lab.open();
    let read = |source: &str, path: RelPath| {
        let what = ListedPath {
            snapshot: id.to_string(),
            hosts: HostChoice::Any,
            source: Some(source.into()),
            path,
        };
        let mut out = Vec::new();
        reading(&repo, &Counters::default(), |session| {
            cat(session, &what, &mut out)
        })
        .expect("read");
        out
    };
    // The tree as tar: names, modes, times and contents.
    vec![
        ("tree".into(), read("tree", RelPath::root())),
        ("db".into(), read("db", RelPath::root())),
    ]
}

fn assert_clean(lab: &Lab) {
    let options = VerifyOptions {
        read_data: true,
        memory: ByteSize(96 << 20),
        ..VerifyOptions::default()
    };
    let report = verify(
        &lab.open(),
        &options,
        Task::new(&Counters::default(), &Cancel::new()),
    )
    .expect("verified");
    assert!(
        report.is_clean() && report.affected.is_empty(),
        "{report:#?}"
    );
}

/// Returns a source with three snapshots and an empty destination. Any two repositories have
/// different keys, even with the same secret.
fn sample() -> (Lab, Lab, Vec<SnapshotId>) {
    let from = Lab::new();
    let to = Lab::new();
    let repo = from.open();
    let mut ids = Vec::new();
    for seed in 1..4 {
        fill(&from, seed);
        if seed == 2 {
            std::fs::remove_file(from.tree().join("many/3")).expect("removed");
            std::fs::remove_dir_all(from.tree().join("a")).expect("removed");
            write(&from.tree().join("a"), b"a file in a directory's place");
        }
        if seed == 3 {
            continue;
        }
        ids.push(from.backup(&repo, &stream(seed)));
        from.store.clock().advance(86_400);
        if seed == 2 {
            std::fs::remove_file(from.tree().join("a")).expect("removed");
        }
    }
    ids.push(from.backup(&repo, &stream(3)));
    (from, to, ids)
}

#[test]
fn a_copy_holds_what_its_original_does_and_a_second_one_stores_nothing() {
    let (from, to, ids) = sample();
    to.store.clock().advance(30 * 86_400);
    let (report, observer) = run(&from, &to, &options());
    assert!(observer.problems().is_empty(), "{:?}", observer.problems());
    let copies = copied(&report);
    assert_eq!(
        report
            .items
            .iter()
            .map(|item| item.found.id)
            .collect::<Vec<_>>(),
        ids
    );

    let source = from.open();
    let target = to.open();
    for (old, new) in ids.iter().zip(&copies) {
        assert_eq!(contents(&from, *old), contents(&to, *new));
        let find = |repo: &Repository, id: &SnapshotId| {
            repo.find_snapshot(&id.to_string(), &HostChoice::Any)
        };
        let old = find(&source, old).expect("there");
        let new = find(&target, new).expect("there");
        assert_eq!(
            (new.first(), new.committed(), new.time()),
            (old.id, old.committed(), old.time())
        );
        assert_eq!(
            (&new.snapshot.host, new.snapshot.state),
            (&old.snapshot.host, old.snapshot.state)
        );
    }
    assert_eq!(
        target
            .find_snapshot("latest", &HostChoice::Any)
            .expect("there")
            .id,
        copies[2]
    );
    assert_clean(&to);

    let before = to.store.objects();
    let (report, observer) = run(&from, &to, &options());
    let there: Vec<CopyOutcome> = report.items.into_iter().map(|item| item.outcome).collect();
    assert_eq!(
        there,
        copies
            .iter()
            .map(|id| CopyOutcome::There(*id))
            .collect::<Vec<_>>()
    );
    assert_eq!(
        (to.store.objects(), observer.get(Counter::BytesRead)),
        (before, 0)
    );
    // Copied back: the source knows them by the ids of their originals.
    let (report, _) = run(&to, &from, &options());
    assert!(
        report
            .items
            .iter()
            .all(|item| matches!(item.outcome, CopyOutcome::There(_)))
    );

    assert!(matches!(
        copy(
            &source,
            &source,
            &options(),
            Task::new(&Counters::default(), &Cancel::new())
        ),
        Err(Error::Usage { .. })
    ));
}

/// Regression: all data was read again for each snapshot whose runs had been merged, and each dump
/// from beginning to end.
#[test]
fn a_newer_snapshot_costs_what_is_new() {
    let (from, to, ids) = sample();
    let (first, observer) = run(
        &from,
        &to,
        &CopyOptions {
            names: vec![ids[0].to_string()],
            ..options()
        },
    );

    let all = observer.get(Counter::BytesRead);
    assert!(all > 3_000_000, "{all}");

    write(&from.tree().join("new"), &noise(77, 20_000));
    let repo = from.open();
    let last = from.backup(&repo, &stream(9));

    let (second, observer) = run(
        &from,
        &to,
        &CopyOptions {
            names: vec![last.to_string()],
            ..options()
        },
    );

    let read = observer.get(Counter::BytesRead);
    // One new file, one small file, and the changed parts of a large file and of the stream, with
    // the chunks around them.
    assert!(read < 700_000, "{read} of {all} bytes were read again");
    assert!(
        second.stored_bytes * 4 < first.stored_bytes,
        "{} {}",
        second.stored_bytes,
        first.stored_bytes
    );
    assert_eq!(contents(&from, last), contents(&to, copied(&second)[0]));

    // A snapshot older than those in the destination.
    let (third, observer) = run(
        &from,
        &to,
        &CopyOptions {
            names: vec![ids[1].to_string()],
            ..options()
        },
    );
    assert!(observer.get(Counter::BytesRead) < 700_000);
    assert_eq!(contents(&from, ids[1]), contents(&to, copied(&third)[0]));
    assert_clean(&to);
}

#[test]
fn an_interrupted_copy_is_resumed() {
    let (from, to, ids) = sample();
    let mut ended = false;
    for writes in 0..60 {
        let fork = to.fork();
        let faulty = Arc::new(FaultyStore::new(fork.store.clone()));
        let store: SharedStore = faulty.clone();
        let cache = tempfile::tempdir().expect("a directory");
        let target = Repository::open(store, &Secret::empty(), cache.path()).expect("opens");

        faulty.die_after_writes(writes);
        let done = copy(
            &from.open(),
            &target,
            &options(),
            Task::new(&Counters::default(), &Cancel::new()),
        );

        drop(target);
        ended = !faulty.is_dead();
        assert_eq!(ended, done.is_ok(), "{writes}");
        assert_clean(&fork);

        run(&from, &fork, &options());
        let repo = fork.open();
        let all =
            snapshots(&repo, &SnapshotFilter::default(), &Counters::default()).expect("listed");
        assert_eq!(
            all.iter().map(StoredSnapshot::first).collect::<Vec<_>>(),
            ids,
            "{writes}"
        );

        if writes % 7 == 0 {
            assert_eq!(contents(&from, ids[2]), contents(&fork, all[2].id));
        }
        assert_clean(&fork);
        if ended {
            break;
        }
    }
    assert!(ended, "it ends");
}

/// Another process that copies the same snapshots finishes while ours copies its first.
#[test]
fn two_copies_at_once_do_not_copy_all_twice() {
    struct Other<'a> {
        labs: (&'a Lab, &'a Lab),
        begun: std::sync::atomic::AtomicBool,
    }
    impl Observer for Other<'_> {
        fn add(&self, _: Counter, _: u64) {}
        fn phase(&self, phase: &Phase) {
            let is_first = !self.begun.load(std::sync::atomic::Ordering::Relaxed);
            if matches!(phase, Phase::Copy { .. }) && is_first {
                self.begun.store(true, std::sync::atomic::Ordering::Relaxed);
                assert_eq!(run(self.labs.0, self.labs.1, &options()).0.items.len(), 3);
            }
        }
        fn expect(&self, _: u64, _: ProgressUnit) {}
        fn problem(&self, problem: &Problem) {
            panic!("{problem}");
        }
        fn detail(&self, _: &'static str, _: &crate::observe::Subject) {}
    }

    let (from, to, ids) = sample();
    let observer = Other {
        labs: (&from, &to),
        begun: false.into(),
    };
    let cache = tempfile::tempdir().expect("a directory");
    let target = Repository::open(to.store.clone(), &Secret::empty(), cache.path()).expect("opens");

    let report = copy(
        &from.open(),
        &target,
        &options(),
        Task::new(&observer, &Cancel::new()),
    )
    .expect("copied");

    let there = report
        .items
        .iter()
        .filter(|item| matches!(item.outcome, CopyOutcome::There(_)))
        .count();
    assert_eq!(there, ids.len(), "{report:?}");
    assert_eq!(target.listed_snapshots().expect("listed").len(), ids.len());
    assert_clean(&to);
}

fn packs(store: &MemoryStore) -> Vec<PackId> {
    let id = |meta: crate::store::ObjectMeta| {
        if let ObjectKey::Pack(id) = meta.key {
            Some(id)
        } else {
            None
        }
    };
    store.objects().into_iter().filter_map(id).collect()
}

#[test]
fn unreadable_snapshots_are_reported_and_not_copied() {
    let (from, to, ids) = sample();
    let before = packs(&from.store);
    write(&from.tree().join("late"), &noise(55, 9_000));
    let repo = from.open();
    let hit = from.backup(&repo, &stream(3));
    let new: Vec<PackId> = packs(&from.store)
        .into_iter()
        .filter(|id| !before.contains(id))
        .collect();
    for id in new {
        from.store.delete(&ObjectKey::Pack(id)).expect("deleted");
    }

    from.store.clock().advance(60);
    let (report, observer) = run(&from, &to, &options());

    let (failed, whole): (Vec<_>, Vec<_>) = report
        .items
        .iter()
        .partition(|item| matches!(item.outcome, CopyOutcome::Failed(_)));
    assert_eq!(
        failed.iter().map(|item| item.found.id).collect::<Vec<_>>(),
        [hit]
    );
    assert_eq!(whole.len(), ids.len());

    let problems = observer.problems();
    assert_eq!(
        (problems.len(), problems[0].severity),
        (1, Severity::Damage),
        "{problems:?}"
    );
    assert!(problems[0].subject.contains(&hit.to_string()));
    assert_clean(&to);
}

/// A copy once relied on data copied earlier although the destination had lost some of it.
#[test]
fn a_destination_that_has_lost_chunks_is_healed() {
    let (from, to, ids) = sample();
    let (report, _) = run(
        &from,
        &to,
        &CopyOptions {
            names: vec![ids[1].to_string()],
            ..options()
        },
    );

    let first = copied(&report)[0];
    let target = to.open();

    let data: Vec<ChunkId> = {
        target.sync().expect("synced");
        let snapshot = target.read_snapshot(&first).expect("there");
        let SourceKind::Stream { content, .. } = &snapshot.source("db").expect("a stream").kind
        else {
            panic!("a stream")
        };
        let reader = ChunkReader::new(&target, 1 << 20);
        let mut extents = crate::read::content::ContentReader::new(&reader, content);
        let mut ids = Vec::new();
        while let Some(extent) = extents.next_extent().expect("read") {
            if let crate::types::Extent::Chunk { id, .. } = extent {
                ids.push(id);
            }
        }
        ids.sort_unstable();
        ids.dedup();
        ids
    };

    // Like a repair: condemn the packs and record their chunks as lost.
    let mut body = crate::types::SegmentBody::empty(crate::types::LeaseId::new([9; 16]));
    body.condemned = packs(&to.store);
    body.lost = data;
    let plain = crate::format::encode_segment(&body);
    let kind = crate::format::ObjectKind::Segment;
    let (bytes, name) =
        crate::repo::seal_object(target.keys(), kind, body.writer, &plain).expect("sealed");
    let key = ObjectKey::Segment(crate::types::SegmentId::from(name));
    to.store
        .put(
            &key,
            crate::store::ObjectBody::Bytes(&bytes),
            crate::store::PutMode::CreateOnly,
        )
        .expect("put");

    for id in packs(&to.store) {
        to.store.delete(&ObjectKey::Pack(id)).expect("deleted");
    }

    let (report, _) = run(
        &from,
        &to,
        &CopyOptions {
            names: vec![ids[2].to_string()],
            ..options()
        },
    );
    assert_eq!(contents(&from, ids[2]), contents(&to, copied(&report)[0]));
}

#[test]
fn names_and_filters_choose() {
    let (from, to, ids) = sample();
    let (report, _) = run(
        &from,
        &to,
        &CopyOptions {
            dry_run: true,
            ..options()
        },
    );
    assert_eq!(report.items.len(), 3);
    assert!(
        report
            .items
            .iter()
            .all(|item| item.outcome == CopyOutcome::Wanted)
    );
    assert!(packs(&to.store).is_empty());

    let filter = SnapshotFilter {
        host: Some("other".into()),
        ..SnapshotFilter::default()
    };
    assert!(
        run(
            &from,
            &to,
            &CopyOptions {
                filter,
                ..options()
            }
        )
        .0
        .items
        .is_empty()
    );

    let (report, _) = run(
        &from,
        &to,
        &CopyOptions {
            names: vec!["latest".into()],
            ..options()
        },
    );
    assert_eq!(
        report
            .items
            .iter()
            .map(|item| item.found.id)
            .collect::<Vec<_>>(),
        ids[2..]
    );
}

/// Writes a tree of which `backup_in_part` leaves something out in two directories. Returns the
/// marks that its snapshot must have.
fn in_part(lab: &Lab) -> (BTreeMap<String, MissingNames>, Option<u64>) {
    for file in ["a/keep", "a/x.log", "b/keep", "own/file"] {
        write(&lab.tree().join(file), b"1");
    }
    let marks = [("/", MissingNames::Unseen), ("a", MissingNames::Excluded)];
    (
        marks.map(|(path, why)| (path.to_owned(), why)).into(),
        Some(2),
    )
}

#[test]
fn a_copy_keeps_the_marks_of_its_original() {
    let from = Lab::new();
    let to = Lab::new();
    let expected = in_part(&from);
    let repo = from.open();
    from.backup_in_part(&repo);
    // Runs that were copied before, and one new run.
    for turn in 0..2 {
        let id = from.backup_in_part(&repo);
        assert_eq!(marks(&repo, id), expected, "{turn}");
        let (report, _) = run(&from, &to, &options());
        let CopyOutcome::Copied(copy) = report.items.last().expect("one").outcome else {
            panic!("not copied")
        };
        assert_eq!(marks(&to.open(), copy), expected, "{turn}");
        write(&from.tree().join("b/new"), b"1");
    }
}
