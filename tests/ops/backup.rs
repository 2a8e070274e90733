//! Backups of real directories: stored objects, carried-over entries, and counters.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use icecore::Error;
use icecore::format::{SnapshotState, SourceKind};
use icecore::observe::{Counter, Recording};
use icecore::ops::backup::{BackupOptions, BackupReport, SourceSpec, TreeSpec, backup};
use icecore::repo::{Repository, Secret};
use icecore::store::{KeyKind, MemoryStore, RecordingStore, SharedStore, StoreOperation};
use icecore::task::{Cancel, Task};
use icecore::testing::{CounterHook, TestRepo, command_source, committed, settle, tree_options};
use icecore::types::{Entry, EntryFlags, Node, hex};

type World = TestRepo<RecordingStore>;

fn new_world() -> World {
    TestRepo::on(Arc::new(RecordingStore::new(Arc::new(MemoryStore::new()))))
}

fn options_for(world: &World, immutable: bool) -> BackupOptions {
    BackupOptions {
        grain_seconds: Some(2),
        ..tree_options(TreeSpec {
            immutable,
            ..world.spec()
        })
    }
}

#[test]
fn a_tree_that_did_not_change_adds_a_snapshot_and_nothing_else() {
    let world = new_world();
    world.write("a/one", b"1");
    world.write("a/two", &vec![7; 300_000]);
    world.write("b", &[1; 5000]);
    symlink("a/one", world.path("link")).expect("link");
    settle();
    let (first, seen) = world.backup(options_for(&world, false));
    assert_eq!(first.state, SnapshotState::Complete);
    assert_eq!(seen.get(Counter::FilesNew), 3);
    world.store.take();

    let (second, seen) = world.backup(options_for(&world, false));
    assert_eq!(seen.get(Counter::FilesUnchanged), 3);
    assert_eq!(
        (
            seen.get(Counter::ChunksNew),
            seen.get(Counter::MetadataChunksNew)
        ),
        (0, 0)
    );
    assert_eq!((second.packs, second.segments), (0, 0));
    assert_eq!(world.store.count(StoreOperation::Put, KeyKind::Pack), 0);
    assert_eq!(world.store.count(StoreOperation::Put, KeyKind::Segment), 0);
    assert_eq!(world.store.count(StoreOperation::Put, KeyKind::Snapshot), 1);
    assert_eq!(world.store.count(StoreOperation::Put, KeyKind::Lease), 1);
    assert_eq!(
        world.names(committed(&second)),
        ["/", "a", "a/one", "a/two", "b", "link"]
    );
}

#[test]
fn a_small_backup_is_four_puts() {
    let world = new_world();
    world.write("a", b"first");
    settle();
    world.backup(options_for(&world, false));
    world.write("b", &[3; 9000]);
    world.store.take();

    world.backup(options_for(&world, false));
    let store = &world.store;
    let puts: usize = [
        KeyKind::Lease,
        KeyKind::Pack,
        KeyKind::Segment,
        KeyKind::Snapshot,
    ]
    .iter()
    .map(|&kind| store.count(StoreOperation::Put, kind))
    .sum();
    assert_eq!(puts, 4);
    assert_eq!(store.count_all(StoreOperation::Put), 4);
}

#[test]
fn changes_removals_and_kinds_follow_the_tree() {
    let world = new_world();
    world.write("d/x/deep", b"deep");
    world.write("d/y", b"why");
    world.write("f", b"file");
    world.write("gone/inner", b"gone");
    settle();
    world.backup(options_for(&world, false));

    fs::remove_dir_all(world.path("gone")).expect("removed");
    fs::remove_dir_all(world.path("d/x")).expect("removed");
    fs::write(world.path("d/x"), b"now a file").expect("written");
    fs::remove_file(world.path("f")).expect("removed");
    world.write("f/now", b"a directory");
    let (second, _) = world.backup(options_for(&world, false));
    assert_eq!(
        world.names(committed(&second)),
        ["/", "d", "d/x", "d/y", "f", "f/now"]
    );

    fs::remove_file(world.path("d/x")).expect("removed");
    world.write("d/x/other", b"directory again");
    let (third, _) = world.backup(options_for(&world, false));
    assert_eq!(
        world.names(committed(&third)),
        ["/", "d", "d/x", "d/x/other", "d/y", "f", "f/now"]
    );
}

