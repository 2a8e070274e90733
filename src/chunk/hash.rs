//! Names of stored objects: the plain BLAKE3 of their bytes, which anyone can check with `b3sum`.

use crate::types::ObjectHash;

/// Hashes an object while it is written.
#[derive(Debug, Clone, Default)]
pub struct ObjectHasher(blake3::Hasher);

impl ObjectHasher {
    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Returns the name of the bytes added so far.
    pub fn finish(&self) -> ObjectHash {
        ObjectHash::new(*self.0.finalize().as_bytes())
    }
}

/// Returns the name of an object in memory.
pub fn object_hash(bytes: &[u8]) -> ObjectHash {
    ObjectHash::new(*blake3::hash(bytes).as_bytes())
}
