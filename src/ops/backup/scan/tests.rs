//! A directory whose walk ends early.

use std::sync::Arc;

use super::state::{ScanLevel, ScanMode};
use crate::ops::backup::tests::{flags_after, node};
use crate::source::SourceDir;
use crate::types::{EntryFlags, RelPath};

/// As with a file that was dropped unread: the walk was stopped in the middle of the directory, and
/// a reader still had its last visited file.
#[test]
fn a_partly_walked_directory_is_listed_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let directory = SourceDir::open_root(dir.path()).expect("opens");
    let node = node();
    drop(ScanLevel {
        mount_id: 0,
        path: RelPath::root(),
        id: directory.id(),
        directory: Some(directory),
        node: Some(Arc::clone(&node)),
        skipped: None,
        mode: ScanMode::Skipped,
    });
    let flags = flags_after(node);
    assert!(flags.contains(EntryFlags::REVISIT), "it is listed again");
    assert!(
        flags.contains(EntryFlags::UNSEEN),
        "and accounts for nothing"
    );
}
