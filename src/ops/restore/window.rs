//! A window of a restore: items to be written, and the chunks that they need.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::link_group::LinkLeader;
use crate::dest::{DestTempFile, ReplaceRule};
use crate::observe::Severity;
use crate::read::fetch::ChunkRequest;
use crate::types::{ByteSize, Metadata, Node, RelPath, at_most};

/// Limits of a window and of a restore's open work.
#[derive(Debug, Clone, Copy)]
pub(super) struct WindowLimits {
    /// Bytes of memory for items and wants.
    pub window_bytes: usize,
    /// Wants; a file with more of them continues in the next window.
    pub window_wants: usize,
    /// Bytes of their chunks, so that the lease can be renewed between windows even if reading is
    /// slow.
    pub window_content: u64,
    /// Files that span several frames and are open at once, over all threads.
    pub open_files: usize,
    /// Groups of hard links that are remembered, and the bytes of their paths.
    pub link_groups: usize,
    pub link_bytes: usize,
    /// When this many files, or bytes of files, are without their times, written files are synced.
    pub unsettled_files: u64,
    pub unsettled_bytes: u64,
}

impl WindowLimits {
    /// Returns the limits for a memory budget. A window has 40 MiB by default
    /// ([R24](docs/protocol.md#r24)), less if the budget is small.
    pub fn for_memory(budget: ByteSize) -> Self {
        let window_bytes = at_most(budget.0 / 6, 40 << 20).max(8 << 20);
        // Each open file keeps its directory open too; stay well below the usual limit of 1,024
        // handles.
        Self {
            window_bytes,
            window_wants: 1 << 20,
            window_content: 4 << 30,
            open_files: 256,
            link_groups: 64 << 10,
            link_bytes: 8 << 20,
            unsettled_files: 256 << 10,
            unsettled_bytes: 4 << 30,
        }
    }
}

/// What to do with an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ItemAction {
    Write,
    /// The content exists: only correct the metadata, and compare the content if that was
    /// requested.
    Keep,
    /// Compare the file and leave it as it is.
    Look,
}

/// Rules for giving a path its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ItemRule {
    /// The kinds of existing files that may be replaced.
    pub replace: ReplaceRule,
    /// The directory existed before, so the name must be recorded as this restore's.
    pub is_claim: bool,
}

/// A file, link or special file to be restored.
#[derive(Debug)]
pub(super) struct WindowItem {
    /// Path in the target.
    pub path: RelPath,
    /// Without its content, which became wants, if it is to be written.
    pub node: Node,
    pub action: ItemAction,
    pub leader: Option<Arc<LinkLeader>>,
    pub rule: ItemRule,
    pub size: u64,
    /// Content stored in the entry itself, with its offsets in the file.
    pub literals: Vec<(u64, Vec<u8>)>,
    /// End of the last chunk or literal; the rest of the file is a hole.
    pub data_end: u64,
    /// All of its wants are known.
    pub is_planned: bool,
    /// It was begun in an earlier window.
    pub is_carried: bool,
    pub progress: Mutex<ItemProgress>,
}

/// Progress of a file.
#[derive(Debug, Default)]
pub(super) struct ItemProgress {
    /// Wants of the current window that are not written yet.
    pub left: usize,
    /// Shared by the threads that are writing it.
    pub temp: Option<Arc<DestTempFile>>,
    /// Why it cannot be restored.
    pub failure: Option<(Severity, String)>,
    /// The item is finished, and counted, later.
    pub is_put_off: bool,
}

impl WindowItem {
    pub fn new(
        path: RelPath,
        node: Node,
        action: ItemAction,
        leader: Option<Arc<LinkLeader>>,
        rule: ItemRule,
    ) -> Self {
        Self {
            path,
            node,
            action,
            leader,
            rule,
            size: 0,
            literals: Vec::new(),
            data_end: 0,
            is_planned: true,
            is_carried: false,
            progress: Mutex::default(),
        }
    }

    pub fn progress(&self) -> MutexGuard<'_, ItemProgress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns roughly the number of bytes of memory that the item takes.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.path.key().len() + node_bytes(&self.node)
    }
}

/// Returns roughly the number of bytes that a node takes on the heap, with 16 for the allocator's
/// overhead of each allocation.
fn node_bytes(node: &Node) -> usize {
    let meta = |meta: &Metadata| {
        let xattrs = meta.xattrs.iter().map(|xattr| {
            let value = match &xattr.value {
                crate::types::XattrValue::Inline(bytes) => bytes.len(),
                crate::types::XattrValue::Chunk { .. } => 0,
            };
            size_of_val(xattr) + xattr.name.len() + value + 32
        });
        meta.owner.user.len() + meta.owner.group.len() + 48 + xattrs.sum::<usize>()
    };
    match node {
        Node::File {
            meta: held,
            content,
        } => meta(held) + content.extents.len() * 56,
        Node::Symlink { meta: held, target } => meta(held) + target.len() + 16,
        Node::Directory { meta: held }
        | Node::Fifo { meta: held }
        | Node::Socket { meta: held }
        | Node::Char { meta: held, .. }
        | Node::Block { meta: held, .. } => meta(held),
        Node::Failed { .. } | Node::Removed | Node::Unknown { .. } => 0,
    }
}

/// Another name of a leader's file.
#[derive(Debug)]
pub(super) struct HardLink {
    pub path: RelPath,
    pub leader: Arc<LinkLeader>,
    /// With its content, to be written as a separate file if it cannot be linked.
    pub node: Node,
    /// The path may exist already.
    pub may_exist: bool,
    pub rule: ItemRule,
}

impl HardLink {
    /// Converts the name to a separate file.
    pub fn apart(self) -> WindowItem {
        WindowItem::new(self.path, self.node, ItemAction::Write, None, self.rule)
    }
}

/// Items, chunks and links that are written together.
#[derive(Debug, Default)]
pub(super) struct RestoreWindow {
    pub items: Vec<WindowItem>,
    /// `owner` is the item's number, `at` the offset in its file.
    pub wants: Vec<ChunkRequest>,
    pub links: Vec<HardLink>,
    item_bytes: usize,
    content_bytes: u64,
}

impl RestoreWindow {
    pub fn push(&mut self, item: WindowItem) -> usize {
        self.item_bytes += item.bytes();
        self.items.push(item);
        self.items.len() - 1
    }

    pub fn push_want(&mut self, want: ChunkRequest) {
        self.content_bytes += u64::from(want.len);
        self.wants.push(want);
    }

    pub fn push_link(&mut self, link: HardLink) {
        self.item_bytes += size_of::<HardLink>() + link.path.key().len() + node_bytes(&link.node);
        self.links.push(link);
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty() && self.links.is_empty()
    }

    pub fn is_full(&self, limits: &WindowLimits) -> bool {
        self.wants.len() >= limits.window_wants
            || self.content_bytes >= limits.window_content
            || self.item_bytes + self.wants.len() * size_of::<ChunkRequest>() >= limits.window_bytes
    }

    /// Returns the next window, which continues the file that is being planned, if any.
    pub fn next(&mut self) -> Self {
        let mut next = Self::default();
        if let Some(mut item) = self.items.pop().filter(|item| !item.is_planned) {
            item.is_carried = true;
            next.push(item);
        }
        next
    }
}