#[test]
fn a_racy_file_is_read_again_and_a_settled_one_is_not() {
    let world = new_world();
    world.write("now", b"just written");
    let (first, _) = world.backup(options_for(&world, false));
    let racy = |report: &BackupReport| {
        world
            .entries(committed(report))
            .iter()
            .filter(|entry| entry.flags.contains(EntryFlags::RACY))
            .count()
    };

    assert_eq!(racy(&first), 1);

    settle();
    let (second, seen) = world.backup(options_for(&world, false));
    assert_eq!(racy(&second), 0);
    assert_eq!(seen.get(Counter::BytesRead), 12);

    let (_, seen) = world.backup(options_for(&world, false));
    assert_eq!(seen.get(Counter::BytesRead), 0);
}

#[test]
fn immutable_directories_that_did_not_change_are_not_listed_and_new_names_are_found() {
    let world = new_world();
    let name = |n: u8| {
        let digest = sha256(&[n; 400]);
        digest
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    for n in 0..40 {
        world.write(&format!("blocks/{:02}/{}", n % 4, name(n)), &[n; 400]);
    }
    world.write("config", b"ordinary");
    settle();
    let (first, seen) = world.backup(options_for(&world, true));
    assert_eq!(seen.get(Counter::FilesNew), 41);
    // The root contains an ordinary file, which may change in place, so it is listed each time.
    let marked: Vec<Entry> = world
        .entries(committed(&first))
        .into_iter()
        .filter(|entry| entry.flags != EntryFlags::empty())
        .collect();
    assert!(
        marked.len() == 1 && marked[0].path.is_root(),
        "all names agree: {marked:?}"
    );

    let (second, seen) = world.backup(options_for(&world, true));
    assert_eq!((seen.get(Counter::BytesRead), second.packs), (0, 0));
    assert_eq!(
        world.names(committed(&second)),
        world.names(committed(&first))
    );

    world.write(&format!("blocks/01/{}", name(200)), &[200; 400]);
    fs::remove_file(world.path(&format!("blocks/02/{}", name(2)))).expect("removed");
    settle();
    let (third, seen) = world.backup(options_for(&world, true));
    assert_eq!(seen.get(Counter::FilesNew), 1);
    assert_eq!(seen.get(Counter::BytesRead), 400);

    let mut expected = world.names(committed(&first));
    expected.retain(|path| !path.ends_with(&name(2)));
    expected.push(format!("blocks/01/{}", name(200)));
    expected.sort();
    let mut found = world.names(committed(&third));
    found.sort();
    assert_eq!(found, expected);
}

/// An ordinary file in an immutable source is changed in place, which leaves the directory's times
/// as they are. The change must be captured although the directory looks unchanged.
#[test]
fn an_ordinary_file_of_an_immutable_source_may_change_in_place() {
    let world = new_world();
    world.write("datastore/000001.log", b"one");
    world.write("blocks/README", b"fixed");
    settle();
    world.backup(options_for(&world, true));

    let mut file = fs::OpenOptions::new()
        .append(true)
        .open(world.path("datastore/000001.log"))
        .expect("opens");
    std::io::Write::write_all(&mut file, b" and two").expect("written");
    drop(file);

    let (second, seen) = world.backup(options_for(&world, true));
    assert_eq!(seen.get(Counter::FilesChanged), 1);
    let content = world
        .entries(committed(&second))
        .into_iter()
        .find_map(|entry| {
            (entry.path.to_string() == "datastore/000001.log")
                .then(|| entry.content().map(|content| content.size))
        });
    assert_eq!(content, Some(Some(11)));
}

/// A file's bytes cannot be checked against the CID of a tree of blocks. So the file is read once
/// more, although its directory kept its times, and that reading settles the name.
#[test]
fn an_undecidable_name_is_read_once_more_though_its_directory_keeps_its_times() {
    let world = new_world();
    world.write(
        "files/QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn",
        &[7; 400],
    );
    settle();

    let read: Vec<u64> = (0..3)
        .map(|_| {
            world
                .backup(options_for(&world, true))
                .1
                .get(Counter::BytesRead)
        })
        .collect();
    assert_eq!(read, [400, 400, 0]);
}

/// Directories far above the deepest one are closed on the way down and reached by `..` on the way
/// up. If one of them is moved in the meantime, there is no way back up. The rest of all
/// directories above it is then not seen, so each of them is marked as stale, in an immutable
/// source too.
#[test]
fn directories_above_a_moved_directory_are_listed_again() {
    const DEPTH: usize = 60;
    const MOVED: usize = 10;
    let world = new_world();
    let away = tempfile::tempdir().expect("a directory");
    let directory = |depth| vec!["-"; depth].join("/");
    for depth in 1..=DEPTH {
        let content = [depth as u8; 400];
        let name = hex::encode(&sha256(&content));
        world.write(&format!("{}/{name}", directory(depth)), &content);
    }

    let here = world.path(&directory(MOVED));
    let there = away.path().join("moved");
    let moving = || {
        let entries = AtomicU64::new(0);
        let observer = CounterHook::new(|counter, _| {
            let is_deepest = || entries.fetch_add(1, Ordering::Relaxed) == DEPTH as u64;
            if counter == Counter::Entries && is_deepest() {
                fs::rename(&here, &there).expect("moved");
            }
        });
        let report = world.backup_with_task(
            options_for(&world, true),
            Task::new(&observer, &Cancel::new()),
        );
        fs::rename(&there, &here).expect("moved back");
        report.expect("backup")
    };

    let stale = |report: &BackupReport| -> Vec<usize> {
        let entries = world
            .entries(committed(report))
            .into_iter()
            .filter(|entry| entry.flags.contains(EntryFlags::STALE));
        entries
            .map(|entry| entry.path.to_string().split('/').count())
            .collect()
    };
    let files = |report: &BackupReport| {
        world
            .entries(committed(report))
            .iter()
            .filter(|entry| entry.is_file())
            .count()
    };

    settle();
    let first = moving();
    assert_eq!(first.state, SnapshotState::Incomplete);
    assert_eq!(stale(&first), (1..MOVED).collect::<Vec<_>>());
    assert_eq!(files(&first), DEPTH + 1 - MOVED);

    settle();
    let (second, _) = world.backup(options_for(&world, true));
    assert_eq!(
        (second.state, files(&second)),
        (SnapshotState::Complete, DEPTH)
    );

    // Once more, when everything is known and no directory is listed.
    let third = moving();
    assert_eq!(stale(&third), (1..MOVED).collect::<Vec<_>>());
    assert_eq!(files(&third), DEPTH);
}

#[test]
fn a_wrong_hash_name_is_provisional_and_read_again() {
    let world = new_world();
    let digest = hex::encode(&sha256(b"whole"));
    world.write(&digest, b"half");
    settle();
    let (first, _) = world.backup(options_for(&world, true));

    let flags = |report: &BackupReport| {
        let entries = world.entries(committed(report));
        entries
            .iter()
            .find(|entry| entry.is_file())
            .expect("there")
            .flags
    };
    assert!(flags(&first).contains(EntryFlags::PROVISIONAL));

    // The file is completed later, in place: neither the directory's times nor the inode change.
    world.write(&digest, b"whole");
    settle();
    let (second, _) = world.backup(options_for(&world, true));
    assert_eq!(flags(&second), EntryFlags::empty());
}

#[test]
fn an_unreadable_file_is_reported_until_it_can_be_read() {
    if rustix::process::geteuid().is_root() {
        // Root can read everything. The scripts test a directory that vanishes under a bind mount,
        // as another user.
        return;
    }
    let world = new_world();
    world.write("secret", b"hidden");
    world.write("open", b"seen");
    fs::set_permissions(world.path("secret"), fs::Permissions::from_mode(0o000)).expect("chmod");
    settle();
    for _ in 0..2 {
        let (report, seen) = world.backup(options_for(&world, false));
        assert_eq!(report.state, SnapshotState::Incomplete);
        assert_eq!(seen.get(Counter::Failed), 1);
        assert!(
            world
                .entries(committed(&report))
                .iter()
                .any(|entry| matches!(entry.node, Node::Failed { .. }))
        );
    }

    fs::set_permissions(world.path("secret"), fs::Permissions::from_mode(0o600)).expect("chmod");
    assert_eq!(
        world.backup(options_for(&world, false)).0.state,
        SnapshotState::Complete
    );
}

#[test]
fn an_emptied_source_is_refused_unless_allowed() {
    let world = new_world();
    world.write("a", b"1");
    world.backup(options_for(&world, false));
    fs::remove_file(world.path("a")).expect("removed");
    let refused = world.try_backup(options_for(&world, false)).0;
    assert!(matches!(refused, Err(Error::Empty { .. })), "{refused:?}");
    let options = BackupOptions {
        allow_empty: true,
        ..options_for(&world, false)
    };
    assert_eq!(world.names(committed(&world.backup(options).0)), ["/"]);
}

/// A container engine creates an empty directory if the file that it should mount is missing; a
/// failed copy leaves an empty file in place of a directory.
#[test]
fn a_source_that_is_an_empty_thing_of_another_kind_is_refused_unless_allowed() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = dir.path().join("source");
    let clear = || {
        if at.is_dir() {
            fs::remove_dir_all(&at).expect("removed");
        } else {
            fs::remove_file(&at).expect("removed");
        }
    };

    let empty_directory: fn(&Path) = |at| fs::create_dir(at).expect("a directory");
    let directories: fn(&Path) = |at| fs::create_dir_all(at.join("sub")).expect("directories");
    let empty_file: fn(&Path) = |at| fs::write(at, b"").expect("a file");
    let file: fn(&Path) = |at| fs::write(at, b"content").expect("a file");
    let tree: fn(&Path) = |at| {
        fs::create_dir(at).expect("a directory");
        fs::write(at.join("a"), b"1").expect("a file");
    };

    let cases = [
        (file, empty_directory, true),
        (file, directories, true),
        (tree, empty_file, true),
        (file, tree, false),
        (tree, file, false),
        (empty_directory, empty_file, false),
    ];
    for (number, (before, now, is_refused)) in cases.into_iter().enumerate() {
        let world = new_world();
        let options = || {
            let tree = TreeSpec::new("source", &at);
            tree_options(tree)
        };

        before(&at);
        world.backup(options());
        clear();
        now(&at);
        let second = world.try_backup(options()).0;
        assert_eq!(
            matches!(second, Err(Error::Empty { .. })),
            is_refused,
            "{number}: {second:?}"
        );

        world.backup(BackupOptions {
            allow_empty: true,
            ..options()
        });
        clear();
    }
}

