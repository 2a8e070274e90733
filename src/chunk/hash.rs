//! Names of stored objects: the plain BLAKE3 of their bytes, so that anyone can check them with
//! `b3sum`.

use crate::types::ObjectHash;

/// Hashes an object as it is written.
#[derive(Debug, Clone, Default)]
pub struct ObjectHasher(blake3::Hasher);

impl ObjectHasher {
    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The name of what was added so far.
    pub fn finish(&self) -> ObjectHash {
        ObjectHash::new(*self.0.finalize().as_bytes())
    }
}

/// The name of an object held whole.
pub fn object_hash(bytes: &[u8]) -> ObjectHash {
    ObjectHash::new(*blake3::hash(bytes).as_bytes())
}
