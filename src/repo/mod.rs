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
mod leases;
mod marker;
mod mend;
mod merge;
mod objects;
mod pack_copier;
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
#[cfg(test)]
mod tests;
mod tiers;
mod unlock;
mod unlocked;
mod vanished;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

pub use claims::{Claim, Claims};
pub use commit::{Committed, landed_late};
pub use error::RepoError;
pub use examine::Verdict;
pub use forget::ForgottenSnapshot;
pub use frame_writer::{Feed, FrameWriter};
pub use keyring::{Secret, SlotInfo};
pub use lease::{Lease, LeaseTimes};
pub use leases::FoundLease;
pub use merge::{Mention, MergedRuns, Streams};
pub use objects::{open_object, seal_object, stored_limit};
pub use pack_copier::PackCopier;
pub use pack_writer::DIRECTORY_BYTES_MAX;
pub use packer::{FirstError, Packed, Packer, PackerOptions};
pub use parity::ParityState;
pub use reader::{ChunkReader, PackHead};
pub use rebuild::Rebuilt;
pub use run_cursor::Uncertain;
pub use run_writer::{PutChunk, RunWriter};
pub use snapshots::{
    HostChoice, Latest, StoredSnapshot, last_built_on, trusted_time, without_replaced,
};
pub use sync::SyncReport;
pub use tiers::{merged_into, tiers_to_merge};
pub use unlocked::{Cache, Unlocked};

use crate::chunk::{Keys, MasterKey};
use crate::format::{Config, FORMAT_VERSION, KeySlot, encode_key_slot};
use crate::index::{Index, Memory};
use crate::store::{Body, Copy, ObjectKey, PutMode, SharedStore, Store, StoreError};
use crate::sys::{PathError, StateDir, now, random_bytes};
use crate::types::{PackId, RepoId, SegmentId, SnapshotId};
use configs::Configs;

/// An open repository: its keys are known, its formats understood. The index is brought up to date
/// by [`Repository::sync`], which every operation calls after taking its lease.
pub struct Repository {
    store: SharedStore,
    config: Config,
    keys: Keys,
    master: MasterKey,
    slot: String,
    /// The copy of the slot that opened.
    slot_copy: Copy,
    index: Index,
    /// Held while a damaged index is thrown away and filled again.
    mending: Mutex<()>,
    /// Segments that we published, and when; only where listings lag behind.
    published: Mutex<Vec<(SegmentId, Instant)>>,
    baseline: baseline::Baseline,
    /// Vanished snapshots that were reported already.
    reported: Mutex<BTreeSet<SnapshotId>>,
    memory: Memory,
    cache: PathBuf,
    state: Option<StateDir>,
    heads: Mutex<HashMap<PackId, PackHead>>,
    lease_times: LeaseTimes,
    config_damage: Option<String>,
    /// The bytes of the copy of `config` that counts.
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
    /// Makes a repository: key slot first, `config` last, create-only. A crash before the end
    /// leaves no repository, and a second try makes one.
    pub fn init(store: &SharedStore, secret: &Secret, label: &str) -> Result<RepoId, RepoError> {
        Self::init_as(store, RepoId::new(random()?), secret, label)
    }

    /// [`Repository::init`] with an id drawn by the caller, who keeps the key under it.
    pub fn init_as(
        store: &SharedStore,
        id: RepoId,
        secret: &Secret,
        label: &str,
    ) -> Result<RepoId, RepoError> {
        Self::init_with(store, id, secret, label, None)
    }

