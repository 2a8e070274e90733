//! A repository: formats, store and index under one set of rules.

mod baseline;
mod claims;
mod commit;
mod configs;
mod error;
mod examine;
mod forget;
mod frame_writer;
mod keyring;
mod lease;
mod lease_times;
mod leases;
mod marker;
mod mend;
mod merge;
mod objects;
mod pack_copier;
mod pack_heads;
mod pack_writer;
mod packer;
mod parity;
mod reader;
mod rebuild;
mod room;
mod run_cursor;
mod run_writer;
mod snapshots;
mod sync;
mod system;
#[cfg(test)]
mod tests;
mod tiers;
mod unlock;
mod unlocked;
mod vanished;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

pub use claims::{ChunkClaim, Claims};
pub use commit::CommittedSnapshot;
pub use error::RepoError;
pub use examine::PackVerdict;
pub use forget::ForgottenSnapshot;
pub use frame_writer::{FrameWriter, PackerHandle};
pub use keyring::{Secret, SlotInfo};
pub use lease::Lease;
pub use lease_times::LeaseTimes;
pub use leases::FoundLease;
pub use merge::{EntryMention, MergedRuns, RunStreams};
pub use objects::{open_object, seal_object, stored_limit};
pub use pack_copier::PackCopier;
pub use pack_heads::PackHead;
pub use pack_writer::DIRECTORY_BYTES_MAX;
pub use packer::{FirstError, PackedSource, Packer, PackerOptions};
pub use parity::ParityState;
pub use reader::ChunkReader;
pub use rebuild::RebuiltIndex;
pub use run_cursor::UncertainPaths;
pub use run_writer::{PutChunk, RunWriter};
pub use snapshots::{
    HostChoice, LatestSnapshot, StoredSnapshot, landed_late, last_built_on, trusted_time,
    without_replaced,
};
pub use sync::SyncReport;
pub use tiers::{merged_into, tiers_to_merge};
pub use unlocked::{RepoCache, UnlockedRepo};

use crate::chunk::{Keys, MasterKey};
use crate::format::{FORMAT_VERSION, KeySlot, RepoConfig, encode_key_slot};
use crate::index::{Index, LocalState};
use crate::store::{ObjectBody, ObjectKey, PutMode, Replica, SharedStore, Store, StoreError};
use crate::sys::{StateDir, now};
use crate::types::{RepoId, SegmentId, SnapshotId};
use configs::ConfigCopies;
use pack_heads::PackHeads;
use system::random;

