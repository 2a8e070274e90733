//! Backups: summaries, refusals, and captures that are incomplete or suspect.

use std::fs;
use std::os::unix::fs::symlink;

use super::environment::{Session, set_mode};

#[test]
fn a_backup_counts_new_changed_and_removed_files() {
    let mut session = Session::with_tree("backup");
    session.run("backup data --dry-run");
    session.run("backup data");
    session.file("data/small", "hello again\n");
    session.file("data/new", "new\n");
    fs::remove_file(session.path("data/sub/inner")).expect("a removal");
    session.run("backup data --tag changed");
    session.say("each path that was read");
    session.file("data/new", "newer\n");
    session.run("backup data --verbose");
    session.say("nothing but problems and errors");
    session.run("backup data --quiet");
    session.say("a name, and two sources");
    session.run("backup first=data second=data/sub");
    session.finish();
}

#[test]
fn a_backup_makes_its_repository_with_init_alone() {
    let mut session = Session::new("backup_init");
    session.file("data/file", "text\n");
    session.run("backup data");
    session.run("backup --init data");
    session.run("backup --init data");
    session.finish();
}

#[test]
fn rules_leave_out_the_entries_that_they_match() {
    let mut session = Session::with_tree("backup_rules");
    session.file(
        "data/cache/CACHEDIR.TAG",
        "Signature: 8a477f597d28d172789f06886806bc55\n",
    );
    session.file("data/cache/object", "object\n");
    session.file("rules", "# comment\n*.tmp\nsub/\n");
    session.file("data/file.tmp", "text\n");
    session.run("backup data --exclude-file rules --exclude-caches --exclude-larger-than 100KiB");
    session.run("ls latest:data -R");
    session.run("ls latest --missing");
    session.say("a pattern that matches nothing");
    session.run("backup other=data --exclude /none");
    session.finish();
}

#[test]
fn a_source_that_is_missing_or_empty_ends_the_backup() {
    let mut session = Session::with_snapshot("backup_sources");
    session.run("backup nowhere");
    session.run("backup data nowhere");
    session.run("backup data/small");
    session.say("the directory is empty now");
    fs::rename(session.path("data"), session.path("away")).expect("a rename");
    fs::create_dir(session.path("data")).expect("a directory");
    session.run("backup data");
    session.run("backup data --allow-empty");
    session.finish();
}

#[test]
fn a_source_at_another_path_needs_a_statement() {
    let mut session = Session::with_snapshot("backup_moved");
    session.file("elsewhere/data/small", "hello\n");
    session.run("backup elsewhere/data");
    session.run("backup data=elsewhere/data");
    session.run("backup elsewhere/data --moved");
    session.finish();
}

#[test]
fn a_file_that_could_not_be_captured_makes_the_backup_incomplete() {
    let mut session = Session::with_tree("backup_incomplete");
    session.file("list", "small\nnowhere\n");
    session.run("backup data --files-from list");
    session.run("snapshots");
    session.run("ls latest --missing");
    session.run("status");
    session.say("a list of which nothing exists");
    session.file("none", "nowhere\n");
    session.run("backup other=data --files-from none");
    session.finish();
}

#[test]
fn a_stream_must_end_well() {
    let mut session = Session::with_tree("backup_streams");
    session
        .call("backup --stdin notes")
        .input(b"a line\n")
        .run();
    session.run("backup --command date='echo now'");
    session.run("backup --command db=false");
    session.run("backup --command db=./no-such-program");
    session.run("backup --command db=true");
    session.run("backup --command db='sh -c \"echo half; echo lost connection >&2; exit 3\"'");
    session.call("backup --stdin other").input(b"").run();
    session.run("cat latest:date");
    session.run("ls latest");
    session.finish();
}

#[test]
fn a_stream_that_shrank_is_suspect_until_it_is_accepted() {
    let mut session = Session::with_tree("backup_suspect");
    let large = "row\n".repeat(50_000);
    session
        .call("backup --stdin db")
        .input(large.as_bytes())
        .run();
    session.call("backup --stdin db").input(b"row\n").run();
    session.run("snapshots");
    session.run("cat latest:db");
    session
        .call("backup --stdin db --accept db")
        .input(b"row\n")
        .run();
    session.run("backup data --accept other");
    session.finish();
}

#[test]
fn a_link_as_a_source_is_reported() {
    let mut session = Session::with_tree("backup_links");
    symlink("data", session.path("link")).expect("a link");
    symlink("none", session.path("dangling")).expect("a link");
    session.run("backup link");
    session.run("backup dangling");
    session.run("ls -l latest --any-host");
    session.finish();
}

#[test]
fn a_parent_must_exist() {
    let mut session = Session::with_snapshot("backup_parent");
    session.run("backup data --parent latest:other");
    session.run("backup data --parent 0123456789:data");
    session.run("backup copy=data --parent latest:data");
    session.finish();
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let mut session = Session::with_tree("backup_unreadable");
    set_mode(&session.path("data/small"), 0);
    session.call("backup data").restricted().run();
    session.run("snapshots");
    session.run("ls latest --missing");
    session.run("status");
    session.run("restore latest:data out");
    session.say("a directory that cannot be read");
    set_mode(&session.path("data/small"), 0o644);
    set_mode(&session.path("data/sub"), 0);
    session.call("backup data").restricted().run();
    session.run("ls latest --missing");
    session.say("all of it can be read");
    set_mode(&session.path("data/sub"), 0o755);
    session.run("backup data");
    session.say("the source cannot be read");
    set_mode(&session.path("data"), 0);
    session.call("backup data").restricted().run();
    session.finish();
}
