//! The master key, the keys derived from it, and its wrapping by a passphrase.

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::types::{ChunkClass, ChunkId};

// One context per purpose; a context is never used for anything else (BLAKE3 specification, section
// 2.4).
const CHUNK_ID_DATA: &str = "icecore 2026-11-22 chunk id of data";
const CHUNK_ID_METADATA: &str = "icecore 2026-11-22 chunk id of metadata";
const SEAL_DATA: &str = "icecore 2026-11-22 seal data frames";
const SEAL_METADATA: &str = "icecore 2026-11-22 seal metadata frames";
const SEAL_INDEX: &str = "icecore 2026-11-22 seal pack directories and index segments";
const SEAL_SNAPSHOT: &str = "icecore 2026-11-22 seal snapshots and leases";
const CONFIG_MAC: &str = "icecore 2026-11-22 config mac";
const RESTRICT_KEY: &str = "icecore 2026-11-22 postgresql restrict key";
const MASTER_CHECK: &str = "icecore 2026-11-22 check value of the master key";

/// Reason why a key could not be derived from a passphrase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyError {
    /// The slot requires more memory or passes than a reader allows.
    TooCostly { memory_kib: u32, passes: u32 },
    /// The slot's cost parameters are invalid for Argon2.
    BadCost(String),
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooCostly { memory_kib, passes } => write!(
                f,
                "the key slot asks for {memory_kib} KiB and {passes} passes of Argon2, more than is allowed"
            ),
            Self::BadCost(why) => {
                write!(f, "the key slot's Argon2 parameters are invalid: {why}")
            }
        }
    }
}

impl std::error::Error for KeyError {}

/// The repository's only random secret: 32 bytes.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct MasterKey([u8; 32]);

impl MasterKey {
    /// Wraps 32 random bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes, for wrapping into a key slot.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns a value that verifies whether a slot opened to the right key, without revealing the
    /// key.
    pub fn check_value(&self) -> [u8; 32] {
        blake3::derive_key(MASTER_CHECK, &self.0)
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(…)")
    }
}

/// The sealing key of an object part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SealClass {
    /// Frames of data chunks.
    Data,
    /// Frames of metadata chunks.
    Metadata,
    /// Pack directories and index segments.
    Index,
    /// Snapshots and leases.
    Snapshot,
}

impl From<ChunkClass> for SealClass {
    fn from(class: ChunkClass) -> Self {
        match class {
            ChunkClass::Data => Self::Data,
            ChunkClass::Metadata => Self::Metadata,
        }
    }
}

/// All keys derived from the master key.
#[derive(Clone, ZeroizeOnDrop)]
pub struct Keys {
    chunk_id_data: [u8; 32],
    chunk_id_metadata: [u8; 32],
    seal_data: [u8; 32],
    seal_metadata: [u8; 32],
    seal_index: [u8; 32],
    seal_snapshot: [u8; 32],
    config_mac: [u8; 32],
    restrict: [u8; 32],
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(…)")
    }
}

impl Keys {
    /// Derives every key.
    pub fn derive(master: &MasterKey) -> Self {
        let key = |context| blake3::derive_key(context, &master.0);
        Self {
            chunk_id_data: key(CHUNK_ID_DATA),
            chunk_id_metadata: key(CHUNK_ID_METADATA),
            seal_data: key(SEAL_DATA),
            seal_metadata: key(SEAL_METADATA),
            seal_index: key(SEAL_INDEX),
            seal_snapshot: key(SEAL_SNAPSHOT),
            config_mac: key(CONFIG_MAC),
            restrict: key(RESTRICT_KEY),
        }
    }

    /// Returns the name of a chunk. Data and metadata of equal bytes have different names.
    pub fn chunk_id(&self, class: ChunkClass, bytes: &[u8]) -> ChunkId {
        let key = match class {
            ChunkClass::Data => &self.chunk_id_data,
            ChunkClass::Metadata => &self.chunk_id_metadata,
        };
        ChunkId::new(*blake3::keyed_hash(key, bytes).as_bytes())
    }

    /// Returns the key of one object and class, from the 32 random bytes in the object's header.
    pub(super) fn object_key(&self, class: SealClass, random: &[u8; 32]) -> Zeroizing<[u8; 32]> {
        let key = match class {
            SealClass::Data => &self.seal_data,
            SealClass::Metadata => &self.seal_metadata,
            SealClass::Index => &self.seal_index,
            SealClass::Snapshot => &self.seal_snapshot,
        };
        Zeroizing::new(*blake3::keyed_hash(key, random).as_bytes())
    }

    /// Returns the MAC over `config`'s bytes.
    pub fn config_mac(&self, bytes: &[u8]) -> [u8; 32] {
        *blake3::keyed_hash(&self.config_mac, bytes).as_bytes()
    }

    /// Returns true if `mac` is the MAC over `config`'s bytes. Compares in constant time.
    pub fn config_mac_agrees(&self, bytes: &[u8], mac: &[u8; 32]) -> bool {
        blake3::keyed_hash(&self.config_mac, bytes) == blake3::Hash::from_bytes(*mac)
    }

    /// Returns a constant key for `pg_dump --restrict-key`, of letters and digits, so that an
    /// unchanged database gives an unchanged stream.
    pub fn restrict_key(&self) -> String {
        blake3::Hash::from_bytes(self.restrict).to_hex().to_string()
    }
}

