//! Tests of `--delete` where the snapshot, or one of its directories, does not account for names.

use std::fs;

use super::super::kept::blindness;
use super::super::tests::{World, options, what};
use super::*;
use crate::dest::ProtectedDirs;
use crate::format::{Snapshot, SnapshotState};
use crate::observe::{ProgressUnit, Recording};
use crate::ops::restore::{RestoreOptions, RestoreReport, RestoreTarget};
use crate::ops::testing::lease;
use crate::task::Task;

/// Restores over a target that has a file which the snapshot lacks. Returns true if the file still
/// exists.
fn restored(world: &World, options: &RestoreOptions) -> (bool, RestoreReport, Recording) {
    fs::create_dir_all(world.to("a")).expect("a directory");
    fs::write(world.to("a/mine"), b"not in the snapshot").expect("a file");
    let target = RestoreTarget::Directory(world.target.path().into());
    let (report, seen) = world
        .restore_as(what(Some("tree"), ""), target, options, None)
        .expect("restored");
    (world.to("a/mine").exists(), report, seen)
}

fn deleting() -> RestoreOptions {
    RestoreOptions {
        delete: true,
        delete_excluded: true,
        ..options()
    }
}

/// Commits the newest snapshot again with a change.
fn again(world: &World, change: impl FnOnce(&mut Snapshot)) {
    let repo = world.repo();
    let newest = repo
        .find_snapshot("latest", &crate::repo::HostChoice::Any)
        .expect("found");
    let mut snapshot = newest.snapshot;
    change(&mut snapshot);
    snapshot.parents = Vec::new();
    repo.commit(lease(&repo), snapshot).expect("committed");
}

#[test]
fn a_snapshot_that_accounts_for_nothing_deletes_nothing() {
    let world = World::new();
    world.write("a/file", b"1");
    world.backup();
    let (is_there, report, _) = restored(&world, &deleting());
    assert!(!is_there, "it was not there when it was backed up");
    assert_eq!((report.deleted, report.not_deleted), (1, 0));

    // Captured before directories were marked, or carried over without a scan of the tree.
    again(&world, |snapshot| {
        snapshot
            .sources
            .iter_mut()
            .for_each(|source| source.counts.partial = None);
    });
    let (is_there, report, seen) = restored(&world, &deleting());
    assert!(is_there);
    assert_eq!((report.deleted, report.not_deleted), (0, 1));
    let problems = seen.problems();
    assert!(
        problems
            .iter()
            .any(|one| one.severity == Severity::Missing && one.message.contains("older icecore")),
        "{problems:?}"
    );
}

#[test]
fn checkpoints_and_repaired_sources_account_for_nothing() {
    let world = World::new();
    world.write("a/file", b"1");
    world.backup();
    let repo = world.repo();
    let newest = repo
        .find_snapshot("latest", &crate::repo::HostChoice::Any)
        .expect("found");
    assert_eq!(newest.snapshot.state, SnapshotState::Complete);
    let source = newest.snapshot.source("tree").expect("there");
    assert_eq!(blindness(false, false, source), None);
    assert!(blindness(true, false, source).is_some_and(|why| why.contains("checkpoint")));
    assert!(blindness(false, true, source).is_some_and(|why| why.contains("repair")));
    assert_eq!(
        blindness(
            false,
            false,
            newest.snapshot.source("dump").expect("a stream")
        ),
        None
    );
}

/// A protected directory is inside the target, or the target is inside a protected directory.
#[test]
fn protected_directories_are_not_deleted_or_restored_into() {
    let world = World::new();
    world.write("a/file", b"1");
    world.backup();
    fs::create_dir_all(world.to("b/keys")).expect("a directory");
    fs::write(world.to("b/keys/key"), b"secret").expect("a file");
    let mut protect = ProtectedDirs::default();
    protect.add(&world.to("b/keys"), "the keys");
    let options = RestoreOptions {
        protect,
        ..deleting()
    };
    let (is_there, report, seen) = restored(&world, &options);
    assert!(!is_there && world.to("b/keys/key").exists());
    assert_eq!(report.not_deleted, 1);
    assert!(
        seen.problems()
            .iter()
            .any(|one| one.message.contains("the keys"))
    );

    let inside = RestoreTarget::Directory(world.to("b/keys/new"));
    let refused = world
        .restore_as(what(Some("tree"), ""), inside, &options, None)
        .expect_err("refused");
    assert!(
        refused.to_string().contains("is inside, the keys"),
        "{refused}"
    );
    assert!(
        !world.to("b/keys/new").exists(),
        "and nothing was made there"
    );
}

/// Renames a directory while the walk is in the one before it. The listed name is gone when the
/// walk gets there, and the new name was not listed.
struct Renames {
    from: std::path::PathBuf,
    to: std::path::PathBuf,
    seen: std::sync::atomic::AtomicU32,
}

impl crate::observe::Observer for Renames {
    fn add(&self, counter: crate::observe::Counter, _: u64) {
        use std::sync::atomic::Ordering;
        // The first entry is the root.
        if counter == crate::observe::Counter::Entries
            && self.seen.fetch_add(1, Ordering::Relaxed) == 1
        {
            fs::rename(&self.from, &self.to).expect("renamed");
        }
    }
    fn phase(&self, _: &crate::observe::Phase) {}
    fn expect(&self, _: u64, _: ProgressUnit) {}
    fn problem(&self, _: &Problem) {}
    fn detail(&self, _: &'static str, _: &Subject) {}
}

#[test]
fn an_entry_renamed_during_the_walk_is_not_deleted() {
    use crate::ops::backup::{BackupOptions, SourceSpec, TreeSpec, backup};

    for later in ["b/file", "file-b"] {
        let world = World::new();
        world.write("a/file", b"1");
        world.write(later, b"2");
        let top = later.split('/').next().unwrap_or_default();
        let renames = Renames {
            from: world.from(top),
            to: world.from("0"),
            seen: 0.into(),
        };
        let tree = SourceSpec::Tree(Box::new(TreeSpec::new("tree", world.from(""))));
        let options = BackupOptions::new("host", vec![tree]);
        backup(
            &world.repo(),
            options,
            Task::new(&renames, &crate::task::Cancel::new()),
        )
        .expect("backup");

        // Restore over the same tree.
        let target = RestoreTarget::Directory(world.from(""));
        let (report, seen) = world
            .restore_as(what(Some("tree"), ""), target, &deleting(), None)
            .expect("restored");
        assert!(world.from("0").exists(), "{later}: {:?}", seen.problems());
        assert_eq!((report.deleted, report.not_deleted), (0, 1), "{later}");
    }
}
