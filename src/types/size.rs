//! Lengths with separate types, and sizes in human-readable notation.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use super::number::to_usize;

macro_rules! length {
    ($(#[$doc:meta])* $name:ident, $repr:ty) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name($repr);

        impl $name {
            /// Wraps a number of bytes.
            pub const fn new(bytes: $repr) -> Self {
                Self(bytes)
            }

            /// Returns the number of bytes.
            pub const fn get(self) -> $repr {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

length!(
    /// Length of a chunk or a frame before compression and sealing.
    PlainLen, u32
);
length!(
    /// Length of a frame in its pack: compressed, sealed, with the tag.
    StoredLen, u32
);
length!(
    /// Offset in a pack.
    PackOffset, u64
);
length!(
    /// Offset of a chunk in the plain bytes of its frame.
    FrameOffset, u32
);

macro_rules! length_of_bytes {
    ($name:ident) => {
        impl $name {
            /// The largest length, 4 GiB − 1.
            pub const MAX: Self = Self(u32::MAX);

            /// Returns the length of `bytes`, or `None` for 4 GiB and more.
            pub fn of(bytes: &[u8]) -> Option<Self> {
                u32::try_from(bytes.len()).ok().map(Self)
            }

            /// Returns the length of a buffer for these bytes.
            pub const fn to_usize(self) -> usize {
                to_usize(self.0)
            }
        }

        impl From<$name> for u64 {
            fn from(len: $name) -> Self {
                Self::from(len.0)
            }
        }
    };
}

length_of_bytes!(PlainLen);
length_of_bytes!(StoredLen);

impl PackOffset {
    /// Returns the offset after a frame of this length that begins here, or `None` beyond 2^64.
    pub fn checked_add(self, len: StoredLen) -> Option<Self> {
        self.checked_skip(u64::from(len))
    }

    /// Returns the offset after this many bytes of any kind, or `None` beyond 2^64.
    pub fn checked_skip(self, bytes: u64) -> Option<Self> {
        self.0.checked_add(bytes).map(Self)
    }

    /// Returns the number of bytes from `start` to this offset, or `None` if `start` is after it.
    pub fn checked_since(self, start: Self) -> Option<u64> {
        self.0.checked_sub(start.0)
    }
}

impl FrameOffset {
    /// Returns the offset after a chunk of this length that begins here, or `None` beyond 4 GiB.
    pub fn checked_add(self, len: PlainLen) -> Option<Self> {
        self.0.checked_add(len.0).map(Self)
    }

    /// Returns the offset after a chunk of this length that begins here. Beyond 4 GiB it is the
    /// largest offset, which is after the end of every frame.
    #[must_use]
    pub fn saturating_add(self, len: PlainLen) -> Self {
        Self(self.0.saturating_add(len.0))
    }

    /// Returns the place of a chunk of this length in the plain bytes of its frame.
    pub fn range(self, len: PlainLen) -> Range<usize> {
        let start = to_usize(self.0);
        start..start.saturating_add(len.to_usize())
    }
}

/// A size in bytes that is parsed and displayed in IEC units: `10GiB`, `512KiB`, `4096`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(pub u64);

const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut unit = 0;
        let mut value = self.0 as f64;
        // 1023.95 would be displayed as "1024.0", so use the next unit.
        while value >= 1023.95 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        if unit == 0 {
            write!(f, "{} B", self.0)
        } else {
            write!(f, "{value:.1} {}", UNITS[unit])
        }
    }
}

impl FromStr for ByteSize {
    type Err = String;

    /// Parses `N`, `NK`, `NKiB`, `NKB`, `N.5M` … in powers of 1024; the case does not matter.
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("'{text}' is not a size; write for example 64MiB, 10G or 4096");
        let text_ = text.trim();
        let split = text_
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text_.len());
        let (number, unit) = text_.split_at(split);
        let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kb" | "kib" => 1 << 10,
            "m" | "mb" | "mib" => 1 << 20,
            "g" | "gb" | "gib" => 1 << 30,
            "t" | "tb" | "tib" => 1 << 40,
            "p" | "pb" | "pib" => 1 << 50,
            _ => return Err(bad()),
        };
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(factor).map(Self).ok_or_else(bad);
        }
        let value = number.parse::<f64>().map_err(|_| bad())? * factor as f64;
        // The bound is just below 2^63, so the cast cannot overflow.
        if value.is_finite() && (0.0..9.2e18).contains(&value) {
            Ok(Self(value as u64))
        } else {
            Err(bad())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_offsets_and_lengths_are_checked() {
        let end = PackOffset::new(u64::MAX - 15);
        assert_eq!(
            end.checked_add(StoredLen::new(15)),
            Some(PackOffset::new(u64::MAX))
        );
        assert_eq!(end.checked_add(StoredLen::new(16)), None);
        assert_eq!(end.checked_skip(16), None);
        assert_eq!(
            PackOffset::new(70).checked_since(PackOffset::new(61)),
            Some(9)
        );
        assert_eq!(PackOffset::new(60).checked_since(PackOffset::new(61)), None);

        let last = FrameOffset::new(u32::MAX);
        assert_eq!(last.checked_add(PlainLen::new(1)), None);
        assert_eq!(last.saturating_add(PlainLen::new(1)), last);
        assert_eq!(FrameOffset::new(7).range(PlainLen::new(3)), 7..10);
        assert_eq!(PlainLen::of(b"ice"), Some(PlainLen::new(3)));
    }

    #[test]
    fn sizes_read_and_print_in_iec_units() {
        for (text, bytes) in [
            ("4096", 4096),
            ("64KiB", 65_536),
            ("10g", 10 << 30),
            ("1.5 MiB", 1_572_864),
            ("0", 0),
        ] {
            assert_eq!(text.parse::<ByteSize>(), Ok(ByteSize(bytes)), "{text}");
        }
        for bad in ["", "x", "1Q", "-1", "99999999999P", "1..2"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
        assert_eq!(ByteSize(999).to_string(), "999 B");
        assert_eq!(ByteSize(1024 * 1024 - 1).to_string(), "1.0 MiB");
        assert_eq!(ByteSize(5 << 30).to_string(), "5.0 GiB");
    }
}
