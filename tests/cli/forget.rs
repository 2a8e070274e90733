//! Forgetting, tags, bringing back, freeing space and copying.

use super::environment::Session;

/// Makes three snapshots of one tree.
fn history(name: &'static str) -> (Session, Vec<String>) {
    let mut session = Session::with_snapshot(name);
    for number in ["second", "third"] {
        session.file("data/small", number);
        session.quietly(&format!("backup data --tag {number}"));
    }
    let ids = session.snapshots();
    (session, ids)
}

#[test]
fn a_policy_shows_why_each_snapshot_is_kept() {
    let (mut session, _) = history("forget");
    session.run("forget --keep-last 1 --dry-run");
    session.run("forget --keep-tag second --keep-last 1");
    session.run("forget --keep-last 2");
    session.run("snapshots --forgotten");
    session.finish();
}

#[test]
fn a_policy_that_drops_too_much_is_refused() {
    let (mut session, _) = history("forget_refused");
    session.run("forget --keep-tag none");
    session.run("forget --keep-last 0");
    session.run("forget --keep-within 0s");
    session.run("forget --keep-last 1 --host gamma");
    session.run("forget --dry-run");
    session.run("forget --keep-last 1 --group-by host,none");
    session.finish();
}

#[test]
fn a_snapshot_is_forgotten_by_name_and_brought_back() {
    let (mut session, ids) = history("forget_by_name");
    let first = &ids[0];
    session.run(&format!("forget {first} --dry-run"));
    session.run(&format!("forget {first}"));
    session.run(&format!("forget {first}"));
    session.run(&format!("ls {first}"));
    session.run("forget 0123456789");
    session.run(&format!("undelete {}", &first[..8]));
    session.run(&format!("undelete {first}"));
    session.run("undelete 0123456789");
    session.run("undelete latest");
    session.finish();
}

#[test]
fn a_protected_snapshot_is_kept() {
    let (mut session, ids) = history("forget_protected");
    let first = &ids[0];
    session.run(&format!("tag {first} --protect"));
    session.run("snapshots");
    // Its tags are sealed in the snapshot: it has another id now.
    let first = session.snapshots().remove(0);
    session.run(&format!("forget {first}"));
    session.run("forget --keep-last 1");
    session.run(&format!("tag {first} --unprotect"));
    session.finish();
}

#[test]
fn tags_are_added_removed_and_set() {
    let (mut session, _) = history("tag");
    session.run("tag latest --add release");
    session.run("tag latest --add release");
    session.run("tag latest --remove third");
    session.run("tag latest --remove none");
    session.run("tag latest --set a --set b");
    session.run("tag latest --set ''");
    session.run("tag latest --add a --set b --remove c");
    session.run("tag latest --add ''");
    session.run("tag 0123456789 --add release");
    session.run("snapshots");
    session.finish();
}

#[test]
fn a_prune_marks_what_no_snapshot_needs() {
    let (mut session, ids) = history("prune");
    session.run("prune");
    session.quietly(&format!("forget {} {}", ids[0], ids[1]));
    session.run("prune --dry-run");
    session.run("prune");
    session.run("prune --now");
    session.run("snapshots --forgotten");
    session.run(&format!("undelete {}", ids[0]));
    session.run("verify --read-data");
    session.finish();
}

#[test]
fn a_copy_takes_what_the_other_repository_lacks() {
    let (mut session, ids) = history("copy");
    session.run("copy --to other");
    session.quietly("-r other init");
    session.run("copy --to other --dry-run");
    session.run(&format!("copy --to other {}", ids[0]));
    session.run("copy --to other");
    session.run("copy --to other");
    session.run("copy --to other --tag none");
    session.run("copy --to other 0123456789");
    session.run("copy --to repo");
    session.run("-r other snapshots");
    session
        .call("copy --to other")
        .without("ICECORE_TO_NO_PASSPHRASE")
        .with("ICECORE_TO_PASSPHRASE", "wrong")
        .run();
    session
        .call("copy --to other")
        .without("ICECORE_TO_NO_PASSPHRASE")
        .with("ICECORE_TO_PASSPHRASE", "")
        .run();
    session
        .call("copy --to other")
        .with("ICECORE_TO_PASSPHRASE", "wrong")
        .run();
    session
        .call("copy --to other")
        .with("ICECORE_TO_NO_PASSPHRASE", "maybe")
        .run();
    session.finish();
}
