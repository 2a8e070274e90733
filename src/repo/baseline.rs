//! The packs that were condemned or dropped when a writer began. With them a commit notices packs
//! that were dropped while the writer relied on them.
//!
//! While the store's clock is right within the margin this never happens. A sweep drops only packs
//! whose mark every living writer saw before it relied on anything, and a writer takes nothing from
//! a pack that it knows to be condemned. A clock that jumps ahead and back between two heartbeats
//! breaks this premise, because a sweep takes a living writer for dead.
//!
//! So the writer lists `index/` once more after it has put its snapshot. If a pack is now dropped
//! that was neither condemned nor dropped at the first listing, the writer withdraws the snapshot.
//! The next run stores the missing chunks again.

use std::sync::{Mutex, PoisonError};

use crate::types::PackId;

/// The packs that were condemned or dropped at the first sync after this process took its newest
/// lease, sorted. A process has one writer per repository at a time.
#[derive(Debug, Default)]
pub(super) struct IndexBaseline(Mutex<Option<Vec<PackId>>>);

impl IndexBaseline {
    /// Starts a new writer: the next sync sets the baseline.
    pub fn begin(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Returns true if the baseline of this writer is set.
    pub fn is_set(&self) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
    }

    /// Sets the baseline to these sorted packs, unless it is set.
    pub fn set(&self, gone: Vec<PackId>) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(gone);
    }

    /// Returns the first of these sorted packs that was known at the baseline.
    pub fn first_known(&self, packs: &[PackId]) -> Option<PackId> {
        let gone = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = gone.as_deref().unwrap_or_default();
        packs
            .iter()
            .find(|pack| gone.binary_search(pack).is_err())
            .copied()
    }
}
