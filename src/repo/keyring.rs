//! Key slots and `config`: two copies of each, slots before `config`, `config` last.

use zeroize::Zeroizing;

use super::RepoError;
use crate::chunk::{Argon2Cost, KeyError, Keys, MasterKey, wrap_key};
use crate::format::{
    Config, FORMAT_VERSION, KeySlot, decode_config, decode_key_slot, encode_config, encode_key_slot,
    key_slot_aad,
};
use crate::store::{Body, Copy, Folder, ObjectKey, PutMode, Store, StoreError, list_all};
use crate::sys::now;
use crate::types::RepoId;

const SMALL_BYTES_MAX: u64 = 64 << 10;

/// What opens a repository: a passphrase, or the bytes of a generated key file. Zeroized when dropped.
#[derive(Clone)]
pub struct Secret {
    bytes: Zeroizing<Vec<u8>>,
    generated: bool,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    /// A passphrase that a person chose; its slot is costly to guess at.
    pub fn passphrase(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self { bytes, generated: false }
    }

    /// A generated key of at least 32 random bytes (or their hex); its slot is cheap to open.
    pub fn generated(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self { bytes, generated: true }
    }

    /// No secret: `init --no-passphrase`.
    pub fn empty() -> Self {
        Self { bytes: Zeroizing::new(Vec::new()), generated: true }
    }

    /// True for [`Secret::empty`].
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn cost(&self) -> Argon2Cost {
        if self.generated { Argon2Cost::GENERATED } else { Argon2Cost::PASSPHRASE }
    }
}

/// A key slot as `key list` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotInfo {
    pub name: String,
    pub label: String,
    pub created: crate::types::Timestamp,
    /// True if it is this slot that opened the repository in this process.
    pub current: bool,
    /// What is wrong with a copy of it, if anything.
    pub damage: Option<String>,
}

/// Wraps the master key for a secret.
pub(super) fn make_slot(
    master: &MasterKey,
    repository: RepoId,
    secret: &Secret,
    label: &str,
) -> Result<KeySlot, RepoError> {
    let cost = secret.cost();
    let salt = super::random()?;
    let mut slot = KeySlot::new(repository, now(), label.to_owned(), (cost.memory_kib, cost.passes), salt);
    slot.check = master.check_value();
    let key = wrap_key(&secret.bytes, &slot.salt, cost).map_err(refuse)?;
    slot.wrapped = master.wrap(&key, &key_slot_aad(&slot));
    Ok(slot)
}

fn refuse(err: KeyError) -> RepoError {
    RepoError::Refused { why: err.to_string() }
}

/// Stores a slot under a new random name, both copies, and reads them back.
pub(super) fn store_slot(store: &dyn Store, slot: &KeySlot) -> Result<String, RepoError> {
    let name: String = super::random::<8>()?.iter().map(|byte| format!("{byte:02x}")).collect();
    let bytes = encode_key_slot(slot);
    for copy in [Copy::Second, Copy::First] {
        let key = ObjectKey::KeySlot(name.clone(), copy);
        store.put(&key, Body::Bytes(&bytes), PutMode::CreateOnly)?;
        if store.get(&key, SMALL_BYTES_MAX)? != bytes {
            return Err(RepoError::bad_object(&key, "it reads back otherwise than it was written"));
        }
    }
    Ok(name)
}

/// The slot's first readable copy, and what is wrong with the others.
pub(super) fn read_slot(store: &dyn Store, name: &str) -> (Option<KeySlot>, Option<String>) {
    let mut found = None;
    let mut damage = None;
    for copy in [Copy::First, Copy::Second] {
        let key = ObjectKey::KeySlot(name.to_owned(), copy);
        let slot = store
            .get(&key, SMALL_BYTES_MAX)
            .map_err(|err| err.to_string())
            .and_then(|bytes| decode_key_slot(&bytes).map_err(|err| format!("{key} is damaged: {err}")));
        match slot {
            Ok(slot) => found = found.or(Some(slot)),
            Err(what) => damage = damage.or(Some(what)),
        }
    }
    (found, damage)
}

