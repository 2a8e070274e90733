//! Names of the affected paths. The suspect sources' merged runs are walked, so that only paths
//! visible in a snapshot are named.

use std::collections::HashSet;

use super::damage::Damage;
use super::objects::Objects;
use super::reach::Suspects;
use super::report::{AffectedPath, FindingKind, Hit, LISTED_MAX};
use crate::Error;
use crate::format::{SourceKind, decode_list_node};
use crate::ops::Cancel;
use crate::ops::reach::Bits;
use crate::ops::walk::Walk;
use crate::repo::ChunkReader;
use crate::types::{ChunkId, Class, Entry, Extent, RelPath, XattrValue};

/// Reason why a piece of content cannot be read.
pub(in crate::ops) enum Why {
    /// No held pack has this chunk, or none has it with the right length.
    Unresolved(ChunkId),
    /// This list node cannot be read.
    List(ChunkId, String),
    /// It is in a pack or frame that was reported already.
    Damaged,
}

/// Reports the paths that need unreadable data, newest snapshot first, and the missing chunks.
pub(super) fn name(
    reader: &ChunkReader<'_>,
    objects: &mut Objects,
    suspects: &Suspects,
    damage: &Damage,
    cancel: &Cancel,
) -> Result<(), Error> {
    let mut judge = Judge::new(reader, damage);
    let snapshots = std::mem::take(&mut objects.snapshots);
    let result = suspects.iter().try_for_each(|(id, n)| {
        let found = snapshots.iter().find(|found| found.id == *id);
        let Some(source) = found.and_then(|found| found.snapshot.sources.get(*n)) else {
            return Ok(());
        };

        let hit = |objects: &mut Objects, path: RelPath, hit| {
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
                    judge.tell(objects, why, &format!("{}:{}", id.short(), source.name));
                    hit(objects, RelPath::root(), Hit::Content);
                }
            }
            SourceKind::Tree { runs, .. } => {
                let mut walk = Walk::open(reader, runs, true)?;
                while let Some(entry) = walk.next()? {
                    cancel.check()?;
                    if let Some((why, how)) = judge.entry(&entry)? {
                        judge.tell(
                            objects,
                            why,
                            &format!("{}:{}/{}", id.short(), source.name, entry.path),
                        );
                        hit(objects, entry.path, how);
                    }
                }
                for range in walk.take_uncertain() {
                    hit(objects, range.from, Hit::Range { until: range.until });
                }
            }
        }
        Ok(())
    });

    objects.snapshots = snapshots;
    result
}

/// Checks whether all data that an entry or content references can be read.
pub(in crate::ops) struct Judge<'a> {
    reader: &'a ChunkReader<'a>,
    damage: &'a Damage,
    /// List nodes with no damage below them, by chunk number.
    good_lists: Bits,
    /// Generation of the index that has these numbers.
    generation: u64,
    /// Chunks with a finding, at most [`LISTED_MAX`].
    told: HashSet<ChunkId>,
}

impl<'a> Judge<'a> {
    /// Creates a judge that uses the index and the known damage.
    pub fn new(reader: &'a ChunkReader<'a>, damage: &'a Damage) -> Self {
        Self {
            reader,
            damage,
            good_lists: Bits::default(),
            generation: 0,
            told: HashSet::new(),
        }
    }

    /// Returns the first problem of an entry, if any.
    pub fn entry(&mut self, entry: &Entry) -> Result<Option<(Why, Hit)>, Error> {
        if let Some(content) = entry.content()
            && let Some(why) = self.content(&content.extents)?
        {
            return Ok(Some((why, Hit::Content)));
        }
        for xattr in entry.meta().map_or(&[][..], |meta| &meta.xattrs) {
            if let XattrValue::Chunk { id, len } = xattr.value
                && let Some(why) = self.chunk(&id, len)?
            {
                return Ok(Some((why, Hit::Attribute)));
            }
        }
        Ok(None)
    }

    /// Returns the first problem in a list of extents, if any.
    pub fn content(&mut self, extents: &[Extent]) -> Result<Option<Why>, Error> {
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
    pub fn chunk(&self, id: &ChunkId, len: u32) -> Result<Option<Why>, Error> {
        let repo = self.reader.repo();
        let best = repo.locate(id)?;
        Ok(match self.damage.good_copy(repo, id, best)? {
            Some(place) if place.len == len => None,
            None if best.is_some_and(|place| !self.damage.spares_pack(&place)) => {
                Some(Why::Damaged)
            }
            _ => Some(Why::Unresolved(*id)),
        })
    }

    fn list(&mut self, id: &ChunkId, len: u64, depth: u8) -> Result<Option<Why>, Error> {
        let repo = self.reader.repo();
        if self.generation != repo.index().generation() {
            self.good_lists = Bits::default();
            self.generation = repo.index().generation();
        }
        let place = repo.locate(id)?;
        if place.is_some_and(|place| self.good_lists.contains(place.number)) {
            return Ok(None);
        }
        let bytes = match self.reader.chunk(Class::Metadata, id) {
            Ok(bytes) => bytes,
            Err(err) if err.is_unavailable() => return Ok(Some(Why::List(*id, err.to_string()))),
            Err(err) => return Err(err.into()),
        };
        let why = match decode_list_node(&bytes, len, depth) {
            Ok(extents) => self.content(&extents)?,
            Err(err) => Some(Why::List(*id, err.to_string())),
        };
        if why.is_none()
            && let Some(place) = place
        {
            self.good_lists.insert(place.number);
        }
        Ok(why)
    }

    /// Reports a chunk or list node once, with a path that needs it.
    fn tell(&mut self, objects: &mut Objects, why: Why, path: &str) {
        let (kind, id, what) = match why {
            Why::Damaged => return,
            Why::Unresolved(id) => (
                FindingKind::ChunkUnresolved,
                id,
                "no held pack has it in the length that is needed".to_owned(),
            ),
            Why::List(id, what) => (FindingKind::RunUnreadable, id, what),
        };
        if self.told.len() < LISTED_MAX && self.told.insert(id) {
            let name = if kind == FindingKind::RunUnreadable {
                "list node"
            } else {
                "chunk"
            };
            objects.report.find(
                kind,
                format!("{name} {}", id.short()),
                format!("{what}; {path} needs it"),
            );
        }
    }
}
