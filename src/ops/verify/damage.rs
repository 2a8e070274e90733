//! Copies of chunks that are known to be unreadable, by pack and frame.

use std::collections::{BTreeMap, BTreeSet};

use crate::Error;
use crate::index::{ChunkLocation, PackState};
use crate::repo::Repository;
use crate::types::{ChunkId, FrameOffset, PackId};

/// Unreadable parts of one pack.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::ops) struct PackDamage {
    /// The pack is missing.
    pub missing: bool,
    /// The pack is missing and need not exist, since it is condemned. Paths that still need it are
    /// reported separately.
    pub gone: bool,
    pub frames: BTreeSet<u32>,
    /// Chunks that do not hash to their names: frame, and offset in it.
    pub chunks: BTreeSet<(u32, FrameOffset)>,
}

/// All damage found so far, by pack.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::ops) struct FoundDamage(BTreeMap<PackId, PackDamage>);

impl FoundDamage {
    pub fn add(&mut self, pack: PackId, damage: PackDamage) {
        if damage == PackDamage::default() {
            return;
        }
        let held = self.0.entry(pack).or_default();
        held.missing |= damage.missing;
        held.gone |= damage.gone;
        held.frames.extend(damage.frames);
        held.chunks.extend(damage.chunks);
    }

    /// Returns true if a pack is missing that should exist.
    pub fn any_missing(&self) -> bool {
        self.0.values().any(|damage| damage.missing)
    }

    pub fn is_missing(&self, pack: &PackId) -> bool {
        self.0.get(pack).is_some_and(|damage| damage.missing)
    }

    /// Returns true if this copy is usable as far as is known.
    pub fn spares(&self, place: &ChunkLocation) -> bool {
        place.state != PackState::Dropped
            && self.spares_pack(place)
            && !self.0.get(&place.pack).is_some_and(|damage| damage.gone)
    }

    /// Returns true if no finding covers this copy. A copy in a missing condemned pack has no
    /// finding.
    pub fn spares_pack(&self, place: &ChunkLocation) -> bool {
        self.0.get(&place.pack).is_none_or(|damage| {
            !damage.missing
                && !damage.frames.contains(&place.frame)
                && !damage.chunks.contains(&(place.frame, place.offset))
        })
    }

    /// Returns a usable copy, given the best one in the index.
    pub fn good_copy(
        &self,
        repo: &Repository,
        id: &ChunkId,
        best: Option<ChunkLocation>,
    ) -> Result<Option<ChunkLocation>, Error> {
        match best {
            Some(place) if self.spares(&place) => Ok(Some(place)),
            Some(_) => Ok(repo
                .with_index(|index| index.copies(id))?
                .into_iter()
                .find(|copy| self.spares(copy))),
            None => Ok(None),
        }
    }
}
