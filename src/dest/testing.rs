//! Helpers for the tests of this layer.

use std::path::Path;

use rustix::fs::{Gid, Uid};
use rustix::io::Errno;
use tempfile::TempDir;

use super::{DestDir, DestTree, FoundEntry, MetaPolicy, MetaToSet, OwnerPolicy, RemovedCounts};
use crate::types::{Metadata, Owner, RelPath, Timestamp};

/// Returns an ACL attribute: owner rwx, a user of this id rwx, owning group r, mask rwx, others
/// none.
pub(super) fn acl_value(uid: u32) -> Vec<u8> {
    let mut value = 2_u32.to_le_bytes().to_vec();
    for (tag, rights, id) in [
        (1_u16, 7_u16, u32::MAX),
        (2, 7, uid),
        (4, 4, u32::MAX),
        (0x10, 7, u32::MAX),
        (0x20, 0, u32::MAX),
    ] {
        value.extend_from_slice(&tag.to_le_bytes());
        value.extend_from_slice(&rights.to_le_bytes());
        value.extend_from_slice(&id.to_le_bytes());
    }
    value
}

/// Creates a directory and opens a tree on it, as this user with numeric owners.
pub(super) fn fixture() -> (TempDir, DestTree) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let tree = open(directory.path(), OwnerPolicy::Numeric);
    (directory, tree)
}

pub(super) fn open(root: &Path, owner: OwnerPolicy) -> DestTree {
    DestTree::open(root, true, MetaPolicy::of_this_user(owner)).expect("a target")
}

pub(super) fn path(text: &str) -> RelPath {
    RelPath::from_slashed(text.as_bytes()).expect("a path")
}

pub(super) fn root_of(tree: &DestTree) -> DestDir {
    tree.directory(&RelPath::root()).expect("the root")
}

pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Returns metadata owned by this user.
pub(super) fn own_meta(mode: u16) -> Metadata {
    let uid = rustix::process::geteuid().as_raw();
    let gid = rustix::process::getegid().as_raw();
    Metadata {
        mode,
        owner: Owner {
            uid,
            gid,
            ..Owner::default()
        },
        mtime: Timestamp::new(1_234_567_890, 123_456_789).expect("a time"),
        ..Metadata::default()
    }
}

pub(super) fn plain(meta: &Metadata) -> MetaToSet<'_> {
    MetaToSet { meta, xattrs: &[] }
}

pub(super) fn found(dir: &DestDir, name: &[u8]) -> FoundEntry {
    dir.stat(name).expect("stat").expect("something is there")
}

/// Returns the names in a directory, sorted.
pub(super) fn names(dir: &DestDir) -> Vec<Vec<u8>> {
    let mut names = Vec::new();
    dir.names(|name, _| {
        names.push(name.to_vec());
        Ok(())
    })
    .expect("a listing");
    names.sort();
    names
}

/// Removes a whole tree.
pub(super) fn removed(dir: &DestDir, name: &[u8]) -> RemovedCounts {
    let removed = dir.remove_tree(name, &mut |_, _| false).expect("removed");
    assert_eq!(removed.kept, None);
    removed
}

pub(super) fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> Option<Errno> {
    Errno::from_io_error(&result.expect_err("an error"))
}

/// Runs `work` as user and group 65534 without root's rights, in a separate thread, because these
/// calls change only one thread. If the test is not run as root, the user stays the same.
pub(super) fn as_ordinary_user(work: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            if is_root() {
                rustix::thread::set_thread_groups(&[]).expect("no groups");
                rustix::thread::set_thread_gid(Gid::from_raw(65534)).expect("another group");
                rustix::thread::set_thread_uid(Uid::from_raw(65534)).expect("another user");
            }
            work();
        });
        worker.join().expect("the ordinary user's part");
    });
}
