//! `--json`: the events and records of each command, one object a line.

use super::environment::Session;

/// Runs a command with `--json`; each line of its output must be one object with a type.
fn run(session: &mut Session, line: &str) {
    let ran = session.run(&format!("{line} --json"));
    for line in ran.stdout.lines() {
        let event: serde_json::Value = serde_json::from_str(line).expect("one object a line");
        assert!(event["type"].is_string(), "{line}");
    }
}

#[test]
fn a_backup_ends_with_a_summary() {
    let mut session = Session::with_tree("json_backup");
    run(&mut session, "-r other init");
    run(&mut session, "backup data");
    session.file("data/small", "hello again\n");
    run(&mut session, "backup data --verbose");
    run(&mut session, "backup data --dry-run");
    session.file("list", "small\nnowhere\n");
    run(&mut session, "backup listed=data --files-from list");
    run(&mut session, "backup --command date='echo now' --tag t");
    session.finish();
}

#[test]
fn an_error_is_an_event() {
    let mut session = Session::with_snapshot("json_errors");
    run(&mut session, "backup nowhere");
    run(&mut session, "-r none snapshots");
    run(&mut session, "ls latest:data/none");
    run(&mut session, "ls latest~1");
    run(&mut session, "snapshots --hots x");
    run(&mut session, "nonsense");
    run(&mut session, "restore latest:data icecore.toml");
    session.finish();
}

#[test]
fn reading_commands_print_records() {
    let mut session = Session::with_snapshot("json_reading");
    session.file("data/new", "new\n");
    session.quietly("backup data --tag second");
    let ids = session.snapshots();
    run(&mut session, "snapshots");
    run(&mut session, "ls latest");
    run(&mut session, "ls latest:data -R");
    run(&mut session, "ls latest --missing");
    run(&mut session, "find small");
    run(&mut session, &format!("diff {} {}", ids[0], ids[1]));
    run(&mut session, "stats");
    run(&mut session, "status");
    run(&mut session, "verify --read-data");
    session.finish();
}

#[test]
fn a_restore_lists_its_plan() {
    let mut session = Session::with_snapshot("json_restore");
    run(&mut session, "restore latest out --dry-run");
    run(&mut session, "restore latest out");
    session.file("out/data/extra", "extra\n");
    run(&mut session, "restore latest out --delete --dry-run");
    run(&mut session, "restore latest:data out2 --include none");
    session.finish();
}

#[test]
fn forget_undelete_and_prune_print_records() {
    let mut session = Session::with_snapshot("json_forget");
    session.quietly("backup data");
    let ids = session.snapshots();
    run(&mut session, "tag latest --add release");
    run(&mut session, "forget --keep-last 1 --dry-run");
    run(&mut session, &format!("forget {}", ids[0]));
    run(&mut session, "snapshots --forgotten");
    run(&mut session, "prune --dry-run");
    run(&mut session, &format!("undelete {}", ids[0]));
    run(&mut session, "prune");
    run(&mut session, "prune --now");
    session.finish();
}

#[test]
fn a_copy_lists_the_copied_snapshots() {
    let mut session = Session::with_snapshot("json_copy");
    session.quietly("-r other init");
    run(&mut session, "copy --to other --dry-run");
    run(&mut session, "copy --to other");
    run(&mut session, "copy --to other");
    session.finish();
}

#[test]
fn keys_and_repairs_are_records() {
    let mut session = Session::with_snapshot("json_keys");
    session.private_file("second", "second\n");
    run(&mut session, "key list");
    run(
        &mut session,
        "key add --new-passphrase-file second --label spare",
    );
    run(
        &mut session,
        "key export exported --new-passphrase-file second",
    );
    let added = session.quietly("key add --new-passphrase-file second --json");
    let summary: serde_json::Value =
        serde_json::from_str(added.stdout.lines().last().expect("a summary")).expect("JSON");
    let slot = summary["slot"].as_str().expect("a slot");
    run(&mut session, &format!("key remove {slot}"));
    run(&mut session, "key remove 0123456789abcdef");
    run(&mut session, "key change --new-passphrase-file second");
    session.finish();
}

#[test]
fn repairs_end_with_a_summary() {
    let mut session = Session::with_snapshot("json_repair");
    run(&mut session, "repair index");
    run(&mut session, "repair config");
    run(&mut session, "repair packs");
    run(&mut session, "repair snapshots");
    super::environment::damage(&session.only_object("repo/packs"));
    run(&mut session, "verify --read-data");
    run(&mut session, "repair packs");
    run(&mut session, "repair snapshots");
    session.finish();
}

#[test]
fn pages_and_nodes_have_no_records() {
    let mut session = Session::with_snapshot("json_other");
    run(&mut session, "man pages");
    run(&mut session, "cat latest:data/small");
    run(&mut session, "completions tcsh");
    run(&mut session, "node backup");
    run(&mut session, "node check");
    run(&mut session, "node restore latest");
    run(&mut session, "node init none.yml --output new.toml");
    session.finish();
}
