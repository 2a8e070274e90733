//! Compares the packs in the store with the index.

use std::collections::BTreeMap;

use crate::Error;
use crate::index::{PackRoll, PackRow};
use crate::repo::Repository;
use crate::store::{ObjectDir, ObjectKey, ObjectMeta, list_all};
use crate::task::Cancel;
use crate::types::PackId;

/// The listed packs, with their sizes.
#[derive(Debug)]
pub(crate) struct ListedPacks(BTreeMap<PackId, u64>);

impl ListedPacks {
    pub fn list(repo: &Repository) -> Result<Self, Error> {
        let listed = list_all(repo.store(), ObjectDir::Packs)?.into_iter();
        let pack = |(key, size)| {
            if let ObjectKey::Pack(id) = key {
                Some((id, size))
            } else {
                None
            }
        };
        Ok(Self(
            listed
                .map(|meta| (meta.key, meta.size))
                .filter_map(pack)
                .collect(),
        ))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns true if the listing has the pack.
    pub fn has(&self, id: &PackId) -> bool {
        self.0.contains_key(id)
    }

    /// Removes a pack from the list that need not exist.
    pub fn forget(&mut self, id: &PackId) {
        self.0.remove(id);
    }

    /// Removes a pack from the list, so that the packs left at the end belong to no segment.
    /// Returns its size in the store, or `None` if it is certainly missing. A pack that is not in
    /// the listing is looked up.
    pub fn take(&mut self, repo: &Repository, id: &PackId) -> Result<Option<u64>, Error> {
        match self.0.remove(id) {
            Some(size) => Ok(Some(size)),
            None => Ok(stat_pack(repo, id)?.map(|meta| meta.size)),
        }
    }
}

/// Packs whose names are compared with the index at a time.
const BATCH: usize = 1024;

/// Returns the held packs that are not in the store, or have another size, sorted by id.
///
/// Lists the packs once, and needs one bit per pack in memory. A pack that was dropped since the
/// index was synced is not missing, nor is one that only the listing lacks.
pub(crate) fn absent_packs(repo: &Repository, cancel: &Cancel) -> Result<Vec<PackRow>, Error> {
    loop {
        let roll = call_roll(repo, cancel)?;
        let mut absent = repo.with_index(|index| index.not_shown(&roll))?;
        if !absent.is_empty() {
            repo.sync()?;
            absent = repo.with_index(|index| index.not_shown(&roll))?;
        }
        let mut missing = Vec::new();
        for row in absent {
            cancel.check()?;
            if stat_pack(repo, &row.id)?.is_none_or(|meta| meta.size != row.size) {
                missing.push(row);
            }
        }
        if roll.is_of(repo.index()) {
            return Ok(missing);
        }
    }
}

fn call_roll(repo: &Repository, cancel: &Cancel) -> Result<PackRoll, Error> {
    let mut roll = repo.index().begin_roll();
    let mut batch: Vec<(PackId, u64)> = Vec::with_capacity(BATCH);
    // Only errors of the store may end a listing. After any other error the rest is skipped.
    let mut failed = None;
    repo.store().list(ObjectDir::Packs, &mut |meta| {
        if failed.is_none()
            && let ObjectKey::Pack(id) = meta.key
        {
            batch.push((id, meta.size));
            if batch.len() == BATCH {
                failed = cancel
                    .check()
                    .map_err(Error::from)
                    .and_then(|()| shown(repo, &mut roll, &mut batch))
                    .err();
            }
        }
        Ok(())
    })?;
    match failed {
        Some(err) => Err(err),
        None => shown(repo, &mut roll, &mut batch).map(|()| roll),
    }
}

fn shown(
    repo: &Repository,
    roll: &mut PackRoll,
    batch: &mut Vec<(PackId, u64)>,
) -> Result<(), Error> {
    repo.with_index(|index| index.call_roll(roll, batch))?;
    batch.clear();
    Ok(())
}

/// Returns the store's metadata of a pack, or `None` if it is certainly missing. For a pack that a
/// listing lacks: it may have been stored since, or the listing may lag.
pub(crate) fn stat_pack(repo: &Repository, id: &PackId) -> Result<Option<ObjectMeta>, Error> {
    match repo.store().stat(&ObjectKey::Pack(*id)) {
        Ok(meta) => Ok(Some(meta)),
        Err(err) if err.is_not_found() => Ok(None),
        Err(err) => Err(err.into()),
    }
}
