//! The two copies of `config`. Neither is trusted before its MAC is checked. If one copy is damaged
//! in any way, its repository id or format included, the other still opens the repository.

use super::RepoError;
use super::keyring::{SMALL_BYTES_MAX, read_slot, slot_names};
use crate::chunk::Keys;
use crate::format::{FORMAT_VERSION, RepoConfig, decode_config, encode_config};
use crate::store::{ObjectBody, ObjectKey, PutMode, Replica, Store, StoreError};
use crate::types::RepoId;

/// A stored copy of `config`.
pub(super) struct StoredConfig {
    pub config: RepoConfig,
    pub bytes: Vec<u8>,
    pub copy: Replica,
}

impl StoredConfig {
    /// Returns true if its MAC is right.
    pub fn is_authentic(&self, keys: &Keys) -> bool {
        decode_config(&self.bytes).is_ok_and(|(_, under, mac)| keys.config_mac_agrees(under, &mac))
    }
}

/// The copies of `config` that decode, and the damage of the others.
pub(super) struct ConfigCopies {
    /// At least one; the first copy first.
    pub found: Vec<StoredConfig>,
    pub trouble: Vec<(Replica, String)>,
}

impl ConfigCopies {
    /// Reads both copies.
    ///
    /// # Errors
    /// If neither copy decodes: the error of a copy that cannot be read now, else that of a damaged
    /// copy, else [`RepoError::NotFound`].
    pub fn read(store: &dyn Store) -> Result<Self, RepoError> {
        let mut configs = Self {
            found: Vec::new(),
            trouble: Vec::new(),
        };
        let mut damage = None;
        let mut unreadable = None;

        for copy in [Replica::First, Replica::Second] {
            let key = ObjectKey::Config(copy);
            match store.get(&key, SMALL_BYTES_MAX) {
                Ok(bytes) => match decode_config(&bytes).map(|(config, ..)| config) {
                    Ok(config) => configs.found.push(StoredConfig {
                        config,
                        bytes,
                        copy,
                    }),
                    Err(err) => {
                        configs
                            .trouble
                            .push((copy, format!("{key} is damaged: {err}")));
                        damage = Some(RepoError::bad_object(&key, err));
                    }
                },
                Err(StoreError::NotFound { .. }) => {
                    configs.trouble.push((copy, format!("{key} is missing")));
                }
                Err(err @ (StoreError::TooLong { .. } | StoreError::Short { .. })) => {
                    configs
                        .trouble
                        .push((copy, format!("{key} is damaged: {err}")));
                    damage = Some(RepoError::bad_object(&key, err));
                }
                Err(err) if err.is_unreadable_now() => {
                    configs
                        .trouble
                        .push((copy, format!("{key} cannot be read now: {err}")));
                    unreadable = Some(err);
                }
                Err(err) => return Err(err.into()),
            }
        }

        match (configs.found.is_empty(), unreadable, damage) {
            (false, ..) => Ok(configs),
            (true, Some(err), _) => Err(err.into()),
            (true, None, Some(damage)) => Err(damage),
            (true, None, None) => Err(RepoError::NotFound {
                address: store.address().to_owned(),
            }),
        }
    }

    /// Returns the repository ids in the copies whose format and features this version knows. If
    /// the copies differ, the id that a key slot also names comes first.
    ///
    /// # Errors
    /// If no copy has a known format and known features.
    pub fn ids(&self, store: &dyn Store) -> Result<Vec<RepoId>, RepoError> {
        let mut ids: Vec<RepoId> = Vec::new();
        let mut refused = None;
        for stored in &self.found {
            match check_version(&stored.config) {
                Ok(()) if !ids.contains(&stored.config.repository) => {
                    ids.push(stored.config.repository);
                }
                Ok(()) => {}
                Err(err) => refused = refused.or(Some(err)),
            }
        }

        if ids.len() > 1 {
            let named = slot_names(store)?;
            let named: Vec<RepoId> = named
                .iter()
                .filter_map(|name| Some(read_slot(store, name).0?.repository))
                .collect();
            ids.sort_by_key(|id| !named.contains(id));
        }

        match refused {
            Some(err) if ids.is_empty() => Err(err),
            _ => Ok(ids),
        }
    }

    /// Returns the authentic copy to use, and the damage of the other.
    ///
    /// Two authentic copies differ after a change of settings that was cut off. Then the first copy
    /// is used, and the features of both must be known.
    ///
    /// # Errors
    /// [`RepoError::Damaged`] if no copy is authentic.
    pub fn choose(mut self, keys: &Keys) -> Result<(StoredConfig, Option<String>), RepoError> {
        let (mut good, bad): (Vec<_>, Vec<_>) = self
            .found
            .into_iter()
            .partition(|stored| stored.is_authentic(keys));
        if good.is_empty() {
            let newer = bad
                .iter()
                .find_map(|stored| check_version(&stored.config).err());
            return Err(newer.unwrap_or_else(|| {
                let what = "its MAC is wrong: it was changed, or belongs to another repository";
                RepoError::damaged("config", what)
            }));
        }

        for stored in &good {
            check_version(&stored.config)?;
        }

        for stored in bad {
            let what = format!(
                "{} is damaged: its MAC is wrong",
                ObjectKey::Config(stored.copy)
            );
            self.trouble.push((stored.copy, what));
        }

        let first = good.remove(0);
        if good.iter().any(|second| second.bytes != first.bytes) {
            let what = "config and config.2 differ, both with a valid MAC; config is used";
            self.trouble.push((Replica::Second, what.into()));
        }

        let trouble = self.trouble.into_iter().next();
        Ok((first, trouble.map(|(_, what)| what)))
    }
}

/// Returns an error for a format or a feature that this version does not know.
fn check_version(config: &RepoConfig) -> Result<(), RepoError> {
    if config.format > FORMAT_VERSION {
        return Err(RepoError::NewerFormat {
            found: config.format,
            known: FORMAT_VERSION,
        });
    }
    match config.features.read.first() {
        Some(feature) => Err(RepoError::UnknownFeature {
            operation: "read",
            feature: feature.clone(),
        }),
        None => Ok(()),
    }
}

/// Writes both copies of `config` and reads them back, the second copy first.
pub(super) fn store_config(
    store: &dyn Store,
    config: &RepoConfig,
    keys: &Keys,
) -> Result<(), RepoError> {
    let bytes = encode_config(config, |under| keys.config_mac(under));
    for copy in [Replica::Second, Replica::First] {
        let key = ObjectKey::Config(copy);
        match store.put(&key, ObjectBody::Bytes(&bytes), PutMode::CreateOnly) {
            Ok(()) => {}
            Err(StoreError::Exists { .. }) => {
                return Err(RepoError::AlreadyThere {
                    address: store.address().to_owned(),
                });
            }
            Err(err) => return Err(err.into()),
        }
        if store.get(&key, SMALL_BYTES_MAX)? != bytes {
            return Err(RepoError::bad_object(
                &key,
                "it reads back differently than it was written",
            ));
        }
    }
    Ok(())
}
