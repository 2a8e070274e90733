//! What a backup captures is what is there: names that come and go, files that change while they are read, sizes and
//! times that do not tell, attributes that cannot be read.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use icecore::Error;
use icecore::observe::Recording;
use icecore::ops::Cancel;
use icecore::ops::backup::{BackupOptions, BackupReport, CommandSpec, SourceSpec, TreeSpec, backup};
use icecore::repo::{ChunkReader, MergedRuns, Repository, Secret, Streams};
use icecore::source::StreamCommand;
use icecore::store::{LocalStore, MemoryStore, SharedStore};
use icecore::types::Entry;

struct World {
    folder: tempfile::TempDir,
    store: SharedStore,
}

impl World {
    fn new() -> Self {
        Self::with_store(tempfile::tempdir().expect("a folder"), Arc::new(MemoryStore::new()))
    }

    fn with_store(folder: tempfile::TempDir, store: SharedStore) -> Self {
        Repository::init(&store, &Secret::empty(), "test").expect("init");
        fs::create_dir_all(folder.path().join("tree")).expect("made");
        Self { folder, store }
    }

    fn repo(&self) -> Repository {
        let cache = self.folder.path().join("cache");
        Repository::open(self.store.clone(), &Secret::empty(), &cache).expect("open")
    }

    /// A path in the tree that is backed up.
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("tree").join(name)
    }

    fn write(&self, name: &str, content: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("has a parent")).expect("folders");
        fs::write(path, content).expect("written");
    }

    fn options(&self, path: &Path) -> BackupOptions {
        BackupOptions::new("host", vec![SourceSpec::Tree(Box::new(TreeSpec::new("tree", path)))])
    }

    fn attempt(&self, options: BackupOptions) -> (Result<BackupReport, Error>, Recording) {
        let observer = Recording::default();
        (backup(&self.repo(), options, &observer, &Cancel::new()), observer)
    }

    /// All entries of a snapshot's tree.
    fn entries(&self, report: &BackupReport) -> Vec<Entry> {
        let repo = self.repo();
        repo.sync().expect("sync");
        let snapshot = repo.read_snapshot(&report.snapshot.expect("committed")).expect("reads");
        let icecore::format::SourceKind::Tree { runs, .. } = &snapshot.source("tree").expect("there").kind
        else {
            panic!("not a tree");
        };
        let reader = ChunkReader::new(&repo, 1 << 20);
        let mut merged = MergedRuns::open(&reader, runs, Streams::All, false).expect("opens");
        let mut out = Vec::new();
        while let Some(entry) = merged.next_entry().expect("reads") {
            out.push(entry);
        }
        out
    }

    fn names(&self, report: &BackupReport) -> Vec<String> {
        self.entries(report).iter().map(|entry| entry.path.to_string()).collect()
    }
}

/// The repository was known by its path as text: one whose path is not UTF-8, or leads through a link, captured itself,
/// and grew with each backup.
#[test]
fn a_repository_or_cache_inside_its_source_is_never_captured() {
    for (name, opened) in [
        (b"caf\xe9".as_slice(), b"caf\xe9".as_slice()),
        (b"plain", b"plain"),
        (b"new\nline", b"new\nline"),
        (b"real", b"link"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let tree = folder.path().join("tree");
        fs::create_dir_all(&tree).expect("made");
        let (own, opened) = (tree.join(Path::new(std::ffi::OsStr::from_bytes(name))), {
            tree.join(Path::new(std::ffi::OsStr::from_bytes(opened)))
        });
        LocalStore::create(&own).expect("made");
        if own != opened {
            std::os::unix::fs::symlink(&own, &opened).expect("linked");
        }
        let store: SharedStore = Arc::new(LocalStore::open(&opened).expect("opens"));
        let world = World::with_store(folder, store);
        world.write("file", b"content");

        // The cache lies in the tree too.
        let cache = world.path("cache");
        let repo = Repository::open(world.store.clone(), &Secret::empty(), &cache).expect("opens");
        let report = backup(&repo, world.options(&world.path("")), &Recording::default(), &Cancel::new());
        let mut expected = vec!["/", "file"];
        if own != opened {
            expected.push("link");
        }
        assert_eq!(world.names(&report.expect("backup")), expected, "{own:?}");
    }
}

fn stream(bytes: &[u8]) -> SourceSpec {
    SourceSpec::Stream { name: "in".into(), input: Box::new(std::io::Cursor::new(bytes.to_vec())) }
}

fn command(words: &str) -> SourceSpec {
    let words = StreamCommand::parse(words).expect("words");
    SourceSpec::Command(Box::new(CommandSpec::new("db", words)))
}

/// A dump that failed leaves an empty stream, which was committed as complete, and pushed the good dumps out.
#[test]
fn an_empty_stream_is_refused_unless_allowed() {
    let world = World::new();
    let good = || vec![stream(b"a dump"), command("printf dump")];
    let empty = || {
        [
            vec![stream(b"")],
            vec![command("true")],
            vec![command("sh -c 'exec >&-; sleep 0.1'")],
            vec![stream(b"a dump"), command("printf ''")],
            vec![stream(b""), command("printf dump")],
        ]
    };
    // With no capture before it, and with a good one.
    for _ in 0..2 {
        for sources in empty() {
            let (refused, _) = world.attempt(BackupOptions::new("host", sources));
            assert!(matches!(refused, Err(Error::Empty { .. })), "{refused:?}");
        }
        world.attempt(BackupOptions::new("host", good())).0.expect("committed");
    }
    let failing = world.attempt(BackupOptions::new("host", vec![command("sh -c 'exit 3'")])).0;
    assert!(matches!(failing, Err(Error::Command(_))), "how it ended says more: {failing:?}");

    let options = BackupOptions { allow_empty: true, ..BackupOptions::new("host", vec![stream(b"")]) };
    world.attempt(options).0.expect("allowed");
}
