//! Finding, making and opening a repository.

use std::fs;

use super::environment::{Session, collect, set_mode, set_modes};

#[test]
fn a_repository_is_made_once() {
    let mut session = Session::new("init");
    session.shows_unsealed = true;
    session.run("init");
    session.run("init");
    session.run("-r parity init --parity 5");
    session.file("file", "text\n");
    session.run("-r file init");
    session.run("-r file/below init");
    session.file("full/other", "text\n");
    session.run("-r full init");
    session.run("snapshots");
    session.finish();
}

#[test]
fn a_place_without_a_repository_is_not_opened() {
    let mut session = Session::new("no_repository");
    session.file("data/file", "text\n");
    fs::create_dir(session.path("empty")).expect("a directory");
    session.run("snapshots");
    session.run("backup data");
    session.run("-r empty snapshots");
    session.run("-r empty verify");
    session.run("-r icecore.toml snapshots");
    session.run("copy --to repo");
    session.finish();
}

#[test]
fn a_repository_that_was_there_before_is_missed() {
    let mut session = Session::with_snapshot("missing_repository");
    fs::rename(session.path("repo"), session.path("away")).expect("a rename");
    session.run("snapshots");
    session.run("backup --init data");
    fs::create_dir(session.path("repo")).expect("a directory");
    session.run("backup --init data");
    session.finish();
}

#[test]
fn another_repository_at_the_address_is_refused() {
    let mut session = Session::with_snapshot("other_repository");
    session.quietly("-r other init");
    fs::rename(session.path("repo"), session.path("away")).expect("a rename");
    fs::rename(session.path("other"), session.path("repo")).expect("a rename");
    session.run("snapshots");
    session.run("--accept-repository 00112233445566778899aabbccddeeff snapshots");
    session.say("the configuration names the repository");
    session.file(
        "icecore.toml",
        "host = \"alpha\"\nrepository_id = \"00112233445566778899aabbccddeeff\"\n",
    );
    session.run("snapshots");
    session.run("init");
    session.finish();
}

#[test]
fn a_repository_opens_with_its_passphrase_alone() {
    let mut session = Session::new("passphrase");
    session.file("data/file", "text\n");
    session.call("backup --init data").passphrase("right").run();
    session.call("snapshots").passphrase("right").run();
    session.call("snapshots").passphrase("wrong").run();
    session.call("snapshots").passphrase("").run();
    session
        .call("snapshots")
        .without("ICECORE_NO_PASSPHRASE")
        .run();
    session.call("snapshots").passphrase("right ").run();
    session.say("no passphrase, though there is one");
    session.run("snapshots");
    session.say("a passphrase, though there is none");
    session.quietly("-r open init");
    session.call("-r open snapshots").passphrase("right").run();
    session.finish();
}

#[test]
fn a_passphrase_file_is_read_to_the_byte() {
    let mut session = Session::new("passphrase_file");
    let run = |session: &mut Session, line: &str| {
        session.call(line).without("ICECORE_NO_PASSPHRASE").run();
    };
    session.private_file("right", "right\n");
    session.private_file("windows", "right\r\n");
    session.private_file("empty", "");
    session.file("open", "right\n");
    run(&mut session, "init --passphrase-file right");
    run(&mut session, "snapshots --passphrase-file right");
    run(&mut session, "snapshots --passphrase-file windows");
    run(&mut session, "snapshots --passphrase-file empty");
    run(&mut session, "snapshots --passphrase-file none");
    session.say("a file that others can read");
    run(&mut session, "snapshots --passphrase-file open");
    session.private_file("long", &"x".repeat(70_000));
    run(&mut session, "snapshots --passphrase-file long");
    session.finish();
}

#[test]
fn a_passphrase_command_must_succeed() {
    let mut session = Session::new("passphrase_command");
    for command in [
        "'echo right'",
        "'echo wrong'",
        "false",
        "true",
        "''",
        "./no-such-command",
        "'echo right | cat'",
        "'echo \"right'",
    ] {
        let line = if command == "'echo right'" {
            format!("init --passphrase-command {command}")
        } else {
            format!("snapshots --passphrase-command {command}")
        };
        session.call(&line).without("ICECORE_NO_PASSPHRASE").run();
    }
    session.finish();
}

#[test]
fn an_open_repository_is_opened_only_if_that_is_meant() {
    let mut session = Session::new("unsealed");
    session.shows_unsealed = true;
    session.quietly("init");
    session.say("the state directory remembers that there is no passphrase");
    session
        .call("snapshots")
        .without("ICECORE_NO_PASSPHRASE")
        .run();
    session.say("it does not");
    session
        .call("snapshots")
        .without("ICECORE_NO_PASSPHRASE")
        .with("ICECORE_STATE_DIR", "other")
        .run();
    session.say("a passphrase, though there should be none");
    session
        .call("snapshots --no-passphrase")
        .passphrase("secret")
        .run();
    session.finish();
}

#[test]
fn a_cache_or_state_that_cannot_be_used_is_named() {
    let mut session = Session::with_snapshot("cache_and_state");
    session.file("file", "text\n");
    session
        .call("snapshots")
        .with("ICECORE_CACHE_DIR", "file")
        .run();
    session
        .call("snapshots")
        .with("ICECORE_STATE_DIR", "file")
        .run();
    session.say("a pin that cannot be read counts as absent");
    let mut files = Vec::new();
    collect(&session.path("state"), &mut files);
    for path in files {
        set_mode(&path, 0o600);
        fs::write(path, "junk").expect("a file");
    }
    session.run("snapshots");
    session.run("snapshots");
    session.finish();
}

#[test]
fn a_newer_format_is_refused_before_the_passphrase() {
    let mut session = Session::with_snapshot("newer_format");
    for name in ["repo/config", "repo/config.2"] {
        let path = session.path(name);
        let config = fs::read_to_string(&path).expect("the configuration");
        let newer = config.replace("\"format\":1", "\"format\":1001");
        assert_ne!(config, newer, "no format in the configuration");
        set_mode(&path, 0o600);
        fs::write(&path, newer).expect("a file");
    }
    session.run("snapshots");
    session.run("backup data");
    session.call("snapshots").passphrase("wrong").run();
    session.finish();
}

#[test]
fn a_repository_that_cannot_be_written_can_be_read() {
    let mut session = Session::with_snapshot("read_only");
    set_modes(&session.path("repo"), 0o555);
    for line in [
        "snapshots",
        "ls latest:data",
        "cat latest:data/small",
        "restore latest:data out",
        "verify",
        "status",
        "backup data",
        "tag latest --protect",
        "forget latest",
        "prune",
        "repair index",
        "key list",
    ] {
        session.call(line).restricted().run();
    }
    session.finish();
}

#[test]
fn a_repository_that_cannot_be_read_is_reported() {
    let mut session = Session::with_snapshot("unreadable_repository");
    set_mode(&session.path("repo/packs"), 0);
    session.call("cat latest:data/large").restricted().run();
    session.call("restore latest out").restricted().run();
    session.call("verify").restricted().run();
    set_mode(&session.path("repo/packs"), 0o700);
    set_mode(&session.only_object("repo/packs"), 0);
    for command in [
        "restore latest out",
        "verify",
        "verify --read-data",
        "prune",
        "repair index",
        "repair packs",
        "repair snapshots",
    ] {
        session.call(command).restricted().run();
    }
    set_mode(&session.path("repo/config"), 0);
    set_mode(&session.path("repo/config.2"), 0);
    session.call("snapshots").restricted().run();
    set_mode(&session.path("repo"), 0);
    session.call("snapshots").restricted().run();
    session.finish();
}