/// Cost of deriving a key from a passphrase (Argon2id, version 0x13, one lane; RFC 9106).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Argon2Cost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Number of passes.
    pub passes: u32,
}

impl Argon2Cost {
    /// For passphrases that people choose: 64 MiB, three passes (measured at 137 ms).
    pub const PASSPHRASE: Self = Self {
        memory_kib: 64 << 10,
        passes: 3,
    };
    /// For generated keys of 32 random bytes, which cannot be guessed even if each guess is cheap.
    pub const GENERATED: Self = Self {
        memory_kib: 64,
        passes: 1,
    };

    /// A reader refuses more than 1 GiB or 100 passes, so that a malicious repository cannot
    /// exhaust memory.
    const MEMORY_KIB_MAX: u32 = 1 << 20;
    const PASSES_MAX: u32 = 100;
}

/// Derives the 32-byte key that wraps the master key in a slot.
pub fn wrap_key(
    passphrase: &[u8],
    salt: &[u8; 32],
    cost: Argon2Cost,
) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    if cost.memory_kib > Argon2Cost::MEMORY_KIB_MAX || cost.passes > Argon2Cost::PASSES_MAX {
        return Err(KeyError::TooCostly {
            memory_kib: cost.memory_kib,
            passes: cost.passes,
        });
    }
    let bad = |err: argon2::Error| KeyError::BadCost(err.to_string());
    let params = Params::new(cost.memory_kib, cost.passes, 1, Some(32)).map_err(bad)?;
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase, salt, key.as_mut_slice())
        .map_err(bad)?;
    Ok(key)
}

/// Bytes of a sealed master key: the key and the tag.
pub const WRAPPED_BYTES: usize = 32 + super::seal::TAG_BYTES;

fn wrap_cipher(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("AES-256 takes a key of 32 bytes"))
}

impl MasterKey {
    /// Seals this key with a key from [`wrap_key`], bound to `aad`.
    ///
    /// The nonce is zero: the wrapping key is derived from 32 random bytes of salt and used only
    /// once.
    pub fn wrap(&self, key: &[u8; 32], aad: &[u8]) -> [u8; WRAPPED_BYTES] {
        let mut out = [0; WRAPPED_BYTES];
        out[..32].copy_from_slice(&self.0);
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        let tag = wrap_cipher(key)
            .seal_in_place_separate_tag(nonce, Aad::from(aad), &mut out[..32])
            .expect("32 bytes are far below the 64 GiB that AES-GCM takes");
        out[32..].copy_from_slice(tag.as_ref());
        out
    }

    /// Opens a key sealed by [`MasterKey::wrap`]. Returns `None` if the key or `aad` differs.
    pub fn unwrap(wrapped: &[u8; WRAPPED_BYTES], key: &[u8; 32], aad: &[u8]) -> Option<Self> {
        let mut bytes = Zeroizing::new(*wrapped);
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        let opened = wrap_cipher(key)
            .open_in_place(nonce, Aad::from(aad), bytes.as_mut_slice())
            .ok()?;
        let mut master = Self([0; 32]);
        master.0.copy_from_slice(opened);
        Some(master)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_have_names_and_keys_of_their_own() {
        let keys = Keys::derive(&MasterKey::new([1; 32]));
        let other = Keys::derive(&MasterKey::new([2; 32]));
        let data = keys.chunk_id(ChunkClass::Data, b"x");
        assert_ne!(data, keys.chunk_id(ChunkClass::Metadata, b"x"));
        assert_ne!(data, other.chunk_id(ChunkClass::Data, b"x"));
        let random = [3; 32];
        assert_ne!(
            *keys.object_key(SealClass::Data, &random),
            *keys.object_key(SealClass::Index, &random)
        );
    }

    #[test]
    fn the_cost_of_a_slot_is_bounded() {
        let greedy = Argon2Cost {
            memory_kib: (1 << 20) + 1,
            passes: 1,
        };
        assert!(matches!(
            wrap_key(b"", &[0; 32], greedy),
            Err(KeyError::TooCostly { .. })
        ));
        let slow = Argon2Cost {
            memory_kib: 64,
            passes: 101,
        };
        assert!(matches!(
            wrap_key(b"", &[0; 32], slow),
            Err(KeyError::TooCostly { .. })
        ));
        let tiny = Argon2Cost {
            memory_kib: 1,
            passes: 1,
        };
        assert!(matches!(
            wrap_key(b"", &[0; 32], tiny),
            Err(KeyError::BadCost(_))
        ));
    }

    #[test]
    fn a_wrapped_key_opens_with_its_key_and_binding_alone() {
        let master = MasterKey::new([5; 32]);
        let wrapped = master.wrap(&[1; 32], b"bound");
        let open =
            |key: [u8; 32], aad: &[u8]| MasterKey::unwrap(&wrapped, &key, aad).map(|m| *m.expose());
        assert_eq!(open([1; 32], b"bound"), Some([5; 32]));
        assert_eq!(open([2; 32], b"bound"), None);
        assert_eq!(open([1; 32], b"Bound"), None);
    }

    #[test]
    fn secrets_do_not_print() {
        assert_eq!(format!("{:?}", MasterKey::new([7; 32])), "MasterKey(…)");
    }
}
