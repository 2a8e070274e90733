//! Events of a running operation, and the line that ends a command.

use serde::Serialize;

use super::value::{PathField, SubjectField, code, rfc3339};
use crate::observe::{Counter, Counters, PlannedChange, PlannedVerb, Problem, Severity, Subject};

/// The progress of an operation.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename = "progress")]
pub struct ProgressEvent {
    /// The current step, for people.
    pub phase: String,
    /// Seconds since the operation began.
    pub seconds: f64,
    /// Grows to `total`; absent if the total is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub done: Option<u64>,
    /// The value at which `done` ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// `bytes` or `things`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<&'static str>,
    /// The counters so far.
    #[serde(flatten)]
    pub counters: CounterValues,
}

/// The values of all counters, each under the name of its [`Counter`]; part of `progress` and of the
/// summary of a backup.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct CounterValues {
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
    /// Packs that the operation wrote, read or deleted.
    pub packs_processed: u64,
}

impl From<&Counters> for CounterValues {
    fn from(counters: &Counters) -> Self {
        let get = |counter| counters.get(counter);
        Self {
            entries: get(Counter::Entries),
            files_new: get(Counter::FilesNew),
            files_changed: get(Counter::FilesChanged),
            files_unchanged: get(Counter::FilesUnchanged),
            removed: get(Counter::Removed),
            vanished: get(Counter::Vanished),
            failed: get(Counter::Failed),
            bytes_read: get(Counter::BytesRead),
            bytes_new: get(Counter::BytesNew),
            bytes_stored: get(Counter::BytesStored),
            bytes_fetched: get(Counter::BytesFetched),
            chunks_new: get(Counter::ChunksNew),
            metadata_chunks_new: get(Counter::MetadataChunksNew),
            packs_processed: get(Counter::Packs),
        }
    }
}

/// A problem that did not end the operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename = "problem")]
pub struct ProblemEvent {
    /// `note`, `warning`, `missing`, `damage` or `alarm`.
    pub severity: &'static str,
    /// A path, an object of the store, a source, or another text.
    #[serde(flatten)]
    pub subject: SubjectField,
    /// The problem and its consequence.
    pub message: String,
    /// Advice in the words of the front end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl ProblemEvent {
    /// Creates the event of a problem. `hint`: its advice in the words of the front end.
    pub fn new(problem: &Problem, hint: Option<String>) -> Self {
        Self {
            severity: severity_name(problem.severity),
            subject: SubjectField::new(&problem.subject_bytes),
            message: problem.message.clone(),
            hint,
        }
    }
}

/// Returns the name of a severity.
pub fn severity_name(severity: Severity) -> &'static str {
    match severity {
        Severity::Note => "note",
        Severity::Warning => "warning",
        Severity::Missing => "missing",
        Severity::Damage => "damage",
        Severity::Alarm => "alarm",
    }
}

/// A path or an object that was processed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename = "detail")]
pub struct DetailEvent {
    /// The code of the action.
    pub verb: String,
    /// The path or the object.
    #[serde(flatten)]
    pub subject: SubjectField,
}

impl DetailEvent {
    /// Creates the event of a subject that an operation has processed.
    pub fn new(verb: &str, subject: &Subject) -> Self {
        Self {
            verb: code(verb),
            subject: SubjectField::new(subject.bytes()),
        }
    }
}

/// An action that a dry run of a restore would take on a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename = "planned")]
pub struct PlannedEvent {
    /// `write`, `overwrite` or `delete`.
    pub action: &'static str,
    /// Name of the source.
    pub source: String,
    /// The path in the source.
    #[serde(flatten)]
    pub path: PathField,
    /// Modification time of the existing entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtime_here: Option<String>,
    /// The existing file is newer than the snapshot's.
    pub here_is_newer: bool,
}

impl PlannedEvent {
    /// Creates the event of an action that a restore would take.
    pub fn new(planned: &PlannedChange<'_>) -> Self {
        Self {
            action: planned_verb_name(planned.verb),
            source: planned.source.to_owned(),
            path: PathField::new(&planned.path.to_slashed()),
            mtime_here: planned.here.and_then(rfc3339),
            here_is_newer: planned.is_newer,
        }
    }
}

/// Returns the name of a planned action.
pub fn planned_verb_name(verb: PlannedVerb) -> &'static str {
    match verb {
        PlannedVerb::Write => "write",
        PlannedVerb::Overwrite => "overwrite",
        PlannedVerb::Delete => "delete",
    }
}

/// The end of a command. `body` holds the command's own keys.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename = "summary")]
pub struct SummaryEvent<'a, T: Serialize> {
    /// Name of the command.
    pub command: &'static str,
    /// The exit code of the process.
    pub exit_code: u8,
    /// Duration of the operation.
    pub seconds: f64,
    /// The result of the command.
    #[serde(flatten)]
    pub body: &'a T,
}

/// The reason why a command failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename = "error")]
pub struct ErrorEvent {
    /// The exit code of the process.
    pub exit_code: u8,
    /// The error and its causes, in one line.
    pub message: String,
    /// Advice in the words of the front end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_its_type_and_stable_names() {
        let problem = ProblemEvent {
            severity: "missing",
            subject: SubjectField::new(b"a\nb"),
            message: "cannot open".to_owned(),
            hint: None,
        };
        assert_eq!(
            serde_json::to_string(&problem).expect("JSON"),
            "{\"type\":\"problem\",\"severity\":\"missing\",\"subject\":\"a\\nb\",\"message\":\"cannot open\"}"
        );

        let odd = DetailEvent {
            verb: code("removed leftover"),
            subject: SubjectField::new(b"a\\\xff"),
        };
        assert_eq!(
            serde_json::to_string(&odd).expect("JSON"),
            "{\"type\":\"detail\",\"verb\":\"removed_leftover\",\"subject\":\"a\\\\\u{fffd}\",\"subject_hex\":\"615cff\"}"
        );
    }

    #[test]
    fn counters_stand_beside_the_event_s_own_keys() {
        let event = ProgressEvent {
            phase: "committing".to_owned(),
            seconds: 1.5,
            done: Some(1),
            total: Some(2),
            unit: Some("bytes"),
            counters: CounterValues {
                entries: 3,
                ..CounterValues::default()
            },
        };
        let value = serde_json::to_value(&event).expect("JSON");
        assert_eq!(value["type"], "progress");
        assert_eq!((&value["total"], &value["entries"]), (&2.into(), &3.into()));
        let summary = SummaryEvent {
            command: "backup",
            exit_code: 3,
            seconds: 0.5,
            body: &event.counters,
        };
        let value = serde_json::to_value(&summary).expect("JSON");
        assert_eq!(
            (&value["type"], &value["exit_code"]),
            (&"summary".into(), &3.into())
        );
        assert_eq!(value["entries"], 3);
    }
}
