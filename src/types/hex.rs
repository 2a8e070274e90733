//! Bytes as hex in lower case: the one implementation, for ids, names and JSON.

use std::fmt::{self, Write};

/// The digits, in order of their values.
pub const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Displays bytes as hex, without allocating.
#[derive(Debug, Clone, Copy)]
pub struct HexBytes<'a>(pub &'a [u8]);

impl fmt::Display for HexBytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        digits(self.0).try_for_each(|digit| f.write_char(char::from(digit)))
    }
}

/// Returns the digits of bytes, two for each byte. A secret is collected from these into memory that
/// its owner clears.
pub fn digits(bytes: &[u8]) -> impl Iterator<Item = u8> + '_ {
    bytes
        .iter()
        .flat_map(|&byte| [byte >> 4, byte & 15].map(|value| DIGITS[usize::from(value)]))
}

/// Returns bytes as hex.
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    text.extend(digits(bytes).map(char::from));
    text
}

/// Returns the value of one digit, or `None` for any other byte, which includes `A` to `F`.
pub const fn digit_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// Returns the bytes of a text of any length, or `None` if it is not hex in lower case with two
/// digits for each byte.
pub fn decode(text: impl AsRef<[u8]>) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_ref().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(decode_pair).collect()
}

/// Returns the bytes of a text, or `None` if it is not hex in lower case for exactly `N` bytes.
pub fn decode_array<const N: usize>(text: impl AsRef<[u8]>) -> Option<[u8; N]> {
    let text = text.as_ref();
    if text.len() != 2 * N {
        return None;
    }

    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_chunks::<2>().0) {
        *byte = decode_pair(pair)?;
    }
    Some(bytes)
}

fn decode_pair(&[high, low]: &[u8; 2]) -> Option<u8> {
    Some(digit_value(high)? << 4 | digit_value(low)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives() {
        let bytes: [u8; 256] = std::array::from_fn(|i| i as u8);
        let text = encode(&bytes);
        assert!(text.starts_with("000102") && text.ends_with("fdfeff"));
        assert_eq!(text, HexBytes(&bytes).to_string());
        for (byte, pair) in bytes.iter().zip(text.as_bytes().as_chunks::<2>().0) {
            assert_eq!(format!("{byte:02x}").as_bytes(), pair);
        }
        assert_eq!(decode(&text).as_deref(), Some(&bytes[..]));
        assert_eq!(decode_array(&text), Some(bytes));
    }

    #[test]
    fn only_lower_case_of_the_exact_length_is_decoded() {
        assert_eq!(decode(""), Some(vec![]));
        assert_eq!(decode_array::<0>(""), Some([]));
        assert_eq!(decode_array("00ff"), Some([0, 255]));
        for text in ["0", "0g", "g0", "0F", "+f", " f", "0x", "00f", "\u{e9}"] {
            assert_eq!(decode(text), None, "{text}");
            assert_eq!(decode_array::<1>(text), None, "{text}");
        }
        assert_eq!(decode_array::<1>(""), None);
        assert_eq!(decode_array::<1>("00ff"), None);
    }
}
