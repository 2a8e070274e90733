//! A backup captures the real state of the files: names that come and go, files that change while
//! they are read, misleading sizes and times, attributes that cannot be read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use icecore::Error;
use icecore::format::SnapshotState;
use icecore::observe::{Counter, Observer, Recording};
use icecore::ops::backup::{BackupOptions, BackupReport, SourceSpec, TreeSpec, backup};
use icecore::ops::restore::RestoreOptions;
use icecore::store::LocalStore;
use icecore::task::{Cancel, Task};
use icecore::testing::{
    CounterHook, TestRepo, command_source, committed, stream_source, tree_options,
};
use icecore::types::EntryFlags;

/// Backs up the tree with files that are young for `grain_seconds`.
fn backup_with(
    world: &TestRepo,
    grain_seconds: i64,
    observer: &dyn Observer,
) -> Result<BackupReport, Error> {
    let options = BackupOptions {
        grain_seconds: Some(grain_seconds),
        ..world.options()
    };
    world.backup_with_task(options, Task::new(observer, &Cancel::new()))
}

/// Restores a snapshot and returns the resulting files.
fn restored(world: &TestRepo, report: &BackupReport) -> BTreeMap<PathBuf, Held> {
    let directory = tempfile::tempdir().expect("a directory");
    let back = directory.path().join("back");
    world.restore(
        committed(report),
        "",
        back.clone(),
        &RestoreOptions::default(),
    );
    held(&back)
}

/// A repository is recognized even if its path is not UTF-8 or leads through a link. Otherwise it
/// would capture itself and grow with each backup.
#[test]
fn a_repository_or_cache_inside_its_source_is_never_captured() {
    for (name, opened) in [
        (b"caf\xe9".as_slice(), b"caf\xe9".as_slice()),
        (b"plain", b"plain"),
        (b"new\nline", b"new\nline"),
        (b"real", b"link"),
    ] {
        let tree = tempfile::tempdir().expect("a directory");
        let own = tree
            .path()
            .join(Path::new(std::ffi::OsStr::from_bytes(name)));
        let opened = tree
            .path()
            .join(Path::new(std::ffi::OsStr::from_bytes(opened)));

        LocalStore::create(&own).expect("made");
        if own != opened {
            std::os::unix::fs::symlink(&own, &opened).expect("linked");
        }
        let store = Arc::new(LocalStore::open(&opened).expect("opens"));
        let world = TestRepo::with_tree(tree, store);
        world.write("file", b"content");

        // The cache is in the tree too.
        let cache = world.path("cache");
        let repo = world.open_with_cache(&cache);
        let report = backup(
            &repo,
            world.options(),
            Task::new(&Recording::default(), &Cancel::new()),
        );

        let mut expected = vec!["/", "file"];
        if own != opened {
            expected.push("link");
        }
        assert_eq!(
            world.names(committed(&report.expect("backup"))),
            expected,
            "{own:?}"
        );
    }
}

fn stream(bytes: &[u8]) -> SourceSpec {
    stream_source("in", bytes)
}

fn command(words: &str) -> SourceSpec {
    command_source("db", words)
}

/// A failed dump leaves an empty stream. It must not be committed as complete, since it would push
/// out the good dumps.
#[test]
fn an_empty_stream_is_refused_unless_allowed() {
    let world = TestRepo::new();
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

    // Without a previous capture, and with a good one.
    for _ in 0..2 {
        for sources in empty() {
            let (refused, _) = world.try_backup(BackupOptions::new("host", sources));
            assert!(matches!(refused, Err(Error::Empty { .. })), "{refused:?}");
        }
        world
            .try_backup(BackupOptions::new("host", good()))
            .0
            .expect("committed");
    }

    let failing = world
        .try_backup(BackupOptions::new("host", vec![command("sh -c 'exit 3'")]))
        .0;
    assert!(
        matches!(failing, Err(Error::Command(_))),
        "how it ended says more: {failing:?}"
    );

    let options = BackupOptions {
        allow_empty: true,
        ..BackupOptions::new("host", vec![stream(b"")])
    };
    world.try_backup(options).0.expect("allowed");
}

/// The object at a path.
#[derive(Debug, PartialEq, Eq)]
enum Held {
    File(Vec<u8>),
    Directory,
    Link(PathBuf),
}

