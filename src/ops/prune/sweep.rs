//! The sweep: packs condemned long enough ago, and that no root needs, are dropped, then deleted; then the rest of what
//! nobody needs.
//!
//! Crash points: spent forgotten snapshots go first, so that none is left whose chunks are gone; then one segment says
//! *dropped*, durable; then the objects go. What is left of those is deleted by the next prune.

use std::collections::BTreeSet;

use super::Run;
use super::report::Waiting;
use super::roots::is_older;
use super::survey::{Survey, minus};
use crate::Error;
use crate::index::{Index, PackState};
use crate::observe::{Counter, Phase, Problem, Severity};
use crate::repo::{FoundLease, Lease};
use crate::store::{Folder, ObjectKey, ObjectMeta, list_all};
use crate::types::{PackId, SegmentBody};

impl Run<'_> {
    /// Drops and deletes what may go; notes what waits and why.
    pub(super) fn sweep(&mut self, lease: &Lease, survey: &mut Survey) -> Result<(), Error> {
        self.observer.phase(&Phase::Sweep);
        let dropped = self.droppable(survey);
        let dropped = self.marked_for_all(dropped)?;
        lease.check()?;
        for meta in std::mem::take(&mut survey.roots.spent) {
            // Before its record goes: a verify must not take what was let go on purpose for a loss.
            if let ObjectKey::Forgotten(id) = meta.key {
                self.repo.memory().forget_snapshot(&id);
            }
            self.report.forgotten_deleted += u64::from(self.delete(&meta)?);
        }
        if !dropped.is_empty() {
            let body = SegmentBody { dropped: dropped.clone(), ..SegmentBody::empty(lease.id()) };
            lease.check()?;
            self.repo.publish_segment(lease.id(), &body)?;
        }
        self.observer.expect((dropped.len() + survey.leftovers.len()) as u64, false);
        for id in dropped {
            self.cancel.check()?;
            lease.check()?;
            if let Some(pack) = survey.live.packs.remove(&id) {
                self.report.dropped.add(pack.row.size);
                self.delete_pack(&id, pack.row.size)?;
            }
        }
        for meta in std::mem::take(&mut survey.leftovers) {
            self.cancel.check()?;
            lease.check()?;
            if let ObjectKey::Pack(id) = meta.key {
                self.delete_pack(&id, meta.size)?;
            }
        }
        Ok(())
    }

    /// Those of these packs whose mark everybody can read: a segment that was loaded long ago may have become damaged since,
    /// and a writer with a new cache would rely on what it condemns.
    fn marked_for_all(&self, mut packs: Vec<PackId>) -> Result<Vec<PackId>, Error> {
        if packs.is_empty() {
            return Ok(packs);
        }
        let mut readable = BTreeSet::new();
        for says in self.repo.ask_index(Index::says)? {
            if !says.condemned.iter().any(|pack| packs.binary_search(pack).is_ok()) {
                continue;
            }
            match self.repo.read_segment(&says.segment) {
                Ok(body) => readable.extend(body.condemned),
                Err(err) if err.is_damage() => {
                    let what = format!("{err}; what it condemns is not let go");
                    let subject = ObjectKey::Segment(says.segment);
                    self.observer.problem(&Problem::new(Severity::Damage, subject, what));
                }
                Err(err) => return Err(err.into()),
            }
        }
        packs.retain(|pack| readable.contains(pack));
        Ok(packs)
    }

    /// Condemned packs that may be let go now, sorted.
    pub(super) fn droppable(&mut self, survey: &Survey) -> Vec<PackId> {
        let grace = self.grace();
        self.report.kept_waiting.clear();
        let mut dropped = Vec::new();
        let packs = survey.live.packs.values();
        let mut condemned: Vec<_> = packs.filter(|pack| pack.row.state == PackState::Condemned).collect();
        condemned.sort_unstable_by_key(|pack| pack.row.id);
        for pack in condemned {
            let marked = survey.marks.get(&pack.row.id).copied().unwrap_or(survey.now);
            // At once only behind a look at the leases: a mark that is younger than that look is another's.
            let may_go =
                if survey.immediate { marked <= survey.now } else { is_older(marked, survey.now, grace) };
            if !may_go {
                self.report.wait(Waiting::Grace);
                self.tell_who_is_at_work(survey);
                continue;
            }
            // Who began at most a margin later may not have seen the mark.
            let margin = self.times.margin.as_secs_f64();
            let may_need =
                survey.leases.iter().find(|lease| lease.started(&self.times).seconds_since(marked) <= margin);
            if let Some(lease) = may_need {
                self.wait_for(lease);
            } else if pack.needed {
                self.report.wait(Waiting::Needed);
            } else {
                dropped.push(pack.row.id);
            }
        }
        dropped
    }

    /// Who keeps a prune that was asked not to wait from letting things go at once.
    fn tell_who_is_at_work(&mut self, survey: &Survey) {
        if self.options.now
            && let Some(lease) = survey.leases.first()
        {
            self.wait_for(lease);
        }
    }

    fn wait_for(&mut self, lease: &FoundLease) {
        self.report.wait(Waiting::Lease {
            id: lease.id,
            host: lease.body.as_ref().map(|body| body.host.clone()).unwrap_or_default(),
            kind: lease.body.as_ref().map(|body| body.kind),
            started: lease.started(&self.times),
        });
    }

    /// Deletes the rest: checkpoints nobody goes on from, leases of the dead, unfinished writes.
    pub(super) fn tidy(&mut self, lease: &Lease, survey: &Survey) -> Result<(), Error> {
        lease.check()?;
        for meta in &survey.roots.old_checkpoints {
            self.report.checkpoints_deleted += u64::from(self.delete(meta)?);
        }
        let dead_for = self.times.expiry * 2 + self.times.margin;
        for meta in list_all(self.repo.store(), Folder::Leases)? {
            if is_older(meta.modified, survey.now, dead_for) {
                self.report.leases_swept += u64::from(self.delete(&meta)?);
            }
        }
        // A write that goes on touches its file all the time; the grace of those at work is kept whatever was asked for.
        let (count, bytes) = self.repo.store().sweep_unfinished(minus(survey.now, self.grace()))?;
        self.report.unfinished_deleted += count;
        self.report.freed_bytes += bytes;
        Ok(())
    }

    /// Deletes a pack that is dropped, and its recovery data.
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
        self.delete(&ObjectMeta { key, size, modified: Default::default() })?;
        self.observer.add(Counter::Done, 1);
        self.observer.add(Counter::Packs, 1);
        Ok(())
    }

    /// Deletes an object; false if it was gone already.
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
