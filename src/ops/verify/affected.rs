//! Names of the affected paths. The suspect sources' merged runs are walked, so that only paths
//! visible in a snapshot are named.

use std::collections::HashSet;

use super::damage::FoundDamage;
use super::objects::ListedObjects;
use super::reach::Suspects;
use super::report::{AffectedPath, DamageHit, FindingKind, LISTED_MAX};
use crate::Error;
use crate::format::{SourceKind, decode_list_node};
use crate::read::reach::{ChunkBits, UnreadableReason};
use crate::read::tree::TreeReader;
use crate::repo::{ChunkReader, OnDamage};
use crate::task::Cancel;
use crate::types::{ChunkClass, ChunkId, Entry, Extent, PlainLen, RelPath, XattrValue};

/// Reason why a piece of content cannot be read.
pub(in crate::ops) enum AffectedReason {
    /// No held pack has this chunk, or none has it with the right length.
    Unresolved(ChunkId),
    /// This list node cannot be read.
    List(ChunkId, UnreadableReason),
    /// It is in a pack or frame that was reported already.
    Damaged,
}

/// Reports the paths that need unreadable data, newest snapshot first, and the missing chunks.
pub(super) fn name(
    reader: &ChunkReader<'_>,
    objects: &mut ListedObjects,
    suspects: &Suspects,
    damage: &FoundDamage,
    cancel: &Cancel,
) -> Result<(), Error> {
    let mut judge = AffectedVisitor::new(reader, damage);
    let snapshots = std::mem::take(&mut objects.snapshots);
    let result = suspects.iter().try_for_each(|(id, n)| {
        let found = snapshots.iter().find(|found| found.id == *id);
        let Some(source) = found.and_then(|found| found.snapshot.sources.get(*n)) else {
            return Ok(());
        };

        let hit = |objects: &mut ListedObjects, path: RelPath, hit| {
            objects.report.hit(AffectedPath {
                snapshot: *id,
                source: source.name.clone(),
                path,
                hit,
            });
        };

        match &source.kind {
            SourceKind::Stream { content, .. } => {
                if let Some(why) = judge.content(&content.extents)? {
                    judge.report_object(objects, why, &format!("{}:{}", id.short(), source.name));
                    hit(objects, RelPath::root(), DamageHit::Content);
                }
            }
            SourceKind::Tree { runs, .. } => {
                let mut walk = TreeReader::open(reader, runs, OnDamage::Skip)?;
                while let Some(entry) = walk.next()? {
                    cancel.check()?;
                    if let Some((why, how)) = judge.entry(&entry)? {
                        judge.report_object(
                            objects,
                            why,
                            &format!("{}:{}/{}", id.short(), source.name, entry.path),
                        );
                        hit(objects, entry.path, how);
                    }
                }
                for range in walk.take_uncertain() {
                    hit(objects, range.from, DamageHit::Range { until: range.until });
                }
            }
        }
        Ok(())
    });

    objects.snapshots = snapshots;
    result
}

/// Checks whether all data that an entry or content references can be read.
pub(in crate::ops) struct AffectedVisitor<'a> {
    reader: &'a ChunkReader<'a>,
    damage: &'a FoundDamage,
    /// List nodes with no damage below them, by chunk number.
    good_lists: ChunkBits,
    /// Generation of the index that has these numbers.
    generation: u64,
    /// Chunks with a finding, at most [`LISTED_MAX`].
    reported: HashSet<ChunkId>,
}

impl<'a> AffectedVisitor<'a> {
    /// Creates a judge that uses the index and the known damage.
    pub fn new(reader: &'a ChunkReader<'a>, damage: &'a FoundDamage) -> Self {
        Self {
            reader,
            damage,
            good_lists: ChunkBits::default(),
            generation: 0,
            reported: HashSet::new(),
        }
    }

    /// Returns the first problem of an entry, if any.
    pub fn entry(&mut self, entry: &Entry) -> Result<Option<(AffectedReason, DamageHit)>, Error> {
        if let Some(content) = entry.content()
            && let Some(why) = self.content(&content.extents)?
        {
            return Ok(Some((why, DamageHit::Content)));
        }
        for xattr in entry.meta().map_or(&[][..], |meta| &meta.xattrs) {
            if let XattrValue::Chunk { id, len } = xattr.value
                && let Some(why) = self.chunk(&id, len)?
            {
                return Ok(Some((why, DamageHit::Attribute)));
            }
        }
        Ok(None)
    }

    /// Returns the first problem in a list of extents, if any.
    pub fn content(&mut self, extents: &[Extent]) -> Result<Option<AffectedReason>, Error> {
        for extent in extents {
            let why = match extent {
                Extent::Chunk { id, len } => self.chunk(id, *len)?,
                Extent::List { id, len, depth } => self.list(id, *len, *depth)?,
                Extent::Hole { .. } | Extent::Literal(_) => None,
            };
            if why.is_some() {
                return Ok(why);
            }
        }
        Ok(None)
    }

    /// Returns the problem with a chunk of this length, if any.
    pub fn chunk(&self, id: &ChunkId, len: PlainLen) -> Result<Option<AffectedReason>, Error> {
        let repo = self.reader.repo();
        let best = repo.locate(id)?;
        Ok(match self.damage.good_copy(repo, id, best)? {
            Some(place) if place.len == len => None,
            None if best.is_some_and(|place| !self.damage.spares_pack(&place)) => {
                Some(AffectedReason::Damaged)
            }
            _ => Some(AffectedReason::Unresolved(*id)),
        })
    }

    fn list(&mut self, id: &ChunkId, len: u64, depth: u8) -> Result<Option<AffectedReason>, Error> {
        let repo = self.reader.repo();
        if self.generation != repo.index().generation() {
            self.good_lists = ChunkBits::default();
            self.generation = repo.index().generation();
        }
        let place = repo.locate(id)?;
        if place.is_some_and(|place| self.good_lists.contains(place.number)) {
            return Ok(None);
        }
        let bytes = match self.reader.chunk(ChunkClass::Metadata, id) {
            Ok(bytes) => bytes,
            Err(err) if err.is_unavailable() => {
                return Ok(Some(AffectedReason::List(*id, err.into())));
            }
            Err(err) => return Err(err.into()),
        };
        let why = match decode_list_node(&bytes, len, depth) {
            Ok(extents) => self.content(&extents)?,
            Err(err) => Some(AffectedReason::List(*id, UnreadableReason::lost(err))),
        };
        if why.is_none()
            && let Some(place) = place
        {
            self.good_lists.insert(place.number);
        }
        Ok(why)
    }

    /// Reports a chunk or list node once, with a path that needs it.
    fn report_object(&mut self, objects: &mut ListedObjects, why: AffectedReason, path: &str) {
        let (kind, id, what) = match why {
            AffectedReason::Damaged => return,
            AffectedReason::Unresolved(id) => (
                FindingKind::ChunkUnresolved,
                id,
                "no usable pack holds it with the required length".to_owned(),
            ),
            AffectedReason::List(id, UnreadableReason { why, now: true }) => {
                (FindingKind::UnreadableNow, id, why)
            }
            AffectedReason::List(id, UnreadableReason { why, now: false }) => {
                (FindingKind::RunUnreadable, id, why)
            }
        };
        let is_listed = self.reported.len() < LISTED_MAX || !objects.report.has(kind);
        if is_listed && self.reported.insert(id) {
            let name = if kind == FindingKind::ChunkUnresolved {
                "chunk"
            } else {
                "list node"
            };
            objects.report.find(
                kind,
                format!("{name} {}", id.short()),
                format!("{what}; {path} needs it"),
            );
        }
    }
}
