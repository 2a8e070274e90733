//! Snapshots that are not settled, so that no decision may rely on them.

use std::collections::BTreeSet;

use crate::Error;
use crate::repo::{Repository, StoredSnapshot};
use crate::types::{LeaseId, SnapshotId};

/// Snapshots that their writers may withdraw at any moment: those that landed after the end of
/// their lease, while that lease is still listed. In a copy without file times all snapshots look
/// late, but their writers and leases are gone.
#[derive(Debug, Default)]
pub(super) struct UnsettledGroup(BTreeSet<SnapshotId>);

impl UnsettledGroup {
    pub fn find(repo: &Repository, all: &[StoredSnapshot]) -> Result<Self, Error> {
        let times = repo.lease_times();
        let late: Vec<&StoredSnapshot> = all.iter().filter(|one| one.landed_late(&times)).collect();
        if late.is_empty() {
            return Ok(Self::default());
        }
        let leases: BTreeSet<LeaseId> = repo.leases()?.into_iter().map(|lease| lease.id).collect();
        let unsettled = late
            .into_iter()
            .filter(|one| leases.contains(&one.snapshot.lease));
        Ok(Self(unsettled.map(|one| one.id).collect()))
    }

    pub fn has(&self, one: &StoredSnapshot) -> bool {
        self.0.contains(&one.id)
    }
}
