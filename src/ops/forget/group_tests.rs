//! Tests of grouping: one name can denote two things, and one thing can have several names in
//! records.

use super::tests::{DAY, add, ids, last, options, run};
use super::*;
use crate::format::{SourceCounts, SourceKind, SourceRecord};
use crate::observe::Recording;
use crate::ops::testing::Lab;
use crate::store::ObjectDir;
use crate::task::Cancel;
use crate::types::Content;

fn record(name: &str, kind: SourceKind) -> SourceRecord {
    SourceRecord {
        name: name.into(),
        kind,
        profile: "tree-64k".into(),
        started: Default::default(),
        ended: Default::default(),
        digest: [0; 32],
        counts: SourceCounts::default(),
        suspect: None,
        numeric_owners: false,
        moved_from: Vec::new(),
    }
}

fn tree(path: &str) -> SourceKind {
    SourceKind::Tree {
        path: path.into(),
        immutable: false,
        runs: Vec::new(),
    }
}

fn dump(words: &[&str]) -> SourceKind {
    let command = words.iter().map(|word| (*word).to_owned()).collect();
    SourceKind::Stream {
        command,
        content: Content::default(),
    }
}

/// Adds one snapshot of each kind, six hours apart, and returns the indexes of those that `last 1`
/// keeps.
fn left(kinds: &[SourceKind], change: impl Fn(&mut ForgetOptions)) -> Vec<usize> {
    let lab = Lab::new();
    let repo = lab.open();
    let made: Vec<SnapshotId> = kinds
        .iter()
        .map(|kind| {
            lab.store.clock().advance(DAY / 4);
            add(&lab, &repo, |snapshot| {
                snapshot.sources = vec![record("data", kind.clone())];
            })
        })
        .collect();
    let mut options = ForgetOptions {
        force: true,
        ..options(last(1))
    };
    change(&mut options);
    run(&repo, &options);
    let kept = ids(repo.store(), ObjectDir::Snapshots);
    (0..made.len())
        .filter(|&n| kept.contains(&made[n]))
        .collect()
}

fn by_sources(options: &mut ForgetOptions) {
    options.group_by = GroupBy {
        host: true,
        sources: true,
        paths: false,
        tags: false,
    };
}

fn by_name(options: &mut ForgetOptions) {
    options.by_name.insert("data".into());
}

#[test]
fn two_directories_of_one_name_have_each_their_history() {
    let alice = tree("/home/alice/data");
    let bob = tree("/home/bob/data");
    let all = [alice.clone(), bob.clone(), alice.clone(), bob.clone()];
    assert_eq!(left(&all, |_| {}), [2, 3]);
    assert_eq!(left(&all, by_sources), [3], "asked for");
    assert_eq!(left(&all, by_name), [3], "a name of the configuration");
    assert_eq!(
        left(&[alice, dump(&["tar"])], |_| {}),
        [0, 1],
        "a stream is something else"
    );
}

/// Records of earlier versions have the path as the user typed it.
#[test]
fn a_relative_path_is_the_absolute_one_that_ends_with_it() {
    let relative = tree("data");
    let alice = tree("/home/alice/data");
    let bob = tree("/home/bob/data");
    assert_eq!(
        left(&[relative.clone(), relative.clone(), alice.clone()], |_| {}),
        [2]
    );

    // Either of the two may be meant, so the relative one stays a group of its own.
    assert_eq!(left(&[relative, alice, bob], |_| {}), [0, 1, 2]);
    assert_eq!(
        left(
            &[
                tree("bob/data"),
                tree("/home/alice/data"),
                tree("/home/bob/data")
            ],
            |_| {}
        ),
        [1, 2]
    );
}

#[test]
fn streams_are_grouped_by_program_and_not_by_arguments() {
    let all = [
        dump(&["pg_dump", "a"]),
        dump(&["/usr/bin/pg_dump", "-U", "x"]),
        dump(&["mysqldump"]),
        dump(&[]),
    ];
    assert_eq!(left(&all, |_| {}), [1, 2, 3]);
}

/// A configured source that was moved continues its history, and a note reports that.
#[test]
fn a_moved_source_of_the_configuration_is_named() {
    let lab = Lab::new();
    let repo = lab.open();
    for path in [
        "/var/lib/docker/volumes/v/_data",
        "/mnt/docker/volumes/v/_data",
    ] {
        lab.store.clock().advance(DAY);
        add(&lab, &repo, |snapshot| {
            snapshot.sources = vec![record("data", tree(path))];
        });
    }

    let mut options = ForgetOptions {
        dry_run: true,
        ..options(last(1))
    };
    let observer = Recording::default();
    let split =
        forget_by_policy(&repo, &options, Task::new(&observer, &Cancel::new())).expect("judged");
    assert_eq!((split.groups.len(), observer.problems().len()), (2, 0));

    by_name(&mut options);
    let one =
        forget_by_policy(&repo, &options, Task::new(&observer, &Cancel::new())).expect("judged");
    assert_eq!((one.groups.len(), one.dropped), (1, 1));

    let notes: Vec<String> = observer
        .problems()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(
        notes[0].starts_with("source 'data' of host host: ") && notes[0].contains("/mnt/docker"),
        "{notes:?}"
    );
}

/// The thing that a name denoted last month was captured well, and the one that it denotes now is
/// suspect: the last good capture of one is not that of the other.
#[test]
fn the_last_good_capture_is_of_the_same_thing() {
    let lab = Lab::new();
    let repo = lab.open();
    let add_one = |path: &str, suspect: Option<&str>| {
        lab.store.clock().advance(DAY / 4);
        add(&lab, &repo, |snapshot| {
            let source = record("data", tree(path));
            snapshot.sources = vec![SourceRecord {
                suspect: suspect.map(str::to_owned),
                ..source
            }];
        })
    };

    let good = add_one("/a/data", None);
    add_one("/b/data", None);
    add_one("/a/data", Some("odd"));
    let report = run(
        &repo,
        &ForgetOptions {
            dry_run: true,
            ..options(last(1))
        },
    );

    let mut decisions = report.groups.iter().flat_map(|group| &group.decisions);
    let found = decisions.find(|one| one.found.id == good).expect("judged");
    assert!(
        found.reasons.contains(&KeepReason::LastGood("data".into())),
        "{:?}",
        found.reasons
    );
}
