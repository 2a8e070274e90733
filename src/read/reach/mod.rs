//! Walks from snapshots to chunks. Every run and list node is read once, and the chunks that they
//! name are passed in sorted batches to a judge, which looks them up. A verify judges whether they
//! are readable, a prune which of them must be kept.

mod bits;

use std::collections::HashMap;

pub(crate) use bits::ChunkBits;

use crate::Error;
use crate::format::{
    PageRef, RunRef, RunTree, SourceKind, decode_list_node, decode_node, decode_page, decode_root,
};
use crate::index::{ChunkLocation, Index};
use crate::repo::{ChunkReader, RepoError};
use crate::task::Cancel;
use crate::types::{ChunkClass, ChunkId, Content, Entry, Extent, PlainLen, RelPath, XattrValue};

/// Chunks looked up at a time, sorted: 2.5 MiB.
const BATCH: usize = 64 << 10;

/// A part of a run or of a content list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReachedPiece {
    Root,
    Node,
    Page,
    List,
}

impl std::fmt::Display for ReachedPiece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Root => "run",
            Self::Node => "run node",
            Self::Page => "run page",
            Self::List => "list node",
        })
    }
}

/// Receives the results of a walk.
pub(crate) trait ReachVisitor {
    /// Returns the location of the copy of a piece of metadata that counts. It must be the same at
    /// each call for one id.
    fn place(&mut self, id: &ChunkId) -> Result<Option<ChunkLocation>, Error>;

    /// Receives chunks with their lengths, sorted, each once per batch. Returns false if one of
    /// them cannot be read.
    fn chunks(&mut self, batch: &[(ChunkId, PlainLen)]) -> Result<bool, Error>;

    /// Receives a piece that cannot be read, or whose content does not match the reference to it.
    fn unreadable(&mut self, piece: ReachedPiece, id: &ChunkId, why: UnreadableReason);
}

/// Why an object or a piece of metadata cannot be read.
#[derive(Debug, Clone)]
pub(crate) struct UnreadableReason {
    pub why: String,
    /// It cannot be read now, but may be intact.
    pub now: bool,
}

impl UnreadableReason {
    /// It was read and is damaged, or nothing has it.
    pub fn lost(why: impl std::fmt::Display) -> Self {
        Self {
            why: why.to_string(),
            now: false,
        }
    }
}

impl From<RepoError> for UnreadableReason {
    fn from(err: RepoError) -> Self {
        Self {
            now: err.is_unreadable_now(),
            why: err.to_string(),
        }
    }
}

/// Walks sources. Chunk numbers are valid within one generation of the index: for a new generation
/// the caller needs a new walker.
pub(crate) struct ReachWalker<'a, J> {
    reader: &'a ChunkReader<'a>,
    cancel: &'a Cancel,
    pub judge: J,
    /// Pages, nodes and list nodes that were read.
    visited: ChunkBits,
    batch: Vec<(ChunkId, PlainLen)>,
    /// Runs by their roots, and whether they name anything that cannot be read.
    runs: HashMap<ChunkId, bool>,
    /// For the current run or stream.
    is_bad: bool,
    /// For all so far. While it is false, everything that was visited is known to be good.
    any_bad: bool,
}

impl<'a, J: ReachVisitor> ReachWalker<'a, J> {
    pub fn new(reader: &'a ChunkReader<'a>, cancel: &'a Cancel, judge: J) -> Result<Self, Error> {
        let end = reader.repo().with_index(Index::chunk_numbers_end)?;
        Ok(Self {
            reader,
            cancel,
            judge,
            visited: ChunkBits::with_room(end),
            batch: Vec::with_capacity(BATCH),
            runs: HashMap::new(),
            is_bad: false,
            any_bad: false,
        })
    }

    /// Walks everything that was captured of a source. Returns false if a chunk of it cannot be
    /// read.
    pub fn source(&mut self, kind: &SourceKind) -> Result<bool, Error> {
        match kind {
            SourceKind::Stream { content, .. } => self.stream(content),
            SourceKind::Tree { runs, .. } => {
                let mut is_bad = false;
                for run in runs {
                    is_bad |= self.run(run)?;
                }
                Ok(!is_bad)
            }
        }
    }

    fn stream(&mut self, content: &Content) -> Result<bool, Error> {
        self.is_bad = false;
        self.content(&content.extents)?;
        self.flush()?;
        Ok(!self.is_bad)
    }

    fn run(&mut self, run: &RunRef) -> Result<bool, Error> {
        if let Some(&is_bad) = self.runs.get(&run.root) {
            return Ok(is_bad);
        }
        self.is_bad = false;
        if let Some(bytes) = self.metadata(ReachedPiece::Root, &run.root)? {
            match decode_root(&bytes) {
                Ok(root) => {
                    let refs = || root.directories.refs.iter().chain(&root.others.refs);
                    if refs().map(|page| page.entries).sum::<u64>() != run.entries {
                        self.damaged(
                            ReachedPiece::Root,
                            &run.root,
                            "it has a different number of entries than its snapshot records",
                        );
                    }
                    self.tree(&root.directories)?;
                    self.tree(&root.others)?;
                }
                Err(err) => self.damaged(ReachedPiece::Root, &run.root, err),
            }
        }
        self.flush()?;
        self.runs.insert(run.root, self.is_bad);
        Ok(self.is_bad)
    }

