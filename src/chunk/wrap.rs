//! Wrapping of the master key: a key slot's passphrase gives the key that seals it.

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

use super::keys::MasterKey;
use super::seal::TAG_BYTES;

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
pub const WRAPPED_BYTES: usize = 32 + TAG_BYTES;

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
}
