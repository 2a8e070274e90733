//! An open repository: its store, keys, settings, index and local state.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use super::baseline::IndexBaseline;
use super::pack_heads::PackHeads;
use super::{LeaseTimes, RepoCache, RepoError, UnlockedRepo};
use crate::chunk::{Keys, MasterKey};
use crate::format::RepoConfig;
use crate::index::{Index, LocalState};
use crate::store::{Replica, SharedStore, Store};
use crate::sys::{StateDir, host_name};
use crate::types::{RepoId, SegmentId, SnapshotId};

/// An open repository, with known keys and a format that this version understands.
///
/// [`Repository::sync`] brings the index up to date. Every operation calls it after taking its
/// lease.
pub struct Repository {
    store: SharedStore,
    config: RepoConfig,
    keys: Keys,
    pub(super) master: MasterKey,
    pub(super) slot: String,
    /// The copy of that slot that was used.
    pub(super) slot_copy: Replica,
    index: Index,
    /// Held while a damaged index is deleted and filled again.
    pub(super) mending: Mutex<()>,
    /// Segments that this process published, and when; only for stores whose listings lag.
    pub(super) published: Mutex<Vec<(SegmentId, Instant)>>,
    pub(super) baseline: IndexBaseline,
    /// Vanished snapshots that were already reported.
    pub(super) reported: Mutex<BTreeSet<SnapshotId>>,
    memory: LocalState,
    cache: PathBuf,
    state: Option<StateDir>,
    pub(super) heads: PackHeads,
    lease_times: LeaseTimes,
    client: String,
    config_damage: Option<String>,
    /// The bytes of the copy of `config` in use.
    pub(super) config_bytes: Vec<u8>,
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
    /// Returns the repository of these keys and this cache.
    pub(super) fn opened(unlocked: UnlockedRepo, cache: RepoCache) -> Self {
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
            baseline: IndexBaseline::default(),
            reported: Mutex::default(),
            memory,
            cache: directory,
            state: None,
            heads: PackHeads::default(),
            lease_times: LeaseTimes::default(),
            client: host_name(),
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

    /// Replaces the name under which this process takes leases, which is this machine's host name
    /// by default. A holder that died is recognised on its machine only under the same name.
    #[must_use]
    pub fn with_client(mut self, name: impl Into<String>) -> Self {
        self.client = name.into();
        self
    }

    /// Returns the name under which this process takes leases.
    pub fn client(&self) -> &str {
        &self.client
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
}