/// The names of all slots, whole or not.
pub(super) fn slot_names(store: &dyn Store) -> Result<Vec<String>, StoreError> {
    let mut names: Vec<String> = list_all(store, Folder::Keys)?
        .into_iter()
        .filter_map(|meta| match meta.key {
            ObjectKey::KeySlot(name, _) => Some(name),
            _ => None,
        })
        .collect();
    names.sort();
    names.dedup();
    Ok(names)
}

/// Tries the secret on every slot; returns the master key, the slot that gave it, and which copy of it did.
pub(super) fn unlock(
    store: &dyn Store,
    repository: RepoId,
    secret: &Secret,
) -> Result<(MasterKey, String, Copy), RepoError> {
    let names = slot_names(store)?;
    let mut damage = None;
    // Slots of another repository: an `init` that was cut off leaves one. They are damage only if there are no others.
    let mut foreign = None;
    let mut ours = 0;
    for name in &names {
        let mut tried: Option<Vec<u8>> = None;
        let mut missing = None;
        for copy in [Copy::First, Copy::Second] {
            let key = ObjectKey::KeySlot(name.clone(), copy);
            let bytes = match store.get(&key, SMALL_BYTES_MAX) {
                Ok(bytes) => bytes,
                Err(err @ StoreError::NotFound { .. }) => {
                    missing = Some(err.to_string());
                    continue;
                }
                Err(err @ StoreError::TooLong { .. }) => {
                    damage = Some(err.to_string());
                    continue;
                }
                Err(err) => return Err(err.into()),
            };
            // A twin of what did not open will not either; one that differs may, since what is sealed in a slot can
            // be damaged without showing.
            if tried.as_ref() == Some(&bytes) {
                continue;
            }
            match try_slot(&bytes, repository, secret) {
                Ok(Tried::Opened(master)) => return Ok((master, name.clone(), copy)),
                Ok(Tried::Closed) => {
                    ours += usize::from(tried.is_none());
                    tried = Some(bytes);
                }
                Ok(Tried::Foreign(of)) => {
                    foreign = Some(format!("{key} belongs to repository {of}"));
                    tried = Some(bytes);
                }
                Err(what) => damage = Some(format!("{key} is damaged: {what}")),
            }
        }
        // One copy alone is what a key command leaves that was cut off.
        if tried.is_none() {
            damage = damage.or(missing);
        }
    }
    match damage.or(foreign.filter(|_| ours == 0)) {
        Some(what) => Err(RepoError::damaged("the key store", format!("{what}, and no other slot opens"))),
        None => Err(RepoError::WrongKey { slots: ours }),
    }
}

/// What came of trying a secret on a good slot.
enum Tried {
    Opened(MasterKey),
    /// It is another passphrase's.
    Closed,
    /// It is another repository's.
    Foreign(RepoId),
}

/// `Err`: not a good slot.
fn try_slot(bytes: &[u8], repository: RepoId, secret: &Secret) -> Result<Tried, String> {
    let slot = decode_key_slot(bytes).map_err(|err| err.to_string())?;
    if slot.repository != repository {
        return Ok(Tried::Foreign(slot.repository));
    }
    let cost = Argon2Cost { memory_kib: slot.memory_kib, passes: slot.passes };
    let key = wrap_key(&secret.bytes, &slot.salt, cost).map_err(|err| err.to_string())?;
    let Some(master) = MasterKey::unwrap(&slot.wrapped, &key, &key_slot_aad(&slot)) else {
        return Ok(Tried::Closed);
    };
    if blake3::Hash::from_bytes(master.check_value()) != blake3::Hash::from_bytes(slot.check) {
        return Err("its check value is that of another key".into());
    }
    Ok(Tried::Opened(master))
}

/// A copy of `config` as it lies in the store.
pub(super) struct StoredConfig {
    pub config: Config,
    pub bytes: Vec<u8>,
    pub copy: Copy,
}

