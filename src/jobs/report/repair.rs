//! The results of repairs.

use serde::Serialize;

use crate::ops::repair::{DamagedPack, PackFate, PacksReport, ReplacedSnapshot, SnapshotsReport};
use crate::repo::RebuiltIndex;
use crate::types::to_u64;

/// The result of a repair of the index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RepairIndexSummary {
    /// Packs that no segment listed, added to the index.
    pub packs_adopted: u64,
    /// The chunks of these packs.
    pub chunks_adopted: u64,
    /// The new segments that list them.
    pub segments_written: u64,
    /// Packs that could not be read.
    pub unreadable_packs: u64,
    /// Segments that could not be read.
    pub damaged_segments: u64,
}

impl From<&RebuiltIndex> for RepairIndexSummary {
    fn from(rebuilt: &RebuiltIndex) -> Self {
        Self {
            packs_adopted: rebuilt.packs,
            chunks_adopted: rebuilt.chunks,
            segments_written: to_u64(rebuilt.segments.len()),
            unreadable_packs: to_u64(rebuilt.unreadable.len()),
            damaged_segments: to_u64(rebuilt.damaged_segments.len()),
        }
    }
}

/// The result of a repair of the configuration and the key slots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RepairConfigSummary {
    /// Names of the objects that were written.
    pub written: Vec<String>,
}

/// A damaged pack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename = "damaged_pack")]
pub struct DamagedPackRecord {
    /// Id of the pack.
    pub pack: String,
    /// The damage.
    pub message: String,
    /// `healed`, `saved`, `lost`, `lost_for_now`, `cannot_be_read_now` or `not_a_pack`.
    pub fate: &'static str,
}

impl From<&DamagedPack> for DamagedPackRecord {
    fn from(pack: &DamagedPack) -> Self {
        Self {
            pack: pack.id.to_string(),
            message: pack.what.clone(),
            fate: match pack.fate {
                PackFate::Healed => "healed",
                PackFate::Saved => "saved",
                PackFate::Lost => "lost",
                PackFate::LostForNow => "lost_for_now",
                PackFate::Unreadable => "cannot_be_read_now",
                PackFate::Foreign => "not_a_pack",
            },
        }
    }
}

/// The result of a repair of packs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RepairPacksSummary {
    /// Nothing was changed.
    pub dry_run: bool,
    /// Known packs.
    pub packs: u64,
    /// Packs that were read to the end.
    pub packs_read: u64,
    /// Damaged packs.
    pub damaged: u64,
    /// Chunks stored again.
    pub chunks_saved: u64,
    /// Plain bytes of these chunks.
    pub bytes_saved: u64,
    /// Chunks that were read nowhere and were not known as lost.
    pub lost_chunks: u64,
    /// Such chunks in packs that cannot be read now.
    pub lost_for_now: u64,
    /// Packs that cannot be read now.
    pub unreadable_now: u64,
    /// Chunks lost by earlier damage and not found since.
    pub still_lost: u64,
    /// Packs that no segment listed, added to the index.
    pub packs_adopted: u64,
    /// Packs whose recovery data was written.
    pub parity_written: u64,
}

impl RepairPacksSummary {
    /// Creates the summary of a repair of packs.
    pub fn new(report: &PacksReport, dry_run: bool) -> Self {
        Self {
            dry_run,
            packs: report.packs,
            packs_read: report.packs_read,
            damaged: to_u64(report.damaged.len()),
            chunks_saved: report.saved_chunks,
            bytes_saved: report.saved_bytes,
            lost_chunks: report.lost_chunks,
            lost_for_now: report.lost_for_now,
            unreadable_now: report.unreadable_now,
            still_lost: report.still_lost,
            packs_adopted: report.adopted_packs,
            parity_written: report.parity_written,
        }
    }
}

/// A snapshot that was replaced by another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename = "replaced_snapshot")]
pub struct ReplacedSnapshotRecord {
    /// The snapshot in its place; absent in a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// The replaced snapshot.
    pub replaces: String,
    /// Paths of which the new snapshot lacks something.
    pub lost_paths: u64,
}

impl From<&ReplacedSnapshot> for ReplacedSnapshotRecord {
    fn from(replaced: &ReplacedSnapshot) -> Self {
        Self {
            snapshot: replaced.new.map(|id| id.to_string()),
            replaces: replaced.old.to_string(),
            lost_paths: replaced.lost,
        }
    }
}

/// The result of a repair of snapshots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RepairSnapshotsSummary {
    /// Nothing was changed.
    pub dry_run: bool,
    /// Snapshots that were checked.
    pub snapshots: u64,
    /// Snapshots that were replaced by ones without the lost data.
    pub damaged: u64,
    /// Repaired snapshots that were replaced by better ones.
    pub healed: u64,
    /// Objects that cannot be read as snapshots and stay where they are.
    pub unreadable: u64,
    /// Snapshots that cannot be read now, or that need data that cannot be read now.
    pub unreadable_now: u64,
    /// Objects that cannot be read as snapshots and were moved to quarantine.
    pub set_aside: u64,
}

impl RepairSnapshotsSummary {
    /// Creates the summary of a repair of snapshots.
    pub fn new(report: &SnapshotsReport, dry_run: bool) -> Self {
        Self {
            dry_run,
            snapshots: report.looked_at,
            damaged: to_u64(report.partial.len()),
            healed: to_u64(report.healed.len()),
            unreadable: report.unreadable,
            unreadable_now: report.unreadable_now,
            set_aside: to_u64(report.set_aside.len()),
        }
    }
}
