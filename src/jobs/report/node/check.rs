//! The files that a node's database refers to.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::ccn::check::{CheckReport, FileFinding, FileFindingKind, PlaceReport};
use crate::ccn::dump::PinKind;
use crate::jobs::report::value::code;

/// A file that is missing or wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename = "file")]
pub struct NodeFileRecord {
    /// `missing`, `wrong_name`, `torn` or `wrong_size`.
    pub kind: String,
    /// Its name in the database, or its own name if no row has it.
    pub hash: String,
    /// Kinds of pins; empty if the file is not pinned.
    pub pins: Vec<&'static str>,
    /// The source in which it is or must be.
    pub source: String,
    /// Its path in the source.
    pub path: String,
    /// Size of the file; only for `wrong_size`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Size in its row; only for `wrong_size`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_size: Option<u64>,
}

impl From<&FileFinding<'_>> for NodeFileRecord {
    fn from(finding: &FileFinding<'_>) -> Self {
        let (size, expected_size) = match finding.kind {
            FileFindingKind::WrongSize { stored, expected } => (Some(stored), Some(expected)),
            _ => (None, None),
        };
        Self {
            kind: code(finding.kind.name()),
            hash: finding.hash.clone(),
            pins: finding.pins.kinds().map(PinKind::name).collect(),
            source: finding.source.to_owned(),
            path: finding.path.clone(),
            size,
            expected_size,
        }
    }
}

/// The result of a check of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeCheckSummary {
    /// The snapshot whose dump was read.
    pub snapshot: String,
    /// The directories of this machine were checked.
    pub live: bool,
    /// Rows of files in the dump.
    pub files: u64,
    /// Rows of pins in the dump.
    pub pins: u64,
    /// Files that must exist.
    pub pinned: u64,
    /// Pinned files that are missing in one place or both.
    pub missing_files: u64,
    /// Stored files that do not match their name or row.
    pub mismatches: u64,
    /// Counts of local storage.
    pub local_storage: CheckedPlaceRecord,
    /// Counts of kubo's blocks.
    pub ipfs: CheckedPlaceRecord,
}

impl NodeCheckSummary {
    /// Creates the summary of a check. `snapshot`: id of the snapshot whose dump was read.
    pub fn new(snapshot: String, live: bool, report: &CheckReport) -> Self {
        Self {
            snapshot,
            live,
            files: report.rows.files,
            pins: report.rows.pins,
            pinned: report.pinned,
            missing_files: report.missing,
            mismatches: report.mismatches(),
            local_storage: CheckedPlaceRecord::from(&report.local),
            ipfs: CheckedPlaceRecord::from(&report.ipfs),
        }
    }
}

/// Counts of local storage or of kubo's blocks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckedPlaceRecord {
    /// Files there that are named by a hash.
    pub stored: u64,
    /// Pinned files that must be there.
    pub wanted: u64,
    /// Pinned files that are not there.
    pub missing_files: u64,
    /// A file with pins of several kinds counts once for each.
    pub missing_by_pin: BTreeMap<&'static str, u64>,
    /// Files whose content does not match their name.
    pub wrong_name: u64,
    /// Files that changed while they were captured.
    pub torn: u64,
    /// Files whose size differs from their row.
    pub wrong_size: u64,
    /// Files that vanished between listing and reading.
    pub vanished: u64,
}

impl From<&PlaceReport> for CheckedPlaceRecord {
    fn from(report: &PlaceReport) -> Self {
        let by_pin = PinKind::ALL.into_iter().zip(report.missing_by_kind);
        Self {
            stored: report.stored,
            wanted: report.wanted,
            missing_files: report.missing,
            missing_by_pin: by_pin.map(|(kind, count)| (kind.name(), count)).collect(),
            wrong_name: report.wrong_name,
            torn: report.torn,
            wrong_size: report.wrong_size,
            vanished: report.vanished,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ccn::dump::PinRows;

    #[test]
    fn a_file_of_the_wrong_size_has_both_sizes() {
        let finding = FileFinding {
            kind: FileFindingKind::WrongSize {
                stored: 1000,
                expected: 2,
            },
            hash: "Qm1".into(),
            pins: PinRows::default(),
            source: "files",
            path: "Qm1".into(),
        };
        let value = serde_json::to_value(NodeFileRecord::from(&finding)).expect("JSON");
        let expected = serde_json::json!({
            "type": "file", "kind": "wrong_size", "hash": "Qm1", "pins": [], "source": "files", "path": "Qm1",
            "size": 1000, "expected_size": 2,
        });
        assert_eq!(value, expected);
    }
}
