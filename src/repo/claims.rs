//! Which chunks need not be stored: known to the index, or in flight in this process. One owner of
//! that question.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::RepoError;
use crate::index::{Index, IndexError, Location, PackState};
use crate::types::{ChunkId, PackId};

/// What became of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Nobody has it: the claimer stores it.
    New,
    /// A known pack holds it, or it is on its way into one.
    Held,
}

/// So many chunks are remembered in a dry run: what a table of 2^20 places holds, 34 MiB.
const DRY_RUN_CHUNKS: usize = 7 << 17;

/// The chunks of a writer that are on their way, and the index behind them.
///
/// At most one segment interval of chunks is in flight (256 k published, as many again on their
/// way): about 25 MiB.
pub struct Claims<'a> {
    index: &'a Index,
    in_flight: Mutex<HashSet<ChunkId>>,
    /// The index held nothing when the writer began, and nothing was published or loaded since:
    /// nothing to look up.
    index_is_empty: AtomicBool,
    /// The index is not asked: see [`Claims::anew`].
    anew: bool,
    /// With so many in flight all are forgotten: see [`Claims::of_dry_run`].
    most: usize,
    /// Packs that the store does not have: see [`Claims::without`].
    absent: HashSet<PackId>,
}

impl std::fmt::Debug for Claims<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Claims({} in flight)", self.in_flight())
    }
}

impl<'a> Claims<'a> {
    /// Begins with nothing in flight.
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

    /// Relies on nothing in these packs, whatever the index says of them.
    #[must_use]
    pub fn without(mut self, absent: HashSet<PackId>) -> Self {
        self.absent = absent;
        self
    }

    /// For a dry run, in which nothing is ever published and what is in flight would grow with what
    /// is new. Every 900,000 chunks all are forgotten, and one that comes again is new again: what
    /// such a run counts as new is an upper bound.
    pub fn of_dry_run(index: &'a Index) -> Result<Self, RepoError> {
        Ok(Self {
            most: DRY_RUN_CHUNKS,
            ..Self::new(index)?
        })
    }

    /// Begins with nothing in flight, for a repair: the index is not asked, since what it tells of
    /// lies in packs that are damaged. The caller asks it, and knows better.
    pub fn anew(index: &'a Index) -> Self {
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

    /// How many chunks are on their way.
    pub fn in_flight(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<ChunkId>> {
        self.in_flight
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims a chunk. Of two threads that claim the same new chunk at once, one gets
    /// [`Claim::New`].
    ///
    /// A chunk in a condemned pack does not count: it is stored anew. A damaged index counts as not
    /// having it: a duplicate costs room, nothing else.
    pub fn claim(&self, id: &ChunkId) -> Result<Claim, RepoError> {
        if self.anew || self.index_is_empty.load(Ordering::Acquire) {
            return Ok(self.take(id));
        }
        if self.lock().contains(id) {
            return Ok(Claim::Held);
        }
        match self.is_known(id) {
            Ok(true) => return Ok(Claim::Held),
            Ok(false) => {}
            Err(err) if err.is_damage() => {}
            Err(err) => return Err(err.into()),
        }
        Ok(self.take(id))
    }

    /// True if a known pack that the store has holds it.
    fn is_known(&self, id: &ChunkId) -> Result<bool, IndexError> {
        let is_good =
            |copy: &Location| copy.state == PackState::Known && !self.absent.contains(&copy.pack);
        match self.absent.is_empty() {
            true => Ok(self.index.lookup_one(id)?.as_ref().is_some_and(is_good)),
            false => Ok(self.index.copies(id)?.iter().any(is_good)),
        }
    }

    fn take(&self, id: &ChunkId) -> Claim {
        let mut in_flight = self.lock();
        if in_flight.contains(id) {
            return Claim::Held;
        }
        if in_flight.len() >= self.most {
            in_flight.clear();
        }
        in_flight.insert(*id);
        Claim::New
    }

    /// To be called when the index was brought up to date: it may know chunks of other writers now.
    pub fn index_grew(&self) {
        self.index_is_empty.store(false, Ordering::Release);
    }

    /// Lets go of chunks whose segment is published and loaded: from now on the index answers for
    /// them.
    pub fn published(&self, ids: impl Iterator<Item = ChunkId>) {
        self.index_grew();
        let mut in_flight = self.lock();
        ids.for_each(|id| {
            in_flight.remove(&id);
        });
    }
}
