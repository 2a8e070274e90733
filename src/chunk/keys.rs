//! The master key, and the keys derived from it.

use std::fmt;

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

/// The repository's only random secret: 32 bytes.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct MasterKey(pub(super) [u8; 32]);

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
    fn secrets_do_not_print() {
        assert_eq!(format!("{:?}", MasterKey::new([7; 32])), "MasterKey(…)");
    }
}
