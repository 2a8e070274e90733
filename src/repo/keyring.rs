//! Key slots. Each has two copies, stored before `config`.

use zeroize::Zeroizing;

use super::RepoError;
use super::system::random;
use crate::chunk::{Argon2Cost, KeyError, MasterKey, wrap_key};
use crate::format::{KeySlot, decode_key_slot, encode_key_slot, key_slot_aad};
use crate::store::{
    ObjectBody, ObjectDir, ObjectKey, PutMode, Replica, Store, StoreError, list_all,
};
use crate::sys::now;
use crate::types::{RepoId, hex};

/// The largest `config` or key slot that is read: 64 KiB.
pub(super) const SMALL_BYTES_MAX: u64 = 64 << 10;

/// A secret that opens a repository: a passphrase, or the bytes of a generated key file. Zeroized
/// on drop.
#[derive(Clone)]
pub struct Secret {
    bytes: Zeroizing<Vec<u8>>,
    generated: bool,
    costly: bool,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    /// Creates a secret from a passphrase chosen by a person. Its slot is expensive to guess.
    pub fn passphrase(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self {
            bytes,
            generated: false,
            costly: false,
        }
    }

    /// Creates a secret from a generated key of at least 32 random bytes (or their hex). Its slot
    /// is cheap to open.
    pub fn generated(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self {
            bytes,
            generated: true,
            costly: false,
        }
    }

    /// Creates the empty secret of `init --no-passphrase`.
    pub fn empty() -> Self {
        Self {
            bytes: Zeroizing::new(Vec::new()),
            generated: true,
            costly: false,
        }
    }

    /// Allows trying this secret on slots that cost far more than those that this version makes: up
    /// to 1 GiB of memory and 100 passes each. These are tried only after all others have failed.
    #[must_use]
    pub fn even_if_costly(self) -> Self {
        Self {
            costly: true,
            ..self
        }
    }

    pub(super) fn tries_costly_slots(&self) -> bool {
        self.costly
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns true for [`Secret::empty`].
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn cost(&self) -> Argon2Cost {
        if self.generated {
            Argon2Cost::GENERATED
        } else {
            Argon2Cost::PASSPHRASE
        }
    }
}

/// A key slot as shown by `key list`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotInfo {
    pub name: String,
    pub label: String,
    pub created: crate::types::Timestamp,
    /// True if this slot opened the repository in this process.
    pub current: bool,
    /// The damage of one of its copies, if there is any.
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
    let salt = random()?;
    let mut slot = KeySlot::new(
        repository,
        now(),
        label.to_owned(),
        (cost.memory_kib, cost.passes),
        salt,
    );
    slot.check = master.check_value();
    let key = wrap_key(&secret.bytes, &slot.salt, cost).map_err(refuse)?;
    slot.wrapped = master.wrap(&key, &key_slot_aad(&slot));
    Ok(slot)
}

fn refuse(err: KeyError) -> RepoError {
    RepoError::refused(err.to_string())
}

/// Stores both copies of a slot under a new random name and reads them back. Returns the name.
pub(super) fn store_slot(store: &dyn Store, slot: &KeySlot) -> Result<String, RepoError> {
    let name = hex::encode(&random::<8>()?);
    let bytes = encode_key_slot(slot);
    for copy in [Replica::Second, Replica::First] {
        let key = ObjectKey::KeySlot(name.clone(), copy);
        store.put(&key, ObjectBody::Bytes(&bytes), PutMode::CreateOnly)?;
        if store.get(&key, SMALL_BYTES_MAX)? != bytes {
            return Err(RepoError::bad_object(
                &key,
                "it reads back differently than it was written",
            ));
        }
    }
    Ok(name)
}

/// Returns the slot's first readable copy and the first error of a copy.
pub(super) fn read_slot(store: &dyn Store, name: &str) -> (Option<KeySlot>, Option<String>) {
    let mut found = None;
    let mut damage = None;
    for copy in [Replica::First, Replica::Second] {
        let key = ObjectKey::KeySlot(name.to_owned(), copy);
        let slot = store
            .get(&key, SMALL_BYTES_MAX)
            .map_err(|err| err.to_string())
            .and_then(|bytes| {
                decode_key_slot(&bytes).map_err(|err| format!("{key} is damaged: {err}"))
            });
        match slot {
            Ok(slot) => found = found.or(Some(slot)),
            Err(what) => damage = damage.or(Some(what)),
        }
    }
    (found, damage)
}

/// Returns the names of all slots, damaged ones included.
pub(super) fn slot_names(store: &dyn Store) -> Result<Vec<String>, StoreError> {
    let mut names: Vec<String> = list_all(store, ObjectDir::Keys)?
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

/// Restores damaged or missing copies of `config` and of each slot. Returns the names of the
/// objects that it wrote.
///
/// `config` is the bytes of an authentic copy, `opened` the copy of a slot that is known to open.
///
/// A slot other than the opened one is left alone in two cases. If both copies decode but differ,
/// there is no way to know which is right. If a copy cannot be read now, that copy may be the one
/// that opens.
pub(super) fn mend(
    store: &dyn Store,
    config: &[u8],
    opened: &(String, Replica),
) -> Result<Vec<String>, RepoError> {
    let mut mended = Vec::new();
    for copy in [Replica::First, Replica::Second] {
        let key = ObjectKey::Config(copy);
        if !store
            .get(&key, SMALL_BYTES_MAX)
            .is_ok_and(|found| found == config)
        {
            store.put(&key, ObjectBody::Bytes(config), PutMode::Replace)?;
            mended.push(key.to_string());
        }
    }

    for name in slot_names(store)? {
        let is_opened = opened.0 == name;
        let mut is_unreadable = false;
        let mut read = |copy| {
            let bytes = store.get(&ObjectKey::KeySlot(name.clone(), copy), SMALL_BYTES_MAX);
            is_unreadable |= bytes.as_ref().is_err_and(StoreError::is_unreadable_now);
            decode_key_slot(&bytes.ok()?).ok()
        };

        // Choose the good copy.
        let slot = match (read(Replica::First), read(Replica::Second)) {
            (Some(first), Some(second)) if first != second => match opened {
                (_, Replica::First) if is_opened => first,
                (_, Replica::Second) if is_opened => second,
                _ => continue,
            },
            (Some(slot), _) | (None, Some(slot)) => slot,
            (None, None) => continue,
        };
        if is_unreadable && !is_opened {
            continue;
        }

        let bytes = encode_key_slot(&slot);
        for copy in [Replica::First, Replica::Second] {
            let key = ObjectKey::KeySlot(name.clone(), copy);
            if store
                .get(&key, SMALL_BYTES_MAX)
                .is_ok_and(|found| found == bytes)
            {
                continue;
            }
            // Slots are never replaced in place. The damaged copy is deleted first; its twin is
            // intact.
            match store.delete(&key) {
                Err(err) if !err.is_not_found() => return Err(err.into()),
                _ => {}
            }
            store.put(&key, ObjectBody::Bytes(&bytes), PutMode::CreateOnly)?;
            mended.push(key.to_string());
        }
    }

    Ok(mended)
}
