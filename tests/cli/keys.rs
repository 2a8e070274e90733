//! Key slots.

use super::environment::Session;

#[test]
fn a_second_passphrase_opens_the_repository() {
    let mut session = Session::new("keys");
    session.private_file("first", "first\n");
    session.private_file("second", "second\n");
    session.private_file("third", "third\n");
    let run = |session: &mut Session, line: &str, secret: &str| {
        let line = format!("{line} --passphrase-file {secret}");
        session.call(&line).without("ICECORE_NO_PASSPHRASE").run()
    };

    run(&mut session, "init", "first");
    run(&mut session, "key list", "first");
    run(
        &mut session,
        "key add --new-passphrase-file second --label spare",
        "first",
    );
    run(
        &mut session,
        "key add --new-passphrase-file second --label spare",
        "first",
    );
    run(
        &mut session,
        "key change --new-passphrase-file third",
        "first",
    );
    run(&mut session, "snapshots", "first");
    run(
        &mut session,
        "key export exported --new-passphrase-file second",
        "third",
    );
    run(
        &mut session,
        "key export exported --new-passphrase-file second",
        "third",
    );
    run(&mut session, "key add --new-key-file generated", "third");
    run(&mut session, "key add --new-key-file generated", "third");
    run(&mut session, "snapshots", "generated");
    session.finish();
}

#[test]
fn a_slot_that_is_not_there_or_the_last_one_is_not_removed() {
    let mut session = Session::with_tree("keys_removed");
    let list = session.quietly("key list --json");
    let slot = list
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"))
        .find_map(|event| event["slot"].as_str().map(str::to_owned))
        .expect("a slot");
    session.run(&format!("key remove {slot}"));
    session.run("key remove 0123456789abcdef");
    session.run("key remove ''");
    session.run("key add");
    session.run("key add --new-passphrase-file none");
    session.private_file("empty", "");
    session.run("key add --new-passphrase-file empty");
    session.run("key change --new-passphrase-command false");
    session.run("key export icecore.toml --new-passphrase-file none");
    session.finish();
}
