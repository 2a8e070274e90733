//! Sources that have suddenly lost everything are refused at each try, also after a backup that was
//! interrupted.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use icecore::Error;
use icecore::format::SnapshotState;
use icecore::observe::{Counter, Observer, Phase, Problem, Recording, Subject};
use icecore::ops::backup::{BackupOptions, BackupReport, SourceSpec, TreeSpec, backup};
use icecore::repo::{Repository, Secret, StoredSnapshot};
use icecore::source::FilesFrom;
use icecore::store::{MemoryStore, SharedStore};
use icecore::task::{Cancel, Task};

struct World {
    tree: tempfile::TempDir,
    cache: tempfile::TempDir,
    store: SharedStore,
}

impl World {
    /// Creates a tree of three files, and captures it.
    fn captured() -> Self {
        let store: SharedStore = Arc::new(MemoryStore::new());
        Repository::init(&store, &Secret::empty(), "test").expect("init");
        let dir = || tempfile::tempdir().expect("a directory");
        let world = Self {
            tree: dir(),
            cache: dir(),
            store,
        };
        world.fill();
        let report = world.try_backup(world.spec(), &Recording::default(), &Cancel::new());
        assert_eq!(report.expect("backup").sources[0].counts.files_new, 3);
        world
    }

    fn fill(&self) {
        for path in ["a/1", "a/b/2", "c/3"] {
            let path = self.tree.path().join(path);
            fs::create_dir_all(path.parent().expect("has a parent")).expect("directories");
            fs::write(path, b"content").expect("written");
        }
    }

    fn spec(&self) -> TreeSpec {
        TreeSpec::new("tree", self.tree.path())
    }

    fn options(spec: TreeSpec) -> BackupOptions {
        BackupOptions::new("host", vec![SourceSpec::Tree(Box::new(spec))])
    }

    fn try_backup(
        &self,
        spec: TreeSpec,
        observer: &dyn Observer,
        cancel: &Cancel,
    ) -> Result<BackupReport, Error> {
        self.run(Self::options(spec), observer, cancel)
    }

    fn run(
        &self,
        options: BackupOptions,
        observer: &dyn Observer,
        cancel: &Cancel,
    ) -> Result<BackupReport, Error> {
        let repo = Repository::open(self.store.clone(), &Secret::empty(), self.cache.path());
        backup(&repo.expect("open"), options, Task::new(observer, cancel))
    }

    fn snapshots(&self) -> Vec<StoredSnapshot> {
        let repo = Repository::open(self.store.clone(), &Secret::empty(), self.cache.path());
        let all = repo.expect("open").snapshots(&mut |_, _| {});
        all.expect("lists")
    }
}

type Loss = (&'static str, fn(&World), fn(&mut TreeSpec));

const LOSSES: [Loss; 5] = [
    (
        "each directory lost its files",
        |world| {
            for path in ["a/1", "a/b/2", "c/3"] {
                fs::remove_file(world.tree.path().join(path)).expect("removed");
            }
        },
        |_| {},
    ),
    (
        "the root lost everything",
        |world| {
            for path in ["a", "c"] {
                fs::remove_dir_all(world.tree.path().join(path)).expect("removed");
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
        let world = World::captured();
        lose(&world);
        for number in 1..=3 {
            let mut spec = world.spec();
            rules(&mut spec);
            let result = world.try_backup(spec, &Recording::default(), &Cancel::new());
            let Err(Error::Empty { why, .. }) = &result else {
                panic!("{what}, try {number}: {result:?}");
            };
            assert!(
                why.contains("has 3 files") || why.contains("was not in the last snapshot"),
                "{what}, try {number}: {why}"
            );
            assert_eq!(world.snapshots().len(), 1, "{what}, try {number}");
        }

        world.fill();
        let good = world.try_backup(world.spec(), &Recording::default(), &Cancel::new());
        let counts = good.expect("backup").sources[0].counts;
        assert_eq!((counts.files_new, counts.removed), (0, 0), "{what}");
    }
}

/// Asks to stop at the first new file.
struct Stopper<'a>(&'a Cancel);

impl Observer for Stopper<'_> {
    fn add(&self, counter: Counter, _: u64) {
        if counter == Counter::FilesNew {
            self.0.cancel();
        }
    }
    fn phase(&self, _: &Phase) {}
    fn expect(&self, _: u64, _: bool) {}
    fn problem(&self, _: &Problem) {}
    fn detail(&self, _: &'static str, _: &Subject) {}
}

/// A backup of a source that has lost everything is interrupted, while it captures another source.
/// Its checkpoint has nothing of the source, and the next backup builds on it.
#[test]
fn a_checkpoint_without_the_files_makes_no_emptied_source_acceptable() {
    for (what, lose, rules) in LOSSES {
        let world = World::captured();
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
            ..World::options(world.spec())
        };
        let stopped = world.run(options, &Stopper(&cancel), &cancel);
        assert!(
            matches!(stopped, Err(Error::Interrupted)),
            "{what}: {stopped:?}"
        );
        let newest = world.snapshots().pop().expect("a checkpoint").snapshot;
        assert_eq!(newest.state, SnapshotState::Checkpoint, "{what}");
        let record = newest.source("tree").expect("it has the source");
        assert!(record.counts.removed > 0, "{what}");

        for number in 1..=2 {
            let result = world.try_backup(emptied(), &Recording::default(), &Cancel::new());
            assert!(
                matches!(result, Err(Error::Empty { .. })),
                "{what}, try {number}: {result:?}"
            );
        }

        let options = BackupOptions {
            allow_empty: true,
            ..World::options(emptied())
        };
        let allowed = world.run(options, &Recording::default(), &Cancel::new());
        allowed.expect("accepted");
        let again = world.try_backup(emptied(), &Recording::default(), &Cancel::new());
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
    let world = World::captured();
    let run = |allow_empty| {
        let options = BackupOptions {
            allow_empty,
            grain_seconds: Some(1),
            ..World::options(TreeSpec {
                immutable: true,
                ..world.spec()
            })
        };
        world.run(options, &Recording::default(), &Cancel::new())
    };
    for path in ["a/1", "a/b/2", "c/3"] {
        fs::remove_file(world.tree.path().join(path)).expect("removed");
    }
    for (content, path) in HASHED {
        fs::write(world.tree.path().join(path), content).expect("written");
    }
    std::thread::sleep(Duration::from_millis(1100));
    run(false).expect("captured");
    let settled = run(false).expect("settled").sources[0].counts;
    assert_eq!(settled.files_unchanged, 0, "no file is looked at");

    let [first, second] = HASHED.map(|(_, path)| world.tree.path().join(path));
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
