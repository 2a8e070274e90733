//! Pruning: frees the space of data that no snapshot references, while backups and restores run.
//!
//! ```text
//! lease ─▶ survey: leases, snapshots, segments, packs, live chunks
//!   ─▶ sweep: packs that earlier marks condemned long enough ago are dropped and deleted
//!   ─▶ mark: live chunks of packs not worth keeping are copied; one segment condemns the packs
//!   ─▶ small segments are merged
//! ```
//!
//! No other process waits for a prune or fails because of one. It is safe because of three rules
//! (docs/protocol.md, "The prune"): a pack is deleted only if it has been condemned for the grace
//! period, every active client began after that, and the snapshots listed now do not need it. With
//! `now`, prune lists the leases again after the mark; if no other client is active, there is no
//! grace period.
//!
//! Memory: two bits per chunk, 250 bytes per pack, the snapshots, a batch of look-ups, 9 MiB for
//! chunks with several copies, and one frame in three forms while packs are copied.

mod age;
#[cfg(test)]
mod clocks;
mod copy;
#[cfg(test)]
mod interleavings;
#[cfg(test)]
mod lease_tests;
mod leftovers;
mod live;
mod plan;
mod pruner;
mod quarantine;
mod report;
mod roots;
mod segments;
mod survey;
mod sweep;
#[cfg(test)]
mod tests;
mod unknown_needs;

pub use report::{CopyStop, GRACE_DEFAULT, PackAmount, PruneOptions, PruneReport, WaitReason};

use crate::Error;
use crate::advice::{Advice, PruneAdvice};
use crate::format::LeaseKind;
use crate::index::PackState;
use crate::read::reading_lease;
use crate::repo::{Lease, Repository};
use crate::store::{ObjectDir, StoreError, list_all};
use crate::task::Task;
use crate::types::to_u64;
use plan::PrunePlan;
use pruner::{Pruner, shortest_grace};
use survey::RepoSurvey;

/// Frees the space of data that no snapshot references.
///
/// If another prune is running, this one does nothing and the report has `other_prune` set. A crash
/// at any point leaves too much data, never too little; the next prune continues.
///
/// # Errors
/// [`Error::Unresolved`] if a snapshot needs data that is missing or cannot be read: nothing is
/// condemned or dropped then. [`Error::Usage`] for a grace period that is too short, or for `now`
/// on a store whose listings lag.
pub fn prune(
    repo: &Repository,
    options: &PruneOptions,
    task: Task<'_>,
) -> Result<PruneReport, Error> {
    let times = repo.lease_times();
    let shortest = shortest_grace(&times);
    if options.grace < shortest && !options.now {
        let minutes = shortest.as_secs() / 60;
        return Err(Error::Usage {
            why: format!(
                "a grace below {minutes} minutes is safe only while no other client is active"
            ),
            advice: Some(Advice::Prune(PruneAdvice::PruneAtOnce)),
        });
    }

    let properties = repo.store().properties();
    if options.now && !properties.strong_listing {
        let why = "listings of this store may lag, so a prune without a grace could miss a writer";
        return Err(Error::Usage {
            why: why.into(),
            advice: Some(Advice::Prune(PruneAdvice::PruneWithGrace)),
        });
    }

    repo.check_prunable()?;

    let mut run = Pruner::new(repo, options, times, task);

    if options.dry_run {
        let lease = reading_lease(repo, LeaseKind::Verify)?;
        run.lease = lease.as_ref();
        run.dry_run()?;
        let report = run.report;
        drop(lease);
        return Ok(report);
    }

    if properties.read_only {
        return Err(StoreError::ReadOnly {
            address: repo.store().address().to_owned(),
        }
        .into());
    }
    // On a full disk even a lease would not fit ([R28](docs/protocol.md#r28)), so release the
    // reserved space first. Failing to release or to restore the reserve does not stop the prune.
    let _ = repo.store().set_reserve(false);
    let report = with_lease(run);
    let _ = repo.store().set_reserve(true);
    report
}

fn with_lease(run: Pruner<'_>) -> Result<PruneReport, Error> {
    let lease = Lease::take(run.repo, LeaseKind::Prune)?;
    let mut run = Pruner {
        lease: Some(&lease),
        ..run
    };
    run.run_all(&lease)?;

    let report = run.report;
    drop(lease);
    Ok(report)
}

