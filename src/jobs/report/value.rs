//! Values that reports share: times, paths and codes.

use serde::Serialize;

use crate::types::{Timestamp, hex};

/// Formats a time as RFC 3339 in UTC. Returns `None` for a time outside the years -9999 to 9999.
pub fn rfc3339(at: Timestamp) -> Option<String> {
    let nanos = i32::try_from(at.nanos()).ok()?;
    jiff::Timestamp::new(at.seconds(), nanos)
        .ok()
        .map(|time| time.to_string())
}

/// Returns the code of a name that people read: its words joined by underscores.
pub(super) fn code(name: &str) -> String {
    name.replace([' ', '-'], "_")
}

/// Returns the bytes as text with U+FFFD in place of invalid bytes, and all bytes in hex if the
/// text is not exact.
fn text_and_hex(bytes: &[u8]) -> (String, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), None),
        Err(_) => (
            String::from_utf8_lossy(bytes).into_owned(),
            Some(hex::encode(bytes)),
        ),
    }
}

/// A path: bytes that are usually UTF-8, as text, and in hex if the text is not exact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PathField {
    /// Invalid bytes are replaced by U+FFFD.
    pub path: String,
    /// All bytes in lower-case hex, if `path` is not exact.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_hex: Option<String>,
}

impl PathField {
    /// Creates the field of a path with slashes.
    pub fn new(bytes: &[u8]) -> Self {
        let (path, path_hex) = text_and_hex(bytes);
        Self { path, path_hex }
    }
}

/// The subject of an event, with the same rules as [`PathField`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SubjectField {
    /// Invalid bytes are replaced by U+FFFD.
    pub subject: String,
    /// All bytes in lower-case hex, if `subject` is not exact.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject_hex: Option<String>,
}

impl SubjectField {
    /// Creates the field of a path or of any other name.
    pub fn new(bytes: &[u8]) -> Self {
        let (subject, subject_hex) = text_and_hex(bytes);
        Self {
            subject,
            subject_hex,
        }
    }
}

/// The target of a symbolic link, with the same rules as [`PathField`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LinkTargetField {
    /// Invalid bytes are replaced by U+FFFD.
    pub target: String,
    /// All bytes in lower-case hex, if `target` is not exact.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_hex: Option<String>,
}

impl LinkTargetField {
    /// Creates the field of a link's target.
    pub fn new(bytes: &[u8]) -> Self {
        let (target, target_hex) = text_and_hex(bytes);
        Self { target, target_hex }
    }
}

/// A pattern, with the same rules as [`PathField`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PatternField {
    /// Invalid bytes are replaced by U+FFFD.
    pub pattern: String,
    /// All bytes in lower-case hex, if `pattern` is not exact.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pattern_hex: Option<String>,
}

impl PatternField {
    /// Creates the field of a pattern.
    pub fn new(bytes: &[u8]) -> Self {
        let (pattern, pattern_hex) = text_and_hex(bytes);
        Self {
            pattern,
            pattern_hex,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_no_text_keeps_its_bytes() {
        assert_eq!(
            PathField::new("ä".as_bytes()),
            PathField {
                path: "ä".to_owned(),
                path_hex: None
            }
        );
        let odd = PathField::new(b"a\xff");
        assert_eq!(
            (odd.path.as_str(), odd.path_hex.as_deref()),
            ("a\u{fffd}", Some("61ff"))
        );
    }

    #[test]
    fn times_are_utc() {
        let at = Timestamp::new(1, 500_000_000).expect("a time");
        assert_eq!(rfc3339(at).as_deref(), Some("1970-01-01T00:00:01.5Z"));
        assert_eq!(rfc3339(Timestamp::from_seconds(i64::MAX)), None);
    }

    #[test]
    fn codes_have_no_blanks() {
        assert_eq!(code("cannot be read now"), "cannot_be_read_now");
        assert_eq!(code("wrong-size"), "wrong_size");
    }
}
