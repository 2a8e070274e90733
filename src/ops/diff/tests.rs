//! Compares with a naive comparison of two maps, over runs with removals and covers.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::observe::Counters;
use crate::ops::testing::{Lab, commit, lease, noise, reading, tree_kind, write, write_runs};
use crate::repo::Repository;
use crate::types::{EntryFlags, Metadata};

type State = BTreeMap<RelPath, Node>;

/// One change of a tree.
#[derive(Debug, Clone)]
enum Op {
    File(Vec<u8>, u8),
    Directory(Vec<u8>, u16),
    Remove(Vec<u8>),
}

/// Returns paths of up to three components with two names each, so that covers and removals meet
/// often.
fn path() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(0..2u8, 1..4)
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (path(), 0..3u8).prop_map(|(path, content)| Op::File(path, content)),
        2 => (path(), 0..2u16).prop_map(|(path, mode)| Op::Directory(path, mode)),
        2 => path().prop_map(Op::Remove),
    ]
}

fn real(path: &[u8]) -> RelPath {
    path.iter().fold(RelPath::root(), |path, name| {
        path.join(&[b'a' + name]).expect("legal")
    })
}

/// Applies a change like a file system would: a file replaces a directory with its contents, and a
/// path without a parent directory is not created.
fn apply(state: &mut State, op: &Op) {
    let (path, node) = match op {
        Op::File(path, content) => {
            let content = Content {
                size: 1,
                extents: vec![crate::types::Extent::Literal(vec![*content])],
            };
            (
                real(path),
                Some(Node::File {
                    meta: Metadata::default(),
                    content,
                }),
            )
        }
        Op::Directory(path, mode) => (
            real(path),
            Some(Node::Directory {
                meta: Metadata {
                    mode: *mode,
                    ..Metadata::default()
                },
            }),
        ),
        Op::Remove(path) => (real(path), None),
    };

    let has_parent = path.parent().is_some_and(|parent| {
        parent.is_root() || matches!(state.get(&parent), Some(Node::Directory { .. }))
    });
    if !has_parent {
        return;
    }

    if !matches!(node, Some(Node::Directory { .. })) {
        state.retain(|other, _| !other.is_below(&path));
    }

    match node {
        Some(node) => state.insert(path, node),
        None => state.remove(&path),
    };
}

/// Returns the run that leads from one state to the next. Below a cover it repeats every entry.
fn run(old: &State, new: &State) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut covered: Option<RelPath> = None;
    let paths: BTreeSet<&RelPath> = old.keys().chain(new.keys()).collect();
    for path in paths {
        let hidden = covered
            .as_ref()
            .is_some_and(|directory| path.is_below(directory));
        let before = old.get(path).filter(|_| !hidden);
        let after = new.get(path);

        if before == after {
            continue;
        }
        let Some(node) = after.cloned().or(before.map(|_| Node::Removed)) else {
            continue;
        };

        let was_directory = matches!(before, Some(Node::Directory { .. }));
        let is_directory = matches!(node, Node::Directory { .. });
        let flags = if is_directory && !was_directory {
            EntryFlags::COVER
        } else {
            EntryFlags::empty()
        };

        if was_directory && !is_directory {
            covered = Some(path.clone());
        }

        entries.push(Entry {
            path: path.clone(),
            flags,
            node,
        });
    }
    entries
}

fn naive(old: &State, new: &State) -> Vec<(RelPath, PathChange)> {
    let paths: BTreeSet<&RelPath> = old.keys().chain(new.keys()).collect();
    let entry = |path: &RelPath, node: &Node| Entry {
        path: path.clone(),
        flags: EntryFlags::empty(),
        node: node.clone(),
    };
    let change = |path: &RelPath| match (old.get(path), new.get(path)) {
        (None, None) => None,
        (None, Some(_)) => Some(PathChange::Added),
        (Some(_), None) => Some(PathChange::Removed),
        (Some(old), Some(new)) => {
            changed(&entry(path, old), &entry(path, new)).map(PathChange::Changed)
        }
    };
    paths
        .into_iter()
        .filter_map(|path| change(path).map(|change| (path.clone(), change)))
        .collect()
}

