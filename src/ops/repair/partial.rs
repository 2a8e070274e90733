//! The rest of a source without lost data: lost pieces of files become holes, and runs are
//! rewritten without lost entries.
//!
//! Each run that references lost data is replaced by one that does not, once for all snapshots that
//! share it. This includes hidden entries: a prune refuses to run while any run references missing
//! data. A snapshot also gets an additional newest run that makes the next backup look again. It
//! marks directories above lost data *revisit*; directories that may have had names on a lost page
//! also *partial* and *unseen*; and entries that older runs show in the range of a lost page
//! *stale*.

use std::collections::HashMap;

use super::lost::LostList;
use crate::Error;
use crate::advice::{Advice, RepairAdvice};
use crate::format::{RunRef, decode_list_node};
use crate::index::PackState;
use crate::ops::backup::{ChunkWriters, ContentBuilder, EntrySink};
use crate::ops::verify::AffectedVisitor;
use crate::read::tree::TreeReader;
use crate::repo::{
    ChunkReader, EntryMention, MergedRuns, OnDamage, RepoError, RunStreams, RunWriter,
    UncertainPaths,
};
use crate::store::ObjectKey;
use crate::task::Cancel;
use crate::types::{
    ChunkClass, ChunkId, Content, Entry, EntryFlags, Extent, Metadata, MissingNames, Node, RelPath,
    XattrValue, to_u64,
};

/// Mended runs by the root of the run that they replace; `None`: nothing of the run can be read.
pub(super) type MendedRuns = HashMap<ChunkId, Option<RunRef>>;

/// Mends the sources of one snapshot.
pub(super) struct RunMender<'m, 'a> {
    pub reader: &'m ChunkReader<'m>,
    pub judge: AffectedVisitor<'m>,
    pub writers: ChunkWriters<'a>,
    pub runs: &'m mut MendedRuns,
    pub lost: LostList,
    pub scratch: &'m std::path::Path,
    pub sorter_bytes: usize,
    pub cancel: &'m Cancel,
}

/// An entry without its lost parts.
struct MendedRun {
    entry: Entry,
    /// Bytes of its content that became holes; `None` if only a part of its metadata is lost.
    bytes: Option<u64>,
}

/// A directory above the current path.
struct DirectoriesAbove {
    entry: Entry,
    /// True if its entry goes into the newest run.
    is_changed: bool,
    /// True if a lost page may have held names of it.
    lacks_names: bool,
}

/// The runs of a mended tree.
pub(super) struct MendedTree {
    pub runs: Vec<RunRef>,
    /// Entries that are failed, stale or torn.
    pub incomplete: u64,
}

impl RunMender<'_, '_> {
    /// Returns the content without its lost pieces and the number of bytes that are holes now, or
    /// `None` if nothing is lost.
    pub fn content(&mut self, content: &Content) -> Result<Option<(Content, u64)>, Error> {
        if self.judge.content(&content.extents)?.is_none() {
            return Ok(None);
        }
        let mut out = ContentHoles {
            content: ContentBuilder::default(),
            hole: 0,
            lost: 0,
        };
        self.extents(&content.extents, &mut out)?;
        out.flush(&mut self.writers)?;
        Ok(Some((out.content.finish(&mut self.writers)?, out.lost)))
    }

    fn extents(&mut self, extents: &[Extent], out: &mut ContentHoles) -> Result<(), Error> {
        for extent in extents {
            self.cancel.check()?;
            match extent {
                Extent::Chunk { id, len } if self.judge.chunk(id, *len)?.is_some() => {
                    out.lose(u64::from(*len));
                }
                Extent::Hole { len } => out.hole += len,
                Extent::Chunk { .. } | Extent::Literal(_) => {
                    out.push(extent.clone(), &mut self.writers)?;
                }
                Extent::List { id, len, depth } => match self.list(id, *len, *depth)? {
                    Some(below) => self.extents(&below, out)?,
                    None => out.lose(*len),
                },
            }
        }
        Ok(())
    }

