//! Listed paths that do not exist: the snapshot has an entry for each. Listings and restores name
//! them, and a restore with `--delete` deletes nothing at these paths.

use std::collections::BTreeSet;
use std::fs;

use icecore::Error;
use icecore::dest::{OwnerPolicy, SyncMethod};
use icecore::format::SnapshotState;
use icecore::observe::Severity;
use icecore::ops::backup::{BackupReport, TreeSpec};
use icecore::ops::restore::RestoreOptions;
use icecore::source::FilesFrom;
use icecore::testing::{TestRepo, committed, tree_options, write};
use icecore::types::{Node, SnapshotId};

fn listed(world: &TestRepo, list: &str) -> TreeSpec {
    TreeSpec {
        files_from: Some(FilesFrom::parse(list.as_bytes()).expect("a list")),
        ..world.spec()
    }
}

/// Returns the report and the paths that were reported as missing.
fn run(world: &TestRepo, spec: TreeSpec) -> (BackupReport, Vec<String>) {
    let (report, seen) = world.backup(tree_options(spec));
    let missing = seen
        .problems()
        .into_iter()
        .filter(|problem| problem.severity == Severity::Missing);
    (report, missing.map(|problem| problem.subject).collect())
}

/// Returns the paths of a snapshot's failed entries, with their reasons.
fn failed(world: &TestRepo, snapshot: SnapshotId) -> Vec<(String, String)> {
    let entries = world.entries(snapshot).into_iter();
    entries
        .filter_map(|entry| match entry.node {
            Node::Failed { reason } => Some((entry.path.to_string(), reason)),
            _ => None,
        })
        .collect()
}

fn paths(world: &TestRepo, snapshot: SnapshotId) -> BTreeSet<String> {
    let entries = world.entries(snapshot).into_iter();
    entries.map(|entry| entry.path.to_string()).collect()
}

/// Each listed path is reported. The entry is at the path, or at the highest directory above it
/// that is missing or is not a directory.
#[test]
fn each_missing_path_is_reported_and_has_an_entry() {
    let world = TestRepo::new();
    for path in ["a/b", "whole/c", "file", "z.x/y"] {
        world.write(path, b"x");
    }
    std::os::unix::fs::symlink("a", world.path("link")).expect("made");
    std::os::unix::fs::symlink("nowhere", world.path("broken")).expect("made");
    let deep = vec!["d".repeat(200); 30].join("/");
    let top = "d".repeat(200);

    let cases: [(&str, &[&str], &[&str]); 7] = [
        (
            "a/b\na/x\nz\nfile/x\nlink/b\nbroken\nlink",
            &["a/x", "file/x", "z"],
            &["a/x", "file", "z"],
        ),
        // Symlinks are captured, not followed.
        ("a\nlink/b", &["link/b"], &["link"]),
        // The directory includes its contents.
        ("whole\nwhole/gone", &[], &[]),
        (".\nx", &[], &[]),
        // Longer than the kernel takes at once.
        (&format!("file\n{deep}"), &[&deep], &[&top]),
        ("a\nno/x\nno/y/z\nno/y\nno", &["no"], &["no"]),
        (
            "a\n0/x\n0/y/z\n0/y\nz/1",
            &["0/x", "0/y", "z/1"],
            &["0", "z"],
        ),
    ];

    for immutable in [false, true] {
        for (list, reported, entries) in &cases {
            // The second backup finds the entries in the previous snapshot.
            for _ in 0..2 {
                let spec = TreeSpec {
                    immutable,
                    ..listed(&world, list)
                };
                let (report, missing) = run(&world, spec);
                let snapshot = committed(&report);

                let reported: Vec<String> =
                    reported.iter().map(|path| format!("tree:{path}")).collect();
                assert_eq!(missing, reported, "{list}");
                let failed: Vec<String> = failed(&world, snapshot)
                    .into_iter()
                    .map(|(path, _)| path)
                    .collect();
                assert_eq!(failed, *entries, "{list}");
                assert_eq!(
                    world.record(snapshot).counts.incomplete,
                    entries.len() as u64,
                    "{list}"
                );
                let state = if entries.is_empty() {
                    SnapshotState::Complete
                } else {
                    SnapshotState::Incomplete
                };
                assert_eq!(report.state, state, "{list}");
            }
        }
    }
}

