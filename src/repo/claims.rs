//! Which chunks need not be stored: known to the index, or in flight in this process. One owner of that question.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::RepoError;
use crate::index::{Index, PackState};
use crate::types::ChunkId;

/// What became of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Nobody has it: the claimer stores it.
    New,
    /// A known pack holds it, or it is on its way into one.
    Held,
}

/// The chunks of a writer that are on their way, and the index behind them.
///
/// At most one segment interval of chunks is in flight (256 k published, as many again on their way): about 25 MiB.
pub struct Claims<'a> {
    index: &'a Index,
    in_flight: Mutex<HashSet<ChunkId>>,
    /// The index held nothing when the writer began, and nothing was published or loaded since: nothing to look up.
    index_is_empty: AtomicBool,
    /// The index is not asked: see [`Claims::anew`].
    anew: bool,
}

impl std::fmt::Debug for Claims<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Claims({} in flight)", self.lock().len())
    }
}

impl<'a> Claims<'a> {
    /// Begins with nothing in flight.
    pub fn new(index: &'a Index) -> Result<Self, RepoError> {
        let empty = match index.is_empty() {
            Err(err) if err.is_damage() => false,
            other => other?,
        };
        Ok(Self { index, in_flight: Mutex::default(), index_is_empty: AtomicBool::new(empty), anew: false })
    }

    /// Begins with nothing in flight, for a repair: the index is not asked, since what it tells of lies in packs that
    /// are damaged. The caller asks it, and knows better.
    pub fn anew(index: &'a Index) -> Self {
        Self { index, in_flight: Mutex::default(), index_is_empty: false.into(), anew: true }
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<ChunkId>> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims a chunk. Of two threads that claim the same new chunk at once, one gets [`Claim::New`].
    ///
    /// A chunk in a condemned pack does not count: it is stored anew. A damaged index counts as not having it: a
    /// duplicate costs room, nothing else.
    pub fn claim(&self, id: &ChunkId) -> Result<Claim, RepoError> {
        if self.anew || self.index_is_empty.load(Ordering::Acquire) {
            return Ok(if self.lock().insert(*id) { Claim::New } else { Claim::Held });
        }
        if self.lock().contains(id) {
            return Ok(Claim::Held);
        }
        match self.index.lookup_one(id) {
            Ok(Some(place)) if place.state == PackState::Known => return Ok(Claim::Held),
            Ok(_) => {}
            Err(err) if err.is_damage() => {}
            Err(err) => return Err(err.into()),
        }
        Ok(if self.lock().insert(*id) { Claim::New } else { Claim::Held })
    }

    /// To be called when the index was brought up to date: it may know chunks of other writers now.
    pub fn index_grew(&self) {
        self.index_is_empty.store(false, Ordering::Release);
    }

    /// Lets go of chunks whose segment is published and loaded: from now on the index answers for them.
    pub fn published(&self, ids: impl Iterator<Item = ChunkId>) {
        self.index_grew();
        let mut in_flight = self.lock();
        ids.for_each(|id| {
            in_flight.remove(&id);
        });
    }
}