impl Pruner<'_> {
    /// Does all steps of a prune, unless another prune runs that goes first.
    fn run_all(&mut self, lease: &Lease) -> Result<(), Error> {
        let now = self.store_time()?;
        if self.other_prune(lease, now)? {
            self.report.other_prune = true;
            return Ok(());
        }

        let mut survey = self.survey()?;
        self.report_use(&survey);
        self.sweep(lease, &mut survey)?;
        self.mark(lease, &mut survey)?;

        let was_full = self.report.copy_stopped == Some(CopyStop::Full);
        if self.options.now && self.marked {
            survey = self.sweep_again(lease)?;
            if was_full && self.report.dropped.packs > 0 {
                // The sweep made room for the copies that did not fit before.
                self.marked = false;
                self.mark(lease, &mut survey)?;
                if self.marked {
                    survey = self.sweep_again(lease)?;
                }
            }
        }

        self.tidy(lease, &survey)?;
        self.sweep_quarantine(lease, &survey)?;
        self.report_held(&survey);
        self.merge_segments(lease)?;
        self.report_pending(&survey);
        Ok(())
    }

    /// Surveys and sweeps again after the mark was published: lists the active clients and the
    /// roots again.
    fn sweep_again(&mut self, lease: &Lease) -> Result<RepoSurvey, Error> {
        let mut survey = self.survey()?;
        self.sweep(lease, &mut survey)?;
        Ok(survey)
    }

    /// Reports the effect of a prune. Writes only a lease, as a reader does where the store
    /// allows it.
    fn dry_run(&mut self) -> Result<(), Error> {
        self.report.dry_run = true;
        let survey = self.survey()?;
        self.report_use(&survey);

        let dropped = self.droppable(&survey);
        for id in &dropped {
            self.report.dropped.add(survey.live.packs[id].row.size);
        }

        let plan = PrunePlan::make(survey.live.packs.values(), &survey.until);
        for id in &plan.dead {
            self.report.condemned.add(survey.live.packs[id].row.size);
        }
        for id in &plan.copy {
            let pack = &survey.live.packs[id];
            if self
                .options
                .max_repack
                .is_some_and(|max| self.report.copied.bytes + pack.live_bytes() > max.0)
            {
                self.report.copy_stopped = Some(CopyStop::MaxRepack);
                continue;
            }
            self.report.copied.add(pack.live_bytes());
            if pack.row.state == PackState::Known {
                self.report.condemned.add(pack.row.size);
            }
        }

        // Objects that would be deleted.
        self.report.freed_bytes = self.report.dropped.bytes;
        self.report.forgotten_deleted = to_u64(survey.roots.spent.len());
        self.report.checkpoints_deleted = to_u64(survey.roots.old_checkpoints.len());

        let aside = list_all(self.repo.store(), ObjectDir::Quarantine)?;
        let spent = self.spent_in_quarantine(&aside, &survey)?;
        for meta in aside {
            if spent.contains(&meta.key) {
                self.report.quarantine_deleted.add(meta.size);
                self.report.freed_bytes += meta.size;
            } else {
                self.report.quarantined.add(meta.size);
            }
        }

        self.report_held(&survey);
        self.report_pending(&survey);
        Ok(())
    }

    /// Counts the live and dead bytes of the held packs.
    fn report_use(&mut self, survey: &RepoSurvey) {
        let held = survey.live.packs.values().filter(|pack| pack.row.added);
        for pack in held {
            let live = pack.live_bytes();
            if pack.live > 0 {
                self.report.live.packs += 1;
            } else {
                self.report.dead.packs += 1;
            }
            self.report.live.bytes += live;
            self.report.dead.bytes += pack.row.size.saturating_sub(live);
        }
    }

    /// Counts the packs that stay condemned for now, and computes until when.
    fn report_pending(&mut self, survey: &RepoSurvey) {
        let grace = self.grace();
        for pack in survey
            .live
            .packs
            .values()
            .filter(|pack| pack.row.state == PackState::Condemned)
        {
            self.report.pending.add(pack.row.size);
            let marked = survey
                .marks
                .get(&pack.row.id)
                .copied()
                .unwrap_or(survey.now);
            let until = marked.plus_seconds(i64::try_from(grace.as_secs()).unwrap_or(i64::MAX));
            self.report.pending_until = self.report.pending_until.max(Some(until));
            if self.report.kept_waiting.is_empty() {
                self.report.wait(WaitReason::Grace);
            }
        }
    }
}
