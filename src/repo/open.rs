//! Creates, identifies and opens a repository.

use std::path::Path;

use super::configs::{ConfigCopies, store_config};
use super::keyring::{make_slot, store_slot};
use super::system::random;
use super::{RepoCache, RepoError, Repository, Secret, UnlockedRepo};
use crate::chunk::{Keys, MasterKey};
use crate::format::RepoConfig;
use crate::store::SharedStore;
use crate::sys::now;
use crate::types::RepoId;

impl Repository {
    /// Creates a repository: the key slot first, `config` last, with create-only puts. The
    /// repository exists once a copy of `config` is stored. After a crash before that, a second
    /// `init` succeeds; after a crash between the copies, `repair config` adds the missing one.
    pub fn init(store: &SharedStore, secret: &Secret, label: &str) -> Result<RepoId, RepoError> {
        Self::init_as(store, RepoId::new(random()?), secret, label)
    }

    /// Like [`Repository::init`], with an id that the caller chooses, to store the key under it.
    pub fn init_as(
        store: &SharedStore,
        id: RepoId,
        secret: &Secret,
        label: &str,
    ) -> Result<RepoId, RepoError> {
        Self::init_with(store, id, secret, label, None)
    }

    /// Like [`Repository::init_as`], with `parity` percent (1–100) of recovery data beside each
    /// pack.
    pub fn init_with(
        store: &SharedStore,
        id: RepoId,
        secret: &Secret,
        label: &str,
        parity: Option<u8>,
    ) -> Result<RepoId, RepoError> {
        if parity.is_some_and(|percent| !(1..=100).contains(&percent)) {
            return Err(RepoError::refused(
                "recovery data is 1 to 100 percent of the data",
            ));
        }
        match ConfigCopies::read(store.as_ref()).map(drop) {
            Err(RepoError::NotFound { .. }) => {}
            Ok(()) | Err(RepoError::Damaged { .. }) => {
                return Err(RepoError::AlreadyThere {
                    address: store.address().to_owned(),
                });
            }
            Err(err) => return Err(err),
        }

        // The slot goes first: a repository exists once its `config` does.
        let master = MasterKey::new(random()?);
        let keys = Keys::derive(&master);
        let slot = make_slot(&master, id, secret, label)?;
        store_slot(store.as_ref(), &slot)?;
        let mut config = RepoConfig::new(id, now());
        config.parity = parity;
        store_config(store.as_ref(), &config, &keys)?;
        // Not fatal: the next prune tries again to reserve space.
        let _ = store.set_reserve(true);

        Ok(id)
    }

    /// Returns the id in `config`, before any key is known. If its copies differ, returns the id
    /// that a key slot also names. Refuses formats and features that this version cannot read.
    pub fn identify(store: &SharedStore) -> Result<RepoId, RepoError> {
        let ids = ConfigCopies::read(store.as_ref())?.ids(store.as_ref())?;
        ids.first().copied().ok_or_else(|| RepoError::NotFound {
            address: store.address().to_owned(),
        })
    }

    /// Returns the ids in the readable copies of `config`, before any key is known: one, or two if
    /// a copy is damaged, the more likely one first. Refuses formats and features that this version
    /// cannot read.
    pub fn identities(store: &SharedStore) -> Result<Vec<RepoId>, RepoError> {
        ConfigCopies::read(store.as_ref())?.ids(store.as_ref())
    }

    /// Opens a repository. Its cache is a directory below `cache_root`, created if missing.
    pub fn open(store: SharedStore, secret: &Secret, cache_root: &Path) -> Result<Self, RepoError> {
        let unlocked = UnlockedRepo::unlock_near(store, secret, Some(cache_root))?;
        let cache = unlocked.open_cache(cache_root)?;
        Ok(unlocked.with_cache(cache))
    }
}

impl UnlockedRepo {
    /// Returns the open repository.
    pub fn with_cache(self, cache: RepoCache) -> Repository {
        Repository::opened(self, cache)
    }
}
