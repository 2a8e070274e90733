//! Finds the key slot that a secret opens.
//!
//! A slot's cost parameters are not authentic before the slot opens, and anyone who can write to
//! the store can add slots. So the slot that opened last time is tried first, and the others in
//! order of cost. A slot that costs far more than those of this version is tried only if the user
//! allows it.

use std::collections::BTreeSet;
use std::path::Path;

use super::RepoError;
use super::keyring::{SMALL_BYTES_MAX, Secret, slot_names};
use crate::chunk::{Argon2Cost, MasterKey, wrap_key};
use crate::format::{KeySlot, decode_key_slot, key_slot_aad};
use crate::store::{ObjectDir, ObjectKey, Replica, Store, StoreError};
use crate::sys::{ExistingFile, read_bounded, write_file};
use crate::types::RepoId;

/// Memory times passes of a passphrase slot as this version makes it.
const USUAL: u64 = cost_of(
    Argon2Cost::PASSPHRASE.memory_kib,
    Argon2Cost::PASSPHRASE.passes,
);
/// A slot that costs more than this is costly: four times the usual, about a second.
const COSTLY: u64 = 4 * USUAL;
/// A slot that takes more memory than this is costly too: 256 MiB.
const COSTLY_KIB: u32 = 4 * Argon2Cost::PASSPHRASE.memory_kib;
/// The most that all slots tried without the user's permission may cost together: about ten
/// seconds.
const COSTLY_TOGETHER: u64 = 48 * USUAL;

const fn cost_of(memory_kib: u32, passes: u32) -> u64 {
    // Casts, because `u64::from` is not `const`. They lose nothing.
    memory_kib as u64 * passes as u64
}

/// The key and slot that a secret opened.
pub(super) struct OpenedSlot {
    pub master: MasterKey,
    pub slot: String,
    /// The copy of the slot that opened.
    pub copy: Replica,
}

/// A copy of a slot of this repository.
struct SlotCandidate {
    name: String,
    copy: Replica,
    slot: KeySlot,
}

impl SlotCandidate {
    fn cost(&self) -> u64 {
        cost_of(self.slot.memory_kib, self.slot.passes)
    }

    fn is_costly(&self) -> bool {
        self.cost() > COSTLY || self.slot.memory_kib > COSTLY_KIB
    }
}

/// The reasons why no slot opened.
#[derive(Default)]
struct SlotError {
    damage: Option<String>,
    /// A slot of another repository, as left by an `init` that was cut off. It counts as damage
    /// only if there are no others.
    foreign: Option<String>,
    /// A copy that cannot be read at the moment. It may be the one that opens.
    unreadable: Option<StoreError>,
    /// Slots of this repository that the secret does not open.
    closed: BTreeSet<String>,
    /// Slots that were not tried because of their cost.
    costly: BTreeSet<String>,
}

/// Tries the secret on the slots of this repository. `last` is the slot that opened the last time,
/// and is tried first.
///
/// # Errors
/// [`RepoError::WrongKey`] if nothing is damaged and no slot opens. It contains the number of slots
/// that were too costly to try.
pub(super) fn unlock(
    store: &dyn Store,
    repository: RepoId,
    secret: &Secret,
    last: Option<&str>,
) -> Result<OpenedSlot, RepoError> {
    let mut trouble = SlotError::default();

    // Errors do not count here, because all slots are read again below.
    if let Some(last) = last {
        for candidate in read_slot(store, repository, last, &mut SlotError::default())? {
            if !candidate.is_costly()
                && let Some(unlocked) = try_slot(&candidate, secret, &mut SlotError::default())
            {
                return Ok(unlocked);
            }
        }
    }

    let mut candidates = Vec::new();
    for name in slot_names(store)? {
        candidates.extend(read_slot(store, repository, &name, &mut trouble)?);
    }
    candidates.sort_by_key(SlotCandidate::cost);

    // Cheap slots first, up to a total cost. Costly ones only if the user allows it.
    let mut spent = 0;
    let mut costly = Vec::new();
    for candidate in candidates {
        if candidate.is_costly() || spent + candidate.cost() > COSTLY_TOGETHER {
            costly.push(candidate);
            continue;
        }
        spent += candidate.cost();
        if let Some(unlocked) = try_slot(&candidate, secret, &mut trouble) {
            return Ok(unlocked);
        }
    }

    for candidate in &costly {
        if !secret.tries_costly_slots() {
            trouble.costly.insert(candidate.name.clone());
        } else if let Some(unlocked) = try_slot(candidate, secret, &mut trouble) {
            return Ok(unlocked);
        }
    }

    Err(trouble.into_error())
}

