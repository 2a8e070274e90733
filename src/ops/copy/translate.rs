//! Translation of one snapshot's runs and contents to the destination's names.

use std::collections::BTreeSet;

use super::base::CopyBase;
use super::copier::Copier;
use super::error::CopyError;
use super::pairs::EntryPairs;
use crate::format::{RunRef, SourceKind};
use crate::observe::Counter;
use crate::ops::backup::{ChunkWriters, ContentBuilder};
use crate::read::content::ContentReader;
use crate::read::tree::TreeReader;
use crate::repo::{
    FrameWriter, MergedRuns, OnDamage, Packer, RepoError, RunStreams, RunWriter, StoredSnapshot,
};
use crate::types::{
    ChunkClass, Content, Entry, ExtendedAttribute, Extent, Metadata, Node, PlainLen, SnapshotId,
    XattrValue,
};

/// The translated sources of a snapshot, and the destination's snapshots that they build on.
pub(super) struct TranslatedRun {
    pub kinds: Vec<SourceKind>,
    pub parents: BTreeSet<SnapshotId>,
}

/// Contents of the same path in the base: in the source repository and in the destination.
type Known<'k> = Option<(&'k Content, &'k Content)>;

impl Copier<'_> {
    /// Writes the parts of a snapshot that the destination lacks.
    pub fn translate(
        &self,
        packer: &Packer<'_, '_>,
        found: &StoredSnapshot,
    ) -> Result<TranslatedRun, CopyError> {
        let mut out = TranslatedRun {
            kinds: Vec::new(),
            parents: BTreeSet::new(),
        };
        let mut pages = packer.writer(ChunkClass::Metadata);
        let mut writers = ChunkWriters {
            data: packer.writer(ChunkClass::Data),
            metadata: packer.writer(ChunkClass::Metadata),
        };

        for source in &found.snapshot.sources {
            let base = self.base(&found.snapshot.host, &source.name);

            let kind = match &source.kind {
                SourceKind::Stream { command, content } => {
                    let known = base.and_then(CopyBase::contents);
                    if let Some(base) = base.filter(|_| known.is_some()) {
                        out.parents.insert(base.owner);
                    }
                    let content = self.content(content, known, &mut writers)?;
                    SourceKind::Stream {
                        command: command.clone(),
                        content,
                    }
                }
                SourceKind::Tree {
                    path,
                    immutable,
                    runs,
                } => {
                    let mut to = Vec::new();
                    for run in runs {
                        // A run that was copied before is referenced and not read.
                        if let Some((known, owner)) = self.runs.get(&run.root) {
                            to.push(known.clone());
                            out.parents.insert(*owner);
                            continue;
                        }
                        out.parents.extend(base.map(|base| base.owner));
                        to.push(self.rewrite(run, base, &mut pages, &mut writers)?);
                    }
                    SourceKind::Tree {
                        path: path.clone(),
                        immutable: *immutable,
                        runs: to,
                    }
                }
            };
            // A frame has data of one source only.
            pages.flush()?;
            writers.flush()?;
            out.kinds.push(kind);
        }
        Ok(out)
    }

    /// Rewrites a run: the same mentions, in pages of the destination.
    fn rewrite(
        &self,
        run: &RunRef,
        base: Option<&CopyBase>,
        pages: &mut FrameWriter<'_>,
        writers: &mut ChunkWriters<'_>,
    ) -> Result<RunRef, CopyError> {
        let mut mentions = MergedRuns::open(
            self.from.reader(),
            std::slice::from_ref(run),
            RunStreams::All,
            OnDamage::Fail,
        )
        .map_err(CopyError::Source)?;
        let mut join = base.and_then(|base| JoinedRuns::open(self, base));
        let mut put = |bytes: &[u8]| pages.add(bytes);
        let mut writer = RunWriter::new(&mut put);

        while let Some(mention) = mentions.next_mention().map_err(CopyError::Source)? {
            self.from.keep()?;
            let entry = self.entry(mention.entry, &mut join, writers)?;
            writer.push(&entry, mention.in_directories)?;
            self.task.observer.add(Counter::Entries, 1);
        }

        let empty = || {
            CopyError::Source(RepoError::damaged(
                format!("run {}", run.root.short()),
                "it is empty",
            ))
        };
        let copied = writer.finish()?.ok_or_else(empty)?;
        Ok(RunRef {
            hides: run.hides,
            ..copied
        })
    }

    fn entry(
        &self,
        mut entry: Entry,
        join: &mut Option<JoinedRuns<'_>>,
        writers: &mut ChunkWriters<'_>,
    ) -> Result<Entry, CopyError> {
        if let Node::Unknown { kind, .. } = entry.node {
            let what = format!(
                "{} is of a kind ({kind}) that needs a newer icecore",
                entry.path
            );
            return Err(CopyError::Skip(what));
        }
        if !names_chunks(&entry) {
            return Ok(entry);
        }

        let (old, new) = match join.as_mut().map(|join| join.at(&entry)) {
            Some(Ok(pair)) => pair,
            None => (None, None),
            // The earlier snapshot cannot be read here or there: continue without it.
            Some(Err(err)) if err.is_unavailable() => {
                *join = None;
                (None, None)
            }
            Some(Err(err)) => return Err(err.into()),
        };

        if let Node::File { content, .. } = &mut entry.node {
            let known = || Some((old.as_ref()?.content()?, new.as_ref()?.content()?));
            *content = self.content(content, known(), writers)?;
        }
        let known = || Some((old.as_ref()?.meta()?, new.as_ref()?.meta()?));
        if let Some(meta) = meta_mut(&mut entry.node) {
            self.xattrs(&mut meta.xattrs, known(), writers)?;
        }
        Ok(entry)
    }

    fn xattrs(
        &self,
        xattrs: &mut Vec<ExtendedAttribute>,
        known: Option<(&Metadata, &Metadata)>,
        writers: &mut ChunkWriters<'_>,
    ) -> Result<(), CopyError> {
        if let Some((old, new)) = known
            && old.xattrs == *xattrs
        {
            xattrs.clone_from(&new.xattrs);
            return Ok(());
        }

        for xattr in xattrs {
            if let XattrValue::Chunk { id, len } = &mut xattr.value {
                let bytes = self
                    .from
                    .reader()
                    .chunk(ChunkClass::Metadata, id)
                    .map_err(CopyError::Source)?;
                if bytes.len() != len.to_usize() {
                    let what = "an attribute has a different length than its entry records";
                    return Err(CopyError::Source(RepoError::damaged(
                        format!("chunk {}", id.short()),
                        what,
                    )));
                }
                *id = writers.metadata.add(&bytes)?;
            }
        }
        Ok(())
    }

    /// Copies a content. Reads only chunks that are not known to be in the destination. The extent
    /// list is rebuilt, because list nodes are cut by chunk names.
    fn content(
        &self,
        content: &Content,
        known: Known<'_>,
        writers: &mut ChunkWriters<'_>,
    ) -> Result<Content, CopyError> {
        if let Some((old, new)) = known
            && old == content
            && new.size == content.size
        {
            return Ok(new.clone());
        }

        let mut pairs =
            known.map(|(old, new)| EntryPairs::new((self.from.reader(), old), (&self.to, new)));
        let mut extents = ContentReader::new(self.from.reader(), content);
        let mut builder = ContentBuilder::default();

        while let Some(extent) = extents.next_extent().map_err(CopyError::Source)? {
            self.from.keep()?;
            let extent = match extent {
                Extent::Chunk { id, len } => {
                    let known = pairs
                        .as_mut()
                        .map(|pairs| pairs.find(&id, len))
                        .transpose()?
                        .flatten();
                    let id = match known {
                        Some(id) => id,
                        None => self.chunk(&id, len, writers)?,
                    };
                    Extent::Chunk { id, len }
                }
                other => other,
            };
            builder.push(extent, writers)?;
        }

        let out = builder.finish(writers)?;
        if out.size == content.size {
            return Ok(out);
        }

        let what = format!("{} bytes found, {} expected", out.size, content.size);
        Err(CopyError::Source(RepoError::damaged(
            "a list of extents",
            what,
        )))
    }

    fn chunk(
        &self,
        id: &crate::types::ChunkId,
        len: PlainLen,
        writers: &mut ChunkWriters<'_>,
    ) -> Result<crate::types::ChunkId, CopyError> {
        let bytes = self
            .from
            .reader()
            .chunk(ChunkClass::Data, id)
            .map_err(CopyError::Source)?;
        if bytes.len() != len.to_usize() {
            let what = format!("it has {} bytes, {len} expected", bytes.len());
            return Err(CopyError::Source(RepoError::damaged(
                format!("chunk {}", id.short()),
                what,
            )));
        }
        self.task.observer.add(Counter::BytesRead, u64::from(len));
        Ok(writers.data.add(&bytes)?)
    }
}

