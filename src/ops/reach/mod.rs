//! From the snapshots to the chunks: every run and list node is read once, and what they name is
//! handed in sorted batches to a judge, who looks the chunks up. A verify judges whether they can
//! be had, a prune what they keep alive.

mod bits;

use std::collections::HashMap;

pub(super) use bits::Bits;

use crate::Error;
use crate::format::{
    PageRef, RunRef, RunTree, SourceKind, decode_list_node, decode_node, decode_page, decode_root,
};
use crate::index::{Index, Location};
use crate::ops::Cancel;
use crate::repo::ChunkReader;
use crate::types::{ChunkId, Class, Content, Entry, Extent, RelPath, XattrValue};

/// Chunks looked up at a time, sorted: 2.5 MiB.
const BATCH: usize = 64 << 10;

/// A piece of a run or of a content list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    Root,
    Node,
    Page,
    List,
}

impl std::fmt::Display for Piece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Root => "run",
            Self::Node => "run node",
            Self::Page => "run page",
            Self::List => "list node",
        })
    }
}

/// What a walk tells.
pub(super) trait Judge {
    /// Where the copy of a piece of metadata lies that counts; the same at each call for one id.
    fn place(&mut self, id: &ChunkId) -> Result<Option<Location>, Error>;

    /// Chunks that were come to, with their lengths, sorted, none twice in one batch. False if one
    /// cannot be had.
    fn chunks(&mut self, batch: &[(ChunkId, u32)]) -> Result<bool, Error>;

    /// A piece cannot be read, or is not what names it.
    fn unreadable(&mut self, piece: Piece, id: &ChunkId, why: String);
}

/// Walks sources. Chunk numbers hold within one generation of the index: who sees a new one begins
/// with a new walker.
pub(super) struct Walker<'a, J> {
    reader: &'a ChunkReader<'a>,
    cancel: &'a Cancel,
    pub judge: J,
    /// Pages, nodes and list nodes that were read.
    visited: Bits,
    batch: Vec<(ChunkId, u32)>,
    /// Runs by their roots, and whether they name anything that cannot be read.
    runs: HashMap<ChunkId, bool>,
    /// Of the run or stream at hand.
    is_bad: bool,
    /// Of all so far. While it is false, what was visited before is known to be good.
    any_bad: bool,
}

impl<'a, J: Judge> Walker<'a, J> {
    pub fn new(reader: &'a ChunkReader<'a>, cancel: &'a Cancel, judge: J) -> Result<Self, Error> {
        let end = reader.repo().ask_index(Index::chunk_numbers_end)?;
        Ok(Self {
            reader,
            cancel,
            judge,
            visited: Bits::with_room(end),
            batch: Vec::with_capacity(BATCH),
            runs: HashMap::new(),
            is_bad: false,
            any_bad: false,
        })
    }

    /// Walks all that was captured of a source; false if something that it names cannot be had.
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
        if let Some(bytes) = self.metadata(Piece::Root, &run.root)? {
            match decode_root(&bytes) {
                Ok(root) => {
                    let refs = || root.directories.refs.iter().chain(&root.others.refs);
                    if refs().map(|page| page.entries).sum::<u64>() != run.entries {
                        self.unreadable(
                            Piece::Root,
                            &run.root,
                            "it has not as many entries as its snapshot says",
                        );
                    }
                    self.tree(&root.directories)?;
                    self.tree(&root.others)?;
                }
                Err(err) => self.unreadable(Piece::Root, &run.root, err),
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
            let Some(bytes) = self.metadata(Piece::Node, &page.id)? else {
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
                Ok(_) => self.unreadable(
                    Piece::Node,
                    &page.id,
                    "it holds other paths than its run says",
                ),
                Err(err) => self.unreadable(Piece::Node, &page.id, err),
            }
        }
        Ok(())
    }

    fn page(&mut self, page: &PageRef, until: Option<&RelPath>) -> Result<(), Error> {
        let Some(bytes) = self.metadata(Piece::Page, &page.id)? else {
            return Ok(());
        };
        let entries = match decode_page(&bytes) {
            Ok(entries) => entries,
            Err(err) => {
                self.unreadable(Piece::Page, &page.id, err);
                return Ok(());
            }
        };
        let fits = entries
            .first()
            .is_some_and(|first| first.path == page.first)
            && entries.len() as u64 == page.entries
            && until.is_none_or(|until| entries.last().is_some_and(|last| last.path < *until));
        if !fits {
            self.unreadable(
                Piece::Page,
                &page.id,
                "it holds other paths than its run says",
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
        let Some(bytes) = self.metadata(Piece::List, id)? else {
            return Ok(());
        };
        match decode_list_node(&bytes, len, depth) {
            Ok(extents) => self.content(&extents),
            Err(err) => {
                self.unreadable(Piece::List, id, err);
                Ok(())
            }
        }
    }

    fn chunk(&mut self, id: ChunkId, len: u32) -> Result<(), Error> {
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

    /// Reads a piece of a run or list; none if it was read before or cannot be read, which is then
    /// told.
    fn metadata(&mut self, piece: Piece, id: &ChunkId) -> Result<Option<Vec<u8>>, Error> {
        let place = self.judge.place(id)?;
        if place.is_some_and(|place| self.visited.contains(place.number)) {
            // What hangs below it was judged then, on behalf of another run.
            self.is_bad |= self.any_bad;
            return Ok(None);
        }
        match self.reader.chunk(Class::Metadata, id) {
            Ok(bytes) => {
                // A reader that began a new index on the way has other numbers: the caller notices
                // and walks again.
                if let Some(place) = place {
                    self.visited.insert(place.number);
                }
                self.chunk(*id, u32::try_from(bytes.len()).unwrap_or(u32::MAX))?;
                Ok(Some(bytes))
            }
            Err(err) if err.is_unavailable() => {
                self.unreadable(piece, id, err);
                Ok(None)
            }
            Err(err) => Err(err.into()),
        }
    }

    fn unreadable(&mut self, piece: Piece, id: &ChunkId, why: impl std::fmt::Display) {
        self.mark_bad();
        self.judge.unreadable(piece, id, why.to_string());
    }

    fn mark_bad(&mut self) {
        self.is_bad = true;
        self.any_bad = true;
    }
}
