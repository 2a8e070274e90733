//! The head of a pack, and the heads that are kept in memory.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::types::PackId;

/// The header of a pack, needed to open its frames.
#[derive(Debug, Clone)]
pub struct PackHead {
    /// The envelope header as stored.
    pub header: Vec<u8>,
    pub random: [u8; 32],
}

/// Pack heads kept in memory: 64 k of about 120 bytes each.
const HEADS_MAX: usize = 64 << 10;

/// Heads by the ids of their packs. If it is full, the next head replaces all of them.
#[derive(Debug, Default)]
pub(super) struct PackHeads(Mutex<HashMap<PackId, PackHead>>);

impl PackHeads {
    /// Returns the head of a pack, if it is kept.
    pub fn get(&self, id: &PackId) -> Option<PackHead> {
        self.lock().get(id).cloned()
    }

    /// Keeps the head of a pack.
    pub fn keep(&self, id: PackId, head: PackHead) {
        let mut heads = self.lock();
        if heads.len() >= HEADS_MAX {
            heads.clear();
        }
        heads.insert(id, head);
    }

    /// Drops the head of a pack.
    pub fn forget(&self, id: &PackId) {
        self.lock().remove(id);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PackId, PackHead>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
