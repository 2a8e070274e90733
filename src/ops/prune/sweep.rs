//! The sweep: packs that were condemned long enough ago and that no root needs are dropped, then
//! deleted; then other unneeded objects.
//!
//! **Looking again.** The sweep decides on a listing, and the walk through all snapshots after it
//! may take hours. So the sweep lists again before the first deletion: a new snapshot from a writer
//! that was not counted among the living makes it survey again. And it deletes no object by its
//! name alone: it stats the object first and deletes it only if it is unchanged since the listing.
//! Packs do not need this check, since their names are the hashes of their contents and are never
//! used twice.
//!
//! Crash points:
//! 1. One segment names the spent forgotten snapshots, so that no client misses them.
//! 2. These snapshots are deleted first, so that none is left whose chunks are gone.
//! 3. One segment says *dropped*, durably.
//! 4. The objects are deleted. After a crash the next prune deletes the rest.

use std::collections::BTreeSet;

use super::age::is_older;
use super::pruner::Pruner;
use super::report::WaitReason;
use super::survey::{RepoSurvey, minus};
use crate::Error;
use crate::index::{Index, PackRow, PackState};
use crate::observe::{Counter, Phase, Problem, ProgressUnit, Severity};
use crate::repo::{FoundLease, Lease, RepoError};
use crate::store::{ObjectDir, ObjectKey, ObjectMeta, list_all};
use crate::types::{PackId, SegmentBody, SnapshotId, to_u64};

/// Snapshots that one segment records: 512 KiB.
const RECORDED_MAX: usize = 16 << 10;
/// Maximum number of surveys if the repository changes during each of them.
const SURVEYS_MAX: usize = 3;

