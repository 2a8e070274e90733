//! The result of copying snapshots to another repository.

use serde::Serialize;

use crate::ops::copy::{CopyItem, CopyOutcome, CopyReport};
use crate::types::to_u64;

/// A snapshot, and whether it was copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename = "copy")]
pub struct CopyRecord {
    /// Its id in the repository that is read.
    pub snapshot: String,
    /// `copied`, `present` (was copied before), `planned` (a dry run) or `failed`.
    pub outcome: &'static str,
    /// Its id in the other repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copy: Option<String>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl From<&CopyItem> for CopyRecord {
    fn from(item: &CopyItem) -> Self {
        let (outcome, copy, reason) = match &item.outcome {
            CopyOutcome::Copied(id) => ("copied", Some(id.to_string()), None),
            CopyOutcome::There(id) => ("present", Some(id.to_string()), None),
            CopyOutcome::Wanted => ("planned", None, None),
            CopyOutcome::Failed(why) => ("failed", None, Some(why.clone())),
        };
        Self {
            snapshot: item.found.id.to_string(),
            outcome,
            copy,
            reason,
        }
    }
}

/// The result of a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CopySummary {
    /// Nothing was copied.
    pub dry_run: bool,
    /// Snapshots that were copied, or in a dry run would be.
    pub copied: u64,
    /// Snapshots that were copied before.
    pub present: u64,
    /// Snapshots that could not be copied.
    pub failed: u64,
    /// Packs written to the other repository.
    pub packs_written: u64,
    /// Stored bytes written to the other repository.
    pub bytes_stored: u64,
}

impl CopySummary {
    /// Creates the summary of a copy.
    pub fn new(report: &CopyReport, dry_run: bool) -> Self {
        let count = |is: fn(&CopyOutcome) -> bool| {
            to_u64(report.items.iter().filter(|item| is(&item.outcome)).count())
        };
        Self {
            dry_run,
            copied: count(|outcome| {
                matches!(outcome, CopyOutcome::Copied(_) | CopyOutcome::Wanted)
            }),
            present: count(|outcome| matches!(outcome, CopyOutcome::There(_))),
            failed: count(|outcome| matches!(outcome, CopyOutcome::Failed(_))),
            packs_written: report.packs,
            bytes_stored: report.stored_bytes,
        }
    }
}
