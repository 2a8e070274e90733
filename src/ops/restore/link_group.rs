//! Groups of hard links: names of one inode that have size, mtime and content in common
//! ([R23](docs/protocol.md#r23)).

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::format::encode_list_node;
use crate::types::{EntryKind, Metadata, Node, RelPath};

/// The first name of a group of hard links.
#[derive(Debug)]
pub(super) struct LinkLeader {
    /// Path in the target.
    pub path: RelPath,
    /// It could not be restored, so nothing can be linked to it.
    pub has_failed: AtomicBool,
    /// It is written in a later window, and so are its links.
    pub is_late: AtomicBool,
}

/// A group of hard links with at least one name that the walk has met.
pub(super) struct LinkGroup {
    pub(super) leader: Arc<LinkLeader>,
    pub(super) digest: [u8; 32],
    /// Names that the walk has not met yet.
    pub(super) left: u32,
}

/// The role of an entry in a group of hard links.
pub(super) enum LinkMembership {
    Alone,
    Leader(Arc<LinkLeader>),
    Follower(Arc<LinkLeader>),
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
    // The kind's number in the format, a `u8`.
    hasher.update(&[kind.number()]);
    hasher.update(&bytes);
    Some((meta, *hasher.finalize().as_bytes()))
}
