//! Encoding of the binary records: minimal LEB128, zigzag, length-prefixed bytes (docs/format.md,
//! "Encoding").

use std::fmt;

use crate::types::{Timestamp, to_u64};

/// Reason why bytes are invalid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireError {
    /// Byte offset in the decoded input.
    pub at: usize,
    /// The problem there.
    pub what: &'static str,
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.what, self.at)
    }
}

impl std::error::Error for WireError {}

/// Returns the low eight bits.
pub(super) const fn low_byte(value: u64) -> u8 {
    let [low, ..] = value.to_le_bytes();
    low
}

/// Appends a number as minimal LEB128: 1–10 bytes.
pub(super) fn put_number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(low_byte(value) | 0x80);
        value >>= 7;
    }
    out.push(low_byte(value));
}

/// Appends a signed number as zigzag LEB128.
pub(super) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_number(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

/// Appends the length of bytes, then the bytes.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, to_u64(bytes.len()));
    out.extend_from_slice(bytes);
}

/// Appends a record: the length of the output of `body`, then that output. Later versions may add
/// fields at its end.
pub(super) fn put_record(
    out: &mut Vec<u8>,
    scratch: &mut Vec<u8>,
    body: impl FnOnce(&mut Vec<u8>),
) {
    scratch.clear();
    body(scratch);
    put_bytes(out, scratch);
}

#[cfg(any(test, feature = "testing"))]
thread_local! {
    static TAIL_FIELDS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Returns the number of fields of later versions that this thread has skipped. Only bytes with
/// such fields are accepted by a decoder although an encoder would not write them.
#[cfg(any(test, feature = "testing"))]
pub fn tail_fields_skipped() -> u64 {
    TAIL_FIELDS.with(std::cell::Cell::get)
}

/// Reads values written by the functions above, never past the end.
#[derive(Debug, Clone)]
pub(super) struct WireReader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Position of `bytes` in the caller's input, for error messages.
    base: usize,
}

impl<'a> WireReader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            base: 0,
        }
    }

    pub fn error(&self, what: &'static str) -> WireError {
        WireError {
            at: self.base + self.at,
            what,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    pub fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub fn take(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        if len > self.left() {
            return Err(self.error("the bytes end too early"));
        }
        let out = &self.bytes[self.at..self.at + len];
        self.at += len;
        Ok(out)
    }

    pub fn byte(&mut self) -> Result<u8, WireError> {
        Ok(self.take(1)?[0])
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    pub fn number(&mut self) -> Result<u64, WireError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(self.error("a number does not fit 64 bits"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return Err(self.error("a number is longer than it needs to be"));
                }
                return Ok(value);
            }
        }
        Err(self.error("a number does not fit 64 bits"))
    }

    pub fn signed(&mut self) -> Result<i64, WireError> {
        let raw = self.number()?;
        Ok(((raw >> 1) ^ (raw & 1).wrapping_neg()).cast_signed())
    }

    pub fn u32(&mut self) -> Result<u32, WireError> {
        self.number()?
            .try_into()
            .map_err(|_| self.error("a number does not fit 32 bits"))
    }

    /// Reads the number of items that follow, of at least `least` bytes each. A count that exceeds
    /// the input is refused before anything is allocated.
    pub fn count(&mut self, least: usize) -> Result<usize, WireError> {
        let count = self.number()?;
        usize::try_from(count)
            .ok()
            .filter(|&count| count <= self.left() / least.max(1))
            .ok_or_else(|| self.error("a count is larger than the remaining bytes allow"))
    }

    pub fn bytes(&mut self, max: usize) -> Result<&'a [u8], WireError> {
        let len = self.number()?;
        let len = usize::try_from(len)
            .ok()
            .filter(|&len| len <= max)
            .ok_or_else(|| self.error("a byte string is too long"))?;
        self.take(len)
    }

    /// Reads a record's length and returns a reader of its fields. [`WireReader::tail`] checks its end.
    pub fn record(&mut self) -> Result<Self, WireError> {
        let left = self.left();
        let bytes = self.bytes(left)?;
        Ok(Self {
            bytes,
            at: 0,
            base: self.base + self.at - bytes.len(),
        })
    }

    /// Reads the rest of a record: fields of later versions, each a tag and a byte string, in
    /// ascending order of tags. A field with an even tag is skipped, one with an odd tag must be
    /// understood.
    pub fn tail(mut self) -> Result<(), WireError> {
        let mut last = None;
        while !self.is_empty() {
            let tag = self.number()?;
            if tag % 2 == 1 {
                return Err(self.error("a field that needs a newer icecore"));
            }
            if last.replace(tag).is_some_and(|last| last >= tag) {
                return Err(self.error("fields out of order"));
            }
            let left = self.left();
            self.bytes(left)?;
            #[cfg(any(test, feature = "testing"))]
            TAIL_FIELDS.with(|fields| fields.set(fields.get() + 1));
        }
        Ok(())
    }

    pub fn end(&self) -> Result<(), WireError> {
        if self.is_empty() {
            Ok(())
        } else {
            Err(self.error("bytes after the end"))
        }
    }
}

/// Appends a time as its difference to `base`.
pub(super) fn put_time_after(out: &mut Vec<u8>, time: Timestamp, base: Timestamp) {
    put_signed(out, time.seconds().wrapping_sub(base.seconds()));
    put_signed(out, i64::from(time.nanos()) - i64::from(base.nanos()));
}

/// Reads a time written by [`put_time_after`].
pub(super) fn time_after(
    reader: &mut WireReader<'_>,
    base: Timestamp,
) -> Result<Timestamp, WireError> {
    let seconds = base.seconds().wrapping_add(reader.signed()?);
    let nanos = i64::from(base.nanos()).saturating_add(reader.signed()?);
    u32::try_from(nanos)
        .ok()
        .and_then(|nanos| Timestamp::new(seconds, nanos))
        .ok_or_else(|| reader.error("nanoseconds of a second or more"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip_and_have_one_encoding() {
        for value in [
            0,
            1,
            127,
            128,
            300,
            u64::from(u32::MAX),
            u64::MAX - 1,
            u64::MAX,
        ] {
            let mut out = Vec::new();
            put_number(&mut out, value);
            assert_eq!(WireReader::new(&out).number(), Ok(value));
        }
        for value in [0, -1, 1, i64::MIN, i64::MAX] {
            let mut out = Vec::new();
            put_signed(&mut out, value);
            assert_eq!(WireReader::new(&out).signed(), Ok(value));
        }
        for bad in [&[0x80, 0x00][..], &[0x80], &[], &[0xff; 11], &[0xff; 10]] {
            assert!(WireReader::new(bad).number().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_tail_is_skipped_if_even_and_refused_if_odd() {
        assert!(WireReader::new(&[2, 1, 9]).tail().is_ok());
        assert!(WireReader::new(&[3, 1, 9]).tail().is_err());
        assert!(WireReader::new(&[2, 5, 9]).tail().is_err());
        assert!(
            WireReader::new(&[4, 0, 2, 0]).tail().is_err()
                && WireReader::new(&[2, 0, 2, 0]).tail().is_err()
        );
    }

    #[test]
    fn a_count_cannot_outgrow_its_input() {
        assert!(WireReader::new(&[0xff, 0xff, 0x03, 1, 2]).count(1).is_err());
        assert!(WireReader::new(&[3, 1, 2]).bytes(10).is_err());
    }
}
