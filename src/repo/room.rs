//! Space on a full disk for commands that write little, most of which free space.

use crate::store::SharedStore;

/// Releases the store's reserve for as long as this value lives, if the store is nearly full. On
/// drop the reserve is taken again as far as space allows. A crash leaves no reserve, and the next
/// prune creates one.
#[derive(Debug)]
pub(super) struct SpareRoom {
    store: SharedStore,
    is_given_back: bool,
}

impl SpareRoom {
    /// Releases the reserve if the store is nearly full.
    pub fn new(store: &SharedStore) -> Self {
        let mut room = Self {
            store: SharedStore::clone(store),
            is_given_back: false,
        };
        if store.is_nearly_full() {
            room.give_back();
        }
        room
    }

    /// Releases the reserve even if the store reports free space, because a write has failed.
    pub fn give_back(&mut self) {
        // Not fatal: if the space is still missing, the next write fails with its own error.
        let _ = self.store.set_reserve(false);
        self.is_given_back = true;
    }
}

impl Drop for SpareRoom {
    fn drop(&mut self) {
        if self.is_given_back {
            let _ = self.store.set_reserve(true);
        }
    }
}
