//! Dropped packs that are still in the store. Either a prune was interrupted between the drop and
//! the deletion, or they came back from another copy or a backup of the repository.
//!
//! Packs of the first kind are useless. Packs of the second kind may hold data that a snapshot
//! needs. A prune refuses to run while a listed or forgotten snapshot lacks data, so only two kinds
//! of snapshots are left: those that a repair set aside, and those whose needs are unknown. For
//! these, dropped packs are kept under the rules for packs in quarantine and for packs without a
//! live chunk. `repair packs` stores the needed chunks again; then the packs are deleted.

use std::collections::BTreeSet;

use super::pruner::Pruner;
use super::survey::RepoSurvey;
use crate::Error;
use crate::advice::{Advice, RepairAdvice};
use crate::observe::{Problem, Severity};
use crate::store::{ObjectKey, ObjectMeta};

impl Pruner<'_> {
    /// Takes the dropped packs out of a survey and returns those that may be deleted. Opens them
    /// only if a snapshot in quarantine lacks data.
    pub(super) fn spent_leftovers(
        &self,
        survey: &mut RepoSurvey,
    ) -> Result<Vec<ObjectMeta>, Error> {
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
            let what = "it was dropped, and holds data that a snapshot in quarantine lacks";
            let problem = Problem::new(Severity::Note, meta.key, what);
            self.task
                .observer
                .problem(&problem.with_advice(Advice::Repair(RepairAdvice::RestoreDropped)));
        }
        Ok(spent)
    }
}
