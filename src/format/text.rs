//! Values in the JSON objects: ids as hex, bytes as text, times as pairs, sorted keys.

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::str::FromStr;

use crate::types::{Timestamp, hex};

/// Encodes with sorted keys and without white space, so each value has one encoding.
pub(super) fn to_json<T: Serialize>(value: &T) -> Vec<u8> {
    // Through a `Value`, whose maps are sorted.
    let value = serde_json::to_value(value).expect("plain structs with text keys always encode");
    value.to_string().into_bytes()
}

/// Decodes a value. The caller has bounded the input's length.
pub(super) fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, JsonError> {
    serde_json::from_slice(bytes).map_err(|err| JsonError(err.to_string()))
}

/// Reason why JSON is invalid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonError(pub String);

impl std::fmt::Display for JsonError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for JsonError {}

/// Ids, and other values that can be parsed and displayed, as text.
pub(super) mod as_text {
    use super::*;
    use std::fmt::Display;

    pub fn serialize<T: Display, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub fn deserialize<'de, T: FromStr, D: Deserializer<'de>>(from: D) -> Result<T, D::Error>
    where
        T::Err: std::fmt::Display,
    {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// Optional values in the form of [`as_text`].
pub(super) mod as_text_option {
    use super::*;
    use std::fmt::Display;

    pub fn serialize<T: Display, S: Serializer>(
        value: &Option<T>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_ref().map(ToString::to_string).serialize(to)
    }

    pub fn deserialize<'de, T: FromStr, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<T>, D::Error>
    where
        T::Err: Display,
    {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| text.parse().map_err(D::Error::custom))
            .transpose()
    }
}

/// Lists of values in the form of [`as_text`].
pub(super) mod as_texts {
    use super::*;
    use std::fmt::Display;

    pub fn serialize<T: Display, S: Serializer>(values: &[T], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(values.iter().map(ToString::to_string))
    }

    pub fn deserialize<'de, T: FromStr, D: Deserializer<'de>>(from: D) -> Result<Vec<T>, D::Error>
    where
        T::Err: Display,
    {
        let texts = Vec::<String>::deserialize(from)?;
        texts
            .iter()
            .map(|text| text.parse().map_err(D::Error::custom))
            .collect()
    }
}

/// Times as `[seconds, nanoseconds]`.
pub(super) mod as_time {
    use super::*;

    pub fn serialize<S: Serializer>(time: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        (time.seconds(), time.nanos()).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        let (seconds, nanos) = <(i64, u32)>::deserialize(from)?;
        Timestamp::new(seconds, nanos)
            .ok_or_else(|| D::Error::custom("nanoseconds of a second or more"))
    }
}

/// Optional times.
pub(super) mod as_time_option {
    use super::*;

    pub fn serialize<S: Serializer>(time: &Option<Timestamp>, to: S) -> Result<S::Ok, S::Error> {
        time.map(|time| (time.seconds(), time.nanos()))
            .serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Timestamp>, D::Error> {
        let Some((seconds, nanos)) = Option::<(i64, u32)>::deserialize(from)? else {
            return Ok(None);
        };
        let time = Timestamp::new(seconds, nanos);
        time.map(Some)
            .ok_or_else(|| D::Error::custom("nanoseconds of a second or more"))
    }
}

/// Byte strings as text: UTF-8 unchanged, except `%`, control characters and invalid bytes, which
/// are written as `%NN`.
pub(super) mod as_bytes {
    use super::*;

    pub fn encode(bytes: &[u8]) -> String {
        use std::fmt::Write;
        let mut out = String::with_capacity(bytes.len());
        for part in bytes.utf8_chunks() {
            for c in part.valid().chars() {
                if c == '%' || c.is_ascii_control() {
                    write!(out, "%{:02x}", u32::from(c)).expect("writing to a String");
                } else {
                    out.push(c);
                }
            }
            for byte in part.invalid() {
                write!(out, "%{byte:02x}").expect("writing to a String");
            }
        }
        out
    }

    pub fn decode(text: &str) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(text.len());
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            if byte == b'%' {
                let digits = [bytes.next()?, bytes.next()?];
                let digits = std::str::from_utf8(&digits).ok()?;
                out.push(u8::from_str_radix(digits, 16).ok()?);
            } else {
                out.push(byte);
            }
        }
        Some(out)
    }

    pub fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        decode(&String::deserialize(from)?).ok_or_else(|| D::Error::custom("a broken % escape"))
    }
}

/// Lists of values in the form of [`as_bytes`].
pub(super) mod as_bytes_list {
    use super::*;

    pub fn serialize<S: Serializer>(values: &[Vec<u8>], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(values.iter().map(|value| as_bytes::encode(value)))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Vec<u8>>, D::Error> {
        let bad = || D::Error::custom("not a byte string");
        let texts = Vec::<String>::deserialize(from)?;
        texts
            .iter()
            .map(|text| as_bytes::decode(text).ok_or_else(bad))
            .collect()
    }
}

/// Bytes as lower-case hex.
pub(super) mod as_hex {
    use super::*;

    pub fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&hex::encode(bytes))
    }

    pub fn deserialize<'de, T, D: Deserializer<'de>>(from: D) -> Result<T, D::Error>
    where
        T: TryFrom<Vec<u8>>,
    {
        let bytes =
            hex::decode(String::deserialize(from)?).ok_or_else(|| D::Error::custom("not hex"))?;
        T::try_from(bytes).map_err(|_| D::Error::custom("hex of the wrong length"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_survive_as_text() {
        for bytes in [
            &b"/var/lib/100%"[..],
            b"\xff\x00a",
            "größe\n".as_bytes(),
            b"",
        ] {
            assert_eq!(
                as_bytes::decode(&as_bytes::encode(bytes)).as_deref(),
                Some(bytes)
            );
        }
        assert_eq!(as_bytes::decode("%f"), None);
        assert_eq!(as_bytes::decode("%zz"), None);
        assert_eq!(hex::decode("0g"), None);
        assert_eq!(hex::decode("00ff"), Some(vec![0, 255]));
    }
}
