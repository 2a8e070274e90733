//! Tests of what becomes of a directory that the walk leaves before its end.

use super::super::tests::{flags_after, node};
use super::*;

/// As with a file that was given up: a reader had the last file that the walk had come to when it
/// was stopped in the middle of the directory.
#[test]
fn a_directory_that_the_walk_did_not_come_to_the_end_of_is_listed_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let directory = SourceDir::open_root(dir.path()).expect("opens");
    let node = node();
    drop(Level {
        mount_id: 0,
        path: RelPath::root(),
        id: directory.id(),
        directory: Some(directory),
        node: Some(Arc::clone(&node)),
        skipped: None,
        mode: Mode::Skipped,
    });
    let flags = flags_after(node);
    assert!(flags.contains(EntryFlags::REVISIT), "it is listed again");
    assert!(
        flags.contains(EntryFlags::UNSEEN),
        "and accounts for nothing"
    );
}
