//! The result of a prune.

use serde::Serialize;

use super::value::rfc3339;
use crate::ops::prune::{CopyStop, PackAmount, PruneReport};

/// Packs and their stored bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PackAmountRecord {
    /// Number of packs.
    pub packs: u64,
    /// Stored bytes.
    pub bytes: u64,
}

impl From<PackAmount> for PackAmountRecord {
    fn from(amount: PackAmount) -> Self {
        Self {
            packs: amount.packs,
            bytes: amount.bytes,
        }
    }
}

/// Objects of every kind and their stored bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ObjectAmountRecord {
    /// Number of objects.
    pub objects: u64,
    /// Stored bytes.
    pub bytes: u64,
}

impl From<PackAmount> for ObjectAmountRecord {
    fn from(amount: PackAmount) -> Self {
        Self {
            objects: amount.packs,
            bytes: amount.bytes,
        }
    }
}

/// The result of a prune. In a dry run, the values are those that a prune would have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PruneSummary {
    /// Nothing was changed.
    pub dry_run: bool,
    /// Another prune is running. Nothing was done.
    pub other_prune: bool,
    /// Snapshots that keep data, including checkpoints and recently forgotten snapshots.
    pub roots: u64,
    /// Chunks that they need, each counted once.
    pub chunks: u64,
    /// Packs with any needed data, and the needed share of their bytes.
    pub live: PackAmountRecord,
    /// Packs without needed data, and the unneeded share of all packs' bytes.
    pub dead: PackAmountRecord,
    /// Packs that no segment listed, published by this prune.
    pub adopted: PackAmountRecord,
    /// Packs marked for deletion by this prune.
    pub condemned: PackAmountRecord,
    /// Packs whose needed chunks were copied, and the bytes of the new packs.
    pub copied: PackAmountRecord,
    /// Why copying ended early: `full`, `max_repack` or `max_time`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copy_stopped: Option<&'static str>,
    /// Packs deleted.
    pub dropped: PackAmountRecord,
    /// Stored bytes of all deleted objects.
    pub bytes_freed: u64,
    /// Packs that are condemned and not deleted yet.
    pub pending: PackAmountRecord,
    /// End of the last grace period among them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending_until: Option<String>,
    /// Why the pending packs wait.
    pub pending_reasons: Vec<String>,
    /// Packs kept for snapshots in quarantine that cannot be read, and for snapshots that vanished
    /// without being forgotten.
    pub held: PackAmountRecord,
    /// Until when they are kept for snapshots in quarantine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_until: Option<String>,
    /// Snapshots in quarantine that cannot be read to the end.
    pub unreadable_snapshots: u64,
    /// Snapshots that are gone without having been forgotten.
    pub vanished_snapshots: u64,
    /// Objects deleted from quarantine.
    pub quarantine_deleted: ObjectAmountRecord,
    /// Objects left in quarantine.
    pub quarantined: ObjectAmountRecord,
    /// Small segments joined into one.
    pub segments_merged: u64,
    /// Segments deleted.
    pub segments_deleted: u64,
    /// Expired leases deleted.
    pub leases_deleted: u64,
    /// Forgotten snapshots deleted.
    pub forgotten_deleted: u64,
    /// Old checkpoints deleted.
    pub checkpoints_deleted: u64,
    /// Unfinished writes deleted.
    pub unfinished_deleted: u64,
}

impl PruneSummary {
    /// Creates the summary of a prune. `pending_reasons`: why its pending packs wait, for people.
    pub fn new(report: &PruneReport, pending_reasons: Vec<String>) -> Self {
        Self {
            dry_run: report.dry_run,
            other_prune: report.other_prune,
            roots: report.roots,
            chunks: report.chunks,
            live: report.live.into(),
            dead: report.dead.into(),
            adopted: report.adopted.into(),
            condemned: report.condemned.into(),
            copied: report.copied.into(),
            copy_stopped: report.copy_stopped.map(copy_stop_name),
            dropped: report.dropped.into(),
            bytes_freed: report.freed_bytes,
            pending: report.pending.into(),
            pending_until: report.pending_until.and_then(rfc3339),
            pending_reasons,
            held: report.held.into(),
            held_until: report.held_until.and_then(rfc3339),
            unreadable_snapshots: report.unreadable_aside,
            vanished_snapshots: report.vanished,
            quarantine_deleted: report.quarantine_deleted.into(),
            quarantined: report.quarantined.into(),
            segments_merged: report.segments_merged,
            segments_deleted: report.segments_deleted,
            leases_deleted: report.leases_swept,
            forgotten_deleted: report.forgotten_deleted,
            checkpoints_deleted: report.checkpoints_deleted,
            unfinished_deleted: report.unfinished_deleted,
        }
    }
}

fn copy_stop_name(stop: CopyStop) -> &'static str {
    match stop {
        CopyStop::Full => "full",
        CopyStop::MaxRepack => "max_repack",
        CopyStop::MaxTime => "max_time",
    }
}