/// Returns true if any data of the entry is stored in chunks.
fn names_chunks(entry: &Entry) -> bool {
    let is_chunk = |xattr: &ExtendedAttribute| matches!(xattr.value, XattrValue::Chunk { .. });
    entry
        .meta()
        .is_some_and(|meta| meta.xattrs.iter().any(is_chunk))
        || entry.content().is_some_and(|content| {
            content
                .extents
                .iter()
                .any(|extent| matches!(extent, Extent::Chunk { .. } | Extent::List { .. }))
        })
}

fn meta_mut(node: &mut Node) -> Option<&mut Metadata> {
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

/// The entries of an earlier snapshot of the same source, in both repositories, walked by path.
struct JoinedRuns<'a> {
    old: TreeReader<'a>,
    new: TreeReader<'a>,
}

impl<'a> JoinedRuns<'a> {
    /// Returns `None` if the base is not a tree or cannot be read.
    fn open(copier: &'a Copier<'_>, base: &CopyBase) -> Option<Self> {
        let (old, new) = base.runs()?;
        let old = TreeReader::open(copier.from.reader(), old, OnDamage::Fail).ok()?;
        Some(Self {
            old,
            new: TreeReader::open(&copier.to, new, OnDamage::Fail).ok()?,
        })
    }

    /// Returns both entries of a path, if the earlier snapshot has it. Paths must be given in
    /// ascending order.
    fn at(&mut self, entry: &Entry) -> Result<(Option<Entry>, Option<Entry>), RepoError> {
        match self.old.entry_at(&entry.path)? {
            None => Ok((None, None)),
            old => Ok((old, self.new.entry_at(&entry.path)?)),
        }
    }
}
