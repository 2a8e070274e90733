//! Suspect captures: dumps that end too early or shrink, and keys that change or vanish. Also the
//! order of sources, and the commands around them.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use icecore::Error;
use icecore::format::{SnapshotState, SourceKind};
use icecore::observe::{Recording, Severity};
use icecore::ops::backup::{
    BackupOptions, BackupReport, CommandSpec, DumpCommand, SourceHooks, SourceSpec, TreeSpec,
};
use icecore::source::{FilesFrom, StreamCommand};
use icecore::store::{ObjectDir, Store, list_all};
use icecore::task::{Cancel, Task};
use icecore::testing::{TestRepo, committed, tree_options};

/// The keys, which must not change.
fn keys_of(world: &TestRepo) -> SourceSpec {
    SourceSpec::Tree(Box::new(TreeSpec {
        unchanged: true,
        ..TreeSpec::new("keys", world.path("keys"))
    }))
}

fn attempt(
    world: &TestRepo,
    sources: Vec<SourceSpec>,
    accept: &[&str],
) -> (Result<BackupReport, Error>, Recording) {
    let mut options = BackupOptions::new("host", sources);
    options.accept = accept
        .iter()
        .map(|&name| name.to_owned())
        .collect::<BTreeSet<_>>();
    world.try_backup(options)
}

/// Runs a backup that commits. Returns its state, the reason why the source is suspect, and the
/// alarms.
fn run(
    world: &TestRepo,
    source: SourceSpec,
    accept: &[&str],
) -> (SnapshotState, Option<String>, Vec<String>) {
    let name = source.name().to_owned();
    let (report, seen) = attempt(world, vec![source], accept);
    let report = report.expect("committed");
    let snapshot = world.snapshot(committed(&report));
    let suspect = snapshot.source(&name).expect("there").suspect.clone();
    let mut alarms: Vec<String> = seen
        .problems()
        .into_iter()
        .filter(|problem| problem.severity == Severity::Alarm)
        .map(|problem| problem.subject)
        .collect();
    alarms.sort();
    assert_eq!(report.state, snapshot.state);
    (report.state, suspect, alarms)
}

fn command(words: &str) -> StreamCommand {
    StreamCommand::parse(words).expect("words")
}

fn dump(words: &str) -> SourceSpec {
    SourceSpec::Command(Box::new(CommandSpec {
        ends_with: Some("-- done".into()),
        smallest: Some(0.5),
        ..CommandSpec::new("db", command(words))
    }))
}

