//! The result of checking a repository.

use serde::Serialize;

use super::value::{PathField, code};
use crate::ops::verify::{AffectedPath, DamageHit, VerifyFinding, VerifyReport};

/// A finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename = "finding")]
pub struct FindingRecord {
    /// Name of the object in the store, or a text if it has none.
    pub object: String,
    /// The code of its kind.
    pub kind: String,
    /// The finding and its consequence.
    pub message: String,
}

impl FindingRecord {
    /// Creates the record of a finding. `message`: its text and advice in the words of the front
    /// end.
    pub fn new(finding: &VerifyFinding, message: String) -> Self {
        Self {
            object: finding.object.clone(),
            kind: code(&finding.kind.to_string()),
            message,
        }
    }
}

/// A path that cannot be restored whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename = "affected")]
pub struct AffectedRecord {
    /// The snapshot.
    pub snapshot: String,
    /// Name of the source.
    pub source: String,
    /// The path in the source; empty for a stream.
    #[serde(flatten)]
    pub path: PathField,
    /// `content`, `attribute` or `range` (nothing is known about the paths from here on).
    pub hit: &'static str,
}

impl From<&AffectedPath> for AffectedRecord {
    fn from(affected: &AffectedPath) -> Self {
        Self {
            snapshot: affected.snapshot.to_string(),
            source: affected.source.clone(),
            path: PathField::new(&affected.path.to_slashed()),
            hit: match affected.hit {
                DamageHit::Content => "content",
                DamageHit::Attribute => "attribute",
                DamageHit::Range { .. } => "range",
            },
        }
    }
}

/// The result of a verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifySummary {
    /// Snapshots that were checked, checkpoints included.
    pub snapshots: u64,
    /// Index segments.
    pub segments: u64,
    /// Packs in the store.
    pub packs: u64,
    /// Packs that were read to the end.
    pub packs_read: u64,
    /// Stored bytes that were read.
    pub bytes_fetched: u64,
    /// Plain bytes that were decrypted and checked.
    pub bytes_read: u64,
    /// Chunks that snapshots need, each counted once.
    pub chunks: u64,
    /// Packs that no segment lists.
    pub orphan_packs: u64,
    /// Packs that this machine has never read to the end without a finding.
    pub never_verified: u64,
    /// Number of findings.
    pub findings: u64,
    /// Number of affected paths.
    pub affected: u64,
}

impl From<&VerifyReport> for VerifySummary {
    fn from(report: &VerifyReport) -> Self {
        Self {
            snapshots: report.snapshots,
            segments: report.segments,
            packs: report.packs_listed,
            packs_read: report.packs_read,
            bytes_fetched: report.bytes_read,
            bytes_read: report.plain_bytes,
            chunks: report.chunks_checked,
            orphan_packs: report.orphan_packs,
            never_verified: report.never_verified,
            findings: report.findings_count,
            affected: report.affected_count,
        }
    }
}
