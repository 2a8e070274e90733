//! A roll call of the held packs: records which of them a listing of the store has shown. It takes
//! one bit for each pack, 128 KiB for a million.

use super::database::Index;
use super::error::IndexError;
use super::packs::ViewPack;
use super::rows::{PackRow, PackState};
use crate::types::PackId;

/// A roll call in progress. Its bits are pack numbers of one generation of the database, so a roll
/// that was begun in another generation is invalid.
#[derive(Debug)]
pub struct PackRoll {
    generation: u64,
    bits: Vec<u64>,
}

impl PackRoll {
    /// Returns true if the database is still the one in which the roll was begun.
    pub fn is_of(&self, index: &Index) -> bool {
        self.generation == index.generation()
    }

    fn set(&mut self, number: usize) {
        let word = number / 64;
        if word >= self.bits.len() {
            self.bits.resize(word + 1, 0);
        }
        self.bits[word] |= 1 << (number % 64);
    }

    fn has(&self, number: usize) -> bool {
        self.bits
            .get(number / 64)
            .is_some_and(|word| word & (1 << (number % 64)) != 0)
    }
}

impl Index {
    /// Begins a roll in which no pack has been shown yet.
    pub fn begin_roll(&self) -> PackRoll {
        PackRoll {
            generation: self.generation(),
            bits: Vec::new(),
        }
    }

    /// Marks packs that are in the store, given with their stored bytes. A pack of a different size
    /// counts as not shown.
    pub fn call_roll(
        &self,
        roll: &mut PackRoll,
        shown: &[(PackId, u64)],
    ) -> Result<(), IndexError> {
        self.read(|now| {
            for (id, size) in shown {
                if let Some((number, pack)) = now.view.find(id)
                    && pack.row.size == *size
                    && let Ok(number) = usize::try_from(number)
                {
                    roll.set(number);
                }
            }
            Ok(())
        })
    }

    /// Returns the held packs that were not shown, sorted by id.
    pub fn not_shown(&self, roll: &PackRoll) -> Result<Vec<PackRow>, IndexError> {
        let is_held = |pack: &ViewPack| pack.row.added && pack.row.state != PackState::Dropped;
        let is_shown = |number: i64| usize::try_from(number).is_ok_and(|number| roll.has(number));
        let mut packs = self.read(|now| {
            let left = now
                .view
                .all()
                .filter(|(number, pack)| is_held(pack) && !is_shown(*number));
            Ok(left.map(|(_, pack)| pack.row).collect::<Vec<_>>())
        })?;
        packs.sort_unstable_by_key(|pack| pack.id);
        Ok(packs)
    }
}
