//! Opening a repository in two steps: a secret gives its keys, then its cache is opened.
//!
//! Between the two the caller knows which repository it is, proven by its keys, and nothing was written anywhere.

use std::path::{Path, PathBuf};

use super::{RepoError, Repository, Secret, cache_name, keyring};
use crate::chunk::{Keys, MasterKey};
use crate::format::Config;
use crate::index::{Index, Memory};
use crate::store::{Copy, ObjectKey, SharedStore};
use crate::sys::Dir;
use crate::types::RepoId;

/// A repository whose keys are known.
pub struct Unlocked {
    pub(super) store: SharedStore,
    pub(super) config: Config,
    pub(super) keys: Keys,
    pub(super) master: MasterKey,
    pub(super) slot: String,
    /// The copy of the slot that opened.
    pub(super) slot_copy: Copy,
    pub(super) config_damage: Option<String>,
}

/// What a machine keeps of one repository at one address: its index, its memory, copies of small objects.
pub struct Cache {
    pub(super) folder: PathBuf,
    pub(super) index: Index,
    pub(super) memory: Memory,
}

impl Unlocked {
    /// Tries a secret on the repository's key slots. Nothing is written.
    ///
    /// # Errors
    /// [`RepoError::WrongKey`] if the secret opens no slot.
    pub fn unlock(store: SharedStore, secret: &Secret) -> Result<Self, RepoError> {
        let configs = keyring::read_configs(store.as_ref())?;
        for stored in &configs {
            keyring::check_version(&stored.config)?;
        }
        let (master, slot, slot_copy) =
            keyring::unlock(store.as_ref(), configs[0].config.repository, secret)?;
        let keys = Keys::derive(&master);
        let good = configs.iter().find(|stored| keyring::check_config(stored, &keys));
        let good = good.ok_or_else(|| {
            RepoError::damaged("config", "its MAC is wrong: it was changed, or belongs to another repository")
        })?;
        let config = good.config.clone();
        let whole = configs.iter().filter(|stored| keyring::check_config(stored, &keys)).count();
        let config_damage = (whole < 2).then(|| {
            let bad = if good.copy == Copy::First { Copy::Second } else { Copy::First };
            format!("{} is missing or damaged; 'repair config' puts it back", ObjectKey::Config(bad))
        });
        Ok(Self { store, config, keys, master, slot, slot_copy, config_damage })
    }

    /// The repository's identity, authenticated.
    pub fn id(&self) -> RepoId {
        self.config.repository
    }

    /// Opens this repository's cache below `cache_root`, and makes it if need be.
    pub fn open_cache(&self, cache_root: &Path) -> Result<Cache, RepoError> {
        let folder = cache_root.join(cache_name(&self.config, self.store.as_ref()));
        for part in [folder.clone(), folder.join("index"), folder.join("snapshots"), folder.join("scratch")] {
            Dir::create_all(&part, 0o700)?;
        }
        let (index, _) = Index::open(&folder.join("index"))?;
        let memory = Memory::open(&folder.join("index"), self.config.repository);
        Ok(Cache { folder, index, memory })
    }

    /// The open repository.
    pub fn with_cache(self, cache: Cache) -> Repository {
        Repository::opened(self, cache)
    }
}
