//! Ages by a clock that may have been wrong for a while.
//!
//! All times are the store's. On a local store that is the machine's clock, and a dead battery or a
//! bad time server can set it years ahead for an hour: every grace period would be over at once. So
//! a long silence does not count. If nothing was written to the repository for more than 30 days
//! between two times, either it was not used or the clock jumped, and nothing shows which. The
//! longest silence since an object was written is subtracted from its age. A real pause costs one
//! more grace period; a jump of the clock deletes nothing.

use std::time::Duration;

use crate::types::Timestamp;

/// A pause in writing longer than this may be a jump of the clock: 30 days.
const SILENCE: Duration = Duration::from_secs(30 * 24 * 3600);

/// Judges ages by the store's time at the start of a survey and the times of the objects that it
/// listed.
#[derive(Debug, Default)]
pub(super) struct StoreAges {
    now: Timestamp,
    /// Pauses longer than [`SILENCE`], ascending: from the time of one object to that of the next.
    silences: Vec<(Timestamp, Timestamp)>,
}

/// Returns true if `time` is more than `span` before `now`, by the store's clock.
pub(super) fn is_older(time: Timestamp, now: Timestamp, span: Duration) -> bool {
    now.seconds_since(time) > span.as_secs_f64()
}

impl StoreAges {
    /// Builds the ages from the times of all snapshots, forgotten snapshots and segments. Ignores
    /// times after `now`.
    pub fn new(now: Timestamp, mut times: Vec<Timestamp>) -> Self {
        times.retain(|time| *time <= now);
        times.push(now);
        times.sort_unstable();
        let pairs = times.windows(2).map(|pair| (pair[0], pair[1]));
        let silences = pairs
            .filter(|&(from, to)| is_older(from, to, SILENCE))
            .collect();
        Self { now, silences }
    }

    /// Returns true if `time` is more than `span` ago, not counting the longest silence since then.
    pub fn is_older(&self, time: Timestamp, span: Duration) -> bool {
        is_older(time, self.now, span + self.silence_since(time))
    }

    /// Returns true if `time` is more than `span` ago only when silences count.
    pub fn is_held_by_silence(&self, time: Timestamp, span: Duration) -> bool {
        is_older(time, self.now, span) && !self.is_older(time, span)
    }

    /// Returns true if the last silence lasts until now: no object confirms the present time.
    pub fn is_silent(&self) -> bool {
        self.silences.last().is_some_and(|&(_, to)| to == self.now)
    }

    fn silence_since(&self, time: Timestamp) -> Duration {
        let seconds = |&(from, to): &(Timestamp, Timestamp)| to.seconds_since(from.max(time));
        let longest = self
            .silences
            .iter()
            .filter(|(_, to)| *to > time)
            .map(seconds)
            .fold(0.0, f64::max);
        Duration::try_from_secs_f64(longest).unwrap_or(Duration::MAX / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * 3600;
    const GRACE: Duration = Duration::from_secs(24 * 3600);

    fn day(day: i64) -> Timestamp {
        Timestamp::from_seconds(day * DAY)
    }

    fn ages(now: i64, days: &[i64]) -> StoreAges {
        StoreAges::new(day(now), days.iter().map(|at| day(*at)).collect())
    }

    #[test]
    fn without_a_long_pause_age_follows_the_clock() {
        let ages = ages(100, &[40, 69, 98, 99]);
        assert!(
            ages.is_older(day(98), GRACE) && !ages.is_older(day(99), GRACE) && !ages.is_silent()
        );
    }

    #[test]
    fn a_jump_ages_nothing_until_a_grace_has_passed_after_it() {
        let just = ages(3650, &[1, 2, 3]);
        assert!(just.is_silent() && just.is_held_by_silence(day(1), GRACE * 2));
        // Objects that were old before the jump are still old.
        assert!(just.is_older(day(1), GRACE), "two days before the jump");
        assert!(!just.is_older(day(3), GRACE) && just.is_held_by_silence(day(3), GRACE));
        let later = ages(3652, &[1, 2, 3, 3650]);
        assert!(later.is_older(day(3), GRACE) && !later.is_silent());
    }

    #[test]
    fn a_repository_that_is_used_every_other_month_is_swept() {
        let second = ages(120, &[0, 60]);
        assert!(!second.is_older(day(60), GRACE) && second.is_older(day(0), GRACE));
    }

    #[test]
    fn times_ahead_of_the_clock_are_ignored() {
        let ages = ages(10, &[8, 3650]);
        assert!(
            ages.is_older(day(8), GRACE) && !ages.is_older(day(3650), GRACE) && !ages.is_silent()
        );
    }

    /// Age grows with time: if a sweep keeps an object, it keeps all later ones too.
    #[test]
    fn age_grows_with_time() {
        let mut seed = 1_u64;
        let mut draw = |below: u64| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((seed >> 33) % below) as i64
        };
        for _ in 0..500 {
            let times: Vec<i64> = (0..draw(8)).map(|_| draw(400)).collect();
            let ages = ages(400, &times);
            let old: Vec<bool> = (0..400).map(|at| ages.is_older(day(at), GRACE)).collect();
            assert!(old.windows(2).all(|pair| pair[0] || !pair[1]), "{times:?}");
        }
    }
}
