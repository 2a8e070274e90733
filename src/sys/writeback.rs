//! How long the kernel keeps written pages in memory before storing them.

use std::path::Path;

use super::read_bounded;

/// The default of most kernels, an age of 30 s and 5 s between checks. Shorter settings count as
/// this.
const SECONDS_MIN: i64 = 35;
/// Longer settings, or never, count as this.
const SECONDS_MAX: i64 = 600;

/// Returns the seconds after which a written page is on its way to the disk, by this machine's
/// settings: 35 to 600.
pub fn writeback_seconds() -> i64 {
    let read = |name: &str| -> Option<i64> {
        let path = Path::new("/proc/sys/vm").join(name);
        String::from_utf8(read_bounded(&path, 64).ok()?)
            .ok()?
            .trim()
            .parse()
            .ok()
    };
    seconds(
        read("dirty_expire_centisecs"),
        read("dirty_writeback_centisecs"),
    )
}

/// Computes the delay from the age at which a page is stored and the time between two checks, both
/// in hundredths of a second. A time of 0 between checks means never.
fn seconds(age: Option<i64>, between: Option<i64>) -> i64 {
    match (age, between) {
        (_, Some(0)) => SECONDS_MAX,
        (Some(age), Some(between)) => {
            (age.saturating_add(between).saturating_add(99) / 100).clamp(SECONDS_MIN, SECONDS_MAX)
        }
        _ => SECONDS_MIN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_settings_count_within_bounds() {
        assert_eq!(seconds(Some(3000), Some(500)), 35);
        assert_eq!(seconds(Some(6000), Some(6000)), 120);
        assert_eq!(seconds(Some(100), Some(100)), SECONDS_MIN);
        assert_eq!(seconds(Some(3000), Some(0)), SECONDS_MAX);
        assert_eq!(seconds(Some(i64::MAX), Some(1)), SECONDS_MAX);
        assert_eq!(seconds(None, None), SECONDS_MIN);
        assert!((SECONDS_MIN..=SECONDS_MAX).contains(&writeback_seconds()));
    }
}
