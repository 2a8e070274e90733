//! Restores: summaries, targets in the way, selections that match nothing.

use std::fs;

use super::environment::Session;

#[test]
fn a_restore_counts_the_written_files() {
    let mut session = Session::with_snapshot("restore");
    session.run("restore latest out --dry-run");
    session.run("restore latest out");
    session.run("restore latest out");
    session.run("restore latest:data tree");
    session.run("restore latest:data tree --verify");
    session.run("restore latest:data/small file --verbose");
    session.run("restore latest:data/small -");
    session.finish();
}

#[test]
fn existing_files_are_treated_as_the_options_require() {
    let mut session = Session::with_snapshot("restore_overwrite");
    session.quietly("restore latest:data out");
    session.file("out/small", "changed here\n");
    session.file("out/extra", "extra\n");
    session.run("restore latest:data out --overwrite never");
    session.run("restore latest:data out --overwrite if-newer");
    session.run("restore latest:data out --delete --dry-run");
    session.run("restore latest:data out --delete");
    session.run("restore latest:data out --overwrite always");
    session.finish();
}

#[test]
fn a_target_in_the_way_is_not_replaced() {
    let mut session = Session::with_snapshot("restore_in_the_way");
    session.file("wall", "text\n");
    session.run("restore latest:data wall");
    session.run("restore latest wall");
    session.say("a directory where the snapshot has a file");
    session.file("out/small/inner", "text\n");
    session.run("restore latest:data out");
    session.say("a file where the snapshot has a directory");
    session.file("out2/sub", "text\n");
    session.run("restore latest:data out2");
    session.say("a target that cannot be made");
    session.run("restore latest:data wall/below");
    session.say("the repository itself");
    session.run("restore latest:data repo");
    session.run("restore latest:data ''");
    session.say("standard output holds one file");
    session.run("restore latest -");
    session.finish();
}

#[test]
fn a_selection_that_matches_nothing_is_reported() {
    let mut session = Session::with_snapshot("restore_selection");
    session.run("restore latest:data out --include small");
    session.run("restore latest:data out2 --include none");
    session.run("restore latest:data out3 --include small --include none");
    session.run("restore latest:data out4 --exclude '*'");
    session.run("restore latest:data out5 --exclude none");
    session.run("restore latest:data/small out6 --include small");
    session.finish();
}

#[test]
fn a_snapshot_that_lacks_a_path_restores_the_rest() {
    let mut session = Session::with_tree("restore_incomplete");
    session.file("list", "small\nnowhere\n");
    assert_eq!(session.call("backup data --files-from list").play().code, 3);
    session.run("restore latest:data out");
    session.run("restore latest:data out --delete");
    session.finish();
}

#[test]
fn a_suspect_capture_is_reported_when_it_is_restored() {
    let mut session = Session::with_tree("restore_suspect");
    let large = "row\n".repeat(50_000);
    assert_eq!(
        session
            .call("backup --stdin db")
            .input(large.as_bytes())
            .play()
            .code,
        0
    );
    session.call("backup --stdin db").input(b"row\n").play();
    session.run("restore latest:db out");
    let content = fs::read_to_string(session.path("out")).unwrap_or_default();
    session.say(&format!("the file: {content:?}"));
    session.finish();
}
