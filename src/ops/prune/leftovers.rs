//! Dropped packs that are still in the store: a prune was cut off between the drop and the
//! deletion, or they came back, from another copy of the repository or from a backup of it.
//!
//! The first kind is of no use. The second may hold what a snapshot needs. A prune refuses while a
//! listed or forgotten snapshot lacks anything, so what is left are snapshots that a repair set
//! aside, and those of which nobody can tell what they need. For these, dropped packs stay under
//! the rules that hold for packs in quarantine and for packs without a live chunk. `repair packs`
//! stores again what is needed of them; then they go.

use std::collections::BTreeSet;

use super::Run;
use super::survey::Survey;
use crate::Error;
use crate::observe::{Problem, Severity};
use crate::store::{ObjectKey, ObjectMeta};

impl Run<'_> {
    /// Takes the dropped packs out of a survey and returns those that may be deleted. They are
    /// opened only if a snapshot in quarantine lacks something.
    pub(super) fn spent_leftovers(&self, survey: &mut Survey) -> Result<Vec<ObjectMeta>, Error> {
        let mut leftovers = std::mem::take(&mut survey.leftovers);
        if let Some(needs) = survey.until.unknown_needs {
            leftovers.retain(|meta| meta.modified > needs);
        }
        if survey.live.missing.is_empty() && !survey.live.is_blind {
            return Ok(leftovers);
        }
        let spent: BTreeSet<ObjectKey> =
            self.spent_packs(&leftovers, survey)?.into_iter().collect();
        let (spent, needed): (Vec<_>, Vec<_>) = leftovers
            .into_iter()
            .partition(|meta| spent.contains(&meta.key));
        for meta in needed {
            let what = "it was dropped, and holds what a snapshot in quarantine lacks: 'icecore repair packs', then \
                        'icecore repair snapshots', put that back";
            self.observer
                .problem(&Problem::new(Severity::Note, meta.key, what));
        }
        Ok(spent)
    }
}