/// Reads both copies of `config`; those that decode, the first copy first. Nothing is proven before
/// [`check_config`].
pub(super) fn read_configs(store: &dyn Store) -> Result<Vec<StoredConfig>, RepoError> {
    let mut found = Vec::new();
    let mut damage = None;
    for copy in [Copy::First, Copy::Second] {
        let key = ObjectKey::Config(copy);
        match store.get(&key, SMALL_BYTES_MAX) {
            Ok(bytes) => match decode_config(&bytes).map(|(config, ..)| config) {
                Ok(config) => found.push(StoredConfig { config, bytes, copy }),
                Err(err) => damage = Some(RepoError::bad_object(&key, err)),
            },
            Err(StoreError::NotFound { .. }) => {}
            Err(err @ StoreError::TooLong { .. }) => damage = Some(RepoError::bad_object(&key, err)),
            Err(err) => return Err(err.into()),
        }
    }
    match (found.is_empty(), damage) {
        (true, Some(damage)) => Err(damage),
        (true, None) => Err(RepoError::NotFound { address: store.address().to_owned() }),
        (false, _) => Ok(found),
    }
}

/// Refuses formats and features that this code does not know.
pub(super) fn check_version(config: &Config) -> Result<(), RepoError> {
    if config.format > FORMAT_VERSION {
        return Err(RepoError::NewerFormat { found: config.format, known: FORMAT_VERSION });
    }
    match config.features.read.first() {
        Some(feature) => Err(RepoError::UnknownFeature { operation: "read", feature: feature.clone() }),
        None => Ok(()),
    }
}

/// True if a copy's MAC is right.
pub(super) fn check_config(stored: &StoredConfig, keys: &Keys) -> bool {
    decode_config(&stored.bytes).is_ok_and(|(_, under, mac)| keys.config_mac_agrees(under, &mac))
}

/// Writes `config`, second copy first: the first makes the repository.
pub(super) fn store_config(store: &dyn Store, config: &Config, keys: &Keys) -> Result<(), RepoError> {
    let bytes = encode_config(config, |under| keys.config_mac(under));
    for copy in [Copy::Second, Copy::First] {
        let key = ObjectKey::Config(copy);
        match store.put(&key, Body::Bytes(&bytes), PutMode::CreateOnly) {
            Ok(()) => {}
            Err(StoreError::Exists { .. }) => {
                return Err(RepoError::AlreadyThere { address: store.address().to_owned() });
            }
            Err(err) => return Err(err.into()),
        }
        if store.get(&key, SMALL_BYTES_MAX)? != bytes {
            return Err(RepoError::bad_object(&key, "it reads back otherwise than it was written"));
        }
    }
    Ok(())
}

/// Puts back what is damaged or missing of the two copies of `config` and of each slot; returns what was mended.
/// `opened`: the copy of a slot that is known to open.
///
/// Of another slot whose copies both read but differ nobody can tell the good one: it is left alone.
pub(super) fn mend(
    store: &dyn Store,
    config: &Config,
    keys: &Keys,
    opened: &(String, Copy),
) -> Result<Vec<String>, RepoError> {
    let mut mended = Vec::new();
    let bytes = encode_config(config, |under| keys.config_mac(under));
    for copy in [Copy::First, Copy::Second] {
        let key = ObjectKey::Config(copy);
        if !store.get(&key, SMALL_BYTES_MAX).is_ok_and(|found| found == bytes) {
            store.put(&key, Body::Bytes(&bytes), PutMode::Replace)?;
            mended.push(key.to_string());
        }
    }
    for name in slot_names(store)? {
        let read = |copy| {
            let bytes = store.get(&ObjectKey::KeySlot(name.clone(), copy), SMALL_BYTES_MAX).ok()?;
            decode_key_slot(&bytes).ok()
        };
        let slot = match (read(Copy::First), read(Copy::Second)) {
            (Some(first), Some(second)) if first != second => match opened {
                (slot, Copy::First) if *slot == name => first,
                (slot, Copy::Second) if *slot == name => second,
                _ => continue,
            },
            (Some(slot), _) | (None, Some(slot)) => slot,
            (None, None) => continue,
        };
        let bytes = encode_key_slot(&slot);
        for copy in [Copy::First, Copy::Second] {
            let key = ObjectKey::KeySlot(name.clone(), copy);
            if store.get(&key, SMALL_BYTES_MAX).is_ok_and(|found| found == bytes) {
                continue;
            }
            // Slots are never replaced in place: the damaged copy goes first, its twin is whole.
            match store.delete(&key) {
                Err(err) if !err.is_not_found() => return Err(err.into()),
                _ => {}
            }
            store.put(&key, Body::Bytes(&bytes), PutMode::CreateOnly)?;
            mended.push(key.to_string());
        }
    }
    Ok(mended)
}