    /// [`Repository::init_as`] of a repository that keeps so many percent (1–100) of recovery data
    /// beside each pack.
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
        match Configs::read(store.as_ref()).map(drop) {
            Err(RepoError::NotFound { .. }) => {}
            Ok(()) | Err(RepoError::Damaged { .. }) => {
                return Err(RepoError::AlreadyThere {
                    address: store.address().to_owned(),
                });
            }
            Err(err) => return Err(err),
        }
        let master = MasterKey::new(random()?);
        let keys = Keys::derive(&master);
        let slot = keyring::make_slot(&master, id, secret, label)?;
        keyring::store_slot(store.as_ref(), &slot)?;
        let mut config = Config::new(id, now());
        config.parity = parity;
        configs::store_config(store.as_ref(), &config, &keys)?;
        // A repository without it is as good; the first prune tries again.
        let _ = store.set_reserve(true);
        Ok(id)
    }

    /// The id in `config`, before any key is known: where its copies differ, the one that a key
    /// slot names too. Refuses formats and features that we cannot read.
    pub fn identify(store: &SharedStore) -> Result<RepoId, RepoError> {
        let ids = Configs::read(store.as_ref())?.ids(store.as_ref())?;
        ids.first().copied().ok_or_else(|| RepoError::NotFound {
            address: store.address().to_owned(),
        })
    }

    /// The ids in the readable copies of `config`, before any key is known: one, or two where a
    /// copy is damaged, the likely one first. Refuses formats and features that we cannot read.
    pub fn identities(store: &SharedStore) -> Result<Vec<RepoId>, RepoError> {
        Configs::read(store.as_ref())?.ids(store.as_ref())
    }

    /// Opens a repository. `cache_root`: the directory below which this repository's cache lies,
    /// made if need be.
    pub fn open(store: SharedStore, secret: &Secret, cache_root: &Path) -> Result<Self, RepoError> {
        let unlocked = Unlocked::unlock_near(store, secret, Some(cache_root))?;
        let cache = unlocked.open_cache(cache_root)?;
        Ok(unlocked.with_cache(cache))
    }

    fn opened(unlocked: Unlocked, cache: Cache) -> Self {
        let Unlocked {
            store,
            config,
            config_bytes,
            keys,
            master,
            slot,
            slot_copy,
            config_damage,
        } = unlocked;
        let Cache {
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
            baseline: baseline::Baseline::default(),
            reported: Mutex::default(),
            memory,
            cache: directory,
            state: None,
            heads: Mutex::default(),
            lease_times: LeaseTimes::default(),
            config_damage,
            config_bytes,
        }
    }

    /// Sets other times than the protocol's, for tests.
    #[must_use]
    pub fn with_lease_times(mut self, times: LeaseTimes) -> Self {
        self.lease_times = times;
        self
    }

    /// Names the directory where this machine keeps what it must remember across runs.
    ///
    /// The memory of what was seen last lies there from now on: a cache may be deleted at any time,
    /// and with it a machine would forget what it misses.
    #[must_use]
    pub fn with_state(mut self, state: Option<StateDir>) -> Self {
        let name = self
            .cache
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if let Some(dir) = state.as_ref().and_then(|state| state.sub(&name).ok()) {
            let memory = Memory::open(dir.path(), self.config.repository);
            if memory.is_durable() {
                self.memory = memory;
            }
        }
        self.state = state;
        self
    }

    /// The directory where this machine keeps what it must remember across runs; none where it has
    /// none.
    pub fn state(&self) -> Option<&StateDir> {
        self.state.as_ref()
    }

    /// The times that leases of this process keep.
    pub fn lease_times(&self) -> LeaseTimes {
        self.lease_times
    }

    /// The repository's identity.
    pub fn id(&self) -> RepoId {
        self.config.repository
    }

    /// The repository's settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What is wrong with one of the two copies of `config`, if anything.
    pub fn config_damage(&self) -> Option<&str> {
        self.config_damage.as_deref()
    }

    /// The store.
    pub fn store(&self) -> &dyn Store {
        self.store.as_ref()
    }

    /// The store, to be shared with threads that outlive a borrow.
    pub fn shared_store(&self) -> SharedStore {
        SharedStore::clone(&self.store)
    }

    /// The derived keys.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The index.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// What is remembered beside the index and outlives it.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// This repository's cache directory.
    pub fn cache_dir(&self) -> &Path {
        &self.cache
    }

    /// Where operations spill what does not fit memory.
    pub fn scratch_dir(&self) -> PathBuf {
        self.cache.join("scratch")
    }

    /// Refuses to write where a feature is needed that we do not know.
    pub fn check_writable(&self) -> Result<(), RepoError> {
        match self.config.features.write.first() {
            Some(feature) => Err(RepoError::UnknownFeature {
                operation: "write to",
                feature: feature.clone(),
            }),
            None => Ok(()),
        }
    }

    /// Refuses to delete where a feature is needed that we do not know.
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

    /// All key slots, sorted by name.
    pub fn key_slots(&self) -> Result<Vec<SlotInfo>, RepoError> {
        let mut out = Vec::new();
        for name in keyring::slot_names(self.store())? {
            let (slot, mut damage) = keyring::read_slot(self.store(), &name);
            if let Some(slot) = slot.as_ref().filter(|slot| !self.is_ours(slot)) {
                let what = match slot.repository == self.id() {
                    true => "it holds the key of another repository".to_owned(),
                    false => format!("it belongs to repository {}", slot.repository),
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

    /// Removes a key slot given by an unambiguous prefix of its name; never the last that is whole.
    pub fn remove_key(&self, prefix: &str) -> Result<String, RepoError> {
        self.check_writable()?;
        let _room = room::SpareRoom::new(&self.store);
        let slots = self.key_slots()?;
        let mut found = slots.iter().filter(|slot| slot.name.starts_with(prefix));
        let (Some(slot), None) = (found.next(), found.next()) else {
            return Err(RepoError::Refused {
                why: format!(
                    "'{prefix}' is not the beginning of one key slot's name: 'icecore key list' shows the names"
                ),
            });
        };
        let mut others = slots.iter().filter(|other| other.name != slot.name);
        if !others.any(|other| other.damage.is_none()) {
            return Err(RepoError::Refused {
                why: "the last whole key slot is never removed".into(),
            });
        }
        self.delete_slot(&slot.name)?;
        Ok(slot.name.clone())
    }

    /// Replaces the slot that opened the repository: the new one is stored and read back before the
    /// old one goes.
    pub fn change_key(&self, secret: &Secret, label: &str) -> Result<String, RepoError> {
        let _room = room::SpareRoom::new(&self.store);
        let name = self.add_key(secret, label)?;
        self.delete_slot(&self.slot)?;
        Ok(name)
    }

    /// The bytes of a new slot for the master key, to be kept outside the repository: with them and
    /// their secret the repository opens even if all its slots are lost.
    pub fn export_key(&self, secret: &Secret, label: &str) -> Result<Vec<u8>, RepoError> {
        let slot = keyring::make_slot(&self.master, self.id(), secret, label)?;
        Ok(encode_key_slot(&slot))
    }

    /// True if the slot says that it holds this repository's key.
    fn is_ours(&self, slot: &KeySlot) -> bool {
        slot.repository == self.id() && slot.check == self.master.check_value()
    }

    /// Deletes a slot, and puts it back if then no whole slot is left: another process may have
    /// removed the others since they were listed. Of two such processes the one that lists last
    /// puts its slot back, so that one stays.
    fn delete_slot(&self, name: &str) -> Result<(), RepoError> {
        let copies =
            [Copy::First, Copy::Second].map(|copy| ObjectKey::KeySlot(name.to_owned(), copy));
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
                .put(key, Body::Bytes(&bytes), PutMode::CreateOnly)
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

    /// Puts back damaged or missing copies of `config` and of key slots from their twins; returns
    /// what it mended.
    pub fn repair_config(&self) -> Result<Vec<String>, RepoError> {
        self.check_writable()?;
        let _room = room::SpareRoom::new(&self.store);
        keyring::mend(
            self.store(),
            &self.config_bytes,
            &(self.slot.clone(), self.slot_copy),
        )
    }

    fn heads(&self) -> std::sync::MutexGuard<'_, HashMap<PackId, PackHead>> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The cache's directory name: two copies of one repository at two addresses have two caches
/// (PROTOCOL section 1).
fn cache_name(id: RepoId, store: &dyn Store) -> String {
    let address = blake3::hash(store.address().as_bytes()).to_hex();
    format!("{id}-{}-v{FORMAT_VERSION}", &address[..16])
}

/// Random bytes from the system.
fn random<const N: usize>() -> Result<[u8; N], RepoError> {
    random_bytes().map_err(|source| io_error("read", "the system's random source", source))
}

fn io_error(action: &'static str, what: &str, source: io::Error) -> RepoError {
    RepoError::Path(PathError {
        action,
        path: PathBuf::from(what),
        source,
    })
}
