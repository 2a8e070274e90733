//! The path that a source's name stands for, from one backup to the next.

use std::path::PathBuf;

use super::{BackupOptions, SourceSpec, TreeSpec, backup};
use crate::Error;
use crate::advice::{Advice, BackupAdvice};
use crate::format::SourceKind;
use crate::observe::Recording;
use crate::ops::testing::{Lab, write};
use crate::store::{ObjectDir, list_all};
use crate::task::{Cancel, Task};

/// Two jobs of one host, `backup /home/alice/data` and `backup /home/bob/data`, shared one history:
/// to each of them the other looked like a directory that had changed completely.
#[test]
fn a_derived_name_stands_for_one_path() {
    let lab = Lab::new();
    let repo = lab.open();
    let path = |who: &str| lab.tree().join(who).join("data");
    for who in ["alice", "bob"] {
        write(&path(who).join(who), who.as_bytes());
    }
    let observer = Recording::default();
    let back_up = |spec: TreeSpec, moved: bool| {
        lab.store.clock().advance(60);
        let sources = vec![SourceSpec::Tree(Box::new(spec))];
        let options = BackupOptions {
            moved,
            ..BackupOptions::new("host", sources)
        };
        backup(&lab.open(), options, Task::new(&observer, &Cancel::new()))
    };
    let derived = |path: PathBuf| TreeSpec {
        is_name_derived: true,
        ..TreeSpec::new("data", path)
    };
    let notes = || {
        observer
            .problems()
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };

    let first = back_up(derived(path("alice")), false)
        .expect("the first of its name")
        .snapshot;
    // Another spelling of the path is the same source.
    let spelled = lab.tree().join("alice/../alice/./data/");
    let same = back_up(derived(spelled), false).expect("the same");
    assert_eq!((same.sources[0].parent, notes()), (first, Vec::new()));

    let refused = back_up(derived(path("bob")), false).expect_err("another");
    assert!(matches!(refused, Error::Usage { .. }), "{refused:?}");
    let why = refused.to_string();
    let bob = path("bob").display().to_string();
    assert_eq!(
        refused.advice(),
        Some(Advice::Backup(BackupAdvice::NameOrMove { path: bob }))
    );
    assert!(
        why.contains(&same.snapshot.expect("committed").short()),
        "{why}"
    );
    assert_eq!(
        repo.snapshots(&mut |_, _| {}).expect("listed").len(),
        2,
        "nothing was committed"
    );
    assert!(
        list_all(repo.store(), ObjectDir::Leases)
            .expect("listed")
            .is_empty(),
        "and no lease is left"
    );

    // A name given by the user may move, and so may a derived one with `moved`.
    back_up(TreeSpec::new("data", path("bob")), false).expect("given");
    assert!(
        notes()[0].contains("its history continues"),
        "{:?}",
        notes()
    );
    assert!(
        back_up(derived(path("alice")), false).is_err(),
        "whose is it now?"
    );
    let moved = back_up(derived(path("alice")), true).expect("said to be moved");
    assert_eq!(
        moved.sources[0].parent, same.snapshot,
        "the parent is of the same path"
    );
    back_up(derived(path("alice")), false).expect("as last time");
}

/// Earlier versions recorded the path as it was typed.
#[test]
fn a_relative_path_of_an_earlier_version_matches_once() {
    let lab = Lab::new();
    let repo = lab.open();
    let old = |path: &str| {
        lab.store.clock().advance(60);
        let lease = crate::ops::testing::lease(&repo);
        let kind = SourceKind::Tree {
            path: path.into(),
            immutable: false,
            runs: Vec::new(),
        };
        crate::ops::testing::commit(&repo, lease, vec![("tree", kind)])
    };

    let observer = Recording::default();
    write(&lab.tree().join("a"), b"a");
    let run = || {
        let spec = TreeSpec {
            is_name_derived: true,
            ..TreeSpec::new("tree", lab.tree())
        };
        let options = BackupOptions::new("host", vec![SourceSpec::Tree(Box::new(spec))]);
        backup(&lab.open(), options, Task::new(&observer, &Cancel::new()))
    };

    let previous = old("./tree");
    assert_eq!(
        run().expect("taken for the same").sources[0].parent,
        Some(previous)
    );
    assert!(
        observer.problems()[0]
            .to_string()
            .contains("treated as the same")
    );
    lab.store.clock().advance(60);
    run().expect("absolute now");
    assert_eq!(observer.problems().len(), 1);
    old("elsewhere/tree");
    assert!(matches!(run(), Err(Error::Usage { .. })));
}
