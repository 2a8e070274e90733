//! Which copies of chunks are known to be unreadable, by pack and frame.

use std::collections::{BTreeMap, BTreeSet};

use crate::Error;
use crate::index::{Location, PackState};
use crate::repo::Repository;
use crate::types::{ChunkId, PackId};

/// What of one pack cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::ops) struct PackDamage {
    /// The pack is not there.
    pub missing: bool,
    /// It is not there and need not be: it is condemned. What still needs it is told by itself.
    pub gone: bool,
    pub frames: BTreeSet<u32>,
    /// Chunks that are not what their names say: frame, and offset in it.
    pub chunks: BTreeSet<(u32, u32)>,
}

/// The damage found so far.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::ops) struct Damage(BTreeMap<PackId, PackDamage>);

impl Damage {
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

    /// True if a pack is missing that should be there.
    pub fn any_missing(&self) -> bool {
        self.0.values().any(|damage| damage.missing)
    }

    pub fn is_missing(&self, pack: &PackId) -> bool {
        self.0.get(pack).is_some_and(|damage| damage.missing)
    }

    /// True if this copy can be relied on as far as is known.
    pub fn spares(&self, place: &Location) -> bool {
        place.state != PackState::Dropped
            && self.spares_pack(place)
            && !self.0.get(&place.pack).is_some_and(|damage| damage.gone)
    }

    /// True if no finding tells of this copy. One in a condemned pack that is gone has none.
    pub fn spares_pack(&self, place: &Location) -> bool {
        self.0.get(&place.pack).is_none_or(|damage| {
            !damage.missing
                && !damage.frames.contains(&place.frame)
                && !damage.chunks.contains(&(place.frame, place.offset))
        })
    }

    /// Looks for a copy that can be relied on, given the best one that the index tells.
    pub fn good_copy(
        &self,
        repo: &Repository,
        id: &ChunkId,
        best: Option<Location>,
    ) -> Result<Option<Location>, Error> {
        match best {
            Some(place) if self.spares(&place) => Ok(Some(place)),
            Some(_) => Ok(repo
                .ask_index(|index| index.copies(id))?
                .into_iter()
                .find(|copy| self.spares(copy))),
            None => Ok(None),
        }
    }
}
