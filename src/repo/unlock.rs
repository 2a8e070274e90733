//! Which key slot a secret opens. What a slot asks of us is not authentic before it opens, and
//! whoever can write to the store can add slots: so the slot that opened last time is tried first,
//! others by their cost, and what costs far more than a slot of this version only if the user says
//! so.

use std::collections::BTreeSet;
use std::path::Path;

use super::RepoError;
use super::keyring::{SMALL_BYTES_MAX, Secret, slot_names};
use crate::chunk::{Argon2Cost, MasterKey, wrap_key};
use crate::format::{KeySlot, decode_key_slot, key_slot_aad};
use crate::store::{Copy, ObjectDir, ObjectKey, Store, StoreError};
use crate::sys::{Existing, read_bounded, write_file};
use crate::types::RepoId;

/// Memory times passes of a slot for a passphrase, as this version makes it.
const USUAL: u64 = cost_of(
    Argon2Cost::PASSPHRASE.memory_kib,
    Argon2Cost::PASSPHRASE.passes,
);
/// A slot that costs more than this is costly: four times the usual, about a second …
const COSTLY: u64 = 4 * USUAL;
/// … or that takes more memory: 256 MiB.
const COSTLY_KIB: u32 = 4 * Argon2Cost::PASSPHRASE.memory_kib;
/// All slots that are tried unasked cost no more than this together: some ten seconds.
const COSTLY_TOGETHER: u64 = 48 * USUAL;

const fn cost_of(memory_kib: u32, passes: u32) -> u64 {
    memory_kib as u64 * passes as u64
}

/// What a secret opened.
pub(super) struct OpenedSlot {
    pub master: MasterKey,
    pub slot: String,
    /// Which copy of the slot opened.
    pub copy: Copy,
}

/// A copy of a slot of this repository.
struct Candidate {
    name: String,
    copy: Copy,
    slot: KeySlot,
}

impl Candidate {
    fn cost(&self) -> u64 {
        cost_of(self.slot.memory_kib, self.slot.passes)
    }

    fn is_costly(&self) -> bool {
        self.cost() > COSTLY || self.slot.memory_kib > COSTLY_KIB
    }
}

/// Why slots were not tried, or did not open.
#[derive(Default)]
struct Trouble {
    damage: Option<String>,
    /// Slots of another repository: an `init` that was cut off leaves one. They are damage only if
    /// there are no others.
    foreign: Option<String>,
    /// A copy that cannot be read at the moment may be the one that opens.
    unreadable: Option<StoreError>,
    /// Slots of this repository that the secret does not open.
    closed: BTreeSet<String>,
    /// Slots that were not tried because of their cost.
    costly: BTreeSet<String>,
}

/// Tries the secret on the slots of this repository. `last`: the slot that opened the last time,
/// which is tried first.
///
/// # Errors
/// [`RepoError::WrongKey`] if all is in order and none opens; it says how many slots were too
/// costly to be tried.
pub(super) fn unlock(
    store: &dyn Store,
    repository: RepoId,
    secret: &Secret,
    last: Option<&str>,
) -> Result<OpenedSlot, RepoError> {
    let mut trouble = Trouble::default();
    if let Some(last) = last {
        for candidate in read_slot(store, repository, last, &mut Trouble::default())? {
            if !candidate.is_costly()
                && let Some(unlocked) = try_slot(&candidate, secret, &mut Trouble::default())
            {
                return Ok(unlocked);
            }
        }
    }
    let mut candidates = Vec::new();
    for name in slot_names(store)? {
        candidates.extend(read_slot(store, repository, &name, &mut trouble)?);
    }
    candidates.sort_by_key(Candidate::cost);

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

impl Trouble {
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

/// The copies of a slot that may open: one, unless they differ, since what is sealed in a slot can
/// be damaged without showing.
fn read_slot(
    store: &dyn Store,
    repository: RepoId,
    name: &str,
    trouble: &mut Trouble,
) -> Result<Vec<Candidate>, RepoError> {
    let mut found: Vec<Candidate> = Vec::new();
    let (mut missing, mut is_there) = (None, false);
    for copy in [Copy::First, Copy::Second] {
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
                    found.push(Candidate {
                        name: name.to_owned(),
                        copy,
                        slot,
                    });
                }
            }
            Err(err) => trouble.damage = Some(format!("{key} is damaged: {err}")),
        }
    }
    // One copy alone is what a key command leaves that was cut off.
    if !is_there && trouble.damage.is_none() {
        trouble.damage = missing;
    }
    Ok(found)
}

fn try_slot(candidate: &Candidate, secret: &Secret, trouble: &mut Trouble) -> Option<OpenedSlot> {
    let Candidate { name, copy, slot } = candidate;
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

/// Names the slot that opened the repository last. Losing it costs time, nothing else.
const LAST_SLOT: &str = "slot";

/// The slot that opened the repository of this cache last.
pub(super) fn last_slot(cache: &Path) -> Option<String> {
    let name = String::from_utf8(read_bounded(&cache.join(LAST_SLOT), 64).ok()?).ok()?;
    matches!(
        ObjectKey::from_name(ObjectDir::Keys, &name),
        Some(ObjectKey::KeySlot(_, Copy::First))
    )
    .then_some(name)
}

/// Remembers a slot that opened. A cache that cannot be written costs time, nothing else.
pub(super) fn remember_slot(cache: &Path, slot: &str) {
    if last_slot(cache).as_deref() != Some(slot) {
        let _ = write_file(
            cache.join(LAST_SLOT),
            slot.as_bytes(),
            0o600,
            Existing::Replace,
        );
    }
}
