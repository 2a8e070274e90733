//! Writing one run: entries in path order become pages, nodes and a root.

use super::RepoError;
use crate::format::{
    NODE_BYTES_TARGET, PageBuilder, PageRef, RunRef, RunRoot, RunTree, encode_node, encode_root,
};
use crate::types::{ChunkId, Entry};

/// A page is closed once it has this many plain bytes: 32 KiB.
const PAGE_BYTES: usize = 32 << 10;

/// Stores a metadata chunk and returns its name.
pub type PutChunk<'a> = dyn FnMut(&[u8]) -> Result<ChunkId, RepoError> + 'a;

/// Takes entries in strictly ascending path order and writes a run.
pub struct RunWriter<'a> {
    put: &'a mut PutChunk<'a>,
    folders: TreeWriter,
    others: TreeWriter,
}

impl std::fmt::Debug for RunWriter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RunWriter")
    }
}

impl<'a> RunWriter<'a> {
    /// A run whose chunks `put` stores.
    pub fn new(put: &'a mut PutChunk<'a>) -> Self {
        Self { put, folders: TreeWriter::default(), others: TreeWriter::default() }
    }

    /// Adds an entry. `in_folders`: it is a folder, or its path is one in older runs.
    pub fn push(&mut self, entry: &Entry, in_folders: bool) -> Result<(), RepoError> {
        let tree = if in_folders { &mut self.folders } else { &mut self.others };
        tree.push(entry, self.put)
    }

    /// Ends the run; none if it holds nothing.
    pub fn finish(mut self) -> Result<Option<RunRef>, RepoError> {
        let folders = self.folders.finish(self.put)?;
        let others = self.others.finish(self.put)?;
        let all = || folders.refs.iter().chain(&others.refs);
        let (entries, bytes) = (all().map(|page| page.entries).sum(), all().map(|page| page.bytes).sum());
        if entries == 0 {
            return Ok(None);
        }
        let root = (self.put)(&encode_root(&RunRoot { folders, others }))?;
        Ok(Some(RunRef { root, entries, bytes }))
    }
}

/// The references of one level that wait to become a node.
#[derive(Default)]
struct Pending {
    refs: Vec<PageRef>,
    bytes: usize,
}

#[derive(Default)]
struct TreeWriter {
    page: PageBuilder,
    levels: Vec<Pending>,
}

impl TreeWriter {
    fn push(&mut self, entry: &Entry, put: &mut PutChunk<'_>) -> Result<(), RepoError> {
        self.page.push(entry);
        if self.page.bytes() >= PAGE_BYTES { self.close_page(put) } else { Ok(()) }
    }

    fn close_page(&mut self, put: &mut PutChunk<'_>) -> Result<(), RepoError> {
        let Some((first, bytes, entries)) = self.page.finish() else { return Ok(()) };
        let id = put(&bytes)?;
        self.add_ref(0, PageRef { first, id, entries, bytes: bytes.len() as u64 }, put)
    }

    fn add_ref(&mut self, level: usize, page: PageRef, put: &mut PutChunk<'_>) -> Result<(), RepoError> {
        if self.levels.len() == level {
            self.levels.push(Pending::default());
        }
        let pending = &mut self.levels[level];
        let bytes = page.first.key().len() + 48;
        if pending.bytes + bytes > NODE_BYTES_TARGET && !pending.refs.is_empty() {
            self.close_node(level, put)?;
        }
        let pending = &mut self.levels[level];
        pending.bytes += bytes;
        pending.refs.push(page);
        Ok(())
    }

    fn close_node(&mut self, level: usize, put: &mut PutChunk<'_>) -> Result<(), RepoError> {
        let refs = std::mem::take(&mut self.levels[level]).refs;
        let Some(first) = refs.first().map(|page| page.first.clone()) else { return Ok(()) };
        let entries = refs.iter().map(|page| page.entries).sum();
        let bytes = refs.iter().map(|page| page.bytes).sum();
        let id = put(&encode_node(&RunTree { level: level as u8, refs }))?;
        self.add_ref(level + 1, PageRef { first, id, entries, bytes }, put)
    }

    fn finish(&mut self, put: &mut PutChunk<'_>) -> Result<RunTree, RepoError> {
        self.close_page(put)?;
        let mut level = 0;
        while level + 1 < self.levels.len() {
            self.close_node(level, put)?;
            level += 1;
        }
        let refs = self.levels.pop().map(|pending| pending.refs).unwrap_or_default();
        Ok(RunTree { level: level as u8, refs })
    }
}