    fn list(&self, id: &ChunkId, len: u64, depth: u8) -> Result<Option<Vec<Extent>>, Error> {
        match self.reader.chunk(ChunkClass::Metadata, id) {
            Ok(bytes) => Ok(decode_list_node(&bytes, len, depth).ok()),
            Err(err) if err.is_damage() => {
                self.make_sure_it_is_lost(id)?;
                Ok(None)
            }
            Err(err) => Err(err.into()),
        }
    }

    /// Returns an error if a known pack should hold a chunk that cannot be read: no repair has
    /// tried to heal or save that pack.
    fn make_sure_it_is_lost(&self, id: &ChunkId) -> Result<(), Error> {
        let place = self.reader.repo().locate(id)?;
        match place.filter(|place| place.state == PackState::Known) {
            None => Ok(()),
            Some(place) => {
                let pack = ObjectKey::Pack(place.pack);
                let why = format!("{pack} cannot be read in full");
                let advice = Some(Advice::Repair(RepairAdvice::RepairPacksFirst));
                Err(RepoError::Refused { why, advice }.into())
            }
        }
    }

    /// Does the same for a range of paths. Also returns an error if the range only cannot be read
    /// now.
    fn make_sure_of(&self, range: &UncertainPaths) -> Result<(), Error> {
        if range.now {
            let why = range.reason().to_owned();
            return Err(RepoError::ChunkUnreadable {
                id: range.chunk,
                why,
                now: true,
            }
            .into());
        }
        self.make_sure_it_is_lost(&range.chunk)
    }

    /// Returns the entry without its lost parts, or `None` if nothing is lost.
    fn entry(&mut self, entry: &Entry) -> Result<Option<MendedRun>, Error> {
        if self.judge.entry(entry)?.is_none() {
            return Ok(None);
        }
        let mut mended = MendedRun {
            entry: entry.clone(),
            bytes: None,
        };

        if let Some(content) = entry.content()
            && let Some((left, lost)) = self.content(content)?
            && let Node::File { content, .. } = &mut mended.entry.node
        {
            *content = left;
            mended.bytes = Some(lost);
        }

        if let Some(meta) = meta_of(&mut mended.entry.node) {
            let mut kept = Vec::with_capacity(meta.xattrs.len());
            for xattr in std::mem::take(&mut meta.xattrs) {
                match xattr.value {
                    XattrValue::Chunk { id, len } if self.judge.chunk(&id, len)?.is_some() => {}
                    _ => kept.push(xattr),
                }
            }
            meta.xattrs = kept;
        }
        // Either flag makes the next backup read the path again. The snapshot is incomplete until
        // then.
        let flag = if entry.is_file() {
            EntryFlags::TORN
        } else {
            EntryFlags::STALE
        };
        mended.entry.flags = mended.entry.flags.with(flag);
        Ok(Some(mended))
    }

    /// Returns the tree without its lost parts, or `None` if its runs reference nothing that is
    /// lost.
    pub fn tree(&mut self, source: &str, runs: &[RunRef]) -> Result<Option<MendedTree>, Error> {
        let mut out = Vec::new();
        let mut is_changed = false;
        for run in runs {
            let left = self.run(run)?;
            is_changed |= left.as_ref() != Some(run);
            out.extend(left);
        }
        if !is_changed {
            return Ok(None);
        }
        let sink = EntrySink::new(self.scratch, self.sorter_bytes);
        let incomplete = self.marks(source, runs, &sink)?;
        if let Some(mut marks) = sink.cut()? {
            let front = self.write(|| marks.sorted.next())?;
            out.splice(0..0, front);
        }
        Ok(Some(MendedTree {
            runs: out,
            incomplete,
        }))
    }

