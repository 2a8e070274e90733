//! What was condemned or dropped when a writer began, so that its commit notices what was dropped
//! under it.
//!
//! While the store's clock is right within the margin this never happens: a sweep drops only packs
//! whose mark every living writer saw before it relied on anything, and a writer takes nothing from
//! a pack that it knows condemned. A clock that jumps ahead and back between two heartbeats breaks
//! the premise: the writer looks dead to a sweep and is not. So the writer lists `index/` once more
//! after it has put its snapshot. If a pack is dropped that was neither condemned nor dropped at
//! its first look, the snapshot is withdrawn; the next run stores again what is missing.

use std::sync::{Mutex, PoisonError};

use super::{Lease, RepoError, Repository};
use crate::index::{Index, PackState};
use crate::types::PackId;

/// The packs that were no longer known at the first sync behind the newest lease of this process,
/// sorted. A process has one writer of a repository at a time.
#[derive(Debug, Default)]
pub(super) struct Baseline(Mutex<Option<Vec<PackId>>>);

impl Baseline {
    /// A writer begins: the next sync is its first look.
    pub fn begin(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn is_set(&self) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
    }

    fn set(&self, gone: Vec<PackId>) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(gone);
    }

    /// The first of these sorted packs that was known then.
    fn first_known(&self, packs: &[PackId]) -> Option<PackId> {
        let gone = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = gone.as_deref().unwrap_or_default();
        packs
            .iter()
            .find(|pack| gone.binary_search(pack).is_err())
            .copied()
    }
}

impl Repository {
    /// Takes note of the first look; to be called after each sync.
    pub(super) fn note_baseline(&self) {
        // An index that cannot be read says so to whoever asks it next.
        if !self.baseline.is_set()
            && let Ok(gone) = self.index().packs_from(PackState::Condemned)
        {
            self.baseline.set(gone);
        }
    }

    /// Lists the segments once more; an error if a pack was dropped that was known when this writer
    /// began.
    pub(super) fn check_nothing_dropped(&self, lease: &Lease) -> Result<(), RepoError> {
        self.sync()?;
        let dropped = self.ask_index(|index: &Index| index.packs_from(PackState::Dropped))?;
        match self.baseline.first_known(&dropped) {
            None => Ok(()),
            Some(pack) => {
                let why = format!(
                    "pack {} was in use when it began and was dropped since; did the store's clock jump?",
                    pack.short()
                );
                Err(RepoError::LostLease {
                    id: lease.id(),
                    why,
                })
            }
        }
    }
}
