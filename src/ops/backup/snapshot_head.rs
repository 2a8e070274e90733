//! The fields that all snapshots of one backup share, and the snapshots that begin with them.

use std::collections::BTreeMap;

use crate::format::{FORMAT_VERSION, ServiceImage, Snapshot, SnapshotState, SourceRecord};
use crate::sys::now;
use crate::types::{LeaseId, SnapshotId, Timestamp};

/// The fields that all snapshots of one backup share.
pub(super) struct SnapshotHead {
    pub(super) host: String,
    pub(super) tags: Vec<String>,
    pub(super) images: Vec<ServiceImage>,
    pub(super) started: Timestamp,
}

/// Returns a checkpoint of these sources. Committing or storing it sets its lease and heartbeat.
pub(super) fn snapshot_of(
    head: &SnapshotHead,
    mut parents: Vec<SnapshotId>,
    sources: Vec<SourceRecord>,
) -> Snapshot {
    parents.sort_unstable();
    parents.dedup();
    let mut tags = head.tags.clone();
    tags.sort();
    tags.dedup();

    Snapshot {
        format: FORMAT_VERSION,
        state: SnapshotState::Checkpoint,
        host: head.host.clone(),
        tags,
        program: concat!("icecore ", env!("CARGO_PKG_VERSION")).to_owned(),
        started: head.started,
        ended: now(),
        lease: LeaseId::new([0; 16]),
        heartbeat: head.started,
        parents,
        sources,
        images: head.images.clone(),
        protected: false,
        replaces: None,
        original: None,
        committed: None,
        lost: None,
        other: BTreeMap::new(),
    }
}