/// An open repository, with known keys and a format that this version understands.
///
/// [`Repository::sync`] brings the index up to date. Every operation calls it after taking its
/// lease.
pub struct Repository {
    store: SharedStore,
    config: RepoConfig,
    keys: Keys,
    master: MasterKey,
    slot: String,
    /// The copy of that slot that was used.
    slot_copy: Replica,
    index: Index,
    /// Held while a damaged index is deleted and filled again.
    mending: Mutex<()>,
    /// Segments that this process published, and when; only for stores whose listings lag.
    published: Mutex<Vec<(SegmentId, Instant)>>,
    baseline: baseline::IndexBaseline,
    /// Vanished snapshots that were already reported.
    reported: Mutex<BTreeSet<SnapshotId>>,
    memory: LocalState,
    cache: PathBuf,
    state: Option<StateDir>,
    heads: PackHeads,
    lease_times: LeaseTimes,
    config_damage: Option<String>,
    /// The bytes of the copy of `config` in use.
    config_bytes: Vec<u8>,
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Repository({} at {})",
            self.config.repository,
            self.store.address()
        )
    }
}

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
            return Err(RepoError::Refused {
                why: "recovery data is 1 to 100 percent of the data".into(),
            });
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
        let slot = keyring::make_slot(&master, id, secret, label)?;
        keyring::store_slot(store.as_ref(), &slot)?;
        let mut config = RepoConfig::new(id, now());
        config.parity = parity;
        configs::store_config(store.as_ref(), &config, &keys)?;
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

    fn opened(unlocked: UnlockedRepo, cache: RepoCache) -> Self {
        let UnlockedRepo {
            store,
            config,
            config_bytes,
            keys,
            master,
            slot,
            slot_copy,
            config_damage,
        } = unlocked;
        let RepoCache {
            directory,
            index,
            memory,
        } = cache;

        Self {
            store,
            config,
            keys,
            master,
            slot,
            slot_copy,
            index,
            mending: Mutex::default(),
            published: Mutex::default(),
            baseline: baseline::IndexBaseline::default(),
            reported: Mutex::default(),
            memory,
            cache: directory,
            state: None,
            heads: PackHeads::default(),
            lease_times: LeaseTimes::default(),
            config_damage,
            config_bytes,
        }
    }

    /// Replaces the protocol's lease times, for tests.
    #[must_use]
    pub fn with_lease_times(mut self, times: LeaseTimes) -> Self {
        self.lease_times = times;
        self
    }

    /// Sets the directory for the state that this machine keeps across runs.
    ///
    /// From now on it also holds the memory of the last snapshots seen. A cache may be deleted at
    /// any time, and the machine would then no longer notice that a snapshot is missing.
    #[must_use]
    pub fn with_state(mut self, state: Option<StateDir>) -> Self {
        let name = self
            .cache
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if let Some(dir) = state.as_ref().and_then(|state| state.sub(&name).ok()) {
            let memory = LocalState::open(dir.path(), self.config.repository);
            if memory.is_durable() {
                self.memory = memory;
            }
        }
        self.state = state;
        self
    }

    /// Returns the directory for the state that this machine keeps across runs, if there is one.
    pub fn state(&self) -> Option<&StateDir> {
        self.state.as_ref()
    }

    /// Returns the times of this process's leases.
    pub fn lease_times(&self) -> LeaseTimes {
        self.lease_times
    }

    /// Returns the repository's id.
    pub fn id(&self) -> RepoId {
        self.config.repository
    }

    /// Returns the repository's settings.
    pub fn config(&self) -> &RepoConfig {
        &self.config
    }

    /// Returns the damage of one of the two copies of `config`, if there is any.
    pub fn config_damage(&self) -> Option<&str> {
        self.config_damage.as_deref()
    }

    /// Returns the store.
    pub fn store(&self) -> &dyn Store {
        self.store.as_ref()
    }

    /// Returns the store for threads that outlive a borrow.
    pub fn shared_store(&self) -> SharedStore {
        SharedStore::clone(&self.store)
    }

    /// Returns the derived keys.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Returns the index.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Returns the memory, which is stored beside the index and outlives it.
    pub fn memory(&self) -> &LocalState {
        &self.memory
    }

    /// Returns this repository's cache directory.
    pub fn cache_dir(&self) -> &Path {
        &self.cache
    }

    /// Returns the directory for data that operations spill from memory.
    pub fn scratch_dir(&self) -> PathBuf {
        self.cache.join("scratch")
    }

    /// Returns an error if writing needs a feature that this version does not know.
    pub fn check_writable(&self) -> Result<(), RepoError> {
        match self.config.features.write.first() {
            Some(feature) => Err(RepoError::UnknownFeature {
                operation: "write to",
                feature: feature.clone(),
            }),
            None => Ok(()),
        }
    }

    /// Returns an error if deleting needs a feature that this version does not know.
    pub fn check_prunable(&self) -> Result<(), RepoError> {
        self.check_writable()?;
        match self.config.features.prune.first() {
            Some(feature) => Err(RepoError::UnknownFeature {
                operation: "prune",
                feature: feature.clone(),
            }),
            None => Ok(()),
        }
    }

    /// Returns all key slots, sorted by name.
    pub fn key_slots(&self) -> Result<Vec<SlotInfo>, RepoError> {
        let mut out = Vec::new();
        for name in keyring::slot_names(self.store())? {
            let (slot, mut damage) = keyring::read_slot(self.store(), &name);
            if let Some(slot) = slot.as_ref().filter(|slot| !self.is_ours(slot)) {
                let what = if slot.repository == self.id() {
                    "it holds the key of another repository".to_owned()
                } else {
                    format!("it belongs to repository {}", slot.repository)
                };
                damage = damage.or(Some(what));
            }
            let (label, created) =
                slot.map_or_else(Default::default, |slot| (slot.label, slot.created));
            out.push(SlotInfo {
                current: name == self.slot,
                name,
                label,
                created,
                damage,
            });
        }
        Ok(out)
    }

    /// Adds a key slot; returns its name.
    pub fn add_key(&self, secret: &Secret, label: &str) -> Result<String, RepoError> {
        self.check_writable()?;
        let _room = room::SpareRoom::new(&self.store);
        keyring::store_slot(
            self.store(),
            &keyring::make_slot(&self.master, self.id(), secret, label)?,
        )
    }

    /// Removes the key slot with this unambiguous prefix of a name, but never the last undamaged
    /// one. Returns its name.
    pub fn remove_key(&self, prefix: &str) -> Result<String, RepoError> {
        self.check_writable()?;
        let _room = room::SpareRoom::new(&self.store);
        let slots = self.key_slots()?;
        let mut found = slots.iter().filter(|slot| slot.name.starts_with(prefix));
        let (Some(slot), None) = (found.next(), found.next()) else {
            return Err(RepoError::Refused {
                why: format!(
                    "'{prefix}' does not match exactly one key slot: 'icecore key list' shows the names"
                ),
            });
        };
        let mut others = slots.iter().filter(|other| other.name != slot.name);
        if !others.any(|other| other.damage.is_none()) {
            return Err(RepoError::Refused {
                why: "the last intact key slot is never removed".into(),
            });
        }
        self.delete_slot(&slot.name)?;
        Ok(slot.name.clone())
    }

    /// Replaces the slot that opened the repository. The new slot is stored and read back before
    /// the old one is deleted. Returns the new slot's name.
    pub fn change_key(&self, secret: &Secret, label: &str) -> Result<String, RepoError> {
        let _room = room::SpareRoom::new(&self.store);
        let name = self.add_key(secret, label)?;
        self.delete_slot(&self.slot)?;
        Ok(name)
    }

    /// Returns the bytes of a new slot for the master key, to be kept outside the repository. With
    /// these bytes and their secret the repository opens even if all its slots are lost.
    pub fn export_key(&self, secret: &Secret, label: &str) -> Result<Vec<u8>, RepoError> {
        let slot = keyring::make_slot(&self.master, self.id(), secret, label)?;
        Ok(encode_key_slot(&slot))
    }

    /// Returns true if the slot claims to hold this repository's key.
    fn is_ours(&self, slot: &KeySlot) -> bool {
        slot.repository == self.id() && slot.check == self.master.check_value()
    }

    /// Deletes a slot, but puts it back if no undamaged slot is left, because another process may
    /// have removed the others since they were listed. Of two such processes, the one that lists
    /// last puts its slot back, so at least one slot remains.
    fn delete_slot(&self, name: &str) -> Result<(), RepoError> {
        let copies =
            [Replica::First, Replica::Second].map(|copy| ObjectKey::KeySlot(name.to_owned(), copy));
        let slot = keyring::read_slot(self.store(), name)
            .0
            .filter(|slot| self.is_ours(slot));

        for key in &copies {
            match self.store.delete(key) {
                Err(err) if !err.is_not_found() => return Err(err.into()),
                _ => {}
            }
        }

        let left = self
            .key_slots()
            .map(|slots| slots.iter().any(|slot| slot.damage.is_none()));
        let (Ok(false) | Err(_), Some(slot)) = (&left, slot) else {
            return left.map(drop);
        };

        let bytes = encode_key_slot(&slot);
        for key in copies.iter().rev() {
            match self
                .store
                .put(key, ObjectBody::Bytes(&bytes), PutMode::CreateOnly)
            {
                Ok(()) | Err(StoreError::Exists { .. }) => {}
                Err(err) => return Err(err.into()),
            }
        }

        left?;
        let why =
            format!("the other key slots were removed at the same time: slot {name} was put back");
        Err(RepoError::Refused { why })
    }

    /// Restores damaged or missing copies of `config` and of key slots from their twins. Returns
    /// the names of the objects that it wrote.
    pub fn repair_config(&self) -> Result<Vec<String>, RepoError> {
        self.check_writable()?;
        let _room = room::SpareRoom::new(&self.store);
        keyring::mend(
            self.store(),
            &self.config_bytes,
            &(self.slot.clone(), self.slot_copy),
        )
    }
}

/// Returns the name of the cache directory. Two copies of one repository at two addresses get two
/// caches.
fn cache_name(id: RepoId, store: &dyn Store) -> String {
    let address = blake3::hash(store.address().as_bytes()).to_hex();
    format!("{id}-{}-v{FORMAT_VERSION}", &address[..16])
}
