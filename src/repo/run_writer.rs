//! Writes one run: entries in path order become pages, nodes and a root.

use super::RepoError;
use crate::format::{
    LEVEL_MAX, NODE_BYTES_TARGET, NODE_REFS_MIN, PAGE_BYTES_MAX, PAGE_PATHS_MAX, PageBuilder,
    PageRef, RunRef, RunRoot, RunTree, encode_node, encode_root,
};
use crate::types::{ChunkId, Entry, to_u64};

/// Plain bytes at which a page is closed: 32 KiB.
const PAGE_BYTES: usize = 32 << 10;
/// Bytes of written-out paths at which a page is closed. This is half of what readers accept, so
/// that one more entry always fits.
const PAGE_PATHS_FULL: usize = PAGE_PATHS_MAX / 2;
/// The longest entry, 512 KiB, so that a page that was not full before it stays legal. Only
/// extended attributes and extents can make an entry long.
const ENTRY_BYTES_MAX: usize = PAGE_BYTES_MAX / 2;

/// The sizes at which pages and nodes are closed.
#[derive(Debug, Clone, Copy)]
pub(super) struct RunShape {
    pub page_bytes: usize,
    pub node_bytes: usize,
    pub node_refs_min: usize,
}

impl RunShape {
    const FORMAT: Self = Self {
        page_bytes: PAGE_BYTES,
        node_bytes: NODE_BYTES_TARGET,
        node_refs_min: NODE_REFS_MIN,
    };
}

/// Stores a metadata chunk and returns its id.
pub type PutChunk<'a> = dyn FnMut(&[u8]) -> Result<ChunkId, RepoError> + 'a;

/// Writes a run from entries in strictly ascending path order.
pub struct RunWriter<'a> {
    put: &'a mut PutChunk<'a>,
    directories: TreeWriter,
    others: TreeWriter,
    content: u64,
}

impl std::fmt::Debug for RunWriter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RunWriter")
    }
}

impl<'a> RunWriter<'a> {
    /// Creates a writer of a run whose chunks `put` stores.
    pub fn new(put: &'a mut PutChunk<'a>) -> Self {
        Self::with_shape(put, RunShape::FORMAT)
    }

    /// Creates a writer with other page and node sizes than the format's, for tests.
    pub(super) fn with_shape(put: &'a mut PutChunk<'a>, shape: RunShape) -> Self {
        Self {
            put,
            directories: TreeWriter::new(shape),
            others: TreeWriter::new(shape),
            content: 0,
        }
    }

    /// Adds an entry. `in_directories` is true if it is a directory, or if its path is a directory
    /// in older runs. An entry of more than 512 KiB is refused, because its page could not be read.
    pub fn push(&mut self, entry: &Entry, in_directories: bool) -> Result<(), RepoError> {
        let content = entry.content().map_or(0, |content| content.size);
        self.content = self.content.saturating_add(content);
        let tree = if in_directories {
            &mut self.directories
        } else {
            &mut self.others
        };
        tree.push(entry, self.put)
    }

    /// Ends the run. Returns `None` if the run is empty.
    pub fn finish(mut self) -> Result<Option<RunRef>, RepoError> {
        let directories = self.directories.finish(self.put)?;
        let others = self.others.finish(self.put)?;
        let all = || directories.refs.iter().chain(&others.refs);
        let entries = all().map(|page| page.entries).sum();
        let bytes = all().map(|page| page.bytes).sum();
        if entries == 0 {
            return Ok(None);
        }

        let root = (self.put)(&encode_root(&RunRoot {
            directories,
            others,
        }))?;
        Ok(Some(RunRef {
            root,
            entries,
            bytes,
            content: self.content,
            hides: 0,
        }))
    }
}

/// References of one level that are not in a node yet.
#[derive(Default)]
struct PendingTree {
    refs: Vec<PageRef>,
    bytes: usize,
}

struct TreeWriter {
    shape: RunShape,
    page: PageBuilder,
    levels: Vec<PendingTree>,
}

impl TreeWriter {
    fn new(shape: RunShape) -> Self {
        Self {
            shape,
            page: PageBuilder::new(),
            levels: Vec::new(),
        }
    }

    fn push(&mut self, entry: &Entry, put: &mut PutChunk<'_>) -> Result<(), RepoError> {
        let before = self.page.bytes();
        self.page.push(entry);
        let bytes = self.page.bytes();
        if bytes - before > ENTRY_BYTES_MAX {
            let why = format!(
                "the entry of {} takes {} bytes, the limit is 512 KiB",
                entry.path,
                bytes - before
            );
            return Err(RepoError::refused(why));
        }
        if bytes >= self.shape.page_bytes || self.page.paths_bytes() >= PAGE_PATHS_FULL {
            self.close_page(put)?;
        }
        Ok(())
    }

    fn close_page(&mut self, put: &mut PutChunk<'_>) -> Result<(), RepoError> {
        let Some((first, bytes, entries)) = self.page.finish() else {
            return Ok(());
        };
        let id = put(&bytes)?;
        self.add_ref(
            0,
            PageRef {
                first,
                id,
                entries,
                bytes: to_u64(bytes.len()),
            },
            put,
        )
    }

    fn add_ref(
        &mut self,
        level: usize,
        page: PageRef,
        put: &mut PutChunk<'_>,
    ) -> Result<(), RepoError> {
        if self.levels.len() == level {
            self.levels.push(PendingTree::default());
        }
        let pending = &mut self.levels[level];
        let bytes = page.first.key().len() + 48;
        if pending.bytes + bytes > self.shape.node_bytes
            && pending.refs.len() >= self.shape.node_refs_min
        {
            self.close_node(level, put)?;
        }
        let pending = &mut self.levels[level];
        pending.bytes += bytes;
        pending.refs.push(page);
        Ok(())
    }

    fn close_node(&mut self, level: usize, put: &mut PutChunk<'_>) -> Result<(), RepoError> {
        let number = stored_level(level)?;
        if number >= LEVEL_MAX {
            return Err(too_deep());
        }
        let refs = std::mem::take(&mut self.levels[level]).refs;
        let Some(first) = refs.first().map(|page| page.first.clone()) else {
            return Ok(());
        };
        let entries = refs.iter().map(|page| page.entries).sum();
        let bytes = refs.iter().map(|page| page.bytes).sum();
        let id = put(&encode_node(&RunTree {
            level: number,
            refs,
        }))?;
        self.add_ref(
            level + 1,
            PageRef {
                first,
                id,
                entries,
                bytes,
            },
            put,
        )
    }

    fn finish(&mut self, put: &mut PutChunk<'_>) -> Result<RunTree, RepoError> {
        self.close_page(put)?;
        let mut level = 0;
        while level + 1 < self.levels.len() {
            self.close_node(level, put)?;
            level += 1;
        }
        let refs = self
            .levels
            .pop()
            .map(|pending| pending.refs)
            .unwrap_or_default();
        Ok(RunTree {
            level: stored_level(level)?,
            refs,
        })
    }
}

/// Returns the number of a level in nodes.
fn stored_level(level: usize) -> Result<u8, RepoError> {
    u8::try_from(level).map_err(|_| too_deep())
}

fn too_deep() -> RepoError {
    RepoError::refused("a run would be deeper than its format allows")
}
