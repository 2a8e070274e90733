//! Tests which directories are marked, and that unchanged marks cost nothing.

use std::collections::BTreeMap;

use icecore::ops::backup::TreeSpec;
use icecore::source::{FilesFrom, FilterOptions, SourceDir};
use icecore::testing::{TestRepo, committed, settle, tree_options};
use icecore::types::MissingNames::{Excluded, Unseen};
use icecore::types::{MissingNames, SnapshotId};

fn with(world: &TestRepo, change: impl FnOnce(&mut FilterOptions)) -> TreeSpec {
    let mut spec = world.spec();
    change(&mut spec.filter);
    spec
}

fn marked<const N: usize>(of: [(&str, MissingNames); N]) -> BTreeMap<String, MissingNames> {
    of.into_iter()
        .map(|(path, why)| (path.to_owned(), why))
        .collect()
}

fn back_up(world: &TestRepo, spec: TreeSpec) -> SnapshotId {
    committed(&world.backup(tree_options(spec)).0)
}

/// Returns the directories that a snapshot marks, and the reasons.
fn marks(world: &TestRepo, snapshot: SnapshotId) -> BTreeMap<String, MissingNames> {
    let entries = world.entries(snapshot);
    entries
        .iter()
        .filter_map(|entry| Some((entry.path.to_string(), entry.missing_names()?)))
        .collect()
}

#[test]
fn each_rule_marks_the_directory_of_a_skipped_entry() {
    let world = TestRepo::new();
    world.write("a/keep", b"1");
    world.write("a/x.log", b"1");
    world.write("big/file", &[1; 5000]);
    world.write("big/small", b"1");
    world.write(
        "cache/CACHEDIR.TAG",
        b"Signature: 8a477f597d28d172789f06886806bc55",
    );
    world.write("cache/below/file", b"1");
    world.write("own/repo/config", b"1");
    world.write("plain/file", b"1");

    let whole = back_up(&world, world.spec());
    assert!(marks(&world, whole).is_empty(), "nothing was left out");
    assert_eq!(world.record(whole).counts.partial, Some(0));

    let own = SourceDir::open_root(&world.path("own/repo"))
        .expect("opens")
        .id();

    let rules: Vec<(TreeSpec, _)> = vec![
        (
            with(&world, |filter| filter.excludes = vec!["*.log".into()]),
            marked([("a", Excluded)]),
        ),
        (
            with(&world, |filter| filter.excludes = vec!["/a/".into()]),
            marked([("/", Excluded)]),
        ),
        (
            with(&world, |filter| filter.exclude_larger_than = Some(4000)),
            marked([("big", Excluded)]),
        ),
        (
            with(&world, |filter| filter.exclude_caches = true),
            marked([("cache", Excluded)]),
        ),
        (
            with(&world, |filter| filter.never = vec![own]),
            marked([("own", Unseen)]),
        ),
        (
            TreeSpec {
                files_from: Some(FilesFrom::parse(b"a/keep\nplain").expect("a list")),
                ..world.spec()
            },
            marked([("/", Excluded), ("a", Excluded)]),
        ),
    ];

    for (spec, expected) in rules {
        let snapshot = back_up(&world, spec);
        assert_eq!(marks(&world, snapshot), expected);
        assert_eq!(
            world.record(snapshot).counts.partial,
            Some(expected.len() as u64)
        );
    }

    // A capture without rules removes the marks.
    let whole = back_up(&world, world.spec());
    assert!(marks(&world, whole).is_empty());
}

/// A marked directory that did not change is not stored again: no run, no chunk.
#[test]
fn marks_that_did_not_change_cost_nothing() {
    for immutable in [false, true] {
        let world = TestRepo::new();
        world.write("a/keep", b"1");
        world.write("a/x.log", b"1");
        world.write("b/c/keep", b"1");
        let spec = || TreeSpec {
            immutable,
            ..with(&world, |filter| {
                filter.excludes = vec!["*.log".into(), "/b/c/".into()];
            })
        };

        let first = back_up(&world, spec());
        // The second backup visits racy entries again and clears their flag, so the third one has
        // nothing left to store.
        settle();
        back_up(&world, spec());
        let last = back_up(&world, spec());
        let again = back_up(&world, spec());

        let expected = marked([("a", Excluded), ("b", Excluded)]);
        for snapshot in [first, last, again] {
            assert_eq!(marks(&world, snapshot), expected);
            assert_eq!(
                world.record(snapshot).counts.partial,
                Some(2),
                "skipped directories count too"
            );
        }
        assert_eq!(
            world.record(last).kind,
            world.record(again).kind,
            "no run was added"
        );
    }
}
