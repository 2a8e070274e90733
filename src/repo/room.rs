//! Room on a full disk for commands that write little, most of which come to free some.

use crate::store::SharedStore;

/// The store's reserve, given back where the store is nearly full, for as long as this lives.
/// Afterwards it is held again as far as there is room; a crash leaves none, and the next prune
/// makes another.
#[derive(Debug)]
pub(super) struct SpareRoom {
    store: SharedStore,
    is_given_back: bool,
}

impl SpareRoom {
    /// Gives the reserve back if the store is nearly full.
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

    /// Gives the reserve back, whatever the store says of its room: a write has failed.
    pub fn give_back(&mut self) {
        // What cannot be given back is no reason to stop: the write that needs it says so.
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