#[test]
fn excludes_take_effect_and_their_lifting_too() {
    let world = new_world();
    world.write("keep/a", b"1");
    world.write("skip/b", b"2");
    settle();
    let mut options = options_for(&world, true);
    if let SourceSpec::Tree(tree) = &mut options.sources[0] {
        tree.filter.excludes.push("/skip".into());
    }
    let (first, _) = world.backup(options);
    assert_eq!(world.names(committed(&first)), ["/", "keep", "keep/a"]);
    let (second, _) = world.backup(options_for(&world, true));
    assert_eq!(
        world.names(committed(&second)),
        ["/", "keep", "keep/a", "skip", "skip/b"]
    );
}

#[test]
fn a_command_that_fails_commits_nothing() {
    let world = new_world();
    let source = |words: &str| command_source("dump", words);
    let failing = BackupOptions::new(
        "host",
        vec![source("sh -c 'head -c 300000 /dev/zero; exit 3'")],
    );
    let result = world.try_backup(failing).0;
    assert!(matches!(result, Err(Error::Command(_))), "{result:?}");
    assert_eq!(world.store.count(StoreOperation::Put, KeyKind::Snapshot), 0);

    let good = BackupOptions::new("host", vec![source("sh -c 'head -c 300000 /dev/zero'")]);
    let (report, seen) = world.backup(good);
    assert_eq!(seen.get(Counter::BytesRead), 300_000);
    let snapshot = world.snapshot(committed(&report));
    let SourceKind::Stream { content, .. } = &snapshot.sources[0].kind else {
        panic!("not a stream")
    };
    assert_eq!(content.size, 300_000);
}

