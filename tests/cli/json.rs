//! `--json`: the events and records of each command, one object a line.

use super::environment::Session;
use super::json_page::JsonPage;

/// Runs a command with `--json`; each line of its output must be one object with a type, and with
/// the keys of `docs/json.md`.
fn run(session: &mut Session, line: &str) {
    let ran = session.run(&format!("{line} --json"));
    check_output(line, &ran.stdout);
}

/// Checks that each line is one object with a type, and has the keys of `docs/json.md`.
fn check_output(line: &str, output: &str) {
    let page = JsonPage::read();
    for output in output.lines() {
        let event: serde_json::Value = serde_json::from_str(output).expect("one object a line");
        assert!(event["type"].is_string(), "{output}");
        page.check_line(section_of(line), &event);
    }
}

/// Returns the section of `docs/json.md` about a command line.
fn section_of(line: &str) -> &str {
    let words = line.trim_start_matches("-r other ");
    let words = words.trim_start_matches("-r none ");
    let mut words = words.split(' ');
    match words.next().unwrap_or_default() {
        "init" | "key" => "init and key",
        "ls" | "find" => "ls and find",
        "undelete" | "tag" => "undelete and tag",
        "node" => match words.next().unwrap_or_default() {
            "backup" => "backup",
            "init" => "node init",
            "check" => "node check",
            _ => "node restore",
        },
        command => command,
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

#[test]
fn a_node_that_was_looked_for_is_a_summary() {
    let mut session = Session::with_snapshot("json_node");
    // No program is found, so the Docker engine of this machine is not asked.
    std::fs::create_dir(session.path("bin")).expect("a directory");
    let path = session.path("bin").to_str().expect("UTF-8").to_owned();
    session.file("web/compose.yml", "services:\n  web:\n    image: nginx\n");
    let line = "node init web/compose.yml --output new.toml";
    let call = session.call(&format!("{line} --json"));
    let ran = call.with("PATH", &path).run();
    check_output(line, &ran.stdout);
    session.finish();
}
