//! The list of missing paths, compared with the counts.

use super::*;
use crate::observe::Recording;
use crate::ops::backup::{BackupOptions, SourceSpec, TreeSpec, backup};
use crate::ops::testing::{Lab, write};
use crate::source::FilterOptions;
use crate::task::{Cancel, Task};
use crate::types::SnapshotId;

fn back_up(lab: &Lab, excludes: &[&str]) -> SnapshotId {
    let filter = FilterOptions {
        excludes: excludes.iter().map(Into::into).collect(),
        ..FilterOptions::default()
    };
    let tree = TreeSpec {
        filter,
        ..TreeSpec::new("tree", lab.tree())
    };
    let options = BackupOptions::new("host", vec![SourceSpec::Tree(Box::new(tree))]);
    let report = backup(
        &lab.open(),
        options,
        Task::new(&Recording::default(), &Cancel::new()),
    )
    .expect("backed up");
    report.snapshot.expect("committed")
}

fn list(lab: &Lab, id: SnapshotId) -> (SourceLacks, Option<LackingReport>) {
    let repo = lab.open();
    crate::read::sync(&repo, &Recording::default()).expect("synced");
    let all = repo.snapshots(&mut |_, _| {}).expect("listed");
    let found = all.iter().find(|one| one.id == id).expect("there");
    let source = &found.snapshot.sources[0];
    (
        SourceLacks::of(found, source),
        MissingLister::new(&ChunkReader::new(&repo, 1 << 20)).list(found, source),
    )
}

fn paths(lacking: Option<&LackingReport>) -> Vec<(String, &'static str)> {
    let all = lacking.map_or(&[][..], |lacking| &lacking.paths);
    all.iter()
        .map(|one| (one.path.to_string(), one.why.name()))
        .collect()
}

#[test]
fn the_list_agrees_with_the_counts() {
    let lab = Lab::new();
    for name in ["a/keep", "a/b/cache/x", "c/cache/x", "d/e/f"] {
        write(&lab.tree().join(name), b"1");
    }

    let whole = back_up(&lab, &[]);
    let (lacks, none) = list(&lab, whole);
    assert_eq!((lacks.partial, lacks.unseen), (Some(0), Some(0)));
    assert!(lacks.is_nothing() && none.is_none());

    let partial = back_up(&lab, &["cache/"]);
    let (lacks, lacking) = list(&lab, partial);
    assert_eq!(
        (lacks.incomplete, lacks.partial, lacks.unseen),
        (0, Some(2), Some(0))
    );
    let expected = [("a/b".to_owned(), "excluded"), ("c".to_owned(), "excluded")];
    assert_eq!(paths(lacking.as_ref()), expected);
    assert!(!lacking.expect("listed").is_cut);
    // Counts are of the whole source, independent of the paths that this run looked at.
    assert_eq!(list(&lab, back_up(&lab, &["cache/"])).0, lacks);
}

#[test]
fn a_long_list_is_cut_and_marked_as_cut() {
    let lab = Lab::new();
    for number in 0..LACKING_PATHS_MAX + 1 {
        write(&lab.tree().join(format!("{number:03}/cache/x")), b"1");
    }
    let (lacks, lacking) = list(&lab, back_up(&lab, &["cache/"]));
    let lacking = lacking.expect("listed");
    assert_eq!(
        (lacks.partial, lacking.paths.len()),
        (Some(21), LACKING_PATHS_MAX)
    );
    assert!(lacking.is_cut);
    std::fs::remove_dir_all(lab.tree().join("000")).expect("gone");
    let (_, lacking) = list(&lab, back_up(&lab, &["cache/"]));
    let lacking = lacking.expect("listed");
    assert!(!lacking.is_cut && lacking.paths.len() == LACKING_PATHS_MAX);
}
