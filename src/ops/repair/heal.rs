//! Use of recovery data: damaged packs are reconstructed, and missing or damaged recovery data is
//! written.
//!
//! Damaged object moved to quarantine → intact bytes put under its name → the damaged object in
//! quarantine deleted. If the store cannot rename, or quarantine has an object of this name: intact
//! bytes put into quarantine, in the place of a damaged copy → damaged object deleted → intact bytes
//! put under its name → the copy in quarantine deleted. Every repair also reads the objects in
//! quarantine, so the next repair completes one that was interrupted.

use std::collections::BTreeSet;

use super::pack_repair::{BadPack, PackRepair};
use super::packs_report::{DamagedPack, PackFate};
use super::quarantine::{SetAside, remove, set_aside};
use crate::Error;
use crate::chunk::ObjectHasher;
use crate::index::{Index, PackState};
use crate::observe::{Problem, Severity, Subject};
use crate::repo::RepoError;
use crate::store::{ObjectBody, ObjectDir, ObjectKey, PutMode, Spool, StoreError, list_all};
use crate::types::{PackId, at_most, to_u64};

/// The intact bytes of a pack.
struct IntactBytes {
    spool: Spool,
    /// The object in quarantine has them too.
    is_in_quarantine: bool,
}

impl PackRepair<'_> {
    /// Restores packs from recovery data or from an intact copy in quarantine. Returns the packs
    /// that could not be restored.
    pub(super) fn heal(&mut self, bad: Vec<BadPack>) -> Result<Vec<BadPack>, Error> {
        let mut rest = Vec::new();
        for bad in bad {
            self.task.cancel.check()?;
            // A pack that an earlier repair condemned stays condemned: states only move forward.
            let is_settled = bad.row.state == PackState::Condemned && bad.size == 0;
            let intact = if is_settled {
                None
            } else {
                self.whole_bytes(&bad)?
            };
            match intact {
                Some(intact) => self.put_whole(bad, intact)?,
                None => rest.push(bad),
            }
        }
        Ok(rest)
    }

    /// Returns the intact bytes of a damaged pack, or `None` if they cannot be reconstructed.
    fn whole_bytes(&self, bad: &BadPack) -> Result<Option<IntactBytes>, Error> {
        let id = bad.row.id;
        let mut copies = Vec::new();
        if bad.size > 0 {
            copies.push((ObjectKey::Pack(id), bad.size));
        }

        let aside = self.packs.quarantined.iter().find(|holder| holder.id == id);
        if let Some(aside) = aside {
            if let Some(spool) = self.copy_if_whole(&aside.key, aside.size, &id)? {
                return Ok(Some(IntactBytes {
                    spool,
                    is_in_quarantine: true,
                }));
            }
            copies.push((aside.key.clone(), aside.size));
        }

        match self.repo.reconstruct(&id, &copies) {
            Ok(spool) => Ok(Some(IntactBytes {
                spool,
                is_in_quarantine: false,
            })),
            Err(err) if err.is_unavailable() => {
                self.task
                    .observer
                    .detail("not healed", &Subject::from(&err));
                Ok(None)
            }
            Err(err) => Err(err.into()),
        }
    }

    fn copy_if_whole(
        &self,
        key: &ObjectKey,
        size: u64,
        id: &PackId,
    ) -> Result<Option<Spool>, Error> {
        let store = self.repo.store();
        let mut spool = store.spool()?;
        let mut hasher = ObjectHasher::default();
        let mut at = 0;
        while at < size {
            self.task.cancel.check()?;
            let mut piece = vec![0; at_most(size - at, 1 << 20)];
            match self
                .repo
                .read_at(key, at, &mut piece)
                .map_err(RepoError::from)
            {
                Ok(()) => {}
                Err(err) if err.is_unavailable() => return Ok(None),
                Err(err) => return Err(err.into()),
            }
            hasher.update(&piece);
            spool.append(&piece)?;
            at += to_u64(piece.len());
        }
        Ok((PackId::from(hasher.finish()) == *id).then_some(spool))
    }

    fn put_whole(&mut self, bad: BadPack, intact: IntactBytes) -> Result<(), Error> {
        let id = bad.row.id;
        let size = intact.spool.len();
        if let Some(lease) = self.lease {
            lease.check()?;
            self.put_in_place(&bad, intact)?;
            self.repo.forget_head(&id);
            self.packs.quarantined.retain(|holder| holder.id != id);
        }
        self.packs.listed.insert(id, size);
        let what = format!("{}; it is intact again", bad.what);
        self.task
            .observer
            .problem(&Problem::new(Severity::Note, ObjectKey::Pack(id), what));
        self.report.damaged.push(DamagedPack {
            id,
            what: bad.what,
            fate: PackFate::Healed,
        });
        Ok(())
    }

    /// Puts the intact bytes of a pack in the place of the damaged or missing object.
    ///
    /// After a crash at any step the next repair finds the intact bytes again: they are under one of
    /// the two names, or all objects from which they were reconstructed are still there. The replaced
    /// object holds nothing that the intact bytes lack, whether it can be read or not.
    fn put_in_place(&self, bad: &BadPack, intact: IntactBytes) -> Result<(), Error> {
        let repo = self.repo;
        let store = repo.store();
        let place = ObjectKey::Pack(bad.row.id);
        let aside = ObjectKey::QuarantinedPack(bad.row.id);
        let put = |spool| match store.put(&place, ObjectBody::Spooled(spool), PutMode::CreateOnly) {
            // Another repair was faster.
            Ok(()) | Err(StoreError::Exists { .. }) => Ok(()),
            Err(err) => Err(err),
        };

        if bad.size == 0 {
            // An empty or missing object need not be kept in quarantine.
            remove(repo, &place)?;
            put(intact.spool)?;
            return remove(repo, &aside);
        }

        let mut spool = intact.spool;
        if !intact.is_in_quarantine {
            let can_rename = store.properties().rename;
            if can_rename && set_aside(repo, &place, &aside, self.task.cancel)? == SetAside::Done {
                put(spool)?;
                return remove(repo, &aside);
            }

            // The intact bytes may have been reconstructed from a damaged object in quarantine, so
            // they replace it in one step.
            let size = spool.len();
            store.put(&aside, ObjectBody::Spooled(spool), PutMode::Replace)?;
            let Some(again) = self.copy_if_whole(&aside, size, &bad.row.id)? else {
                let what = "the intact bytes that were written do not read back";
                return Err(RepoError::damaged(&aside, what).into());
            };
            spool = again;
        }

        remove(repo, &place)?;
        put(spool)?;
        remove(repo, &aside)
    }

    /// Writes recovery data for known packs whose recovery data is missing or damaged.
    pub(super) fn renew_parity(&mut self) -> Result<(), Error> {
        let Some(percent) = self.repo.config().parity else {
            return Ok(());
        };

        let mut there = BTreeSet::new();
        for meta in list_all(self.repo.store(), ObjectDir::Parity)? {
            if let ObjectKey::Parity(id) = meta.key {
                there.insert(id);
            }
        }

        for row in self.repo.with_index(Index::packs)? {
            let lacks = !there.contains(&row.id) || self.packs.bad_parity.contains(&row.id);
            if !lacks
                || !row.added
                || row.state != PackState::Known
                || !self.packs.is_whole(&row.id)
            {
                continue;
            }

            self.task.cancel.check()?;
            if let Some(lease) = self.lease {
                lease.check()?;
                match self.repo.write_parity(&row.id, row.size, percent) {
                    Ok(()) => {}
                    // This repair has not read the pack, and the pack is damaged. A repair that
                    // reads it repairs it.
                    Err(err) if err.is_unavailable() => {
                        self.task.observer.problem(&Problem::new(
                            Severity::Damage,
                            ObjectKey::Pack(row.id),
                            err,
                        ));
                        continue;
                    }
                    Err(err) => return Err(err.into()),
                }
            }

            self.report.parity_written += 1;
        }
        Ok(())
    }
}
