//! From the snapshots to the chunks: every run and list node is read once, every chunk is looked up once.

use std::collections::HashMap;

use super::bits::Bits;
use super::damage::Damage;
use crate::Error;
use crate::format::{
    PageRef, RunRef, RunTree, SourceKind, decode_list_node, decode_node, decode_page, decode_root,
};
use crate::index::{Index, PackState};
use crate::ops::Cancel;
use crate::repo::{ChunkReader, RepoError, StoredSnapshot};
use crate::types::{ChunkId, Class, Content, Entry, Extent, RelPath, SnapshotId, XattrValue};

/// Chunks looked up at a time, sorted: 2.5 MiB.
const BATCH: usize = 64 << 10;
/// Metadata that cannot be read and is told; one page hit by damage to a frame brings its neighbours with it.
const UNREADABLE_MAX: usize = 1000;

/// Sources that need something that cannot be read: snapshot, and the source's place in it.
pub(super) type Suspects = Vec<(SnapshotId, usize)>;

/// What a walk over everything found.
#[derive(Debug)]
pub(super) struct Reach {
    /// Chunks that the walk came to, each counted once.
    pub chunks: u64,
    /// Mentions of chunks that no held pack has. What hidden entries name counts too.
    pub unresolved: u64,
    /// Roots, nodes and pages that cannot be read, and why.
    pub unreadable: Vec<(String, String)>,
    /// Newest first.
    pub suspects: Suspects,
}

impl Reach {
    /// Walks all snapshots.
    pub fn run(
        reader: &ChunkReader<'_>,
        snapshots: &[StoredSnapshot],
        damage: &Damage,
        cancel: &Cancel,
    ) -> Result<Self, Error> {
        let end = reader.repo().ask_index(Index::chunk_numbers_end)?;
        let mut walker = Walker {
            reader,
            damage,
            cancel,
            visited: Bits::with_room(end),
            seen: Bits::with_room(end),
            batch: Vec::with_capacity(BATCH),
            ids: Vec::new(),
            places: Vec::new(),
            runs: HashMap::new(),
            is_bad: false,
            any_bad: false,
            out: Self { chunks: 0, unresolved: 0, unreadable: Vec::new(), suspects: Vec::new() },
        };
        for found in snapshots {
            for (n, source) in found.snapshot.sources.iter().enumerate() {
                let is_bad = match &source.kind {
                    SourceKind::Stream { content, .. } => walker.stream(content)?,
                    SourceKind::Tree { runs, .. } => {
                        let mut is_bad = false;
                        for run in runs {
                            is_bad |= walker.run(run)?;
                        }
                        is_bad
                    }
                };
                if is_bad {
                    walker.out.suspects.push((found.id, n));
                }
            }
        }
        Ok(walker.out)
    }
}

struct Walker<'a> {
    reader: &'a ChunkReader<'a>,
    damage: &'a Damage,
    cancel: &'a Cancel,
    /// Pages, nodes and list nodes that were read.
    visited: Bits,
    /// Chunks that resolved.
    seen: Bits,
    batch: Vec<(ChunkId, u32)>,
    ids: Vec<ChunkId>,
    places: Vec<Option<crate::index::Location>>,
    /// Runs by their roots, and whether they name anything that cannot be read.
    runs: HashMap<ChunkId, bool>,
    /// Of the run or stream at hand.
    is_bad: bool,
    /// Of all so far. While it is false, what was visited before is known to be good.
    any_bad: bool,
    out: Reach,
}

