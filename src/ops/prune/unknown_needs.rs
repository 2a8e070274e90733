//! Snapshots whose needs are not fully known, so that packs are kept for them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::live::LiveChunks;
use super::roots::RootSnapshots;
use crate::index::LastSnapshot;
use crate::types::{SnapshotId, Timestamp, to_u64};

/// Objects that cannot be read stay in quarantine this long: 30 days.
pub(super) const QUARANTINE_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

/// Snapshots whose needs are not fully known.
#[derive(Debug, Default)]
pub(super) struct UnknownNeeds {
    /// Packs stored until this time may be needed by one of them; `None` if there is no such
    /// snapshot.
    pub until: Option<Timestamp>,
    /// Number of snapshots in quarantine that cannot be read completely, set aside less than
    /// [`QUARANTINE_LIFE`] ago.
    pub aside: u64,
    /// When the last of these was set aside.
    pub aside_since: Option<Timestamp>,
    /// Number of snapshots that this machine remembers and that are gone without having been
    /// forgotten.
    pub vanished: u64,
}

impl UnknownNeeds {
    /// Finds these snapshots. `margin` is how far the store's clock may be off.
    pub fn find(
        roots: &RootSnapshots,
        live: &LiveChunks,
        vanished: &[LastSnapshot],
        margin: Duration,
    ) -> Self {
        let margin = i64::try_from(margin.as_secs()).unwrap_or(i64::MAX);

        // An original whose lists of entries are partly lost may need any pack, like a snapshot
        // that cannot be read at all.
        let blind = roots
            .aside
            .iter()
            .map(|(meta, _)| meta)
            .filter(|_| live.is_blind);
        let aside = roots.unknown.iter().map(|(meta, _)| meta).chain(blind);
        let young: Vec<Timestamp> = aside
            .map(|meta| meta.modified)
            .filter(|time| !roots.ages.is_older(*time, QUARANTINE_LIFE))
            .collect();
        let aside_since = young.iter().max().copied();

        let gone: BTreeMap<SnapshotId, Timestamp> = vanished
            .iter()
            .map(|one| (one.snapshot, one.time))
            .collect();
        let last = aside_since.into_iter().chain(gone.values().copied()).max();

        Self {
            until: last.map(|time| time.plus_seconds(margin)),
            aside: to_u64(young.len()),
            aside_since,
            vanished: to_u64(gone.len()),
        }
    }
}
