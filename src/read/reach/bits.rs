//! A growing set of chunk numbers: one bit per chunk instead of an id.

/// Chunk numbers of one generation of the index.
#[derive(Debug, Clone, Default)]
pub struct ChunkBits(Vec<u64>);

impl ChunkBits {
    /// Returns an empty set with room for numbers below `end`.
    pub fn with_room(end: u64) -> Self {
        Self(vec![0; word_of(end).saturating_add(1)])
    }

    /// Adds a number. Returns true if it was not in the set.
    pub fn insert(&mut self, number: u64) -> bool {
        let word = word_of(number);
        if word >= self.0.len() {
            // A segment of another client was loaded in the meantime.
            self.0.resize(word.saturating_add(1), 0);
        }
        let bit = 1 << (number % 64);
        let is_new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        is_new
    }

    /// Removes a number.
    pub fn remove(&mut self, number: u64) {
        if let Some(word) = self.0.get_mut(word_of(number)) {
            *word &= !(1 << (number % 64));
        }
    }

    pub fn contains(&self, number: u64) -> bool {
        self.0
            .get(word_of(number))
            .is_some_and(|word| word & 1 << (number % 64) != 0)
    }
}

/// Returns the place of a number's word. A place outside the address space becomes the last one,
/// which no set has: adding such a number fails for lack of memory, and looking it up finds nothing.
fn word_of(number: u64) -> usize {
    usize::try_from(number / 64).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_beyond_the_room_are_kept_too() {
        let mut bits = ChunkBits::with_room(1);
        for number in [0, 63, 64, 1000] {
            assert!(!bits.contains(number));
            assert!(bits.insert(number));
            assert!(!bits.insert(number));
            assert!(bits.contains(number) && !bits.contains(number + 1));
            bits.remove(number + 1);
            bits.remove(number + 1_000_000);
            assert!(bits.contains(number));
            bits.remove(number);
            assert!(!bits.contains(number));
        }
    }
}
