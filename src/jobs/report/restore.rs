//! The result of a restore.

use std::os::unix::ffi::OsStrExt;

use serde::Serialize;

use super::value::PatternField;
use crate::ops::restore::RestoreReport;
use crate::types::to_u64;

/// The result of a restore. In a dry run, the counts are those that a restore would have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RestoreSummary {
    /// The restored snapshot.
    pub snapshot: String,
    /// Nothing was written.
    pub dry_run: bool,
    /// Selected entries, directories included.
    pub entries: u64,
    /// Files, links and special files written.
    pub files_written: u64,
    /// Existing files that were left as they are.
    pub files_unchanged: u64,
    /// Of these, files that were kept because the snapshot's file is not newer.
    pub newer_here: u64,
    /// Of the written files, those that became another name of a restored file.
    pub hard_links: u64,
    /// Plain bytes of written files, holes included.
    pub bytes_written: u64,
    /// Names deleted.
    pub deleted: u64,
    /// Names that are not in the snapshot and were kept, because it does not record that they were
    /// absent.
    pub not_deleted: u64,
    /// Paths that could not be restored.
    pub failed: u64,
    /// Entries that are incomplete in the snapshot.
    pub incomplete: u64,
    /// Parts of metadata that could not be set.
    pub refused_metadata: u64,
    /// Owners that only root may set.
    pub owners_not_set: u64,
    /// Files that were read back and match the snapshot.
    pub verified: u64,
    /// Files that were read back and differed.
    pub different: u64,
    /// Unfinished files of restores that were killed.
    pub leftovers: u64,
    /// Ranges of paths about which nothing is known.
    pub uncertain: u64,
    /// Patterns that matched nothing.
    pub unmatched: Vec<PatternField>,
}

impl RestoreSummary {
    /// Creates the summary of a restore.
    pub fn new(report: &RestoreReport, dry_run: bool) -> Self {
        let unmatched = report.unmatched.iter();
        Self {
            snapshot: report.snapshot.to_string(),
            dry_run,
            entries: report.entries,
            files_written: report.files_written,
            files_unchanged: report.files_unchanged,
            newer_here: report.newer_here,
            hard_links: report.hard_links,
            bytes_written: report.bytes_written,
            deleted: report.deleted,
            not_deleted: report.not_deleted,
            failed: report.failed,
            incomplete: report.incomplete,
            refused_metadata: report.refused_meta,
            owners_not_set: report.owners_not_set,
            verified: report.verified,
            different: report.different,
            leftovers: report.leftovers,
            uncertain: to_u64(report.uncertain.len()),
            unmatched: unmatched
                .map(|include| PatternField::new(include.pattern.as_bytes()))
                .collect(),
        }
    }
}