    fn tree(&mut self, tree: &RunTree) -> Result<(), Error> {
        for (n, page) in tree.refs.iter().enumerate() {
            self.cancel.check()?;
            let until = tree.refs.get(n + 1).map(|next| &next.first);
            if tree.level == 0 {
                self.page(page, until)?;
                continue;
            }
            let Some(bytes) = self.metadata(ReachedPiece::Node, &page.id)? else {
                continue;
            };
            match decode_node(&bytes, tree.level - 1) {
                Ok(node)
                    if node
                        .refs
                        .first()
                        .is_some_and(|first| first.first == page.first) =>
                {
                    self.tree(&node)?;
                }
                Ok(_) => self.damaged(
                    ReachedPiece::Node,
                    &page.id,
                    "its paths differ from those that its run records",
                ),
                Err(err) => self.damaged(ReachedPiece::Node, &page.id, err),
            }
        }
        Ok(())
    }

    fn page(&mut self, page: &PageRef, until: Option<&RelPath>) -> Result<(), Error> {
        let Some(bytes) = self.metadata(ReachedPiece::Page, &page.id)? else {
            return Ok(());
        };
        let entries = match decode_page(&bytes) {
            Ok(entries) => entries,
            Err(err) => {
                self.damaged(ReachedPiece::Page, &page.id, err);
                return Ok(());
            }
        };
        if !page.fits(&entries, until) {
            self.damaged(
                ReachedPiece::Page,
                &page.id,
                "its paths differ from those that its run records",
            );
        }
        entries.iter().try_for_each(|entry| self.entry(entry))
    }

    fn entry(&mut self, entry: &Entry) -> Result<(), Error> {
        for xattr in entry.meta().map_or(&[][..], |meta| &meta.xattrs) {
            if let XattrValue::Chunk { id, len } = xattr.value {
                self.chunk(id, len)?;
            }
        }
        entry
            .content()
            .map_or(Ok(()), |content| self.content(&content.extents))
    }

    fn content(&mut self, extents: &[Extent]) -> Result<(), Error> {
        for extent in extents {
            match extent {
                Extent::Chunk { id, len } => self.chunk(*id, *len)?,
                Extent::List { id, len, depth } => self.list(id, *len, *depth)?,
                Extent::Hole { .. } | Extent::Literal(_) => {}
            }
        }
        Ok(())
    }

    fn list(&mut self, id: &ChunkId, len: u64, depth: u8) -> Result<(), Error> {
        self.cancel.check()?;
        let Some(bytes) = self.metadata(ReachedPiece::List, id)? else {
            return Ok(());
        };
        match decode_list_node(&bytes, len, depth) {
            Ok(extents) => self.content(&extents),
            Err(err) => {
                self.damaged(ReachedPiece::List, id, err);
                Ok(())
            }
        }
    }

    fn chunk(&mut self, id: ChunkId, len: PlainLen) -> Result<(), Error> {
        self.batch.push((id, len));
        if self.batch.len() >= BATCH {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.cancel.check()?;
        self.batch.sort_unstable();
        self.batch.dedup();
        if !self.judge.chunks(&self.batch)? {
            self.mark_bad();
        }
        self.batch.clear();
        Ok(())
    }

    /// Reads a piece of a run or list. Returns `None` if it was read before, or if it cannot be
    /// read, which is then reported.
    fn metadata(&mut self, piece: ReachedPiece, id: &ChunkId) -> Result<Option<Vec<u8>>, Error> {
        let place = self.judge.place(id)?;
        if place.is_some_and(|place| self.visited.contains(place.number)) {
            // The chunks below it were judged then, for another run.
            self.is_bad |= self.any_bad;
            return Ok(None);
        }
        match self.reader.chunk(ChunkClass::Metadata, id) {
            Ok(bytes) => {
                // If the reader started a new index in the meantime, numbers differ: the caller
                // notices that and walks again.
                if let Some(place) = place {
                    self.visited.insert(place.number);
                }
                self.chunk(*id, PlainLen::of(&bytes).unwrap_or(PlainLen::MAX))?;
                Ok(Some(bytes))
            }
            Err(err) if err.is_unavailable() => {
                self.unreadable(piece, id, err.into());
                Ok(None)
            }
            Err(err) => Err(err.into()),
        }
    }

    fn damaged(&mut self, piece: ReachedPiece, id: &ChunkId, why: impl std::fmt::Display) {
        self.unreadable(piece, id, UnreadableReason::lost(why));
    }

    fn unreadable(&mut self, piece: ReachedPiece, id: &ChunkId, why: UnreadableReason) {
        self.mark_bad();
        self.judge.unreadable(piece, id, why);
    }

    fn mark_bad(&mut self) {
        self.is_bad = true;
        self.any_bad = true;
    }
}
