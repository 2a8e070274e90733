//! Commands that read: snapshots, ls, find, cat, diff, stats, status, verify.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use super::environment::{Session, set_mode};

/// Makes three snapshots of two hosts.
fn history(name: &'static str) -> Session {
    let mut session = Session::with_snapshot(name);
    session.file("data/small", "hello again\n");
    session.file("data/new", "new\n");
    fs::remove_file(session.path("data/sub/inner")).expect("a removal");
    session.quietly("backup data --tag nightly --tag second");
    session.quietly("backup web=data/sub --host beta");
    session
}

#[test]
fn snapshots_are_listed_oldest_first() {
    let mut session = history("snapshots");
    session.run("snapshots");
    session.run("snapshots --host beta");
    session.run("snapshots --tag nightly");
    session.run("snapshots --source web");
    session.run("snapshots --host gamma");
    session.run("snapshots --tag none");
    session.run("snapshots --forgotten");
    session.say("a repository without a snapshot");
    session.quietly("-r empty init");
    session.run("-r empty snapshots");
    session.run("-r empty ls latest");
    session.run("-r empty restore latest out");
    session.run("-r empty status");
    session.run("-r empty find '*'");
    session.run("-r empty stats");
    session.run("-r empty verify");
    session.finish();
}

#[test]
fn a_listing_shows_what_a_snapshot_holds() {
    let mut session = history("ls");
    session.run("ls latest");
    session.run("ls latest:data");
    session.run("ls latest:data -R");
    session.run("ls latest:data/sub");
    session.run("ls latest:data/small");
    session.run("ls latest:data -l");
    session.run("ls latest --any-host");
    session.run("ls latest --host beta -R");
    session.run("ls latest --missing");
    session.finish();
}

#[test]
fn a_path_or_snapshot_that_is_not_there_is_named() {
    let mut session = history("not_in_snapshot");
    session.run("ls latest:nowhere");
    session.run("ls latest:");
    session.run("ls latest:data/none");
    session.run("ls latest:data/small/below");
    session.run("ls 0123456789");
    session.run("ls latest --host gamma");
    session.run("cat latest:data/none");
    session.run("cat latest:none");
    session.run("diff 0123456789 latest");
    session.run("restore latest:data/none out");
    session.run("restore 0123456789 out");
    session.run("restore latest:web out");
    session.finish();
}

#[test]
fn a_prefix_of_two_snapshots_is_ambiguous() {
    let mut session = Session::with_snapshot("ambiguous_snapshot");
    let id = session.snapshots().remove(0);
    // A listing shows names alone, and the name decides which snapshot is meant.
    let other: String = id
        .chars()
        .map(|c| if c == '0' { '1' } else { '0' })
        .collect();
    let other = format!("repo/snapshots/{}{}", &id[..8], &other[8..]);
    fs::copy(
        session.path(&format!("repo/snapshots/{id}")),
        session.path(&other),
    )
    .expect("a copy");
    let prefix = &id[..8];
    session.run(&format!("ls {prefix}"));
    session.run(&format!("tag {prefix} --protect"));
    session.run(&format!("forget {prefix}"));
    session.finish();
}

#[test]
fn paths_are_found_in_all_snapshots() {
    let mut session = history("find");
    session.run("find small");
    session.run("find '/sub/*'");
    session.run("find '*' --host beta");
    session.run("find none");
    session.run("find small --tag nightly --source data");
    session.run("find small --host gamma");
    session.finish();
}

#[test]
fn the_content_of_a_file_is_written_as_it_is() {
    let mut session = history("cat");
    session.run("cat latest:data/small");
    session.run("cat latest:data/new --quiet");
    session.finish();
}

#[test]
fn a_difference_names_added_changed_and_removed_entries() {
    let mut session = history("diff");
    let ids = session.snapshots();
    session.run(&format!("diff {} {}", &ids[0][..8], &ids[1][..8]));
    session.run(&format!("diff {} latest", &ids[1]));
    session.run(&format!("diff {} {}", &ids[0], &ids[2]));
    session.finish();
}

#[test]
fn the_status_shows_the_age_of_each_source() {
    let mut session = history("status");
    session.run("status");
    session.run("status --host beta");
    session.run("status --source data --max-age 30d");
    session.run("status --max-age 1s --source none");
    session.run("status --prometheus out.prom --quiet");
    session.run("status --prometheus none/out.prom --quiet");
    let metrics = fs::read_to_string(session.path("out.prom")).expect("the metrics");
    let names: Vec<&str> = metrics
        .lines()
        .filter(|line| line.starts_with("# "))
        .collect();
    session.say(&format!("the metrics\n{}", names.join("\n")));
    session.finish();
}

#[test]
fn a_sound_repository_verifies() {
    let mut session = history("verify");
    session.run("verify");
    session.run("verify --read-data");
    session.run("verify --sample 100%");
    session.run("verify --max-bytes 10GiB --max-time 30d");
    session.run("verify --quiet");
    session.run("stats");
    session.finish();
}

#[test]
fn a_name_that_is_no_text_is_escaped() {
    let mut session = Session::new("odd_names");
    fs::create_dir(session.path("data")).expect("a directory");
    for name in [&b"new\nline"[..], b"esc\x1b[2J", b"t\xe4", b"blank name"] {
        let path = session.path("data").join(OsStr::from_bytes(name));
        fs::write(&path, "text\n").expect("a file");
        set_mode(&path, 0o644);
    }
    session.quietly("init");
    session.run("backup data");
    session.run("ls latest:data");
    session.run("ls latest:data --json");
    session.run("restore latest:data out --dry-run");
    session.run("find 't*'");
    session.finish();
}
