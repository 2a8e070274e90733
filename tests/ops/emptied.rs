//! Sources that have suddenly lost everything are refused at each try, also after a backup that was
//! interrupted.

use std::fs;
use std::time::Duration;

use icecore::Error;
use icecore::format::SnapshotState;
use icecore::observe::Counter;
use icecore::ops::backup::{BackupOptions, SourceSpec, TreeSpec};
use icecore::repo::StoredSnapshot;
use icecore::source::FilesFrom;
use icecore::task::{Cancel, Task};
use icecore::testing::{CounterHook, TestRepo, tree_options};

/// Creates a tree of three files, and captures it.
fn captured() -> TestRepo {
    let world = TestRepo::new();
    fill(&world);
    let (report, _) = world.backup(world.options());
    assert_eq!(report.sources[0].counts.files_new, 3);
    world
}

fn fill(world: &TestRepo) {
    for path in ["a/1", "a/b/2", "c/3"] {
        world.write(path, b"content");
    }
}

fn snapshots(world: &TestRepo) -> Vec<StoredSnapshot> {
    let all = world.open().snapshots(&mut |_, _| {});
    all.expect("lists")
}

type Loss = (&'static str, fn(&TestRepo), fn(&mut TreeSpec));

const LOSSES: [Loss; 5] = [
    (
        "each directory lost its files",
        |world| {
            for path in ["a/1", "a/b/2", "c/3"] {
                fs::remove_file(world.path(path)).expect("removed");
            }
        },
        |_| {},
    ),
    (
        "the root lost everything",
        |world| {
            for path in ["a", "c"] {
                fs::remove_dir_all(world.path(path)).expect("removed");
            }
        },
        |_| {},
    ),
    (
        "a rule leaves out everything",
        |_| {},
        |spec| spec.filter.excludes.push("*".into()),
    ),
    (
        "a rule leaves out the directories",
        |_| {},
        |spec| spec.filter.excludes.extend(["/a".into(), "/c".into()]),
    ),
    (
        "a list names what a rule leaves out",
        |_| {},
        |spec| {
            spec.files_from = Some(FilesFrom::parse(b"a/1\na/b").expect("a list"));
            spec.filter.excludes.push("a/".into());
        },
    ),
];

/// The first refusal must leave nothing in the repository by which the second try is accepted, and
/// nothing that makes the next good backup store files again.
#[test]
fn an_emptied_source_is_refused_at_each_try() {
    for (what, lose, rules) in LOSSES {
        let world = captured();
        lose(&world);
        for number in 1..=3 {
            let mut spec = world.spec();
            rules(&mut spec);
            let result = world.try_backup(tree_options(spec)).0;
            let Err(Error::Empty { why, .. }) = &result else {
                panic!("{what}, try {number}: {result:?}");
            };
            assert!(
                why.contains("has 3 files") || why.contains("was not in the last snapshot"),
                "{what}, try {number}: {why}"
            );
            assert_eq!(snapshots(&world).len(), 1, "{what}, try {number}");
        }

        fill(&world);
        let good = world.try_backup(world.options()).0;
        let counts = good.expect("backup").sources[0].counts;
        assert_eq!((counts.files_new, counts.removed), (0, 0), "{what}");
    }
}

/// A backup of a source that has lost everything is interrupted, while it captures another source.
/// Its checkpoint has nothing of the source, and the next backup builds on it.
#[test]
fn a_checkpoint_without_the_files_makes_no_emptied_source_acceptable() {
    for (what, lose, rules) in LOSSES {
        let world = captured();
        lose(&world);
        let emptied = || {
            let mut spec = world.spec();
            rules(&mut spec);
            spec
        };

        let other = tempfile::tempdir().expect("a directory");
        fs::write(other.path().join("new"), b"new").expect("written");
        let other = TreeSpec::new("other", other.path());
        let cancel = Cancel::new();
        let options = BackupOptions {
            allow_empty: true,
            sources: [emptied(), other]
                .map(|spec| SourceSpec::Tree(Box::new(spec)))
                .into(),
            ..world.options()
        };
        let observer = CounterHook::new(|counter, _| {
            if counter == Counter::FilesNew {
                cancel.cancel();
            }
        });
        let stopped = world.backup_with_task(options, Task::new(&observer, &cancel));
        assert!(
            matches!(stopped, Err(Error::Interrupted)),
            "{what}: {stopped:?}"
        );
        let newest = snapshots(&world).pop().expect("a checkpoint").snapshot;
        assert_eq!(newest.state, SnapshotState::Checkpoint, "{what}");
        let record = newest.source("tree").expect("it has the source");
        assert!(record.counts.removed > 0, "{what}");

        for number in 1..=2 {
            let result = world.try_backup(tree_options(emptied())).0;
            assert!(
                matches!(result, Err(Error::Empty { .. })),
                "{what}, try {number}: {result:?}"
            );
        }

        let options = BackupOptions {
            allow_empty: true,
            ..tree_options(emptied())
        };
        let allowed = world.try_backup(options).0;
        allowed.expect("accepted");
        let again = world.try_backup(tree_options(emptied())).0;
        again.expect("it was accepted before");
    }
}

/// Files of an immutable source, named by their SHA-256.
const HASHED: [(&str, &str); 2] = [
    (
        "a",
        "a/ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb",
    ),
    (
        "b",
        "c/3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d",
    ),
];

/// The directories of an immutable source that are not listed again must have files, or the source
/// has lost everything.
#[test]
fn unlisted_directories_without_files_do_not_hide_a_loss() {
    let world = captured();
    let run = |allow_empty| {
        let options = BackupOptions {
            allow_empty,
            grain_seconds: Some(1),
            ..tree_options(TreeSpec {
                immutable: true,
                ..world.spec()
            })
        };
        world.try_backup(options).0
    };
    for path in ["a/1", "a/b/2", "c/3"] {
        fs::remove_file(world.path(path)).expect("removed");
    }
    for (content, path) in HASHED {
        fs::write(world.path(path), content).expect("written");
    }
    std::thread::sleep(Duration::from_millis(1100));
    run(false).expect("captured");
    let settled = run(false).expect("settled").sources[0].counts;
    assert_eq!(settled.files_unchanged, 0, "no file is looked at");

    let [first, second] = HASHED.map(|(_, path)| world.path(path));
    fs::remove_file(first).expect("removed");
    run(false).expect("the other directory has a file");
    fs::remove_file(second).expect("removed");
    for number in 1..=2 {
        let result = run(false);
        assert!(
            matches!(&result, Err(Error::Empty { why, .. }) if why.contains("has 1 file")),
            "try {number}: {result:?}"
        );
    }
}
