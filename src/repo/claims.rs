//! Decides which chunks need not be stored because the index knows them or they are in flight in
//! this process.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::RepoError;
use crate::index::{ChunkLocation, Index, IndexError, PackState};
use crate::types::{ChunkId, PackId};

/// The result of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkClaim {
    /// The chunk is not stored yet: the claimer stores it.
    New,
    /// A known pack holds the chunk, or it is on its way into a pack.
    Held,
}

/// The most chunks that a dry run remembers: the capacity of a table of 2^20 slots, 34 MiB.
const DRY_RUN_CHUNKS: usize = 7 << 17;

/// A writer's chunks in flight, and the index of stored chunks.
///
/// At most one segment interval of chunks is in flight (256 k published, as many again on their
/// way): about 25 MiB.
pub struct Claims<'a> {
    index: &'a Index,
    in_flight: Mutex<HashSet<ChunkId>>,
    /// True if the index was empty when the writer began and nothing was published or loaded since.
    /// There is nothing to look up then.
    index_is_empty: AtomicBool,
    /// If set, the index is not used: see [`Claims::for_repair`].
    anew: bool,
    /// At this number in flight, all are forgotten: see [`Claims::of_dry_run`].
    most: usize,
    /// Packs that are missing from the store: see [`Claims::without`].
    absent: HashSet<PackId>,
}

impl std::fmt::Debug for Claims<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Claims({} in flight)", self.in_flight())
    }
}

impl<'a> Claims<'a> {
    /// Creates claims with nothing in flight.
    pub fn new(index: &'a Index) -> Result<Self, RepoError> {
        let empty = match index.is_empty() {
            Err(err) if err.is_damage() => false,
            other => other?,
        };
        let index_is_empty = AtomicBool::new(empty);
        let (in_flight, absent) = Default::default();
        Ok(Self {
            index,
            in_flight,
            index_is_empty,
            anew: false,
            most: usize::MAX,
            absent,
        })
    }

    /// Relies on nothing in these packs, even if the index lists them.
    #[must_use]
    pub fn without(mut self, absent: HashSet<PackId>) -> Self {
        self.absent = absent;
        self
    }

    /// Creates claims for a dry run.
    ///
    /// A dry run publishes nothing, so the set in flight would grow with all new data. All chunks
    /// are forgotten whenever 900,000 are in flight. A forgotten chunk that appears again counts as
    /// new again, so the new chunks that a dry run counts are an upper bound.
    pub fn of_dry_run(index: &'a Index) -> Result<Self, RepoError> {
        Ok(Self {
            most: DRY_RUN_CHUNKS,
            ..Self::new(index)?
        })
    }

    /// Creates claims for a repair, with nothing in flight. They ignore the index, because the
    /// chunks it lists may be in damaged packs. The caller uses the index itself, and knows which
    /// packs are damaged.
    pub fn for_repair(index: &'a Index) -> Self {
        let (in_flight, absent) = Default::default();
        let index_is_empty = false.into();
        Self {
            index,
            in_flight,
            index_is_empty,
            anew: true,
            most: usize::MAX,
            absent,
        }
    }

    /// Returns the number of chunks in flight.
    pub fn in_flight(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<ChunkId>> {
        self.in_flight
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims a chunk. If two threads claim the same new chunk at once, one of them gets
    /// [`ChunkClaim::New`].
    ///
    /// A chunk in a condemned pack does not count and is stored again. If the index is damaged, the
    /// chunk counts as missing: a duplicate costs space, nothing else.
    pub fn claim(&self, id: &ChunkId) -> Result<ChunkClaim, RepoError> {
        if self.anew || self.index_is_empty.load(Ordering::Acquire) {
            return Ok(self.take(id));
        }
        if self.lock().contains(id) {
            return Ok(ChunkClaim::Held);
        }
        match self.is_known(id) {
            Ok(true) => return Ok(ChunkClaim::Held),
            Ok(false) => {}
            Err(err) if err.is_damage() => {}
            Err(err) => return Err(err.into()),
        }
        Ok(self.take(id))
    }

    /// Returns true if a known pack that is in the store holds the chunk.
    fn is_known(&self, id: &ChunkId) -> Result<bool, IndexError> {
        let is_good = |copy: &ChunkLocation| {
            copy.state == PackState::Known && !self.absent.contains(&copy.pack)
        };
        if self.absent.is_empty() {
            Ok(self.index.lookup_one(id)?.as_ref().is_some_and(is_good))
        } else {
            Ok(self.index.copies(id)?.iter().any(is_good))
        }
    }

    fn take(&self, id: &ChunkId) -> ChunkClaim {
        let mut in_flight = self.lock();
        if in_flight.contains(id) {
            return ChunkClaim::Held;
        }
        if in_flight.len() >= self.most {
            in_flight.clear();
        }
        in_flight.insert(*id);
        ChunkClaim::New
    }

    /// Must be called after the index was brought up to date: it may now know chunks of other
    /// writers.
    pub fn index_grew(&self) {
        self.index_is_empty.store(false, Ordering::Release);
    }

    /// Releases chunks whose segment is published and loaded. From now on the index knows them.
    pub fn published(&self, ids: impl Iterator<Item = ChunkId>) {
        self.index_grew();
        let mut in_flight = self.lock();
        ids.for_each(|id| {
            in_flight.remove(&id);
        });
    }
}