fn list_changes(repo: &Repository, old: &str, new: &str) -> Vec<(RelPath, PathChange)> {
    let mut out = Vec::new();
    let mut each = |item: DiffItem<'_>| {
        out.push((item.path.clone(), item.change));
        Ok(())
    };
    reading(repo, &Counters::default(), |session| {
        diff(session, old, new, &HostChoice::Any, &mut each)
    })
    .expect("compared");
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn a_diff_equals_the_difference_of_two_maps(
        base in proptest::collection::vec(op(), 1..25),
        common in proptest::collection::vec(op(), 0..6),
        one in proptest::collection::vec(op(), 0..6),
        two in proptest::collection::vec(op(), 0..6),
        shares in any::<bool>(),
    ) {
        let root = (RelPath::root(), Node::Directory { meta: Metadata::default() });
        let step = |from: &State, ops: &[Op]| {
            let mut state = from.clone();
            ops.iter().for_each(|op| apply(&mut state, op));
            state
        };

        let empty = State::new();
        let first = step(&State::from([root]), &base);
        let second = step(&first, &common);
        let left = step(&second, &one);
        let right = step(&second, &two);
        let mut runs = vec![run(&empty, &first), run(&first, &second), run(&second, &left), run(&second, &right)];
        // Without a shared base both sides are compared in step.
        runs.push(run(&empty, &right));

        let lab = Lab::new();
        let repo = lab.open();
        let writer = lease(&repo);
        let filled: Vec<Vec<Entry>> = runs.iter().filter(|run| !run.is_empty()).cloned().collect();
        let mut refs = write_runs(&repo, &writer, &filled, &[]).0.into_iter();
        let refs: Vec<Option<RunRef>> =
            runs.iter().map(|run| if run.is_empty() { None } else { refs.next() }).collect();

        let take = |numbers: &[usize]| -> Vec<RunRef> { numbers.iter().filter_map(|&n| refs[n].clone()).collect() };
        let a = commit(&repo, writer, vec![("t", tree_kind(&take(&[2, 1, 0])))]);
        let other = if shares { take(&[3, 1, 0]) } else { take(&[4]) };
        let b = commit(&repo, lease(&repo), vec![("t", tree_kind(&other))]);

        prop_assert_eq!(list_changes(&repo, &a.to_string(), &b.to_string()), naive(&left, &right));
        prop_assert_eq!(list_changes(&repo, &b.to_string(), &a.to_string()), naive(&right, &left));
    }
}

#[test]
fn real_backups_and_streams_are_compared() {
    let lab = Lab::new();
    let tree = lab.tree();
    for n in 0..300 {
        write(&tree.join(format!("d{}/f{n}", n % 7)), &noise(n, 200));
    }

    let repo = lab.open();
    let old = lab.backup(&repo, &noise(900, 50_000)).to_string();
    std::fs::remove_dir_all(tree.join("d3")).expect("removed");
    write(&tree.join("d1/f1"), b"other");
    write(&tree.join("d9/new"), b"new");
    let new = lab.backup(&repo, &noise(901, 60_000)).to_string();

    let changes = list_changes(&repo, &old, &new);
    let count = |wanted| {
        changes
            .iter()
            .filter(|(_, change)| *change == wanted)
            .count()
    };
    assert_eq!(count(PathChange::Added), 2, "{changes:?}");
    assert_eq!(
        count(PathChange::Removed),
        1 + (0..300).filter(|n| n % 7 == 3).count()
    );
    assert_eq!(
        count(PathChange::Changed(ChangedParts::Content)),
        2,
        "the file and the stream"
    );
    assert!(changes.contains(&(
        RelPath::from_slashed(b"d9/new").expect("legal"),
        PathChange::Added
    )));
    assert!(list_changes(&repo, &new, &new).is_empty());
}
