//! The parts of an entry's node that a restore compares: kind, metadata and size.

use crate::types::{EntryKind, Metadata, Node};

/// Returns the kind and the metadata of a node that can be restored.
pub(super) fn kind_and_meta(node: &Node) -> Option<(EntryKind, &Metadata)> {
    Some(match node {
        Node::File { meta, .. } => (EntryKind::File, meta),
        Node::Directory { meta } => (EntryKind::Directory, meta),
        Node::Symlink { meta, .. } => (EntryKind::Symlink, meta),
        Node::Fifo { meta } => (EntryKind::Fifo, meta),
        Node::Socket { meta } => (EntryKind::Socket, meta),
        Node::Char { meta, .. } => (EntryKind::Char, meta),
        Node::Block { meta, .. } => (EntryKind::Block, meta),
        Node::Failed { .. } | Node::Removed | Node::Unknown { .. } => return None,
    })
}

/// Returns the size of a file, and 0 for any other node.
pub(super) fn size_of(node: &Node) -> u64 {
    match node {
        Node::File { content, .. } => content.size,
        _ => 0,
    }
}
