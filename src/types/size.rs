//! Lengths with separate types, and sizes in human-readable notation.

use std::fmt;
use std::str::FromStr;

macro_rules! length {
    ($(#[$doc:meta])* $name:ident, $repr:ty) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
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
    /// Bytes before compression and sealing.
    PlainLen, u32
);
length!(
    /// Stored bytes, including the seal's tag.
    StoredLen, u32
);
length!(
    /// Offset in a pack.
    PackOffset, u64
);

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