/// Waits until the file exists, at most a minute.
fn wait_for(path: &Path) {
    let start = Instant::now();
    while !path.exists() && start.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn good() -> (SnapshotState, Option<String>, Vec<String>) {
    (SnapshotState::Complete, None, Vec::new())
}

#[test]
fn a_dump_without_its_last_line_commits_nothing_though_it_ends_with_0() {
    let world = TestRepo::new();
    for words in [
        "echo half",
        "true",
        "printf '%s' '-- done and more'",
        // Too far from the end: other data follows a complete dump.
        "sh -c 'echo -- done; head -c 5000 /dev/zero'",
    ] {
        let (result, _) = attempt(&world, vec![dump(words)], &[]);
        let Err(Error::Source { name, why }) = result else {
            panic!("{words}: {result:?}")
        };
        assert!(name == "db" && why.contains("-- done"), "{why}");
    }
    assert!(world.open().listed_snapshots().expect("lists").is_empty());

    // The line may be near the end instead of last, and may be split between two reads.
    for words in [
        "printf '%s\n' row '-- done' '' '-- key'",
        "sh -c 'printf -- \"x\n-- do\"; sleep 0.1; echo ne'",
    ] {
        assert_eq!(run(&world, dump(words), &[]), good(), "{words}");
    }
}

/// `docker exec` into an engine with a full disk exits with 126 and prints the reason to standard
/// output.
#[test]
fn the_output_of_a_failed_launcher_is_reported() {
    let world = TestRepo::new();
    let failure_message = |code: u8| {
        let (result, _) = attempt(
            &world,
            vec![dump(&format!(
                "sh -c 'echo OCI runtime exec failed: no space left; exit {code}'"
            ))],
            &[],
        );
        result.expect_err("failed").to_string()
    };
    assert!(
        failure_message(126).contains("no space left"),
        "{}",
        failure_message(126)
    );
    assert!(
        !failure_message(3).ends_with("no space left"),
        "rows of a dump are no explanation"
    );
}

#[test]
fn a_dump_much_smaller_than_the_last_good_one_does_not_count_until_it_is_accepted() {
    let world = TestRepo::new();
    let of = |bytes: u32| {
        dump(&format!(
            "sh -c 'head -c {bytes} /dev/zero; echo; echo -- done'"
        ))
    };
    assert_eq!(run(&world, of(100_000), &[]), good());
    assert_eq!(
        run(&world, of(60_000), &[]),
        good(),
        "somewhat smaller is no news"
    );
    for _ in 0..2 {
        // The second time too: a suspect dump is not used for comparison.
        let (state, suspect, _) = run(&world, of(20_000), &[]);
        assert_eq!(state, SnapshotState::Incomplete);
        assert!(suspect.expect("a reason").contains("58.6 KiB"));
    }
    assert_eq!(run(&world, of(20_000), &["db"]), good());
    assert_eq!(
        run(&world, of(20_000), &[]),
        good(),
        "it is the measure from now on"
    );
}

#[test]
fn a_changed_or_missing_key_is_an_alarm_until_it_is_accepted() {
    let world = TestRepo::new();
    world.write("keys/a.key", b"first");
    world.write("keys/sub/b.key", b"second");
    assert_eq!(run(&world, keys_of(&world), &[]), good());
    world.write("keys/new.key", b"one more is no alarm");
    assert_eq!(run(&world, keys_of(&world), &[]), good());

    world.write("keys/a.key", b"FIRST");
    for _ in 0..2 {
        // Compared with the last good state, so the alarm continues.
        let (state, suspect, alarms) = run(&world, keys_of(&world), &[]);
        assert_eq!(state, SnapshotState::Incomplete);
        assert_eq!(suspect.as_deref(), Some("a.key changed"));
        assert_eq!(alarms, ["keys:a.key"]);
    }

    fs::remove_dir_all(world.path("keys/sub")).expect("removed");
    let (_, suspect, alarms) = run(&world, keys_of(&world), &[]);
    assert_eq!(suspect.as_deref(), Some("a.key changed, sub is missing"));
    assert_eq!(alarms, ["keys:a.key", "keys:sub"]);
    assert_eq!(run(&world, keys_of(&world), &["keys"]), good());
    assert_eq!(run(&world, keys_of(&world), &[]), good());

    // Emptied, or replaced by a directory.
    fs::remove_file(world.path("keys/a.key")).expect("removed");
    fs::remove_file(world.path("keys/new.key")).expect("removed");
    world.write("keys/a.key/x", b"");
    let (_, suspect, _) = run(&world, keys_of(&world), &[]);
    assert_eq!(
        suspect.as_deref(),
        Some("a.key changed, new.key is missing")
    );
    fs::remove_dir_all(world.path("keys/a.key")).expect("removed");
    let (_, suspect, _) = run(&world, keys_of(&world), &[]);
    assert_eq!(
        suspect.as_deref(),
        Some("a.key is missing, new.key is missing")
    );
}

/// These are not alarms: a replaced link with the same target (`ln -sf`, a copy of the directory),
/// which has another change time and inode; a key that becomes readable; a key that vanishes before
/// it was ever captured.
#[test]
fn an_unchanged_or_never_captured_key_is_no_alarm() {
    let world = TestRepo::new();
    world.write("keys/a.key", b"first");
    let link = |target: &str| {
        let path = world.path("keys/link");
        // Created elsewhere first, so that the inode differs.
        std::os::unix::fs::symlink(target, world.path("keys/link.new")).expect("made");
        fs::rename(world.path("keys/link.new"), path).expect("renamed");
    };

    link("a.key");
    assert_eq!(run(&world, keys_of(&world), &[]), good());
    link("a.key");
    assert_eq!(run(&world, keys_of(&world), &[]), good());
    fs::set_permissions(world.path("keys/a.key"), fs::Permissions::from_mode(0o400)).expect("set");
    assert_eq!(run(&world, keys_of(&world), &[]), good());
    link("b.key");
    assert_eq!(run(&world, keys_of(&world), &[]).2, ["keys:link"]);
    link("a.key");
    assert_eq!(run(&world, keys_of(&world), &[]), good());

    // Replaced by a file.
    fs::remove_file(world.path("keys/link")).expect("removed");
    world.write("keys/link", b"a file");
    assert_eq!(run(&world, keys_of(&world), &[]).2, ["keys:link"]);
}

/// The run of the last good state is damaged, so the keys cannot be compared. The new keys must not
/// become the good state without a confirmation, and an unmounted volume must not pass either.
#[test]
fn an_unreadable_last_good_state_needs_a_confirmation() {
    let world = TestRepo::new();
    world.write("keys/a.key", b"first");
    world.write("files/a", b"some file");
    let files = || SourceSpec::Tree(Box::new(TreeSpec::new("files", world.path("files"))));
    attempt(&world, vec![keys_of(&world), files()], &[])
        .0
        .expect("committed");

    for pack in list_all(world.store.as_ref(), ObjectDir::Packs).expect("listed") {
        world.store.delete(&pack.key).expect("deleted");
    }
    world.write("keys/a.key", b"FIRST");
    // Another time for the directory too, so that the new run shares no page with the old one.
    world.write("keys/b.key", b"second");
    for _ in 0..2 {
        let (state, suspect, _) = run(&world, keys_of(&world), &[]);
        assert_eq!(state, SnapshotState::Incomplete);
        assert_eq!(
            suspect.as_deref(),
            Some("the last good state cannot be read for comparison")
        );
    }

    fs::rename(world.path("files"), world.path("mounted")).expect("renamed");
    fs::create_dir(world.path("files")).expect("made");
    let (report, _) = attempt(&world, vec![files()], &[]);
    let Err(Error::Empty { why, .. }) = report else {
        panic!("{report:?}")
    };
    assert!(
        why.contains("is empty, and its content in the last snapshot cannot be read"),
        "{why}"
    );

    assert_eq!(run(&world, keys_of(&world), &["keys"]), good());
    assert_eq!(
        run(&world, keys_of(&world), &[]),
        good(),
        "it is the measure from now on"
    );
    fs::remove_dir(world.path("files")).expect("removed");
    fs::rename(world.path("mounted"), world.path("files")).expect("renamed");
    assert_eq!(
        run(&world, files(), &[]).0,
        SnapshotState::Complete,
        "what may change is captured anew"
    );
}

#[test]
fn keys_without_their_directory_are_carried_over() {
    let world = TestRepo::new();
    world.write("keys/a.key", b"first");
    let (early, _) = {
        fs::rename(world.path("keys"), world.path("away")).expect("renamed");
        attempt(&world, vec![keys_of(&world)], &[])
    };
    assert!(
        matches!(early, Err(Error::Source { .. })),
        "nothing to carry over: {early:?}"
    );
    fs::rename(world.path("away"), world.path("keys")).expect("renamed");
    let (first, _) = attempt(&world, vec![keys_of(&world)], &[]);
    let first = world.snapshot(committed(&first.expect("committed")));

    fs::remove_dir_all(world.path("keys")).expect("removed");
    let (report, seen) = attempt(&world, vec![dump("echo -- done"), keys_of(&world)], &[]);
    let snapshot = world.snapshot(committed(&report.expect("committed")));
    assert_eq!(snapshot.state, SnapshotState::Incomplete);
    let keys = snapshot.source("keys").expect("there");
    assert_eq!(
        keys.kind,
        first.source("keys").expect("there").kind,
        "the same runs"
    );
    assert!(keys.suspect.is_some() && snapshot.source("db").expect("there").suspect.is_none());
    assert!(
        seen.problems()
            .iter()
            .any(|problem| problem.severity == Severity::Alarm)
    );
    let (accepted, _) = attempt(&world, vec![keys_of(&world)], &["keys"]);
    assert!(
        matches!(accepted, Err(Error::Source { .. })),
        "there is nothing to accept: {accepted:?}"
    );
}

/// Listed files that are missing make the snapshot incomplete. A list of another directory must not
/// make an empty snapshot that is complete.
#[test]
fn a_missing_listed_path_is_reported() {
    let world = TestRepo::new();
    world.write("a/x", b"1");
    world.write("a/sub/y", b"2");
    let listed = |list: &str| {
        let files_from = Some(FilesFrom::parse(list.as_bytes()).expect("a list"));
        SourceSpec::Tree(Box::new(TreeSpec {
            files_from,
            ..TreeSpec::new("a", world.path("a"))
        }))
    };
    let run = |list: &str| {
        let (report, seen) = attempt(&world, vec![listed(list)], &[]);
        let missing = seen
            .problems()
            .into_iter()
            .filter(|problem| problem.severity == Severity::Missing);
        let incomplete = report
            .as_ref()
            .map_or(0, |report| report.sources[0].counts.incomplete);
        let state = report.map(|report| report.state);
        (
            state,
            incomplete,
            missing.map(|problem| problem.subject).collect::<Vec<_>>(),
        )
    };

    let (state, count, missing) = run("x\nsub/y\n");
    assert_eq!(
        (state.expect("committed"), count, missing.len()),
        (SnapshotState::Complete, 0, 0)
    );
    for _ in 0..2 {
        let (state, count, missing) = run("x\nsub/z\nw\n");
        assert_eq!(
            (state.expect("committed"), count),
            (SnapshotState::Incomplete, 2)
        );
        assert_eq!(missing, ["a:sub/z", "a:w"]);
    }

    // In the parent, still listed, and gone.
    assert_eq!(run("x\nsub/y\n").1, 0);
    fs::remove_file(world.path("a/sub/y")).expect("removed");
    let (state, _, missing) = run("x\nsub/y\n");
    assert_eq!(
        (state.expect("committed"), missing),
        (SnapshotState::Incomplete, vec!["a:sub/y".to_owned()])
    );

    let before = world.open().listed_snapshots().expect("lists").len();
    let (state, ..) = run("b\nx/y\n");
    let Err(Error::Empty { why, .. }) = state else {
        panic!("{state:?}")
    };
    assert!(why.contains("none of the listed paths"), "{why}");
    assert_eq!(
        world.open().listed_snapshots().expect("lists").len(),
        before
    );

    let mut options = BackupOptions::new("host", vec![listed("b\n")]);
    options.allow_empty = true;
    let report = world.backup(options).0;
    assert_eq!(report.state, SnapshotState::Incomplete);
}

#[test]
fn sources_are_captured_in_the_order_given() {
    let world = TestRepo::new();
    world.write("a/x", b"1");
    let tree = |name: &str| SourceSpec::Tree(Box::new(TreeSpec::new(name, world.path("a"))));
    let (report, _) = attempt(
        &world,
        vec![tree("t1"), dump("echo -- done"), tree("t2")],
        &[],
    );
    let snapshot = world.snapshot(committed(&report.expect("committed")));
    let names: Vec<&str> = snapshot
        .sources
        .iter()
        .map(|source| source.name.as_str())
        .collect();
    assert_eq!(names, ["t1", "db", "t2"]);
    assert!(
        snapshot
            .sources
            .windows(2)
            .all(|pair| pair[0].ended <= pair[1].started)
    );
    assert!(matches!(
        snapshot.sources[1].kind,
        SourceKind::Stream { .. }
    ));
}

#[test]
fn commands_around_a_source_run_even_if_it_fails() {
    let world = TestRepo::new();
    world.write("a/x", b"1");
    let log = world.path("log");
    let note = |word: &str| command(&format!("sh -c 'echo {word} >> {}'", log.display()));
    let around = |before: Vec<StreamCommand>| SourceHooks {
        before,
        after: vec![command("false"), note("after")],
    };
    let tree = |around: SourceHooks| {
        SourceSpec::Tree(Box::new(TreeSpec {
            around,
            ..TreeSpec::new("a", world.path("a"))
        }))
    };
    let read_log = || std::mem::take(&mut fs::read_to_string(&log).unwrap_or_default());

    let (report, seen) = attempt(&world, vec![tree(around(vec![note("before")]))], &[]);
    assert_eq!(report.expect("committed").state, SnapshotState::Complete);
    assert_eq!(read_log(), "before\nafter\n");
    // A failing `after` command is reported, since a service may not be running.
    assert!(
        seen.problems()
            .iter()
            .any(|problem| problem.severity == Severity::Missing)
    );

    let (failed, _) = attempt(
        &world,
        vec![tree(around(vec![note("again"), command("false")]))],
        &[],
    );
    assert!(matches!(failed, Err(Error::Source { .. })), "{failed:?}");
    assert_eq!(read_log(), "before\nafter\nagain\nafter\n");

    let failing = SourceSpec::Command(Box::new(CommandSpec {
        around: around(vec![note("third")]),
        ..CommandSpec::new("db", command("false"))
    }));
    assert!(attempt(&world, vec![failing], &[]).0.is_err());
    assert!(read_log().ends_with("third\nafter\n"), "{}", read_log());
}

/// The first backup to finish would restart the service while the other one still copies its files.
#[test]
fn two_backups_at_once_do_not_share_a_service() {
    let world = TestRepo::new();
    world.write("a/x", b"1");
    let at = world.tree.path().display().to_string();
    let run = || {
        let held = format!(
            ": >{at}/begun; i=0; until [ -e {at}/go ] || [ $((i += 1)) -gt 3000 ]; do sleep 0.02; done; echo stop >>{at}/log"
        );
        let around = SourceHooks {
            before: vec![command(&format!("sh -c '{held}'"))],
            after: vec![command(&format!("sh -c 'echo start >>{at}/log'"))],
        };
        let tree = TreeSpec {
            around,
            ..TreeSpec::new("a", world.path("a"))
        };
        attempt(&world, vec![SourceSpec::Tree(Box::new(tree))], &[]).0
    };

    std::thread::scope(|scope| {
        let first = scope.spawn(run);
        wait_for(&world.path("begun"));
        let second = run();
        fs::write(world.path("go"), b"").expect("written");
        let Err(Error::Source { name, why }) = second else {
            panic!("{second:?}")
        };
        assert!(
            name == "a" && why.contains("another backup of it is running"),
            "{why}"
        );
        first.join().expect("joined").expect("committed");
    });
    assert_eq!(
        fs::read_to_string(world.path("log")).expect("read"),
        "stop\nstart\n"
    );
    run().expect("the lock was let go");
}

/// For example a file system that is mounted only for the backup.
#[test]
fn a_tree_is_read_after_its_before_commands_have_run() {
    let world = TestRepo::new();
    world.write("away/a.key", b"first");
    let away = world.path("away");
    let keys = world.path("keys");
    let mount = |unchanged: bool, before: &str| {
        let around = SourceHooks {
            before: vec![command(before)],
            after: vec![command(&format!(
                "mv {} {}",
                keys.display(),
                away.display()
            ))],
        };
        SourceSpec::Tree(Box::new(TreeSpec {
            around,
            unchanged,
            ..TreeSpec::new("keys", &keys)
        }))
    };
    let mv = format!("mv {} {}", away.display(), keys.display());
    assert_eq!(run(&world, mount(false, &mv), &[]), good());
    assert_eq!(
        run(&world, mount(true, &mv), &[]),
        good(),
        "no alarm before it is there"
    );

    // If the tree does not appear, it is missing. Where nothing may change, the last good state is
    // carried over.
    let (missing, _) = attempt(&world, vec![mount(false, "true")], &[]);
    assert!(matches!(missing, Err(Error::Source { .. })), "{missing:?}");
    let (state, suspect, alarms) = run(&world, mount(true, "true"), &[]);
    assert_eq!(
        (state, alarms),
        (SnapshotState::Incomplete, vec!["keys".to_owned()])
    );
    assert!(suspect.expect("a reason").contains("is kept"));
    let (accepted, _) = attempt(&world, vec![mount(true, "true")], &["keys"]);
    assert!(
        matches!(accepted, Err(Error::Source { .. })),
        "{accepted:?}"
    );

    let mut options = BackupOptions::new("host", vec![mount(true, &mv)]);
    options.dry_run = true;
    let dry = world.try_backup(options).0;
    let Err(Error::Source { why, .. }) = dry else {
        panic!("{dry:?}")
    };
    assert!(why.contains("a dry run does not run"), "{why}");
}

/// For example a dump by a program in a container that is started only for the backup.
#[test]
fn a_command_is_looked_up_after_its_before_commands_have_run() {
    let world = TestRepo::new();
    let up = world.path("up");
    let log = world.path("log");
    let started = |before: &str| {
        let around = SourceHooks {
            before: vec![command(before)],
            after: vec![command(&format!(
                "sh -c 'rm -f {}; echo down >>{}'",
                up.display(),
                log.display()
            ))],
        };
        let up = up.clone();
        let run = DumpCommand::Late(Box::new(move || {
            if up.exists() {
                Ok((
                    command("sh -c 'echo $ROW'"),
                    vec![("ROW".to_owned(), "one".into())],
                ))
            } else {
                Err(Error::Source {
                    name: "db".into(),
                    why: "the container is not running".into(),
                })
            }
        }));
        let unused = command("false");
        SourceSpec::Command(Box::new(CommandSpec {
            run,
            around,
            ..CommandSpec::new("db", unused)
        }))
    };

    let touch = format!("touch {}", up.display());
    let (report, _) = attempt(&world, vec![started(&touch)], &[]);
    let snapshot = world.snapshot(committed(&report.expect("committed")));
    let SourceKind::Stream { command, content } = &snapshot.source("db").expect("there").kind
    else {
        panic!("a stream");
    };
    assert_eq!(
        (command.join(" ").as_str(), content.size),
        ("sh -c echo $ROW", 4)
    );

    let (failed, _) = attempt(&world, vec![started("true")], &[]);
    assert!(matches!(failed, Err(Error::Source { .. })), "{failed:?}");
    assert_eq!(fs::read_to_string(&log).expect("read"), "down\ndown\n");
}

/// It would stop the service of a running node and store nothing.
#[test]
fn a_dry_run_runs_nothing_around_a_source() {
    let world = TestRepo::new();
    world.write("a/x", b"1");
    let log = world.path("log");
    let note = || vec![command(&format!("sh -c 'echo run >>{}'", log.display()))];
    let around = || SourceHooks {
        before: note(),
        after: note(),
    };
    let tree = TreeSpec {
        around: around(),
        ..TreeSpec::new("a", world.path("a"))
    };
    let db = CommandSpec {
        around: around(),
        ..CommandSpec::new("db", command("echo row"))
    };

    let mut options = BackupOptions::new(
        "host",
        vec![
            SourceSpec::Tree(Box::new(tree)),
            SourceSpec::Command(Box::new(db)),
        ],
    );
    options.dry_run = true;

    let (report, observer) = world.backup(options);
    assert_eq!((report.snapshot, report.sources.len()), (None, 2));
    assert!(observer.problems().is_empty(), "{:?}", observer.problems());
    assert!(!log.exists());
}

/// A stop does not wait for the command that stops a service, but it waits for the one that
/// restarts it.
#[test]
fn a_stop_ends_before_commands_and_waits_for_after_commands() {
    let world = TestRepo::new();
    world.write("a/x", b"1");
    let begun = world.path("begun");
    let log = world.path("log");
    let around = SourceHooks {
        before: vec![command(&format!(
            "sh -c ': >{}; sleep 1000'",
            begun.display()
        ))],
        after: vec![command(&format!(
            "sh -c 'sleep 0.5; echo after >>{}'",
            log.display()
        ))],
    };
    let tree = TreeSpec {
        around,
        ..TreeSpec::new("a", world.path("a"))
    };
    let options = tree_options(tree);

    let cancel = Cancel::new();
    let trigger = cancel.clone();
    let stopper = std::thread::spawn(move || {
        wait_for(&begun);
        trigger.cancel();
    });
    let stopped = world.backup_with_task(options, Task::new(&Recording::default(), &cancel));
    assert!(matches!(stopped, Err(Error::Interrupted)), "{stopped:?}");
    stopper.join().expect("joined");
    assert_eq!(fs::read_to_string(&log).expect("it ran"), "after\n");
}
