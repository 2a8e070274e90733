//! The times of the protocol: heartbeats, expiry and margin.

use std::time::Duration;

/// The protocol's times. Tests shorten them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseTimes {
    /// From one heartbeat to the next: 5 min.
    pub heartbeat: Duration,
    /// A lease ends this long after its last heartbeat: 30 min (E).
    pub expiry: Duration,
    /// A writer stops after this long, and the next run continues its work: 14 days.
    pub longest: Duration,
    /// A reader replaces its lease by a new one after this long: 45 min.
    pub renewal: Duration,
    /// The most that listings may lag and the store's clock may jump: 1 h (M).
    pub margin: Duration,
}

impl Default for LeaseTimes {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(5 * 60),
            expiry: Duration::from_secs(30 * 60),
            longest: Duration::from_secs(14 * 24 * 3600),
            renewal: Duration::from_secs(45 * 60),
            margin: Duration::from_secs(3600),
        }
    }
}
