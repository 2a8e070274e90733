//! Each exit code that the help documents.

use std::thread::sleep;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::environment::{NO_SNAPSHOT, Session, damage, end_of, set_mode};

/// The codes that the tests of this file reach.
const REACHED: [i32; 10] = [0, 1, 2, 3, 4, 5, 10, 11, 12, 130];

#[test]
fn the_help_documents_the_codes_that_are_tested() {
    let help = Session::new(NO_SNAPSHOT).quietly("--help").stdout;
    let mut codes: Vec<i32> = help
        .lines()
        .skip_while(|line| *line != "Exit codes:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .flat_map(|line| line.split("  ").filter(|part| !part.is_empty()))
        .filter_map(|part| part.trim().split(' ').next()?.parse().ok())
        .collect();
    codes.sort_unstable();
    assert_eq!(codes, REACHED);
}

#[test]
fn a_command_that_is_done_ends_with_0() {
    let mut session = Session::with_tree(NO_SNAPSHOT);
    assert_eq!(session.call("backup data").play().code, 0);
}

#[test]
fn a_command_that_failed_ends_with_1() {
    let mut session = Session::with_tree(NO_SNAPSHOT);
    assert_eq!(session.call("backup nowhere").play().code, 1);
}

#[test]
fn bad_usage_ends_with_2() {
    let mut session = Session::new(NO_SNAPSHOT);
    assert_eq!(session.call("backup --no-such-option").play().code, 2);
}

#[test]
fn an_incomplete_backup_ends_with_3() {
    let mut session = Session::with_tree(NO_SNAPSHOT);
    session.file("list", "small\nnowhere\n");
    assert_eq!(session.call("backup data --files-from list").play().code, 3);
}

#[test]
fn damage_ends_with_4() {
    let mut session = Session::with_snapshot(NO_SNAPSHOT);
    damage(&session.only_object("repo/packs"));
    assert_eq!(session.call("verify --read-data").play().code, 4);
}

#[test]
fn a_changed_key_file_ends_with_5() {
    let mut session = Session::with_tree("alarm");
    session.file(
        "icecore.toml",
        "host = \"alpha\"\n\
         [[source]]\nname = \"keys\"\nkind = \"tree\"\npath = \"keys\"\nunchanged = \"alarm\"\n",
    );
    session.file("keys/first", "first\n");
    session.file("keys/second", "second\n");
    session.run("backup");
    session.say("a key changed");
    session.file("keys/first", "changed\n");
    assert_eq!(session.run("backup").code, 5);
    session.run("snapshots");
    session.run("status");
    session.say("the change is accepted");
    session.run("backup --accept keys");
    session.run("backup");
    session.say("a key is missing");
    std::fs::remove_file(session.path("keys/second")).expect("a removal");
    assert_eq!(session.run("backup").code, 5);
    session.finish();
}

#[test]
fn no_repository_ends_with_10() {
    let mut session = Session::new(NO_SNAPSHOT);
    assert_eq!(session.call("snapshots").play().code, 10);
}

#[test]
fn a_wrong_passphrase_ends_with_11() {
    let mut session = Session::new(NO_SNAPSHOT);
    assert_eq!(session.call("init").passphrase("right").play().code, 0);
    assert_eq!(
        session.call("snapshots").passphrase("wrong").play().code,
        11
    );
}

#[test]
fn a_newer_format_ends_with_12() {
    let mut session = Session::with_tree(NO_SNAPSHOT);
    for name in ["repo/config", "repo/config.2"] {
        let path = session.path(name);
        let config = std::fs::read_to_string(&path).expect("the configuration");
        set_mode(&path, 0o600);
        std::fs::write(&path, config.replace("\"format\":1", "\"format\":1001")).expect("a file");
    }
    assert_eq!(session.call("snapshots").play().code, 12);
}

#[test]
fn an_interrupted_backup_ends_with_130() {
    let mut session = Session::with_tree("interrupted");
    let line = "backup --command slow='sh -c \"echo row; touch started; exec sleep 600\"'";
    let mut child = session.call(line).start();
    while !session.path("started").exists() {
        let ended = child.try_wait().expect("its state");
        assert!(ended.is_none(), "ended before its command started");
        sleep(Duration::from_millis(10));
    }
    let id = i32::try_from(child.id()).expect("a process id");
    kill_process(Pid::from_raw(id).expect("a process"), Signal::TERM).expect("a signal");
    let ran = end_of(child);
    assert_eq!(ran.code, 130);
    session.record("icecore backup --command slow=… (interrupted)", &ran);
    session.run("snapshots");
    session.finish();
}
