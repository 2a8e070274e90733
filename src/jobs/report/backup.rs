//! The result of a backup.

use serde::Serialize;

use super::event::CounterValues;
use crate::ops::backup::BackupReport;

/// The result of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackupSummary {
    /// The committed snapshot; absent for a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// `complete` or `incomplete`.
    pub state: String,
    /// Nothing was stored.
    pub dry_run: bool,
    /// Index segments written.
    pub segments_written: u64,
    /// The counters at the end.
    #[serde(flatten)]
    pub counters: CounterValues,
}

impl BackupSummary {
    /// Creates the summary of a backup.
    pub fn new(report: &BackupReport, counters: CounterValues, dry_run: bool) -> Self {
        Self {
            snapshot: report.snapshot.map(|id| id.to_string()),
            state: report.state.to_string(),
            dry_run,
            segments_written: report.segments,
            counters,
        }
    }
}
