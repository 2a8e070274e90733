//! `--json`: one object per line on standard output. Each has a field `type`. A program must ignore
//! types and fields that it does not know. Names of fields are never changed or removed.
//!
//! `progress` (at most one per second), `problem`, `detail` (with `-v`), `planned` (a dry run of
//! `restore`), `summary` (once, at the end) and `error` (in place of a summary) report on the
//! operation. `snapshot`, `source`, `entry`, `difference`, `finding`, `affected`, `file`, `key` and
//! `stats` are data. Sizes are in bytes, spans in seconds, times in RFC 3339 in UTC. A path that is
//! not UTF-8 has its bytes in `path_hex`, a `subject` in `subject_hex`. Both are exact: nothing in
//! them is escaped except by JSON.

use std::io::{self, Write};
use std::sync::OnceLock;

use icecore::observe::{PlannedChange, PlannedVerb};
use icecore::types::{RelPath, Timestamp, hex};
use serde::Serialize;

use crate::exit::ErrorReport;

/// The progress of an operation.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename = "progress")]
pub struct ProgressEvent {
    pub phase: String,
    /// Seconds since the operation began.
    pub seconds: f64,
    /// Grows to `total`; absent if the total is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub done: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// `bytes` or `things`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<&'static str>,
    #[serde(flatten)]
    pub counts: CountsRecord,
}

/// The counts so far; part of `progress` and of summaries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct CountsRecord {
    pub entries: u64,
    pub files_new: u64,
    pub files_changed: u64,
    pub files_unchanged: u64,
    pub removed: u64,
    pub vanished: u64,
    pub failed: u64,
    pub bytes_read: u64,
    pub bytes_new: u64,
    pub bytes_stored: u64,
    pub bytes_fetched: u64,
    pub chunks_new: u64,
    pub metadata_chunks_new: u64,
    pub packs: u64,
}

/// A problem that did not end the operation.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "problem")]
pub struct ProblemEvent<'a> {
    /// `note`, `warning`, `missing`, `damage` or `alarm`.
    pub severity: &'static str,
    #[serde(flatten)]
    pub subject: SubjectField,
    pub message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<&'a str>,
}

/// A path that was processed, with `-v`.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "detail")]
pub struct DetailEvent {
    pub verb: &'static str,
    #[serde(flatten)]
    pub subject: SubjectField,
}

/// An action that a dry run would take on a path.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "planned")]
pub struct PlannedEvent {
    /// `write`, `overwrite` or `delete`.
    pub action: &'static str,
    #[serde(flatten)]
    pub path: PathField,
    /// Modification time of the existing file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub here: Option<String>,
    /// The existing file is newer than the snapshot's.
    pub here_is_newer: bool,
}

impl PlannedEvent {
    /// Creates the event. Its path starts with the source's name.
    pub fn new(planned: &PlannedChange<'_>) -> Self {
        Self {
            action: match planned.verb {
                PlannedVerb::Write => "write",
                PlannedVerb::Overwrite => "overwrite",
                PlannedVerb::Delete => "delete",
            },
            path: PathField::new(&joined(planned.source, planned.path)),
            here: planned.here.and_then(time),
            here_is_newer: planned.is_newer,
        }
    }
}

/// Joins a source's name and a path in it with a slash.
fn joined(source: &str, path: &RelPath) -> Vec<u8> {
    let mut bytes = source.as_bytes().to_vec();
    if !path.is_root() {
        bytes.push(b'/');
        bytes.extend(
            path.key()
                .iter()
                .map(|&byte| if byte == 0 { b'/' } else { byte }),
        );
    }
    bytes
}

/// The end of a command. `body` holds the command's own fields.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "summary")]
pub struct SummaryEvent<'a, T: Serialize> {
    pub command: &'static str,
    pub exit_code: u8,
    /// Duration of the operation.
    pub seconds: f64,
    #[serde(flatten)]
    pub body: &'a T,
}

/// The command failed.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "error")]
pub struct ErrorEvent<'a> {
    pub exit_code: u8,
    pub message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<&'a str>,
}

impl<'a> ErrorEvent<'a> {
    /// Creates the event of an error as printed for people.
    pub fn new(report: &'a ErrorReport) -> Self {
        Self {
            exit_code: report.code,
            message: &report.message,
            hint: report.hint.as_deref(),
        }
    }
}

/// Bytes that are usually UTF-8: as text, and in hex if the text is not exact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PathField {
    /// Invalid bytes are replaced by U+FFFD.
    pub path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_hex: Option<String>,
}

