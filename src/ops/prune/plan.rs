//! Decides which packs are condemned as they are and which are worth copying, from numbers alone.

use std::cmp::Reverse;

use super::live::PackUsage;
use crate::index::PackState;
use crate::types::{PackId, Timestamp};

/// A pack below this many stored bytes is small: 16 MiB.
const SMALL_BYTES: u64 = 16 << 20;
/// A pack is copied in any case if at least this many hundredths of its plain bytes are dead.
const DEAD_HUNDREDTHS: u64 = 30;
/// The worst of the other packs are copied until at most this many hundredths of all plain bytes
/// are dead. Frames with up to a twentieth of dead bytes are kept whole
/// ([`crate::repo::PackCopier`]), so this value must be greater, or packs would be copied again and
/// again.
const DEAD_HUNDREDTHS_OF_ALL: u64 = 8;

/// Limits on the store time of packs: writers or snapshots may still need the packs outside them.
#[derive(Debug, Clone, Copy)]
pub(super) struct CutoffTimes {
    /// Packs stored from this time on are too young; `None` if packs of any age are candidates.
    pub grace: Option<Timestamp>,
    /// When the oldest lease of others began.
    pub oldest_lease: Option<Timestamp>,
    /// Packs stored until this time may be needed by a snapshot in quarantine that cannot be read,
    /// or by one that has vanished.
    pub unknown_needs: Option<Timestamp>,
}

impl CutoffTimes {
    fn allows(&self, stored: Timestamp) -> bool {
        self.grace.is_none_or(|until| stored < until)
            && self.oldest_lease.is_none_or(|until| stored < until)
            && self.unknown_needs.is_none_or(|needs| stored > needs)
    }
}

/// Packs to condemn and packs to copy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct PrunePlan {
    /// Known packs without a live chunk.
    pub dead: Vec<PackId>,
    /// Packs whose live chunks are to be copied: condemned packs first, then those with the most
    /// dead bytes, then small ones.
    pub copy: Vec<PackId>,
}

impl PrunePlan {
    pub fn make<'a>(packs: impl Iterator<Item = &'a PackUsage>, until: &CutoffTimes) -> Self {
        let mut plan = Self::default();
        let mut needed = Vec::new();
        let mut mostly_dead = Vec::new();
        let mut others = Vec::new();
        let mut all = DeadBytes::default();
        let mut copied = 0_u64;

        // Choose a group for each pack.
        for pack in packs.filter(|pack| pack.row.added) {
            let row = &pack.row;
            let stored = pack.there;
            match row.state {
                PackState::Dropped => {}
                PackState::Condemned if pack.live > 0 && stored.is_some() => {
                    copied = copied.saturating_add(pack.live_bytes());
                    needed.push(row.id);
                }
                PackState::Condemned => {}
                PackState::Known => match stored {
                    // The object is missing and no snapshot needs it: writers should not rely on
                    // it.
                    None => plan.dead.extend((pack.live == 0).then_some(row.id)),
                    Some(stored) if !until.allows(stored) => all.add(pack),
                    Some(_) if pack.live == 0 => plan.dead.push(row.id),
                    Some(_) => {
                        let hundredths = DeadBytes::of(pack).hundredths();
                        if hundredths >= DEAD_HUNDREDTHS {
                            copied = copied.saturating_add(pack.live_bytes());
                            all.plain = all.plain.saturating_add(pack.live);
                            mostly_dead.push((Reverse(hundredths), row.id));
                        } else {
                            all.add(pack);
                            others.push((Reverse(hundredths), row.id, pack));
                        }
                    }
                },
            }
        }

        // Of the packs with few dead bytes, copy the worst until the limit for all of them is met.
        plan.dead.sort_unstable();
        needed.sort_unstable();
        mostly_dead.sort_unstable();
        others.sort_unstable_by_key(|&(hundredths, id, _)| (hundredths, id));

        let mut small = Vec::new();
        for (hundredths, id, pack) in others {
            let is_worse = hundredths.0 > DEAD_HUNDREDTHS_OF_ALL;
            if is_worse && all.hundredths() > DEAD_HUNDREDTHS_OF_ALL {
                copied = copied.saturating_add(pack.live_bytes());
                all.dead = all.dead.saturating_sub(DeadBytes::of(pack).dead);
                mostly_dead.push((hundredths, id));
            } else if pack.row.size < SMALL_BYTES {
                small.push((pack.row.size, id));
            }
        }

        plan.copy = needed;
        plan.copy.extend(mostly_dead.iter().map(|(_, id)| *id));
        plan.copy.extend(worth_joining(small, copied));
        plan
    }
}

/// Plain bytes, and how many of them no snapshot needs.
#[derive(Debug, Clone, Copy, Default)]
struct DeadBytes {
    plain: u64,
    dead: u64,
}

impl DeadBytes {
    fn of(pack: &PackUsage) -> Self {
        Self {
            plain: pack.row.plain,
            dead: pack.row.plain.saturating_sub(pack.live),
        }
    }

    fn add(&mut self, pack: &PackUsage) {
        let more = Self::of(pack);
        self.plain = self.plain.saturating_add(more.plain);
        self.dead = self.dead.saturating_add(more.dead);
    }

    fn hundredths(self) -> u64 {
        self.dead.saturating_mul(100) / self.plain.max(1)
    }
}

