//! Reading one tree of a run: pages in path order, with seeks that skip pages unread.

use super::{ChunkReader, RepoError};
use crate::format::{PageRef, RunTree, decode_node, decode_page};
use crate::types::{ChunkClass, ChunkId, Entry, RelPath};

/// Behaviour of a reader of runs at a page that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDamage {
    /// The page is an error.
    Fail,
    /// The page is skipped, and its range of paths is noted as uncertain.
    Skip,
}

/// A range of paths whose entries are unknown because a page cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UncertainPaths {
    /// The first path of the range.
    pub from: RelPath,
    /// The first path after the range, or `None` if it extends to the end.
    pub until: Option<RelPath>,
    /// The root, node or page that cannot be read.
    pub chunk: ChunkId,
    pub why: String,
    /// True if it cannot be read now, but may be intact.
    pub now: bool,
}

impl UncertainPaths {
    /// Returns why the chunk cannot be read, for a message that names the chunk.
    pub fn reason(&self) -> &str {
        let named = format!("chunk {} cannot be read: ", self.chunk.short());
        self.why.strip_prefix(&named).unwrap_or(&self.why)
    }
}

#[derive(Debug)]
struct CursorLevel {
    tree: RunTree,
    /// The next reference to follow. The one before it is open.
    next: usize,
}

/// A position in one tree of a run. It only moves forward.
#[derive(Debug)]
pub(super) struct RunCursor {
    levels: Vec<CursorLevel>,
    page: std::vec::IntoIter<Entry>,
    /// A pending seek for which no page was read yet.
    target: Option<Vec<u8>>,
    /// With [`OnDamage::Skip`], the ranges of the pages that were skipped.
    pub uncertain: Option<Vec<UncertainPaths>>,
}

impl RunCursor {
    pub fn new(tree: RunTree, on_damage: OnDamage) -> Self {
        Self {
            levels: vec![CursorLevel { tree, next: 0 }],
            page: Vec::new().into_iter(),
            target: None,
            uncertain: match on_damage {
                OnDamage::Fail => None,
                OnDamage::Skip => Some(Vec::new()),
            },
        }
    }

    /// Makes sure that [`RunCursor::peek`] returns the next entry, if there is one.
    pub fn fill(&mut self, reader: &ChunkReader<'_>) -> Result<(), RepoError> {
        while self.page.as_slice().is_empty() {
            let Some(level) = self.levels.last_mut() else {
                return Ok(());
            };
            let Some(page) = level.tree.refs.get(level.next).cloned() else {
                self.levels.pop();
                continue;
            };
            level.next += 1;
            let depth = level.tree.level;
            // The range after a node's last reference ends where the next reference of its parent
            // begins.
            let following = |level: &CursorLevel| {
                level
                    .tree
                    .refs
                    .get(level.next)
                    .map(|next| next.first.clone())
            };
            let until = self.levels.iter().rev().find_map(following);

            let opened = if depth == 0 {
                self.open_page(reader, &page, until.as_ref())
            } else {
                self.open_node(reader, &page, until.as_ref(), depth - 1)
            };

            match (opened, &mut self.uncertain) {
                (Err(err), Some(noted)) if err.is_unavailable() => {
                    let now = err.is_unreadable_now();
                    let chunk = page.id;
                    let why = err.to_string();
                    noted.push(UncertainPaths {
                        from: page.first,
                        until,
                        chunk,
                        why,
                        now,
                    });
                }
                (opened, _) => opened?,
            }
        }
        Ok(())
    }

    fn open_page(
        &mut self,
        reader: &ChunkReader<'_>,
        page: &PageRef,
        until: Option<&RelPath>,
    ) -> Result<(), RepoError> {
        let bad = |what: String| RepoError::damaged(format!("run page {}", page.id.short()), what);
        let bytes = reader.chunk(ChunkClass::Metadata, &page.id)?;
        let mut entries = decode_page(&bytes).map_err(|err| bad(err.to_string()))?;
        if !page.fits(&entries, until) {
            return Err(bad("it holds other paths than its run says".into()));
        }
        if let Some(target) = self.target.take() {
            let skip = entries.partition_point(|entry| entry.path.key() < target.as_slice());
            entries.drain(..skip);
            if entries.is_empty() {
                self.target = Some(target);
            }
        }
        self.page = entries.into_iter();
        Ok(())
    }

    fn open_node(
        &mut self,
        reader: &ChunkReader<'_>,
        page: &PageRef,
        until: Option<&RelPath>,
        level: u8,
    ) -> Result<(), RepoError> {
        let bytes = reader.chunk(ChunkClass::Metadata, &page.id)?;
        let tree = decode_node(&bytes, level)
            .map_err(|err| RepoError::damaged(format!("run node {}", page.id.short()), err))?;

        let entries = tree
            .refs
            .iter()
            .try_fold(0u64, |sum, below| sum.checked_add(below.entries));
        let fits = tree
            .refs
            .first()
            .is_some_and(|first| first.first == page.first)
            && entries == Some(page.entries)
            && until.is_none_or(|until| tree.refs.last().is_some_and(|last| last.first < *until));
        if !fits {
            return Err(RepoError::damaged(
                format!("run node {}", page.id.short()),
                "it holds other paths than its run says",
            ));
        }

        let next = self
            .target
            .as_ref()
            .map_or(0, |target| candidate(&tree, target));
        self.levels.push(CursorLevel { tree, next });
        Ok(())
    }

    /// Returns the next entry. [`RunCursor::fill`] must have been called.
    pub fn peek(&self) -> Option<&Entry> {
        self.page.as_slice().first()
    }

    /// Removes and returns the entry that [`RunCursor::peek`] returns.
    pub fn take(&mut self) -> Option<Entry> {
        self.page.next()
    }

    /// Moves to the first entry whose key is not below `key`. Skipped pages are not read.
    pub fn seek(&mut self, key: &[u8]) {
        let held = self.page.as_slice();
        if held.last().is_some_and(|last| last.path.key() >= key) {
            let skip = held.partition_point(|entry| entry.path.key() < key);
            if skip > 0 {
                self.page.nth(skip - 1);
            }
            return;
        }

        self.page = Vec::new().into_iter();
        if self
            .target
            .as_ref()
            .is_none_or(|target| target.as_slice() < key)
        {
            self.target = Some(key.to_vec());
        }

        for depth in 0..self.levels.len() {
            let is_deepest = depth + 1 == self.levels.len();
            let level = &mut self.levels[depth];
            let candidate = candidate(&level.tree, key);
            if is_deepest {
                level.next = level.next.max(candidate);
            } else if candidate >= level.next {
                level.next = candidate;
                self.levels.truncate(depth + 1);
                return;
            }
        }
    }

    /// Moves to the end.
    pub fn exhaust(&mut self) {
        self.levels.clear();
        self.page = Vec::new().into_iter();
    }
}

/// Returns the reference below which the first entry not below `key` may be: the last reference
/// that begins at or before `key`.
fn candidate(tree: &RunTree, key: &[u8]) -> usize {
    tree.refs
        .partition_point(|page| page.first.key() <= key)
        .saturating_sub(1)
}
