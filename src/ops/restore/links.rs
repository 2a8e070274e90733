//! Finds names of a restore that are hard links of one file ([R23](docs/protocol.md#r23)).

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::plan::RestoreWalk;
use super::window::LinkLeader;
use crate::format::encode_list_node;
use crate::types::{EntryKind, Metadata, Node, RelPath};

/// A group of hard links with at least one name that the walk has met.
pub(super) struct LinkGroup {
    leader: Arc<LinkLeader>,
    digest: [u8; 32],
    /// Names that the walk has not met yet.
    left: u32,
}

/// The role of an entry in a group of hard links.
pub(super) enum LinkMembership {
    Alone,
    Leader(Arc<LinkLeader>),
    Follower(Arc<LinkLeader>),
}

impl RestoreWalk<'_> {
    /// Finds the group of hard links of an entry: names of one inode with equal size, mtime and
    /// content.
    pub(super) fn group(&mut self, target: &RelPath, node: &Node) -> LinkMembership {
        let Some((meta, digest)) = link_digest(node) else {
            return LinkMembership::Alone;
        };

        let key = (meta.device, meta.inode);
        if let Some(group) = self.groups.get_mut(&key) {
            if group.digest != digest {
                return LinkMembership::Alone;
            }
            let leader = Arc::clone(&group.leader);
            group.left = group.left.saturating_sub(1);
            if group.left == 0 {
                self.group_bytes -= leader.path.key().len();
                self.groups.remove(&key);
            }
            return LinkMembership::Follower(leader);
        }

        let limits = &self.job.limits;
        let len = target.key().len();
        if self.groups.len() >= limits.link_groups || self.group_bytes + len > limits.link_bytes {
            return LinkMembership::Alone;
        }

        let leader = Arc::new(LinkLeader {
            path: target.clone(),
            has_failed: AtomicBool::new(false),
            is_late: AtomicBool::new(false),
        });
        self.group_bytes += len;
        self.groups.insert(
            key,
            LinkGroup {
                leader: Arc::clone(&leader),
                digest,
                left: meta.nlink - 1,
            },
        );
        LinkMembership::Leader(leader)
    }
}

/// Returns a digest of everything that names of one inode must have in common. `None` if the entry
/// has only one name.
pub(in crate::ops) fn link_digest(node: &Node) -> Option<(&Metadata, [u8; 32])> {
    let mut bytes = Vec::new();
    let (kind, meta) = match node {
        Node::File { meta, content } => {
            bytes.extend_from_slice(&content.size.to_le_bytes());
            bytes.extend_from_slice(&encode_list_node(&content.extents));
            (EntryKind::File, meta)
        }
        Node::Symlink { meta, target } => {
            bytes.extend_from_slice(target);
            (EntryKind::Symlink, meta)
        }
        Node::Char { meta, device } | Node::Block { meta, device } => {
            bytes.extend_from_slice(&device.major.to_le_bytes());
            bytes.extend_from_slice(&device.minor.to_le_bytes());
            let is_char = matches!(node, Node::Char { .. });
            (
                if is_char {
                    EntryKind::Char
                } else {
                    EntryKind::Block
                },
                meta,
            )
        }
        Node::Fifo { meta } => (EntryKind::Fifo, meta),
        Node::Socket { meta } => (EntryKind::Socket, meta),
        Node::Directory { .. } | Node::Failed { .. } | Node::Removed | Node::Unknown { .. } => {
            return None;
        }
    };

    if meta.nlink < 2 {
        return None;
    }

    let mut hasher = blake3::Hasher::new();
    hasher.update(&meta.mtime.seconds().to_le_bytes());
    hasher.update(&meta.mtime.nanos().to_le_bytes());
    hasher.update(&[kind as u8]);
    hasher.update(&bytes);
    Some((meta, *hasher.finalize().as_bytes()))
}
