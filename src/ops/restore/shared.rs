//! Files that have several names in the target. Metadata and content written under one name apply
//! to all of them.

use std::collections::HashMap;

use super::node_parts::kind_and_meta;
use crate::dest::FoundEntry;
use crate::types::{Metadata, Node};

/// Inodes that are remembered at once.
const INODES_MAX: usize = 64 << 10;

/// Maps each inode with several names to the file of the snapshot that it is kept for.
#[derive(Debug, Default)]
pub(super) struct SharedInodes(HashMap<(u64, u64), HeldInode>);

#[derive(Debug)]
struct HeldInode {
    /// Device and inode in the snapshot.
    stands_for: (u64, u64),
    /// Names in the target that the walk has not met yet.
    left: u32,
}

impl SharedInodes {
    /// Returns true if an existing file may be kept for this entry. Two files of the snapshot may
    /// be one file in the target, for example after a program has linked files of equal content.
    /// That file is kept only for the first of them. Call it once for each path.
    pub fn may_keep(&mut self, found: &FoundEntry, node: &Node) -> bool {
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
            HeldInode {
                stands_for,
                left: found.nlink - 1,
            },
        );
        true
    }
}

/// Returns true if an existing file has more names than the snapshot's, and setting its mode or
/// owner would change the other names too. Those may be separate files in the snapshot, or be
/// outside of the target.
pub(super) fn shares_metadata(found: &FoundEntry, meta: &Metadata) -> bool {
    has_other_names(found, meta) && !has_metadata(found, meta)
}

/// Returns true if an existing file has more names than the snapshot's.
pub(super) fn has_other_names(found: &FoundEntry, meta: &Metadata) -> bool {
    found.nlink > meta.nlink.max(1)
}

fn has_metadata(found: &FoundEntry, meta: &Metadata) -> bool {
    (found.mode, found.uid, found.gid) == (meta.mode, meta.owner.uid, meta.owner.gid)
}
