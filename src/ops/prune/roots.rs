//! Finds the snapshots that keep chunks alive.

use std::collections::BTreeSet;
use std::time::Duration;

use super::age::StoreAges;
use crate::Error;
use crate::format::{Snapshot, SnapshotState};
use crate::read::reach::UnreadableReason;
use crate::repo::{FoundLease, RepoError, Repository, StoredSnapshot};
use crate::store::{ObjectDir, ObjectKey, ObjectMeta, list_all};
use crate::task::Cancel;
use crate::types::{SnapshotId, Timestamp};

/// A checkpoint is given up if its backup was not continued for this long: 7 days.
const CHECKPOINT_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// The snapshots that keep chunks alive, and those that no longer do.
#[derive(Debug, Default)]
pub(super) struct RootSnapshots {
    /// Listed snapshots, and forgotten ones that are young or named by a lease; newest first.
    pub snapshots: Vec<StoredSnapshot>,
    /// Snapshots that a repair set aside. Chunks that resolve are live; the others were lost
    /// before.
    pub quarantined: Vec<Snapshot>,
    /// The objects of the snapshots in `quarantined`, each with the id of the first snapshot it
    /// derives from.
    pub aside: Vec<(ObjectMeta, SnapshotId)>,
    /// Snapshot objects in quarantine that cannot be read, so that their needs are unknown; true if
    /// the error may be temporary.
    pub unknown: Vec<(ObjectMeta, bool)>,
    /// Snapshots that cannot be read, so that their needs are unknown: object and reason.
    pub unreadable: Vec<(String, UnreadableReason)>,
    /// Forgotten snapshots that are no longer roots.
    pub spent: Vec<ObjectMeta>,
    /// Listed checkpoints that no backup continues.
    pub old_checkpoints: Vec<ObjectMeta>,
    /// All names found in `snapshots/`.
    pub listed: BTreeSet<SnapshotId>,
    /// Judges the ages of objects.
    pub ages: StoreAges,
    /// True if a forgotten snapshot stays only because of a long silence.
    pub is_held_by_silence: bool,
}

impl RootSnapshots {
    /// Lists and reads the snapshots. `leases`: the living leases of others, listed before. A
    /// forgotten snapshot is a root for `grace`, while a lease names it, and while it is in
    /// `snapshots/` too, since another client is then about to forget it again.
    pub fn list(
        repo: &Repository,
        leases: &[FoundLease],
        now: Timestamp,
        grace: Option<Duration>,
        cancel: &Cancel,
    ) -> Result<Self, Error> {
        let named: BTreeSet<SnapshotId> = leases
            .iter()
            .filter_map(|lease| lease.body.as_ref())
            .flat_map(|body| body.parents.clone())
            .collect();

        let mut roots = Self::default();
        let mut times: Vec<Timestamp> = list_all(repo.store(), ObjectDir::Index)?
            .into_iter()
            .map(|meta| meta.modified)
            .collect();

        let listed = list_all(repo.store(), ObjectDir::Snapshots)?;
        let forgotten = list_all(repo.store(), ObjectDir::Forgotten)?;
        times.extend(listed.iter().chain(&forgotten).map(|meta| meta.modified));
        roots.ages = StoreAges::new(now, times);

        let mut seen = BTreeSet::new();
        // List again: a snapshot that was put back between the two listings is in neither of them.
        for meta in listed
            .into_iter()
            .chain(list_all(repo.store(), ObjectDir::Snapshots)?)
        {
            if let ObjectKey::Snapshot(id) = meta.key
                && seen.insert(id)
            {
                cancel.check()?;
                roots.listed(repo, id, meta, leases, &named)?;
            }
        }

        roots.listed.clone_from(&seen);
        repo.compare_with_memory(&seen.iter().map(|id| (*id, now)).collect::<Vec<_>>())?;
        for meta in forgotten {
            let ObjectKey::Forgotten(id) = meta.key else {
                continue;
            };
            cancel.check()?;

            // A snapshot that was forgotten after the leases were listed may be the parent of a
            // backup that began since.
            let may_go =
                meta.modified <= now && !named.contains(&id) && !roots.listed.contains(&id);
            roots.is_held_by_silence |= may_go
                && grace.is_some_and(|grace| roots.ages.is_held_by_silence(meta.modified, grace));

            if may_go && grace.is_none_or(|grace| roots.ages.is_older(meta.modified, grace)) {
                roots.spent.push(meta);
            } else if seen.insert(id) {
                let read = repo.read_snapshot_at(&meta.key);
                roots.take(id, meta.modified, &meta.key, read)?;
            }
        }

        for meta in list_all(repo.store(), ObjectDir::Quarantine)? {
            let ObjectKey::QuarantinedSnapshot(id) = meta.key else {
                continue;
            };
            match repo.read_snapshot_at(&meta.key) {
                Ok(snapshot) => {
                    roots.aside.push((meta, snapshot.original.unwrap_or(id)));
                    roots.quarantined.push(snapshot);
                }
                // A repair put it back after the listing.
                Err(RepoError::Store(err)) if err.is_not_found() => {}
                Err(err) if err.is_unavailable() => {
                    roots.unknown.push((meta, err.is_unreadable_now()));
                }
                Err(err) => return Err(err.into()),
            }
        }

        roots
            .snapshots
            .sort_by_key(|found| std::cmp::Reverse(found.order()));
        Ok(roots)
    }

    fn listed(
        &mut self,
        repo: &Repository,
        id: SnapshotId,
        meta: ObjectMeta,
        leases: &[FoundLease],
        named: &BTreeSet<SnapshotId>,
    ) -> Result<(), Error> {
        let read = match repo.read_snapshot(&id) {
            // Forgotten or withdrawn after the listing.
            Err(RepoError::Store(err)) if err.is_not_found() => {
                match repo.read_snapshot_at(&ObjectKey::Forgotten(id)) {
                    Err(RepoError::Store(err)) if err.is_not_found() => return Ok(()),
                    read => read,
                }
            }
            read => read,
        };
        if let Ok(snapshot) = &read
            && snapshot.state == SnapshotState::Checkpoint
            && self.ages.is_older(meta.modified, CHECKPOINT_LIFE)
            && !named.contains(&id)
            && !leases.iter().any(|lease| lease.id == snapshot.lease)
        {
            self.old_checkpoints.push(meta.clone());
        }
        self.take(id, meta.modified, &meta.key, read)
    }

    fn take(
        &mut self,
        id: SnapshotId,
        stored: Timestamp,
        key: &ObjectKey,
        read: Result<Snapshot, RepoError>,
    ) -> Result<(), Error> {
        match read {
            Ok(snapshot) => self.snapshots.push(StoredSnapshot {
                id,
                stored,
                snapshot,
            }),
            Err(RepoError::Store(err)) if err.is_not_found() => {}
            Err(err) if err.is_unavailable() => {
                self.unreadable.push((key.to_string(), err.into()));
            }
            Err(err) => return Err(err.into()),
        }
        Ok(())
    }
}
