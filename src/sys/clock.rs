//! The machine's clocks: wall time for entries and snapshots, boot time for lease intervals.

use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

use crate::types::Timestamp;

/// Returns the wall clock's time. It may jump either way, so never measure an interval with it.
pub fn now() -> Timestamp {
    SystemTime::now().into()
}

/// Returns the time since boot, including suspended time (`CLOCK_BOOTTIME`). Use it for intervals
/// that must include time in which the machine sleeps.
pub fn boottime() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_time_never_goes_back_and_the_wall_clock_is_past_2020() {
        let before = boottime();
        assert!(boottime() >= before);
        assert!(now().seconds() > 1_577_836_800);
    }
}