impl Walker<'_> {
    fn stream(&mut self, content: &Content) -> Result<bool, Error> {
        self.is_bad = false;
        self.content(&content.extents)?;
        self.flush()?;
        Ok(self.is_bad)
    }

    fn run(&mut self, run: &RunRef) -> Result<bool, Error> {
        if let Some(&is_bad) = self.runs.get(&run.root) {
            return Ok(is_bad);
        }
        self.is_bad = false;
        if let Some(bytes) = self.metadata("run", &run.root)? {
            match decode_root(&bytes) {
                Ok(root) => {
                    let refs = || root.folders.refs.iter().chain(&root.others.refs);
                    if refs().map(|page| page.entries).sum::<u64>() != run.entries {
                        self.unreadable("run", &run.root, "it has not as many entries as its snapshot says");
                    }
                    self.tree(&root.folders)?;
                    self.tree(&root.others)?;
                }
                Err(err) => self.unreadable("run", &run.root, err),
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
            let Some(bytes) = self.metadata("run node", &page.id)? else { continue };
            match decode_node(&bytes, tree.level - 1) {
                Ok(node) if node.refs.first().is_some_and(|first| first.first == page.first) => {
                    self.tree(&node)?;
                }
                Ok(_) => self.unreadable("run node", &page.id, "it holds other paths than its run says"),
                Err(err) => self.unreadable("run node", &page.id, err),
            }
        }
        Ok(())
    }

    fn page(&mut self, page: &PageRef, until: Option<&RelPath>) -> Result<(), Error> {
        let Some(bytes) = self.metadata("run page", &page.id)? else { return Ok(()) };
        let entries = match decode_page(&bytes) {
            Ok(entries) => entries,
            Err(err) => {
                self.unreadable("run page", &page.id, err);
                return Ok(());
            }
        };
        let fits = entries.first().is_some_and(|first| first.path == page.first)
            && entries.len() as u64 == page.entries
            && until.is_none_or(|until| entries.last().is_some_and(|last| last.path < *until));
        if !fits {
            self.unreadable("run page", &page.id, "it holds other paths than its run says");
        }
        entries.iter().try_for_each(|entry| self.entry(entry))
    }

    fn entry(&mut self, entry: &Entry) -> Result<(), Error> {
        for xattr in entry.meta().map_or(&[][..], |meta| &meta.xattrs) {
            if let XattrValue::Chunk { id, len } = xattr.value {
                self.chunk(id, len)?;
            }
        }
        entry.content().map_or(Ok(()), |content| self.content(&content.extents))
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

    /// A list node that cannot be read is no finding by itself: the paths that need it are.
    fn list(&mut self, id: &ChunkId, len: u64, depth: u8) -> Result<(), Error> {
        self.cancel.check()?;
        let bytes = match self.read(id)? {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(()),
            Err(_) => {
                self.out.unresolved += 1;
                self.mark_bad();
                return Ok(());
            }
        };
        match decode_list_node(&bytes, len, depth) {
            Ok(extents) => self.content(&extents),
            Err(_) => {
                self.mark_bad();
                Ok(())
            }
        }
    }

    fn chunk(&mut self, id: ChunkId, len: u32) -> Result<(), Error> {
        self.batch.push((id, len));
        if self.batch.len() >= BATCH { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.cancel.check()?;
        self.batch.sort_unstable();
        self.batch.dedup();
        self.ids.clear();
        self.ids.extend(self.batch.iter().map(|&(id, _)| id));
        let repo = self.reader.repo();
        // Where this begins a new index, the caller notices the new generation and walks again.
        repo.ask_index(|index| index.lookup(&self.ids, &mut self.places))?;
        for (n, &(id, len)) in self.batch.iter().enumerate() {
            let best = self.places[n];
            if let Some(place) = best
                && place.len == len
                && self.damage.spares(&place)
            {
                self.out.chunks += u64::from(self.seen.insert(place.number));
                continue;
            }
            let good = self.damage.good_copy(repo, &id, best)?;
            if good.is_none_or(|place| place.len != len) {
                self.is_bad = true;
                self.any_bad = true;
                let in_pack_at_hand = best.is_some_and(|place| self.damage.is_missing(&place.pack));
                self.out.unresolved += u64::from(!in_pack_at_hand);
            }
        }
        self.batch.clear();
        Ok(())
    }

    /// Reads a piece of a run; none if it was read before or cannot be read, which is then noted.
    fn metadata(&mut self, what: &str, id: &ChunkId) -> Result<Option<Vec<u8>>, Error> {
        match self.read(id)? {
            Ok(bytes) => Ok(bytes),
            Err(why) => {
                self.unreadable(what, id, why);
                Ok(None)
            }
        }
    }

    /// Reads a metadata chunk; none if it was read before.
    fn read(&mut self, id: &ChunkId) -> Result<Result<Option<Vec<u8>>, RepoError>, Error> {
        let repo = self.reader.repo();
        let place = repo.locate(id)?;
        if let Some(place) = self.damage.good_copy(repo, id, place)?
            && self.visited.contains(place.number)
        {
            // What hangs below it was judged then, on behalf of another run.
            self.is_bad |= self.any_bad;
            return Ok(Ok(None));
        }
        if place.is_some_and(|place| place.state == PackState::Dropped) {
            let why = "only a pack that a prune has let go of holds it".to_owned();
            return Ok(Err(RepoError::ChunkUnreadable { id: *id, why }));
        }
        match self.reader.chunk(Class::Metadata, id) {
            Ok(bytes) => {
                if let Some(place) = place {
                    self.out.chunks += u64::from(self.visited.insert(place.number));
                }
                Ok(Ok(Some(bytes)))
            }
            Err(err) if err.is_damage() => Ok(Err(err)),
            Err(err) => Err(err.into()),
        }
    }

    fn unreadable(&mut self, what: &str, id: &ChunkId, why: impl std::fmt::Display) {
        self.mark_bad();
        if self.out.unreadable.len() < UNREADABLE_MAX {
            self.out.unreadable.push((format!("{what} {}", id.short()), why.to_string()));
        }
    }

    fn mark_bad(&mut self) {
        self.is_bad = true;
        self.any_bad = true;
    }
}
