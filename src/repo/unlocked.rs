//! Opens a repository in two steps: a secret unlocks its keys, then its cache is opened.
//!
//! Between the two steps the caller knows which repository it is, proven by its keys, and nothing
//! has been written yet.

use std::path::{Path, PathBuf};

use super::configs::{ConfigCopies, StoredConfig};
use super::unlock::{OpenedSlot, last_slot, remember_slot, unlock};
use super::{RepoError, Secret};
use crate::chunk::{Keys, MasterKey};
use crate::format::{FORMAT_VERSION, RepoConfig};
use crate::index::{Index, LocalState};
use crate::store::{Replica, SharedStore, Store};
use crate::sys::Dir;
use crate::types::RepoId;

/// A repository whose keys are known.
pub struct UnlockedRepo {
    pub(super) store: SharedStore,
    pub(super) config: RepoConfig,
    /// The bytes of the copy of `config` in use.
    pub(super) config_bytes: Vec<u8>,
    pub(super) keys: Keys,
    pub(super) master: MasterKey,
    pub(super) slot: String,
    /// The copy of that slot that was used.
    pub(super) slot_copy: Replica,
    pub(super) config_damage: Option<String>,
}

/// A machine's local state for one repository at one address: its index, its memory, and copies of
/// small objects.
pub struct RepoCache {
    pub(super) directory: PathBuf,
    pub(super) index: Index,
    pub(super) memory: LocalState,
}

impl UnlockedRepo {
    /// Tries a secret on the repository's key slots. Nothing is written.
    ///
    /// # Errors
    /// [`RepoError::WrongKey`] if the secret opens no slot.
    pub fn unlock(store: SharedStore, secret: &Secret) -> Result<Self, RepoError> {
        Self::unlock_near(store, secret, None)
    }

    /// Like [`UnlockedRepo::unlock`], but first tries the slot that opened the last time, as recorded
    /// in the repository's cache below `cache_root`.
    pub fn unlock_near(
        store: SharedStore,
        secret: &Secret,
        cache_root: Option<&Path>,
    ) -> Result<Self, RepoError> {
        let configs = ConfigCopies::read(store.as_ref())?;
        let mut failed = None;
        for id in configs.ids(store.as_ref())? {
            let cache = cache_root.map(|root| root.join(cache_name(id, store.as_ref())));
            let last = cache.as_deref().and_then(last_slot);
            match unlock(store.as_ref(), id, secret, last.as_deref()) {
                Ok(opened) => return Self::with_key(store, configs, opened),
                Err(err) => failed = failed.or(Some(err)),
            }
        }
        Err(failed.unwrap_or_else(|| RepoError::NotFound {
            address: store.address().to_owned(),
        }))
    }

    fn with_key(
        store: SharedStore,
        configs: ConfigCopies,
        opened: OpenedSlot,
    ) -> Result<Self, RepoError> {
        let OpenedSlot {
            master,
            slot,
            copy: slot_copy,
        } = opened;

        let keys = Keys::derive(&master);
        let (
            StoredConfig {
                config,
                bytes: config_bytes,
                ..
            },
            config_damage,
        ) = configs.choose(&keys)?;

        Ok(Self {
            store,
            config,
            config_bytes,
            keys,
            master,
            slot,
            slot_copy,
            config_damage,
        })
    }

    /// Returns the repository's id, authenticated.
    pub fn id(&self) -> RepoId {
        self.config.repository
    }

    /// Opens this repository's cache below `cache_root`, and creates it if missing.
    pub fn open_cache(&self, cache_root: &Path) -> Result<RepoCache, RepoError> {
        let directory = cache_root.join(cache_name(self.id(), self.store.as_ref()));
        for part in [
            directory.clone(),
            directory.join("index"),
            directory.join("snapshots"),
            directory.join("scratch"),
        ] {
            Dir::create_all(&part, 0o700)?;
        }
        remember_slot(&directory, &self.slot);
        let (index, _) = Index::open(&directory.join("index"))?;
        let memory = LocalState::open(&directory.join("index"), self.config.repository);
        Ok(RepoCache {
            directory,
            index,
            memory,
        })
    }
}

/// Returns the name of the cache directory. Two copies of one repository at two addresses get two
/// caches.
fn cache_name(id: RepoId, store: &dyn Store) -> String {
    let address = blake3::hash(store.address().as_bytes()).to_hex();
    format!("{id}-{}-v{FORMAT_VERSION}", &address[..16])
}