    /// Returns a run without its lost parts: the same run if nothing is lost, `None` if nothing is
    /// left.
    fn run(&mut self, run: &RunRef) -> Result<Option<RunRef>, Error> {
        if let Some(known) = self.runs.get(&run.root) {
            return Ok(known.clone());
        }
        let reader = self.reader;
        let mut mentions = MergedRuns::open(
            reader,
            std::slice::from_ref(run),
            RunStreams::All,
            OnDamage::Skip,
        )?;

        let mut is_whole = true;
        while let Some(mention) = mentions.next_mention()? {
            self.cancel.check()?;
            if self.judge.entry(&mention.entry)?.is_some() {
                is_whole = false;
                break;
            }
        }
        for range in mentions.take_uncertain() {
            self.make_sure_of(&range)?;
            is_whole = false;
        }

        let left = if is_whole {
            Some(run.clone())
        } else {
            self.rewrite(run)?
        };
        self.runs.insert(run.root, left.clone());
        Ok(left)
    }

    fn rewrite(&mut self, run: &RunRef) -> Result<Option<RunRef>, Error> {
        let reader = self.reader;
        let mut mentions = MergedRuns::open(
            reader,
            std::slice::from_ref(run),
            RunStreams::All,
            OnDamage::Skip,
        )?;
        let sink = EntrySink::new(self.scratch, self.sorter_bytes);
        while let Some(mut mention) = mentions.next_mention()? {
            self.cancel.check()?;
            if let Some(mended) = self.entry(&mention.entry)? {
                mention.entry = mended.entry;
            }
            sink.put(&mention.entry, mention.in_directories)?;
        }
        mentions
            .take_uncertain()
            .iter()
            .try_for_each(|range| self.make_sure_of(range))?;

        match sink.cut()? {
            Some(mut left) => {
                let left = self.write(|| left.sorted.next())?;
                Ok(left.map(|left| RunRef {
                    hides: run.hides,
                    ..left
                }))
            }
            None => Ok(None),
        }
    }

    fn write(
        &mut self,
        mut next: impl FnMut() -> Result<Option<EntryMention>, RepoError>,
    ) -> Result<Option<RunRef>, Error> {
        let pages = &mut self.writers.metadata;
        let mut put = |bytes: &[u8]| pages.add(bytes);
        let mut writer = RunWriter::new(&mut put);
        while let Some(mention) = next()? {
            self.cancel.check()?;
            writer.push(&mention.entry, mention.in_directories)?;
        }
        Ok(writer.finish()?)
    }

    /// Walks the entries that the snapshot shows. Adds lost paths to the list and puts into `sink`
    /// the entries that the next backup must look at again. Returns the number of entries that are
    /// incomplete then.
    fn marks(&mut self, source: &str, runs: &[RunRef], sink: &EntrySink) -> Result<u64, Error> {
        let reader = self.reader;
        let mut walk = TreeReader::open(reader, runs, OnDamage::Skip)?;
        let mut ranges: Vec<UncertainPaths> = Vec::new();
        let mut above: Vec<DirectoriesAbove> = Vec::new();
        let mut incomplete = 0;
        loop {
            self.cancel.check()?;
            let mention = walk.next_mention()?;
            for range in walk.take_uncertain() {
                self.make_sure_of(&range)?;
                self.lost.add(source, &range.from, None);
                let touched = above
                    .iter_mut()
                    .filter(|above| touches(&range, &above.entry.path));
                touched.for_each(|above| above.lacks_names = true);
                ranges.push(range);
            }

            let Some(EntryMention {
                mut entry,
                in_directories,
            }) = mention
            else {
                break;
            };
            if matches!(entry.node, Node::Removed) {
                continue;
            }
            leave(&mut above, Some(&entry.path), sink)?;
            if !ranges.is_empty() {
                incomplete += self.fill_in(source, &entry.path, &mut above);
            }
            // The mended runs hold this version of the entry.
            let mended = self.entry(&entry)?;
            let is_mended = mended.is_some();
            if let Some(mended) = mended {
                self.lost.add(source, &entry.path, mended.bytes);
                entry = mended.entry;
            }

            let is_suspect = ranges.iter().any(|range| is_in(range, &entry.path));
            if is_suspect {
                entry.flags = entry.flags.with(EntryFlags::STALE);
            }
            if is_mended || is_suspect {
                above.iter_mut().for_each(|above| above.is_changed = true);
            }

            incomplete += u64::from(entry.is_incomplete());
            if entry.is_directory() {
                // A run has two trees. A lost page of one may be found before the other shows the
                // directory.
                let lacks_names = ranges.iter().any(|range| touches(range, &entry.path));
                above.push(DirectoriesAbove {
                    is_changed: is_suspect,
                    lacks_names,
                    entry,
                });
            } else if is_suspect {
                sink.put(&entry, in_directories)?;
            }
        }
        leave(&mut above, None, sink)?;
        Ok(incomplete)
    }