#[test]
fn a_dry_run_stores_nothing_and_a_cancelled_run_commits_nothing() {
    let world = new_world();
    world.write("a", &[5; 100_000]);
    world.store.take();
    let options = BackupOptions {
        dry_run: true,
        ..options_for(&world, false)
    };
    let (report, seen) = world.backup(options);
    assert_eq!(report.snapshot, None);
    assert_eq!(seen.get(Counter::BytesRead), 100_000);
    assert_eq!(world.store.count_all(StoreOperation::Put), 0);

    let cancel = Cancel::new();
    cancel.cancel();
    let stopped = world.backup_with_task(
        options_for(&world, false),
        Task::new(&Recording::default(), &cancel),
    );
    assert!(matches!(stopped, Err(Error::Interrupted)), "{stopped:?}");
    assert_eq!(world.store.count(StoreOperation::Put, KeyKind::Snapshot), 0);
    let leases = icecore::store::list_all(world.store.as_ref(), icecore::store::ObjectDir::Leases)
        .expect("lists");
    assert!(leases.is_empty(), "the lease went with it");
}

#[test]
fn files_in_a_second_repository_at_the_source_are_left_out() {
    let world = new_world();
    world.write("data", b"x");
    let inner = world.path("repo");
    let store: SharedStore = Arc::new(icecore::store::LocalStore::create(&inner).expect("local"));
    Repository::init(&store, &Secret::empty(), "test").expect("init");
    let repo = Repository::open(store, &Secret::empty(), &world.path("cache")).expect("open");
    let observer = Recording::default();
    let report = backup(
        &repo,
        options_for(&world, false),
        Task::new(&observer, &Cancel::new()),
    )
    .expect("backup");
    assert_eq!(observer.get(Counter::FilesNew), 1);
    assert!(report.snapshot.is_some());
}