impl SlotError {
    fn into_error(self) -> RepoError {
        if let Some(err) = self.unreadable {
            return err.into();
        }
        match self.damage.or(self
            .foreign
            .filter(|_| self.closed.is_empty() && self.costly.is_empty()))
        {
            Some(what) => {
                RepoError::damaged("the key store", format!("{what}, and no other slot opens"))
            }
            None => RepoError::WrongKey {
                slots: self.closed.len(),
                costly: self.costly.len(),
            },
        }
    }
}

/// Returns the copies of a slot that may open. Two are returned only if they differ, because the
/// sealed part of a slot can be damaged without a sign.
fn read_slot(
    store: &dyn Store,
    repository: RepoId,
    name: &str,
    trouble: &mut SlotError,
) -> Result<Vec<SlotCandidate>, RepoError> {
    let mut found: Vec<SlotCandidate> = Vec::new();
    let mut missing = None;
    let mut is_there = false;
    for copy in [Replica::First, Replica::Second] {
        let key = ObjectKey::KeySlot(name.to_owned(), copy);
        let bytes = match store.get(&key, SMALL_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(err @ StoreError::NotFound { .. }) => {
                missing = Some(err.to_string());
                continue;
            }
            Err(err @ (StoreError::TooLong { .. } | StoreError::Short { .. })) => {
                trouble.damage = Some(err.to_string());
                continue;
            }
            Err(err) if err.is_unreadable_now() => {
                trouble.unreadable = Some(err);
                continue;
            }
            Err(err) => return Err(err.into()),
        };

        match decode_key_slot(&bytes) {
            Ok(slot) if slot.repository != repository => {
                trouble.foreign = Some(format!("{key} belongs to repository {}", slot.repository));
                is_there = true;
            }
            Ok(slot) => {
                is_there = true;
                if found.iter().all(|other| other.slot != slot) {
                    found.push(SlotCandidate {
                        name: name.to_owned(),
                        copy,
                        slot,
                    });
                }
            }
            Err(err) => trouble.damage = Some(format!("{key} is damaged: {err}")),
        }
    }
    // A key command that was cut off leaves one copy alone, which is not damage.
    if !is_there && trouble.damage.is_none() {
        trouble.damage = missing;
    }

    Ok(found)
}

fn try_slot(
    candidate: &SlotCandidate,
    secret: &Secret,
    trouble: &mut SlotError,
) -> Option<OpenedSlot> {
    let SlotCandidate { name, copy, slot } = candidate;
    let key = ObjectKey::KeySlot(name.clone(), *copy);
    let cost = Argon2Cost {
        memory_kib: slot.memory_kib,
        passes: slot.passes,
    };

    let wrapping = match wrap_key(secret.bytes(), &slot.salt, cost) {
        Ok(wrapping) => wrapping,
        Err(err) => {
            trouble.damage = Some(format!("{key} is damaged: {err}"));
            return None;
        }
    };
    let Some(master) = MasterKey::unwrap(&slot.wrapped, &wrapping, &key_slot_aad(slot)) else {
        trouble.closed.insert(name.clone());
        return None;
    };

    if blake3::Hash::from_bytes(master.check_value()) != blake3::Hash::from_bytes(slot.check) {
        trouble.damage = Some(format!(
            "{key} is damaged: its check value is that of another key"
        ));
        return None;
    }

    Some(OpenedSlot {
        master,
        slot: name.clone(),
        copy: *copy,
    })
}

/// The file that names the slot that opened the repository last. Losing it costs only time.
const LAST_SLOT: &str = "slot";

/// Returns the slot that last opened the repository of this cache.
pub(super) fn last_slot(cache: &Path) -> Option<String> {
    let name = String::from_utf8(read_bounded(&cache.join(LAST_SLOT), 64).ok()?).ok()?;
    matches!(
        ObjectKey::from_name(ObjectDir::Keys, &name),
        Some(ObjectKey::KeySlot(_, Replica::First))
    )
    .then_some(name)
}

/// Remembers a slot that opened. If the cache cannot be written, that costs only time.
pub(super) fn remember_slot(cache: &Path, slot: &str) {
    if last_slot(cache).as_deref() != Some(slot) {
        let _ = write_file(
            cache.join(LAST_SLOT),
            slot.as_bytes(),
            0o600,
            ExistingFile::Replace,
        );
    }
}
