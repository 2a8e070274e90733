//! Damaged repositories: what each command reports, and what a repair does.

use std::fs;

use super::environment::{Session, damage, set_mode};

#[test]
fn a_damaged_pack_is_found_and_set_aside() {
    let mut session = Session::with_snapshot("damaged_pack");
    damage(&session.only_object("repo/packs"));
    session.run("verify");
    session.run("verify --read-data");
    session.run("restore latest out");
    session.run("cat latest:data/large");
    session.run("repair packs --dry-run");
    session.run("repair packs");
    session.run("repair snapshots");
    session.run("snapshots");
    session.run("verify");
    session.finish();
}

#[test]
fn a_missing_pack_is_found() {
    let mut session = Session::with_snapshot("missing_pack");
    fs::remove_file(session.only_object("repo/packs")).expect("a removal");
    session.run("verify");
    session.run("restore latest out");
    session.run("prune");
    session.run("backup data");
    session.finish();
}

#[test]
fn a_damaged_index_segment_is_made_again() {
    let mut session = Session::with_snapshot("damaged_segment");
    damage(&session.only_object("repo/index"));
    fs::remove_dir_all(session.path("cache")).expect("the cache");
    session.run("snapshots");
    session.run("verify");
    session.run("ls latest:data");
    session.run("repair index");
    session.run("verify");
    session.finish();
}

#[test]
fn a_damaged_snapshot_is_named() {
    let mut session = Session::with_snapshot("damaged_snapshot");
    session.file("data/new", "new\n");
    session.quietly("backup data");
    let id = session.snapshots().remove(0);
    damage(&session.path(&format!("repo/snapshots/{id}")));
    session.run("snapshots");
    session.run("ls latest");
    session.run(&format!("ls {id}"));
    session.run("verify");
    session.run("forget --keep-last 1");
    session.run("repair snapshots");
    session.run("verify");
    session.finish();
}

#[test]
fn one_copy_of_the_configuration_is_enough() {
    let mut session = Session::with_snapshot("damaged_config");
    let copy = session.path("repo/config.2");
    set_mode(&copy, 0o600);
    fs::write(&copy, "junk").expect("a file");
    session.run("snapshots");
    session.run("verify");
    session.run("repair config");
    session.run("repair config");
    session.say("both copies");
    for name in ["repo/config", "repo/config.2"] {
        set_mode(&session.path(name), 0o600);
        fs::write(session.path(name), "junk").expect("a file");
    }
    session.run("snapshots");
    session.run("repair config");
    session.finish();
}

#[test]
fn a_missing_key_slot_is_restored_from_its_copy() {
    let mut session = Session::with_snapshot("damaged_key");
    for entry in fs::read_dir(session.path("repo/keys")).expect("the keys") {
        let path = entry.expect("a listed name").path();
        if path.extension().is_some_and(|ending| ending == "2") {
            fs::remove_file(path).expect("a removal");
        }
    }
    session.run("verify");
    session.run("repair config");
    session.run("verify");
    session.say("no slot at all");
    for entry in fs::read_dir(session.path("repo/keys")).expect("the keys") {
        fs::remove_file(entry.expect("a listed name").path()).expect("a removal");
    }
    session.run("snapshots");
    session.finish();
}

#[test]
fn a_sound_repository_needs_no_repair() {
    let mut session = Session::with_snapshot("repair");
    session.run("repair index");
    session.run("repair config");
    session.run("repair packs");
    session.run("repair packs --quick --dry-run");
    session.run("repair snapshots");
    session.finish();
}