/// Returns everything below a directory.
fn held(root: &Path) -> BTreeMap<PathBuf, Held> {
    let mut out = BTreeMap::new();
    for entry in walkdir::WalkDir::new(root).min_depth(1) {
        let entry = entry.expect("read");
        let path = entry.path();
        let kind = entry.file_type();
        let held = match () {
            () if kind.is_dir() => Held::Directory,
            () if kind.is_file() => Held::File(fs::read(path).expect("read")),
            () => Held::Link(fs::read_link(path).expect("read")),
        };
        out.insert(path.strip_prefix(root).expect("below").to_owned(), held);
    }
    out
}

fn append(path: &Path, bytes: &[u8]) {
    let file = fs::OpenOptions::new().append(true).open(path);
    file.and_then(|mut file| file.write_all(bytes))
        .expect("appended");
}

/// A log that grows each time it is read is not torn.
#[test]
fn a_file_that_only_grew_is_whole_and_one_that_changed_is_torn() {
    let is_torn = |change: &(dyn Fn(&Path, u8) + Sync)| {
        let world = TestRepo::new();
        let log = world.path("log");
        world.write("log", &vec![b'a'; 3_000_000]);
        let writes = AtomicU32::new(0);
        let observer = CounterHook::new(|counter, _| {
            if counter == Counter::BytesRead {
                change(&log, writes.fetch_add(1, Ordering::Relaxed) as u8);
            }
        });

        let report = backup_with(&world, 0, &observer).expect("backup");
        let entry = world.entries(committed(&report)).pop().expect("the file");
        let is_torn = entry.flags.contains(EntryFlags::TORN);
        let expected = if is_torn {
            SnapshotState::Incomplete
        } else {
            SnapshotState::Complete
        };

        assert_eq!(report.state, expected);
        if !is_torn {
            let Some(Held::File(kept)) = restored(&world, &report).remove(Path::new("log")) else {
                panic!("no file")
            };
            assert!(kept.len() >= 3_000_000 && fs::read(&log).expect("read").starts_with(&kept));
        }

        // The next backup has the later bytes, although the file does not change any more.
        let next = backup_with(&world, 0, &Recording::default()).expect("backup");
        assert_eq!(restored(&world, &next), held(&world.path("")));
        assert_eq!(next.state, SnapshotState::Complete);
        is_torn
    };

    assert!(!is_torn(&|log, _| append(log, b"line\n")));
    assert!(!is_torn(&|log, n| if n == 0 {
        append(log, b"once");
    }));
    let overwrite = |log: &Path, n: u8| {
        let file = fs::OpenOptions::new().write(true).open(log).expect("opens");
        file.write_all_at(&[n], 5).expect("written");
        append(log, b"and grown");
    };
    assert!(is_torn(&overwrite));
    assert!(is_torn(&|log, n| fs::write(
        log,
        vec![n; 1_000_000 + usize::from(n)]
    )
    .expect("written")));
}

/// While the file is read a second time, a place that this reading has passed changes, and then the
/// file grows.
#[test]
fn a_file_that_grew_and_changed_is_as_it_was_read_last() {
    let world = TestRepo::new();
    world.write("file", &vec![b'a'; 3_000_000]);
    let calls = AtomicU32::new(0);
    let observer = CounterHook::new(|counter, _| {
        if counter == Counter::BytesRead && calls.fetch_add(1, Ordering::Relaxed) == 1 {
            let file = fs::OpenOptions::new()
                .write(true)
                .open(world.path("file"))
                .expect("opens");
            file.write_all_at(b"changed", 0).expect("written");
            append(&world.path("file"), b"grown");
        }
    });
    let report = backup_with(&world, 0, &observer).expect("backup");
    assert_eq!(report.state, SnapshotState::Complete);
    assert_eq!(restored(&world, &report), held(&world.path("")));
}

