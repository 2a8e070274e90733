//! One name at two paths, and a path that was left.

use std::path::PathBuf;

use super::super::{RepoStatus, StatusOptions, status};
use crate::observe::Recording;
use crate::ops::backup::{BackupOptions, SourceSpec, TreeSpec, backup};
use crate::ops::testing::{Lab, write};
use crate::task::{Cancel, Task};
use std::time::Duration;

struct World {
    lab: Lab,
}

impl World {
    fn new(paths: &[&str]) -> Self {
        let lab = Lab::new();
        for path in paths {
            write(&lab.tree().join(path).join("f"), path.as_bytes());
        }
        Self { lab }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.lab.tree().join(path)
    }

    /// Backs a path up an hour later, as `data`.
    fn back_up(&self, path: &str, moved: bool) {
        self.lab.store.clock().advance(3600);
        let sources = vec![SourceSpec::Tree(Box::new(TreeSpec::new(
            "data",
            self.path(path),
        )))];
        let options = BackupOptions {
            moved,
            ..BackupOptions::new("host", sources)
        };
        backup(
            &self.lab.open(),
            options,
            Task::new(&Recording::default(), &Cancel::new()),
        )
        .expect("backed up");
    }

    fn ask(&self) -> (RepoStatus, Vec<String>) {
        let observer = Recording::default();
        let max_age = Some(Duration::from_secs(2 * 3600));
        let options = StatusOptions {
            max_age,
            ..StatusOptions::default()
        };
        let status = status(&self.lab.open(), &options, &observer).expect("asked");
        (
            status,
            observer
                .problems()
                .iter()
                .map(ToString::to_string)
                .collect(),
        )
    }

    /// The rows: last component of the path and number of snapshots; and how many were too old.
    fn rows(&self) -> (Vec<(String, u64)>, usize) {
        let (status, problems) = self.ask();
        let name = |path: &Option<Vec<u8>>| {
            let path = String::from_utf8(path.clone().expect("a tree")).expect("text");
            path.rsplit('/').next().unwrap_or_default().to_owned()
        };
        (
            status
                .sources
                .iter()
                .map(|one| (name(&one.path), one.snapshots))
                .collect(),
            problems.len(),
        )
    }
}

fn row(name: &str, snapshots: u64) -> (String, u64) {
    (name.to_owned(), snapshots)
}

#[test]
fn two_paths_of_one_name_are_two_sources() {
    let world = World::new(&["a", "b"]);
    for _ in 0..2 {
        world.back_up("a", false);
        world.back_up("b", false);
    }
    assert_eq!(world.rows(), (vec![row("a", 2), row("b", 2)], 0));
    // The job of the one no longer runs: the other's backups do not hide that.
    for _ in 0..4 {
        world.back_up("b", false);
    }
    let (status, problems) = world.ask();
    assert_eq!(status.sources.len(), 2);
    assert_eq!(problems.len(), 1, "{problems:?}");
    let path = world.path("a").canonicalize().expect("there");
    assert!(
        problems[0].starts_with(&format!("source data ({}) on host host: ", path.display())),
        "{problems:?}"
    );
}

#[test]
fn a_path_that_a_source_moved_away_from_is_no_longer_listed() {
    let world = World::new(&["a", "b", "c"]);
    world.back_up("a", false);
    world.back_up("a", false);
    world.back_up("b", false);
    assert_eq!(
        world.rows(),
        (vec![row("b", 3)], 0),
        "its history continues"
    );
    // The mark is carried on, so nothing depends on the first snapshot at the new path.
    let repo = world.lab.open();
    let second = repo.snapshots(&mut |_, _| {}).expect("listed");
    let moved = second
        .iter()
        .find(|one| !one.snapshot.sources[0].moved_from.is_empty())
        .expect("moved")
        .id;
    world.back_up("b", false);
    let lease = crate::ops::testing::lease(&repo);
    repo.forget_snapshot(&lease, &moved).expect("forgotten");
    lease.release().expect("released");
    for _ in 0..3 {
        world.back_up("b", false);
    }
    assert_eq!(world.rows(), (vec![row("b", 6)], 0));
    world.back_up("c", false);
    assert_eq!(world.rows(), (vec![row("c", 7)], 0));

    // Somebody captures the first path again: it is a source of its own.
    world.back_up("a", false);
    world.back_up("c", false);
    assert_eq!(world.rows(), (vec![row("a", 3), row("c", 6)], 0));
    for _ in 0..3 {
        world.back_up("c", false);
    }
    assert_eq!(world.rows(), (vec![row("a", 3), row("c", 9)], 1));
    // The user says that it is the same.
    world.back_up("c", true);
    assert_eq!(world.rows(), (vec![row("c", 13)], 0));
    world.back_up("a", true);
    assert_eq!(world.rows(), (vec![row("a", 14)], 0), "and back");
}

/// Random histories of jobs that share a name. A path whose own job ran within the limit is never
/// late; one that was captured again after another path came up and is overdue since is always
/// named.
#[test]
fn no_job_that_stopped_is_hidden_by_the_others() {
    let mut state = 7_u64;
    let mut draw = |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for _ in 0..6 {
        let names = ["a", "b", "c"];
        let world = World::new(&names);
        let mut ran: Vec<usize> = Vec::new();
        for _ in 0..8 {
            let job = draw(3) as usize;
            world.back_up(names[job], false);
            ran.push(job);
        }
        let (status, _) = world.ask();
        for (job, name) in names.iter().enumerate() {
            let Some(last) = ran.iter().rposition(|&one| one == job) else {
                continue;
            };
            let is_row = status.sources.iter().any(|one| {
                one.path
                    .as_deref()
                    .is_some_and(|path| path.ends_with(format!("/{name}").as_bytes()))
            });
            // Only a path that came up for the first time later can have taken its place.
            let is_replaced = (0..names.len()).any(|other| {
                other != job
                    && ran
                        .iter()
                        .position(|&one| one == other)
                        .is_some_and(|first| first > last)
            });
            assert!(is_row || is_replaced, "{name} is hidden: {ran:?}");
        }
    }
}
