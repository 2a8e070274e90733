//! Objects in quarantine: how long they keep other objects from being deleted, and when they are
//! deleted themselves.
//!
//! A snapshot that cannot be read may need any pack that was there when it was set aside. All of
//! these packs are kept for [`QUARANTINE_LIFE`], which leaves time to restore the object from a
//! copy or to read it from a better medium. Then the snapshot is deleted, and the packs that only
//! it needed become unreferenced. The same holds for an original that a repair set aside because
//! lists of its entries are lost: the lost lists may come back, and it is unknown which chunks they
//! name.
//!
//! A snapshot that this machine remembers and that is gone without having been forgotten (see
//! `repo::vanished`) may come back as well. The packs that it may need are kept until the user
//! acknowledges that it is gone.
//!
//! A damaged pack is kept as long as it could provide a chunk that a snapshot needs and no other
//! pack has. Only snapshots that a repair set aside can need such chunks, since a prune refuses to
//! run for any other. While a repair is running, it may be reading from quarantine: nothing is
//! deleted then.

use std::collections::BTreeSet;

use super::pruner::Pruner;
use super::survey::RepoSurvey;
use super::unknown_needs::QUARANTINE_LIFE;
use crate::Error;
use crate::format::LeaseKind;
use crate::index::{ChunkLocation, PackState};
use crate::repo::Lease;
use crate::store::{ObjectDir, ObjectKey, ObjectMeta, list_all};
use crate::types::{ChunkId, PackId, PackInfo};

impl Pruner<'_> {
    /// Reports the packs that are kept for snapshots with unknown needs, and until when.
    pub(super) fn report_held(&mut self, survey: &RepoSurvey) {
        let unknown = &survey.unknown;
        let Some(needs) = unknown.until else { return };
        for pack in survey.live.packs.values() {
            let is_held =
                pack.live == 0 && pack.row.added && pack.there.is_some_and(|there| there <= needs);
            if is_held {
                self.report.held.add(pack.row.size);
            }
        }

        let life = i64::try_from(QUARANTINE_LIFE.as_secs()).unwrap_or(i64::MAX);
        self.report.held_until = unknown.aside_since.map(|since| since.plus_seconds(life));
        self.report.unreadable_aside = unknown.aside;
        self.report.vanished = unknown.vanished;
    }

    /// Deletes the objects in quarantine that are no longer of use.
    pub(super) fn sweep_quarantine(
        &mut self,
        lease: &Lease,
        survey: &RepoSurvey,
    ) -> Result<(), Error> {
        let aside = list_all(self.repo.store(), ObjectDir::Quarantine)?;
        let is_repairing = survey.leases.iter().any(|lease| {
            lease
                .body
                .as_ref()
                .is_none_or(|body| body.kind == LeaseKind::Repair)
        });
        let spent = if is_repairing {
            BTreeSet::new()
        } else {
            self.spent_in_quarantine(&aside, survey)?
        };

        for meta in aside {
            self.task.check()?;
            if spent.contains(&meta.key) {
                lease.check()?;
                self.delete(&meta)?;
                self.report.quarantine_deleted.add(meta.size);
            } else {
                self.report.quarantined.add(meta.size);
            }
        }

        Ok(())
    }

    /// Returns the objects in `aside` that are no longer of use.
    pub(super) fn spent_in_quarantine(
        &self,
        aside: &[ObjectMeta],
        survey: &RepoSurvey,
    ) -> Result<BTreeSet<ObjectKey>, Error> {
        let is_given_up =
            |meta: &ObjectMeta| survey.roots.ages.is_older(meta.modified, QUARANTINE_LIFE);
        let roots = &survey.roots;
        let mut spent = BTreeSet::new();

        // An object that cannot be read now may be intact, so only damaged ones are deleted.
        let broken = roots
            .unknown
            .iter()
            .filter(|(meta, now)| !now && is_given_up(meta));
        spent.extend(broken.map(|(meta, _)| meta.key.clone()));

        // The snapshot that replaced it was forgotten by a policy or by name, so its original is
        // not needed either.
        let orphaned = roots.aside.iter().filter(|(meta, first)| {
            is_given_up(meta) && !roots.snapshots.iter().any(|one| one.first() == *first)
        });
        spent.extend(orphaned.map(|(meta, _)| meta.key.clone()));

        for meta in aside {
            if matches!(meta.key, ObjectKey::QuarantinedSegment(_)) && is_given_up(meta) {
                spent.insert(meta.key.clone());
            }
        }

        // While the needs of a snapshot are unknown, a damaged pack may hold data that it needs.
        if survey.until.unknown_needs.is_none() {
            spent.extend(self.spent_packs(aside, survey)?);
        }

        Ok(spent)
    }

    /// Returns the packs among `objects`, in quarantine or dropped, that cannot provide a chunk
    /// that a snapshot lacks.
    pub(super) fn spent_packs(
        &self,
        objects: &[ObjectMeta],
        survey: &RepoSurvey,
    ) -> Result<Vec<ObjectKey>, Error> {
        let packs: Vec<(PackId, &ObjectMeta)> = objects
            .iter()
            .filter_map(|meta| match meta.key {
                ObjectKey::QuarantinedPack(id) | ObjectKey::Pack(id) => Some((id, meta)),
                _ => None,
            })
            .collect();
        let segment_entries = self
            .repo
            .segment_entries_of(&packs.iter().map(|(id, _)| *id).collect())?;

        let mut spent = Vec::new();
        for (id, meta) in packs {
            self.task.check()?;
            let Some(mut infos) = self.own_directory(&id, meta)? else {
                continue;
            };
            infos.extend(segment_entries.get(&id).cloned().unwrap_or_default());
            let chunks = infos
                .iter()
                .flat_map(|info| &info.frames)
                .flat_map(|frame| &frame.chunks);
            let ids: BTreeSet<ChunkId> = chunks.map(|chunk| chunk.id).collect();
            if !self.could_save(&ids, survey)? {
                spent.push(meta.key.clone());
            }
        }
        Ok(spent)
    }

    /// Reads the directory of a pack object in `packs/` or in quarantine. Returns `None` if it
    /// cannot be read now, and an empty list if it is damaged: then only the segments list its
    /// chunks.
    fn own_directory(
        &self,
        id: &PackId,
        meta: &ObjectMeta,
    ) -> Result<Option<Vec<PackInfo>>, Error> {
        let head = self.repo.head_of(&meta.key);
        let info = head.and_then(|head| self.repo.directory_of(&meta.key, id, meta.size, &head));
        match info {
            Ok(info) => Ok(Some(vec![info])),
            Err(err) if err.is_damage() => Ok(Some(Vec::new())),
            Err(err) if err.is_unreadable_now() => Ok(None),
            Err(err) => Err(err.into()),
        }
    }

    /// Returns true if one of these chunks is or may be needed and no known pack in the store has
    /// it.
    fn could_save(&self, ids: &BTreeSet<ChunkId>, survey: &RepoSurvey) -> Result<bool, Error> {
        let live = &survey.live;
        for id in ids {
            if !live.is_blind && !live.missing.contains(id) {
                continue;
            }
            let holds = |copy: &ChunkLocation| {
                let pack = live.packs.get(&copy.pack);
                copy.state == PackState::Known && pack.is_some_and(|pack| pack.there.is_some())
            };
            if !self
                .repo
                .with_index(|index| index.copies(id))?
                .iter()
                .any(holds)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