impl PathField {
    /// Creates the field of a path with slashes.
    pub fn new(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self {
                path: text.to_owned(),
                path_hex: None,
            },
            Err(_) => Self {
                path: String::from_utf8_lossy(bytes).into_owned(),
                path_hex: Some(hex::encode(bytes)),
            },
        }
    }
}

/// The subject of an event, with the same rules as [`PathField`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SubjectField {
    pub subject: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject_hex: Option<String>,
}

impl SubjectField {
    /// Creates the field of a path or of any other name.
    pub fn new(bytes: &[u8]) -> Self {
        let PathField { path, path_hex } = PathField::new(bytes);
        Self {
            subject: path,
            subject_hex: path_hex,
        }
    }
}

/// Formats a time as RFC 3339 in UTC. Returns `None` for a time outside the years -9999 to 9999.
pub fn time(at: Timestamp) -> Option<String> {
    let nanos = i32::try_from(at.nanos()).ok()?;
    jiff::Timestamp::new(at.seconds(), nanos)
        .ok()
        .map(|t| t.to_string())
}

/// Writes one object and a newline.
pub fn write_line<T: Serialize>(out: &mut impl Write, object: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(object).map_err(io::Error::from)?;
    line.push(b'\n');
    out.write_all(&line)
}

/// The first error of an event that could not be written, unless its reader had closed the pipe.
static LOST: OnceLock<io::Error> = OnceLock::new();

/// Writes one event to standard output, at once. A failure does not end the running operation: see
/// [`lost_events`].
pub fn emit<T: Serialize>(event: &T) {
    let mut out = io::stdout().lock();
    match write_line(&mut out, event).and_then(|()| out.flush()) {
        Err(err) if err.kind() != io::ErrorKind::BrokenPipe => drop(LOST.set(err)),
        _ => {}
    }
}

/// Returns the reason why events are missing in the output, if any are, for example a full disk.
pub fn lost_events() -> Option<&'static io::Error> {
    LOST.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line<T: Serialize>(event: &T) -> String {
        let mut out = Vec::new();
        write_line(&mut out, event).expect("memory");
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn events_are_one_line_each_with_stable_names() {
        let problem = ProblemEvent {
            severity: "missing",
            subject: SubjectField::new(b"a\nb"),
            message: "cannot open",
            hint: None,
        };
        assert_eq!(
            line(&problem),
            "{\"type\":\"problem\",\"severity\":\"missing\",\"subject\":\"a\\nb\",\"message\":\"cannot open\"}\n"
        );

        let detail = DetailEvent {
            verb: "new",
            subject: SubjectField::new(b"a"),
        };
        assert_eq!(
            line(&detail),
            "{\"type\":\"detail\",\"verb\":\"new\",\"subject\":\"a\"}\n"
        );

        let odd = DetailEvent {
            verb: "new",
            subject: SubjectField::new(b"a\\\xff"),
        };
        assert_eq!(
            line(&odd),
            "{\"type\":\"detail\",\"verb\":\"new\",\"subject\":\"a\\\\\u{fffd}\",\"subject_hex\":\"615cff\"}\n"
        );

        let report = ErrorReport {
            code: 10,
            message: "no repository".to_owned(),
            hint: None,
        };
        assert_eq!(
            line(&ErrorEvent::new(&report)),
            "{\"type\":\"error\",\"exit_code\":10,\"message\":\"no repository\"}\n"
        );
    }

    #[test]
    fn counts_stand_beside_the_event_s_own_fields() {
        let event = ProgressEvent {
            phase: "committing".to_owned(),
            seconds: 1.5,
            done: Some(1),
            total: Some(2),
            unit: Some("bytes"),
            counts: CountsRecord {
                entries: 3,
                ..CountsRecord::default()
            },
        };
        let value: serde_json::Value = serde_json::from_str(&line(&event)).expect("JSON");
        assert_eq!(value["type"], "progress");
        assert_eq!((&value["total"], &value["entries"]), (&2.into(), &3.into()));
        let summary = SummaryEvent {
            command: "backup",
            exit_code: 3,
            seconds: 0.5,
            body: &event.counts,
        };
        let value: serde_json::Value = serde_json::from_str(&line(&summary)).expect("JSON");
        assert_eq!(
            (&value["type"], &value["exit_code"]),
            (&"summary".into(), &3.into())
        );
        assert_eq!(value["entries"], 3);
    }

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
        assert_eq!(time(at).as_deref(), Some("1970-01-01T00:00:01.5Z"));
        assert_eq!(time(Timestamp::from_seconds(i64::MAX)), None);
    }
}