#[test]
fn one_file_can_be_a_source() {
    let world = new_world();
    world.write("only", b"content");
    let tree = TreeSpec::new("tree", world.path("only"));
    let (report, _) = world.backup(tree_options(tree));
    let entries = world.entries(committed(&report));
    assert_eq!(entries.len(), 1);
    assert!(entries[0].path.is_root() && entries[0].is_file());
}

#[test]
fn two_sources_of_one_name_are_bad_usage() {
    let world = new_world();
    let mut options = options_for(&world, false);
    options.sources.extend(options_for(&world, false).sources);
    let result = world.try_backup(options).0;
    assert!(matches!(result, Err(Error::Usage { .. })));
}

#[test]
fn old_times_and_links_are_kept() {
    let world = new_world();
    world.write("old", b"old");
    fs::hard_link(world.path("old"), world.path("same")).expect("link");
    let past = SystemTime::UNIX_EPOCH - Duration::new(5, 250);
    let file = fs::File::options()
        .write(true)
        .open(world.path("old"))
        .expect("opens");
    file.set_modified(past).expect("set");
    let (report, _) = world.backup(options_for(&world, false));
    let entries = world.entries(committed(&report));
    let meta = entries
        .iter()
        .find(|entry| entry.path.to_string() == "old")
        .and_then(Entry::meta)
        .expect("meta");
    assert_eq!(meta.mtime, past.into());
    assert_eq!(meta.nlink, 2);
    assert_eq!(
        meta.inode,
        fs::metadata(Path::new(&world.path("same")))
            .expect("stat")
            .ino()
    );
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes)
        .as_ref()
        .to_vec()
}