impl Pruner<'_> {
    /// Drops and deletes packs and spent snapshots; reports which packs wait and why.
    pub(super) fn sweep(&mut self, lease: &Lease, survey: &mut RepoSurvey) -> Result<(), Error> {
        self.task.observer.phase(&Phase::Sweep);
        let dropped = self.judged_again(survey)?;

        self.witness(lease, survey)?;
        lease.check()?;

        // Record and delete the spent snapshots.
        self.record_spent(lease, survey)?;
        for meta in std::mem::take(&mut survey.roots.spent) {
            self.report.forgotten_deleted += u64::from(self.delete_spent(&meta)?);
        }

        if !dropped.is_empty() {
            let body = SegmentBody {
                dropped: dropped.clone(),
                ..SegmentBody::empty(lease.id())
            };
            lease.check()?;
            self.repo.publish_segment(lease.id(), &body)?;
        }

        let leftovers = self.spent_leftovers(survey)?;
        self.task
            .observer
            .expect(to_u64(dropped.len() + leftovers.len()), ProgressUnit::Items);

        for id in dropped {
            self.task.check()?;
            lease.check()?;
            if let Some(pack) = survey.live.packs.remove(&id) {
                self.report.dropped.add(pack.row.size);
                self.delete_pack(&id, pack.row.size)?;
            }
        }
        for meta in leftovers {
            self.task.check()?;
            lease.check()?;
            if let ObjectKey::Pack(id) = meta.key {
                self.delete_pack(&id, meta.size)?;
            }
        }
        Ok(())
    }

    /// Returns the packs to drop, surveying again until the survey is up to date. `survey` then
    /// holds the snapshots and leftovers to delete.
    fn judged_again(&mut self, survey: &mut RepoSurvey) -> Result<Vec<PackId>, Error> {
        for _ in 0..SURVEYS_MAX {
            let dropped = self.droppable(survey);
            let dropped = self.marked_for_all(dropped)?;
            let is_nothing =
                dropped.is_empty() && survey.roots.spent.is_empty() && survey.leftovers.is_empty();
            if is_nothing || self.still_stands(survey)? {
                return Ok(dropped);
            }
            *survey = self.survey()?;
        }

        // The repository changed during each survey: delete nothing this time.
        survey.roots.spent.clear();
        survey.leftovers.clear();
        self.report.wait(WaitReason::Changed);
        Ok(Vec::new())
    }

    /// Returns false if the repository contains something that the survey does not account for: a
    /// snapshot of a writer that was not among the living, or another client's mark or drop.
    ///
    /// A snapshot of a living writer is accounted for: either the packs wait for that lease, or the
    /// writer saw them condemned and does not rely on them.
    fn still_stands(&self, survey: &RepoSurvey) -> Result<bool, Error> {
        for (id, _) in self.repo.listed_snapshots()? {
            if survey.roots.listed.contains(&id) {
                continue;
            }
            match self.repo.read_snapshot(&id) {
                Ok(snapshot) if survey.leases.iter().any(|lease| lease.id == snapshot.lease) => {}
                // Withdrawn after it was listed.
                Err(RepoError::Store(err)) if err.is_not_found() => {}
                Err(err) if !err.is_damage() => return Err(err.into()),
                _ => return Ok(false),
            }
        }

        self.repo.sync()?;
        let rows = self.repo.with_index(Index::packs)?;
        let known = |row: &PackRow| survey.live.packs.get(&row.id).map(|pack| pack.row.state);
        Ok(rows
            .iter()
            .all(|row| known(row).is_none_or(|state| state == row.state)))
    }

    /// Records in the index which forgotten snapshots are about to be deleted. A client that
    /// remembers one of them as the last of its source must not report it as vanished. The record
    /// is written first, so after a crash it may name snapshots that are still there.
    fn record_spent(&self, lease: &Lease, survey: &RepoSurvey) -> Result<(), Error> {
        let spent = survey.roots.spent.iter().filter_map(|meta| match meta.key {
            ObjectKey::Forgotten(id) => Some(id),
            _ => None,
        });
        let spent: Vec<SnapshotId> = spent.collect();
        for ids in spent.chunks(RECORDED_MAX) {
            self.repo.record_let_go(lease.id(), ids)?;
        }
        Ok(())
    }

    /// Publishes an empty segment if an object stays because of a silence that lasts until now. The
    /// next prune compares the clock with the store time of that segment.
    fn witness(&mut self, lease: &Lease, survey: &RepoSurvey) -> Result<(), Error> {
        if survey.roots.is_held_by_silence {
            self.report.wait(WaitReason::Silence);
        }
        if survey.roots.ages.is_silent() && self.report.kept_waiting.contains(&WaitReason::Silence)
        {
            lease.check()?;
            self.repo
                .publish_segment(lease.id(), &SegmentBody::empty(lease.id()))?;
        }
        Ok(())
    }

    /// Returns the packs whose mark every client can read. A segment that was loaded long ago may
    /// have become damaged since, and a writer with a new cache would rely on the packs that it
    /// condemns.
    fn marked_for_all(&self, mut packs: Vec<PackId>) -> Result<Vec<PackId>, Error> {
        if packs.is_empty() {
            return Ok(packs);
        }

        let mut readable = BTreeSet::new();
        for summary in self.repo.with_index(Index::segment_summaries)? {
            if !summary
                .condemned
                .iter()
                .any(|pack| packs.binary_search(pack).is_ok())
            {
                continue;
            }
            match self.repo.read_segment(&summary.segment) {
                Ok(body) => readable.extend(body.condemned),
                Err(err) if err.is_unavailable() => {
                    let what = format!("{err}; the packs that it condemns are kept");
                    let subject = ObjectKey::Segment(summary.segment);
                    self.task
                        .observer
                        .problem(&Problem::new(Severity::Damage, subject, what));
                }
                Err(err) => return Err(err.into()),
            }
        }

        packs.retain(|pack| readable.contains(pack));
        Ok(packs)
    }

    /// Returns the condemned packs that may be dropped now, sorted; reports why the others wait.
    pub(super) fn droppable(&mut self, survey: &RepoSurvey) -> Vec<PackId> {
        let grace = self.grace();
        self.report.kept_waiting.clear();

        let mut dropped = Vec::new();
        let packs = survey.live.packs.values();
        let mut condemned: Vec<_> = packs
            .filter(|pack| pack.row.state == PackState::Condemned)
            .collect();
        condemned.sort_unstable_by_key(|pack| pack.row.id);

        for pack in condemned {
            let marked = survey
                .marks
                .get(&pack.row.id)
                .copied()
                .unwrap_or(survey.now);

            // Skipping the grace period is safe only if the leases were listed after the mark. A
            // mark younger than that listing is another client's.
            let ages = &survey.roots.ages;
            let may_go = if survey.immediate {
                marked <= survey.now
            } else {
                ages.is_older(marked, grace)
            };

            if !may_go {
                let is_silence = ages.is_held_by_silence(marked, grace);
                self.report.wait(if is_silence {
                    WaitReason::Silence
                } else {
                    WaitReason::Grace
                });
                self.report_who_is_at_work(survey);
                continue;
            }
            // A client that began at most a margin later may not have seen the mark.
            let margin = self.times.margin.as_secs_f64();
            let may_need = survey
                .leases
                .iter()
                .find(|lease| lease.started(&self.times).seconds_since(marked) <= margin);

            if let Some(lease) = may_need {
                self.wait_for(lease);
            } else if pack.needed {
                self.report.wait(WaitReason::Needed);
            } else if survey
                .until
                .unknown_needs
                .is_some_and(|needs| pack.there.is_some_and(|t| t <= needs))
            {
                self.report.wait(WaitReason::Unknown);
            } else {
                dropped.push(pack.row.id);
            }
        }

        dropped
    }

    /// Reports the client that keeps a prune with `now` from dropping packs at once.
    fn report_who_is_at_work(&mut self, survey: &RepoSurvey) {
        if self.options.now
            && let Some(lease) = survey.leases.first()
        {
            self.wait_for(lease);
        }
    }

    fn wait_for(&mut self, lease: &FoundLease) {
        self.report.wait(WaitReason::Lease {
            id: lease.id,
            host: lease
                .body
                .as_ref()
                .map(|body| body.host.clone())
                .unwrap_or_default(),
            kind: lease.body.as_ref().map(|body| body.kind),
            started: lease.started(&self.times),
        });
    }

    /// Deletes the rest: checkpoints that no backup continues, expired leases, unfinished writes.
    pub(super) fn tidy(&mut self, lease: &Lease, survey: &RepoSurvey) -> Result<(), Error> {
        lease.check()?;
        for meta in &survey.roots.old_checkpoints {
            self.report.checkpoints_deleted += u64::from(self.delete_judged(meta)?);
        }

        let dead_for = self.times.expiry * 2 + self.times.margin;
        for meta in list_all(self.repo.store(), ObjectDir::Leases)? {
            if is_older(meta.modified, survey.now, dead_for) {
                self.report.leases_swept += u64::from(self.delete_judged(&meta)?);
            }
        }
        // An active write touches its file all the time. The grace period protects the writes of
        // other clients, also with `now`.
        let (count, bytes) = self
            .repo
            .store()
            .sweep_unfinished(minus(survey.now, self.grace()))?;
        self.report.unfinished_deleted += count;
        self.report.freed_bytes += bytes;

        Ok(())
    }

    /// Deletes a dropped pack and its recovery data.
    fn delete_pack(&mut self, id: &PackId, size: u64) -> Result<(), Error> {
        let parity = ObjectKey::Parity(*id);
        match self.repo.store().stat(&parity) {
            Ok(meta) => {
                self.delete(&meta)?;
            }
            Err(err) if err.is_not_found() => {}
            Err(err) => return Err(err.into()),
        }

        let key = ObjectKey::Pack(*id);
        self.delete(&ObjectMeta {
            key,
            size,
            modified: Default::default(),
        })?;

        self.task.observer.add(Counter::Done, 1);
        self.task.observer.add(Counter::Packs, 1);
        Ok(())
    }

    /// Deletes a spent forgotten snapshot. Returns false if it is not the object that was judged,
    /// or if the snapshot is listed again.
    ///
    /// `snapshots/` is checked first. A snapshot that is no longer there never comes back under its
    /// name, and the client that moved it had put a new copy into `forgotten/` before. So if the
    /// copy found after that is the old one, no client is about to rely on it.
    fn delete_spent(&mut self, meta: &ObjectMeta) -> Result<bool, Error> {
        let ObjectKey::Forgotten(id) = meta.key else {
            return Ok(false);
        };
        if self.repo.is_listed(&id)? || !self.is_the_judged(meta)? {
            return Ok(false);
        }
        self.repo.memory().forget_snapshot(&id);
        self.delete(meta)
    }

    /// Deletes an object if it is the one that was judged. Returns false if it is not, or was
    /// already gone.
    fn delete_judged(&mut self, meta: &ObjectMeta) -> Result<bool, Error> {
        if self.is_the_judged(meta)? {
            self.delete(meta)
        } else {
            Ok(false)
        }
    }

    /// Returns true if the object of this name was not written since it was listed.
    fn is_the_judged(&self, meta: &ObjectMeta) -> Result<bool, Error> {
        match self.repo.store().stat(&meta.key) {
            Ok(now) => Ok((now.modified, now.size) == (meta.modified, meta.size)),
            Err(err) if err.is_not_found() => Ok(false),
            Err(err) => Err(err.into()),
        }
    }

    /// Deletes an object. Returns false if it was already gone.
    pub(super) fn delete(&mut self, meta: &ObjectMeta) -> Result<bool, Error> {
        match self.repo.store().delete(&meta.key) {
            Ok(()) => {
                self.report.freed_bytes += meta.size;
                Ok(true)
            }
            Err(err) if err.is_not_found() => Ok(false),
            Err(err) => Err(err.into()),
        }
    }
}
