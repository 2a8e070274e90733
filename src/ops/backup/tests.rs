//! A folder's entry waits for its last file: what becomes of it when a file is given up.

use std::sync::Arc;

use super::capture::FileJob;
use super::sink::{EntrySink, FolderNode};
use crate::source::Folder;
use crate::types::{EntryFlags, Metadata, RelPath};

/// What a checkpoint would say of the folder once `settled` was the last hold on it.
pub(super) fn flags_after(settled: Arc<FolderNode>) -> EntryFlags {
    let scratch = tempfile::tempdir().expect("a folder");
    let sink = EntrySink::new(scratch.path(), 1 << 20);
    sink.begin(&settled);
    sink.settle(settled).expect("put");
    let mut batch = sink.cut().expect("cut").expect("an entry");
    let flags = batch.sorted.next().expect("reads").expect("an entry").entry.flags;
    assert!(batch.sorted.next().expect("reads").is_none());
    flags
}

pub(super) fn node() -> Arc<FolderNode> {
    Arc::new(FolderNode::new(RelPath::root(), Metadata::default(), None, false))
}

/// Of two files of a folder, one was given up unread since the backup was asked to stop, and then the other was done: the
/// last hold on the folder, whose entry went into the last checkpoint as if all of it were there. The next backup of an
/// immutable source passed the folder over, and the file was in no snapshot, ever.
#[test]
fn a_folder_of_which_a_file_was_given_up_is_listed_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = Folder::open_root(dir.path()).expect("opens");
    let (node, stat) = (node(), folder.stat_self().expect("stat"));
    assert!(!flags_after(self::node()).contains(EntryFlags::REVISIT), "all of it was seen");
    drop(FileJob {
        folder,
        name: b"unread".to_vec(),
        path: RelPath::root().join(b"unread").expect("a path"),
        stat,
        is_racy: false,
        parent: None,
        node: Some(Arc::clone(&node)),
    });
    assert!(flags_after(node).contains(EntryFlags::REVISIT));
}
