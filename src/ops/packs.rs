//! Which packs lie in the store.

use std::collections::BTreeMap;

use crate::Error;
use crate::repo::Repository;
use crate::store::{Folder, ObjectKey, ObjectMeta, list_all};
use crate::types::PackId;

/// The packs as they were listed, with their sizes.
#[derive(Debug)]
pub(crate) struct ListedPacks(BTreeMap<PackId, u64>);

impl ListedPacks {
    pub fn list(repo: &Repository) -> Result<Self, Error> {
        let listed = list_all(repo.store(), Folder::Packs)?.into_iter();
        let pack = |(key, size)| if let ObjectKey::Pack(id) = key { Some((id, size)) } else { None };
        Ok(Self(listed.map(|meta| (meta.key, meta.size)).filter_map(pack).collect()))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if the listing has it.
    pub fn has(&self, id: &PackId) -> bool {
        self.0.contains_key(id)
    }

    /// Takes a pack off the list that need not be there.
    pub fn forget(&mut self, id: &PackId) {
        self.0.remove(id);
    }

    /// Takes a pack off the list: what remains is nobody's. Returns its size in the store, or none if it is surely not
    /// there; one that the listing lacks is asked for.
    pub fn take(&mut self, repo: &Repository, id: &PackId) -> Result<Option<u64>, Error> {
        match self.0.remove(id) {
            Some(size) => Ok(Some(size)),
            None => Ok(stat_pack(repo, id)?.map(|meta| meta.size)),
        }
    }
}

/// What the store says of a pack; none if it is surely not there. For who did not find it in a listing: it may have been
/// put since, or the listing may lag behind.
pub(crate) fn stat_pack(repo: &Repository, id: &PackId) -> Result<Option<ObjectMeta>, Error> {
    match repo.store().stat(&ObjectKey::Pack(*id)) {
        Ok(meta) => Ok(Some(meta)),
        Err(err) if err.is_not_found() => Ok(None),
        Err(err) => Err(err.into()),
    }
}
