//! Files that have several names in the target: what is set, or later written, under one name is so
//! under all of them.

use std::collections::HashMap;

use super::execute::kind_and_meta;
use super::plan::Walk;
use crate::target::Existing;
use crate::types::{Metadata, Node, RelPath};

/// Inodes that are remembered at once.
const INODES_MAX: usize = 64 << 10;

/// Which file of the snapshot an inode of several names is kept for.
#[derive(Debug, Default)]
pub(super) struct SharedInodes(HashMap<(u64, u64), Held>);

#[derive(Debug)]
struct Held {
    /// Device and inode in the snapshot.
    stands_for: (u64, u64),
    /// Names in the target that were not met yet.
    left: u32,
}

impl SharedInodes {
    /// True if what is there may be kept for this entry. Two files of the snapshot may be one file
    /// in the target, for example after a program has linked files of equal content: it is kept for
    /// the first of them alone. Called once for each path.
    pub fn may_keep(&mut self, found: &Existing, node: &Node) -> bool {
        if found.nlink < 2 {
            return true;
        }
        let Some((_, meta)) = kind_and_meta(node) else {
            return true;
        };
        let identity = (found.device, found.inode);
        let stands_for = (meta.device, meta.inode);
        if let Some(held) = self.0.get_mut(&identity) {
            let is_it = held.stands_for == stands_for && meta.nlink > 1;
            held.left = held.left.saturating_sub(1);
            if held.left == 0 {
                self.0.remove(&identity);
            }
            return is_it;
        }
        if self.0.len() >= INODES_MAX {
            return has_metadata(found, meta);
        }
        self.0.insert(
            identity,
            Held {
                stands_for,
                left: found.nlink - 1,
            },
        );
        true
    }
}

impl Walk<'_> {
    /// True if what is there has names beyond those of the snapshot's file, and extended attributes
    /// may be set on it or taken from it: that would change these names too.
    pub(super) fn shares_attributes(
        &mut self,
        found: &Existing,
        meta: &Metadata,
        target: &RelPath,
    ) -> bool {
        if !has_other_names(found, meta) {
            return false;
        }
        let name = target.name().unwrap_or_default();
        !meta.xattrs.is_empty()
            || self
                .parent_dir(target)
                .ok()
                .flatten()
                .is_none_or(|dir| dir.may_have_xattrs(name))
    }
}

/// True if what is there has names beyond those of the snapshot's file, and setting the mode or
/// owner would change these too: they may be files of their own in the snapshot, or lie outside of
/// the target.
pub(super) fn shares_metadata(found: &Existing, meta: &Metadata) -> bool {
    has_other_names(found, meta) && !has_metadata(found, meta)
}

/// True if what is there has more names than the snapshot's file.
fn has_other_names(found: &Existing, meta: &Metadata) -> bool {
    found.nlink > meta.nlink.max(1)
}

fn has_metadata(found: &Existing, meta: &Metadata) -> bool {
    (found.mode, found.uid, found.gid) == (meta.mode, meta.owner.uid, meta.owner.gid)
}