/// A file that is not found at the scan must not become an empty snapshot of a source that is one
/// file.
#[test]
fn a_source_that_is_one_file_is_never_captured_as_nothing() {
    let world = TestRepo::new();
    let file = world.path("only");
    world.write("only", b"precious");
    let run = |observer: &dyn Observer, allow_empty| {
        let options = BackupOptions {
            allow_empty,
            ..tree_options(TreeSpec::new("tree", &file))
        };
        world.backup_with_task(options, Task::new(observer, &Cancel::new()))
    };
    let at_the_scan = |act: &(dyn Fn() + Sync), allow_empty| {
        let observer = CounterHook::new(|counter, _| {
            if counter == Counter::Entries {
                act();
            }
        });
        run(&observer, allow_empty)
    };

    // Without a previous capture, and with one.
    for _ in 0..2 {
        let gone = at_the_scan(&|| fs::remove_file(&file).expect("removed"), false);
        assert!(matches!(gone, Err(Error::Empty { .. })), "{gone:?}");
        world.write("only", b"precious");
        run(&Recording::default(), false).expect("captured");
    }

    let replaced = at_the_scan(
        &|| {
            fs::remove_file(&file).expect("removed");
            fs::write(&file, b"another").expect("written");
        },
        false,
    );

    let replaced = replaced.expect("captured");
    assert_eq!(replaced.state, SnapshotState::Complete);
    assert_eq!(
        world.entries(committed(&replaced))[0]
            .content()
            .map(|content| content.size),
        Some(7)
    );

    world.write("only", b"");
    let emptied = run(&Recording::default(), false);
    assert!(matches!(emptied, Err(Error::Empty { .. })), "{emptied:?}");
    let allowed = run(&Recording::default(), true).expect("allowed");
    assert_eq!(
        world.entries(committed(&allowed))[0]
            .content()
            .map(|content| content.size),
        Some(0)
    );
    run(&Recording::default(), false).expect("it was empty before");
}

/// A directory is emptied after the backup has checked its sources.
#[test]
fn a_directory_that_is_emptied_under_the_backup_is_refused() {
    let world = TestRepo::new();
    world.write("a", b"1");
    backup_with(&world, 0, &Recording::default()).expect("backup");
    let observer = CounterHook::new(|counter, _| {
        // The root is counted before it is listed.
        if counter == Counter::Entries && world.path("a").exists() {
            fs::remove_file(world.path("a")).expect("removed");
        }
    });
    let refused = backup_with(&world, 0, &observer);
    assert!(matches!(refused, Err(Error::Empty { .. })), "{refused:?}");
}

/// Files that are read again because they were young, and turn out to be the same, count as
/// unchanged.
#[test]
fn a_file_read_again_with_the_same_content_is_unchanged() {
    let world = TestRepo::new();
    world.write("file", b"young");
    world.write("large", &vec![1; 300_000]);
    symlink("file", world.path("link")).expect("linked");
    let count = |grain| {
        let seen = Recording::default();
        let report = backup_with(&world, grain, &seen).expect("backup");
        assert_eq!(world.entries(committed(&report)).len(), 4);
        [
            Counter::FilesNew,
            Counter::FilesChanged,
            Counter::FilesUnchanged,
            Counter::ChunksNew,
        ]
        .map(|counter| seen.get(counter))
    };

    assert_eq!(count(1000)[..3], [2, 0, 0]);
    assert_eq!(count(1000), [0, 0, 2, 0], "read again");
    assert_eq!(count(0), [0, 0, 2, 0], "read once more, and settled");

    let seen = Recording::default();
    backup_with(&world, 0, &seen).expect("backup");
    assert_eq!(
        (
            seen.get(Counter::BytesRead),
            seen.get(Counter::MetadataChunksNew)
        ),
        (0, 0)
    );
}

/// The stat of a procfs file has size zero.
#[test]
fn a_file_of_reported_size_zero_is_read_to_its_end() {
    let world = TestRepo::new();
    let options = tree_options(TreeSpec::new("tree", Path::new("/proc/sys/kernel/random")));
    let report = world.try_backup(options).0.expect("backup");
    let boot_id = fs::read("/proc/sys/kernel/random/boot_id").expect("read");
    assert_eq!(
        restored(&world, &report).get(Path::new("boot_id")),
        Some(&Held::File(boot_id))
    );
}

/// The holes of a young file are read, and stay holes.
#[test]
fn holes_of_young_files_stay_holes() {
    let world = TestRepo::new();
    world.write("sparse", b"");
    let file = fs::OpenOptions::new()
        .write(true)
        .open(world.path("sparse"))
        .expect("opens");
    file.set_len(40 << 20).expect("set");
    file.write_all_at(&[7; 5000], 9 << 20).expect("written");
    file.sync_all().expect("synced");

    let run = |grain| {
        let seen = Recording::default();
        let report = backup_with(&world, grain, &seen).expect("backup");
        let content = world
            .entries(committed(&report))
            .pop()
            .expect("the file")
            .content()
            .expect("a file")
            .clone();
        assert_eq!(restored(&world, &report), held(&world.path("")));
        (content, seen.get(Counter::FilesUnchanged))
    };

    let (young, _) = run(1000);
    let (old, unchanged) = run(0);
    assert_eq!(
        (young, unchanged),
        (old, 1),
        "the same content, however it was read"
    );
}