/// A listed file or directory that was captured before is removed, with its contents, and the entry
/// in its place names the reason. Once it exists again, it is captured.
#[test]
fn a_listed_path_that_disappears_is_removed_and_named() {
    for immutable in [false, true] {
        let world = TestRepo::new();
        let list = || TreeSpec {
            immutable,
            ..listed(&world, "a/f\nsub\ndeep/er/f\nkeep")
        };
        let fill = || {
            for path in ["a/f", "sub/one", "sub/two/three", "deep/er/f", "keep"] {
                world.write(path, b"1");
            }
        };

        fill();
        let (first, missing) = run(&world, list());
        assert!(missing.is_empty(), "{missing:?}");
        let whole = paths(&world, committed(&first));
        assert!(whole.contains("sub/two/three"), "{whole:?}");

        fs::remove_file(world.path("a/f")).expect("removed");
        fs::remove_dir_all(world.path("sub")).expect("removed");
        fs::remove_dir_all(world.path("deep")).expect("removed");
        let (report, missing) = run(&world, list());
        let snapshot = committed(&report);
        assert_eq!(missing, ["tree:a/f", "tree:deep/er/f", "tree:sub"]);
        assert_eq!(world.record(snapshot).counts.removed, 3);
        assert_eq!(
            paths(&world, snapshot),
            ["/", "a", "a/f", "deep", "keep", "sub"]
                .map(str::to_owned)
                .into()
        );
        let failed = failed(&world, snapshot);
        assert_eq!(failed.len(), 3);
        assert!(
            failed[0]
                .1
                .starts_with("cannot find this listed path: No such file"),
            "{failed:?}"
        );
        assert!(
            failed[1]
                .1
                .starts_with("cannot find this directory of listed paths: "),
            "{failed:?}"
        );

        fill();
        let (report, missing) = run(&world, list());
        assert!(missing.is_empty(), "{missing:?}");
        assert_eq!(report.state, SnapshotState::Complete);
        assert_eq!(paths(&world, committed(&report)), whole);
    }
}

/// A rule that leaves out a listed path is not a missing path.
#[test]
fn a_listed_path_that_a_rule_leaves_out_is_not_missing() {
    let world = TestRepo::new();
    for path in ["a/x.log", "b/f", "c"] {
        world.write(path, b"1");
    }
    let mut spec = listed(&world, "a/x.log\na/none.log\nb/f\nc");
    spec.filter.excludes = vec!["*.log".into(), "b/".into()];
    let (report, missing) = run(&world, spec);
    assert!(missing.is_empty(), "{missing:?}");
    assert_eq!(report.state, SnapshotState::Complete);
    assert_eq!(
        paths(&world, committed(&report)),
        ["/", "a", "c"].map(str::to_owned).into()
    );
}

/// The rule applies only when the directory is looked at, because the list names it. The files below
/// it count as gone, so that the backup is refused as any other that lost everything.
#[test]
fn a_rule_that_leaves_out_all_listed_paths_is_refused() {
    let world = TestRepo::new();
    for path in ["b/f", "b/c/g"] {
        world.write(path, b"1");
    }
    world.backup(tree_options(listed(&world, "b/f\nb/c")));

    let mut spec = listed(&world, "b/f\nb/c");
    spec.filter.excludes = vec!["b/".into()];
    let (result, _) = world.try_backup(tree_options(spec));
    assert!(
        matches!(&result, Err(Error::Empty { why, .. }) if why.contains("has 2 files of it")),
        "{result:?}"
    );
}

/// A restore reports what the snapshot lacks, and deletes nothing there.
#[test]
fn a_restore_names_missing_paths_and_keeps_existing_files() {
    let world = TestRepo::new();
    world.write("a/f", b"1");
    let spec = listed(&world, "a/f\na/gone\nno/x");
    let snapshot = committed(&world.backup(tree_options(spec)).0);

    let target = tempfile::tempdir().expect("a directory");
    for path in ["a/gone", "no/x", "no/y"] {
        write(&target.path().join(path), b"mine");
    }
    let options = RestoreOptions {
        delete: true,
        owner: OwnerPolicy::Keep,
        durability: SyncMethod::Skipped,
        ..RestoreOptions::default()
    };
    let seen = world.restore(snapshot, "", target.path().to_owned(), &options);
    let mut named: Vec<String> = seen
        .problems()
        .into_iter()
        .filter(|problem| problem.severity == Severity::Missing)
        .map(|problem| problem.subject)
        .collect();
    named.sort();
    assert_eq!(named, ["tree/a/gone", "tree/no"]);
    for path in ["a/gone", "no/x", "no/y"] {
        assert!(target.path().join(path).exists(), "{path}");
    }
}
