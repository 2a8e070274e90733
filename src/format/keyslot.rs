//! Key slots: the master key wrapped by a passphrase (docs/format.md, "Key slots").

use serde::{Deserialize, Serialize};

use super::FORMAT_VERSION;
use super::text::{JsonError, as_hex, as_text, as_time, from_json, to_json};
use crate::types::{RepoId, Timestamp};

const MAGIC: &str = "icecore key";
const BYTES_MAX: usize = 64 << 10;

/// One way to open the repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySlot {
    magic: String,
    pub format: u32,
    #[serde(with = "as_text")]
    pub repository: RepoId,
    #[serde(with = "as_time")]
    pub created: Timestamp,
    /// A human-readable description of the secret that opens the slot.
    pub label: String,
    /// Argon2id's memory in KiB and number of passes.
    pub memory_kib: u32,
    pub passes: u32,
    #[serde(with = "as_hex")]
    pub salt: [u8; 32],
    /// Verifies that the unwrapped master key is the right one.
    #[serde(with = "as_hex")]
    pub check: [u8; 32],
    /// The sealed master key with the tag: 48 bytes.
    #[serde(with = "as_hex")]
    pub wrapped: [u8; 48],
}

impl KeySlot {
    /// Returns a slot whose `check` and `wrapped` the caller must fill in.
    pub fn new(
        repository: RepoId,
        created: Timestamp,
        label: String,
        cost: (u32, u32),
        salt: [u8; 32],
    ) -> Self {
        let (memory_kib, passes) = cost;
        Self {
            magic: MAGIC.into(),
            format: FORMAT_VERSION,
            repository,
            created,
            label,
            memory_kib,
            passes,
            salt,
            check: [0; 32],
            wrapped: [0; 48],
        }
    }
}

/// Returns the associated data of the wrapping: every field except `wrapped` itself.
pub fn key_slot_aad(slot: &KeySlot) -> Vec<u8> {
    to_json(&KeySlot {
        wrapped: [0; 48],
        ..slot.clone()
    })
}

/// Encodes a slot.
pub fn encode_key_slot(slot: &KeySlot) -> Vec<u8> {
    let mut out = to_json(slot);
    out.push(b'\n');
    out
}

/// Decodes a slot.
pub fn decode_key_slot(bytes: &[u8]) -> Result<KeySlot, JsonError> {
    if bytes.len() > BYTES_MAX {
        return Err(JsonError("longer than 64 KiB".into()));
    }
    let slot: KeySlot = from_json(bytes)?;
    if slot.magic != MAGIC {
        return Err(JsonError("not a key slot of an icecore repository".into()));
    }
    if slot.format > FORMAT_VERSION {
        return Err(JsonError(format!(
            "a key slot of format {} needs a newer icecore",
            slot.format
        )));
    }
    if encode_key_slot(&slot) != bytes {
        return Err(JsonError("not in canonical form".into()));
    }
    Ok(slot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_round_trip_and_are_bound_to_all_but_the_wrapping() {
        let mut slot = KeySlot::new(
            RepoId::new([1; 16]),
            Timestamp::from_seconds(9),
            "first".into(),
            (64, 1),
            [2; 32],
        );
        slot.wrapped = [8; 48];
        let bytes = encode_key_slot(&slot);
        assert_eq!(decode_key_slot(&bytes), Ok(slot.clone()));
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            let changed = decode_key_slot(&bad);
            let same_binding = changed
                .as_ref()
                .is_ok_and(|c| key_slot_aad(c) == key_slot_aad(&slot));
            assert!(
                !same_binding || changed.is_ok_and(|c| c.wrapped != slot.wrapped),
                "byte {at}"
            );
        }
    }
}