/// Pseudo-random numbers from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// Changes one of the files in a random way.
fn disturb(dice: &mut Dice, path: &Path) {
    let fresh = vec![dice.below(256) as u8; dice.below(90_000) as usize];
    let is_file = fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file());
    let remove = || {
        let _ = fs::remove_file(path);
        let _ = fs::remove_dir_all(path);
    };

    match dice.below(9) {
        0..3 if is_file => append(path, &fresh[..fresh.len().min(50)]),
        3 if is_file => {
            // In place, at any offset, with the old modification time restored.
            let file = fs::OpenOptions::new()
                .write(true)
                .open(path)
                .expect("opens");
            let meta = file.metadata().expect("stat");
            file.write_all_at(&[dice.below(256) as u8], dice.below(meta.len().max(1)))
                .expect("written");
            file.set_modified(meta.modified().expect("a time"))
                .expect("set");
        }
        4 if is_file => {
            let file = fs::OpenOptions::new()
                .write(true)
                .open(path)
                .expect("opens");
            let len = file.metadata().expect("stat").len();
            file.set_len(dice.below(len + 1)).expect("cut");
        }
        5 => {
            let other = path.with_extension("new");
            fs::write(&other, &fresh).expect("written");
            if path.is_dir() {
                remove();
            }
            fs::rename(&other, path).expect("renamed");
        }
        6 => remove(),
        7 => {
            remove();
            fs::create_dir(path).expect("made");
            fs::write(path.join("inner"), &fresh).expect("written");
        }
        _ => {
            remove();
            symlink(format!("to {}", dice.below(1000)), path).expect("linked");
        }
    }
}

/// Files change in every way between the stat and the end of their reading. Once they no longer
/// change, the next snapshot equals the tree, although only their stats show the changes.
#[test]
fn after_any_disturbance_the_next_snapshot_is_the_tree() {
    let seed = std::env::var("ICECORE_CAPTURE_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = seed
        .unwrap_or_else(|| u64::from_le_bytes(icecore::sys::random_bytes().expect("random")) | 1);
    println!("ICECORE_CAPTURE_SEED={seed}");

    let dice = Mutex::new(Dice(seed));
    let world = TestRepo::new();

    let names: Vec<String> = (0..20).map(|n| format!("{}/{n}", n % 4)).collect();
    for name in &names {
        let mut dice = dice.lock().expect("dice");
        world.write(
            name,
            &vec![dice.below(256) as u8; dice.below(200_000) as usize],
        );
    }
    for round in 0..6 {
        // Wait, so that undisturbed files are not read again for being young.
        std::thread::sleep(Duration::from_millis(1100));
        let disturbed = Mutex::new(BTreeSet::new());
        let observer = CounterHook::new(|counter, _| {
            let mut dice = dice.lock().expect("dice");
            let is_due =
                matches!(counter, Counter::Entries | Counter::BytesRead) && dice.below(3) == 0;
            if is_due {
                let name = &names[dice.below(names.len() as u64) as usize];
                disturb(&mut dice, &world.path(name));
                disturbed.lock().expect("names").insert(name.clone());
            }
        });
        let first = backup_with(&world, 1, &observer).expect("backup");
        let disturbed = disturbed.into_inner().expect("names");

        let back = restored(&world, &first);
        let live = held(&world.path(""));
        for (path, what) in &live {
            let is_disturbed = disturbed.iter().any(|name| path.starts_with(name));
            assert!(
                is_disturbed || back.get(path) == Some(what),
                "round {round}, seed {seed}: {path:?}"
            );
        }

        let second = backup_with(&world, 1, &Recording::default()).expect("backup");
        assert!(
            restored(&world, &second) == live,
            "round {round}, seed {seed}: {disturbed:?}"
        );
        assert_eq!(
            second.state,
            SnapshotState::Complete,
            "round {round}, seed {seed}"
        );
    }
}