/// Returns the small packs that are joined into one: as many of the smallest as possible while the
/// largest of them is at most twice as large as the others and the bytes that are copied anyway
/// together. So each byte is copied a few times in its life, and few small packs stay.
fn worth_joining(mut small: Vec<(u64, PackId)>, copied: u64) -> Vec<PackId> {
    small.sort_unstable();
    let mut sum = copied;
    let mut take = 0;
    for (n, (size, _)) in small.iter().enumerate() {
        if sum > 0 && sum.saturating_mul(2) >= *size {
            take = n + 1;
        }
        sum = sum.saturating_add(*size);
    }
    small.into_iter().take(take).map(|(_, id)| id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::PackRow;
    use crate::types::LeaseId;

    fn pack(n: u8, size: u64, live: u64, state: PackState) -> PackUsage {
        let row = PackRow {
            id: PackId::new([n; 32]),
            state,
            added: true,
            size,
            base: 0,
            chunks: 1,
            frames: 1,
            plain: 100,
            writer: LeaseId::new([0; 16]),
        };
        PackUsage {
            live,
            ..PackUsage::new(row, Some(Timestamp::from_seconds(i64::from(n))))
        }
    }

    fn ids(ns: &[u8]) -> Vec<PackId> {
        ns.iter().map(|n| PackId::new([*n; 32])).collect()
    }

    const BIG: u64 = 64 << 20;
    const ANY: CutoffTimes = CutoffTimes {
        grace: None,
        oldest_lease: None,
        unknown_needs: None,
    };

    #[test]
    fn mostly_dead_packs_are_copied_worst_first_and_dead_ones_not() {
        let packs = [
            pack(1, BIG, 0, PackState::Known),
            pack(2, BIG, 92, PackState::Known),
            pack(3, BIG, 70, PackState::Known),
            pack(4, BIG, 10, PackState::Known),
            pack(5, BIG, 1, PackState::Condemned),
            pack(6, BIG, 0, PackState::Condemned),
            pack(7, BIG, 0, PackState::Dropped),
            pack(8, SMALL_BYTES, 100, PackState::Known),
        ];
        let plan = PrunePlan::make(packs.iter(), &ANY);
        assert_eq!(
            plan,
            PrunePlan {
                dead: ids(&[1]),
                copy: ids(&[5, 4, 3])
            }
        );
    }

    #[test]
    fn the_worst_are_copied_until_little_of_all_is_dead() {
        let copied = |live: &[u64]| {
            let packs: Vec<PackUsage> = live
                .iter()
                .zip(1..)
                .map(|(live, n)| pack(n, BIG, *live, PackState::Known))
                .collect();
            PrunePlan::make(packs.iter(), &ANY).copy
        };
        assert_eq!(copied(&[92, 91]), ids(&[]), "8 of 100");
        assert_eq!(copied(&[90, 80, 85]), ids(&[2]), "15 of 100, then 8");
        assert_eq!(copied(&[71, 71]), ids(&[1, 2]));
        assert_eq!(copied(&[75, 99, 99, 99]), ids(&[]), "little of all is dead");
        assert_eq!(
            copied(&[0, 10, 93, 93]),
            ids(&[2]),
            "those that go anyway do not count"
        );
    }

    #[test]
    fn young_packs_and_those_of_an_active_writer_are_left_alone() {
        let packs = [1, 2, 3].map(|n| pack(n, BIG, 0, PackState::Known));
        let at = |n| Some(Timestamp::from_seconds(n));
        let dead = |until| PrunePlan::make(packs.iter(), &until).dead;

        assert_eq!(
            dead(CutoffTimes {
                grace: at(3),
                ..ANY
            }),
            ids(&[1, 2])
        );
        assert_eq!(
            dead(CutoffTimes {
                grace: at(3),
                oldest_lease: at(2),
                ..ANY
            }),
            ids(&[1])
        );
        assert_eq!(
            dead(CutoffTimes {
                oldest_lease: at(1),
                ..ANY
            }),
            ids(&[])
        );

        assert_eq!(
            dead(CutoffTimes {
                unknown_needs: at(2),
                ..ANY
            }),
            ids(&[3]),
            "only later packs"
        );
    }

    #[test]
    fn small_packs_are_joined_if_none_outweighs_the_others() {
        let packs = |sizes: &[u64]| -> Vec<PackUsage> {
            sizes
                .iter()
                .zip(1..)
                .map(|(size, n)| pack(n, *size, 100, PackState::Known))
                .collect()
        };
        let joined = |sizes: &[u64]| PrunePlan::make(packs(sizes).iter(), &ANY).copy;
        assert_eq!(joined(&[5]), ids(&[]), "one alone");
        assert_eq!(joined(&[5, 5]), ids(&[1, 2]));
        assert_eq!(joined(&[5, 100]), ids(&[]), "too much for a byte");
        assert_eq!(joined(&[100, 5, 4, 3]), ids(&[4, 3, 2]));
        assert_eq!(joined(&[SMALL_BYTES, SMALL_BYTES]), ids(&[]), "not small");
        let mut with_another = packs(&[20]);
        with_another.push(pack(2, 20, 50, PackState::Known));
        assert_eq!(
            PrunePlan::make(with_another.iter(), &ANY).copy,
            ids(&[2, 1]),
            "10 bytes are copied anyway"
        );
    }
}