    /// Adds stand-in entries for directories above `path` whose own entries are lost, so that paths
    /// below them can be restored. Returns their number.
    fn fill_in(&mut self, source: &str, path: &RelPath, above: &mut Vec<DirectoriesAbove>) -> u64 {
        let mut missing: Vec<RelPath> = std::iter::successors(path.parent(), RelPath::parent)
            .take_while(|parent| above.last().is_none_or(|above| above.entry.path != *parent))
            .collect();
        let count = to_u64(missing.len());
        while let Some(path) = missing.pop() {
            self.lost.add(source, &path, None);
            above.iter_mut().for_each(|above| above.is_changed = true);
            let meta = Metadata {
                mode: 0o700,
                nlink: 1,
                ..Metadata::default()
            };
            let entry = Entry {
                path,
                flags: EntryFlags::STALE,
                node: Node::Directory { meta },
            };
            above.push(DirectoriesAbove {
                entry,
                is_changed: true,
                lacks_names: true,
            });
        }
        count
    }
}

/// Leaves the directories that do not contain `next`, and puts changed ones into `sink`.
fn leave(
    above: &mut Vec<DirectoriesAbove>,
    next: Option<&RelPath>,
    sink: &EntrySink,
) -> Result<(), Error> {
    while let Some(last) =
        above.pop_if(|last| next.is_none_or(|next| !next.is_below(&last.entry.path)))
    {
        if last.is_changed || last.lacks_names {
            let mut entry = last.entry;
            // The mended runs keep *cover* where it belongs. In the newest run it would also hide
            // entries of runs newer than that one.
            entry.flags = entry
                .flags
                .with(EntryFlags::REVISIT)
                .without(EntryFlags::COVER);
            if last.lacks_names {
                entry.flags = entry.flags.with(MissingNames::Unseen.flags());
            }
            sink.put(&entry, true)?;
        }
    }
    Ok(())
}

fn is_in(range: &UncertainPaths, path: &RelPath) -> bool {
    *path >= range.from && range.until.as_ref().is_none_or(|until| path < until)
}

/// Returns true if names of a directory, or of a directory below it, may be in the range. Only
/// directories above the range's first path and those in the range can have lost names.
fn touches(range: &UncertainPaths, directory: &RelPath) -> bool {
    let reaches_it = range.from <= *directory || range.from.is_below(directory);
    reaches_it && range.until.as_ref().is_none_or(|until| directory < until)
}

fn meta_of(node: &mut Node) -> Option<&mut Metadata> {
    match node {
        Node::File { meta, .. }
        | Node::Directory { meta }
        | Node::Symlink { meta, .. }
        | Node::Fifo { meta }
        | Node::Socket { meta }
        | Node::Char { meta, .. }
        | Node::Block { meta, .. } => Some(meta),
        Node::Failed { .. } | Node::Removed | Node::Unknown { .. } => None,
    }
}

/// Builds a list of extents in order, with holes for lost pieces. Adjacent holes are joined.
struct ContentHoles {
    content: ContentBuilder,
    /// Bytes of the current hole, not yet written.
    hole: u64,
    lost: u64,
}

impl ContentHoles {
    fn lose(&mut self, len: u64) {
        self.hole += len;
        self.lost += len;
    }

    fn push(&mut self, extent: Extent, writers: &mut ChunkWriters<'_>) -> Result<(), RepoError> {
        self.flush(writers)?;
        self.content.push(extent, writers)
    }

    fn flush(&mut self, writers: &mut ChunkWriters<'_>) -> Result<(), RepoError> {
        match std::mem::take(&mut self.hole) {
            0 => Ok(()),
            len => self.content.push(Extent::Hole { len }, writers),
        }
    }
}
