//! The commit. The snapshot's put is the only commit point, and it counts only if the snapshot
//! landed within its lease.

use super::{Lease, RepoError, Repository, StoredSnapshot, landed_late};
use crate::format::{Snapshot, SnapshotState};
use crate::index::{Index, PackState};
use crate::store::{ObjectKey, StoreError};
use crate::types::{SnapshotId, Timestamp};

/// A snapshot that landed within its lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommittedSnapshot {
    pub id: SnapshotId,
    pub stored: Timestamp,
    /// Stored bytes of the snapshot object.
    pub bytes: u64,
}

impl Repository {
    /// Puts the snapshot, checks it and ends the lease. By then everything that the snapshot refers
    /// to is stored, durable and published.
    ///
    /// The snapshot must have landed within the lease, its parents must still be roots, and no pack
    /// in use may have been dropped. Otherwise the snapshot is withdrawn: nothing is committed, and
    /// the next run reuses the stored data. A crash between the put and the checks may leave a
    /// snapshot that landed late. Verify reports it, and no backup takes it as a parent
    /// ([R18](docs/protocol.md#r18)).
    pub fn commit(&self, lease: Lease, snapshot: Snapshot) -> Result<CommittedSnapshot, RepoError> {
        let (committed, lease) = self.commit_held(lease, snapshot, &mut |_| Ok(()))?;
        drop(lease);
        Ok(committed)
    }

    /// Like [`Repository::commit`], but also withdraws the snapshot if `check` fails. `check` runs
    /// while the snapshot is listed and the lease is held.
    pub fn commit_if(
        &self,
        lease: Lease,
        snapshot: Snapshot,
        check: &mut dyn FnMut(&Lease) -> Result<(), RepoError>,
    ) -> Result<CommittedSnapshot, RepoError> {
        let (committed, lease) = self.commit_held(lease, snapshot, check)?;
        drop(lease);
        Ok(committed)
    }

    /// Like [`Repository::commit`], but calls `then` between the commit and the end of the lease.
    pub fn commit_with(
        &self,
        lease: Lease,
        snapshot: Snapshot,
        then: impl FnOnce(&Lease, &CommittedSnapshot),
    ) -> Result<CommittedSnapshot, RepoError> {
        let (committed, lease) = self.commit_held(lease, snapshot, &mut |_| Ok(()))?;
        then(&lease, &committed);
        drop(lease);
        Ok(committed)
    }

    fn commit_held(
        &self,
        lease: Lease,
        mut snapshot: Snapshot,
        check: &mut dyn FnMut(&Lease) -> Result<(), RepoError>,
    ) -> Result<(CommittedSnapshot, Lease), RepoError> {
        let committed = self.put_judged(&lease, &mut snapshot, check)?;
        self.remember(&StoredSnapshot {
            id: committed.id,
            stored: committed.stored,
            snapshot,
        });
        Ok((committed, lease))
    }

    /// Puts a checkpoint of a running backup, by the rules of a commit. The checkpoint is a root
    /// from then on, and the lease continues.
    pub fn put_checkpoint(
        &self,
        lease: &Lease,
        mut snapshot: Snapshot,
    ) -> Result<CommittedSnapshot, RepoError> {
        snapshot.state = SnapshotState::Checkpoint;
        self.put_judged(lease, &mut snapshot, &mut |_| Ok(()))
    }

    /// Deletes a checkpoint that was replaced by something newer. A missing checkpoint is not an
    /// error.
    pub fn delete_checkpoint(&self, id: &SnapshotId) -> Result<(), RepoError> {
        match self.store().delete(&ObjectKey::Snapshot(*id)) {
            Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(err) => Err(err.into()),
        }
    }

    fn put_judged(
        &self,
        lease: &Lease,
        snapshot: &mut Snapshot,
        check: &mut dyn FnMut(&Lease) -> Result<(), RepoError>,
    ) -> Result<CommittedSnapshot, RepoError> {
        lease.refresh(lease.expiry() / 2)?;
        snapshot.lease = lease.id();
        snapshot.heartbeat = lease.last_heartbeat();
        let (id, bytes) = self.put_snapshot(lease.id(), snapshot)?;

        let stored = match self.store().stat(&ObjectKey::Snapshot(id)) {
            Ok(meta) => meta.modified,
            Err(err) => return Err(self.withdraw(lease, &id, err.into())),
        };

        let judged = self
            .judge(lease, snapshot, stored)
            .and_then(|()| check(lease));
        match judged.and_then(|()| self.check_nothing_dropped(lease)) {
            Ok(()) => Ok(CommittedSnapshot { id, stored, bytes }),
            Err(why) => Err(self.withdraw(lease, &id, why)),
        }
    }

    /// Lists the segments once more. Returns an error if a pack was dropped that was known when
    /// this writer began.
    fn check_nothing_dropped(&self, lease: &Lease) -> Result<(), RepoError> {
        self.sync()?;
        let dropped = self.with_index(|index: &Index| index.packs_from(PackState::Dropped))?;
        match self.baseline.first_known(&dropped) {
            None => Ok(()),
            Some(pack) => {
                let why = format!(
                    "pack {} was in use when it began and was dropped since; did the store's clock jump?",
                    pack.short()
                );
                Err(RepoError::LostLease {
                    id: lease.id(),
                    why,
                })
            }
        }
    }

    /// Withdraws a snapshot that failed its checks, and returns the error to report. If deleting it
    /// fails too, the error says that it is still listed.
    ///
    /// Another client may have seen the snapshot. So a segment, if one can still be put, records
    /// that it was deleted on purpose.
    fn withdraw(&self, lease: &Lease, id: &SnapshotId, why: RepoError) -> RepoError {
        let _ = self.record_let_go(lease.id(), &[*id]);
        match self.store().delete(&ObjectKey::Snapshot(*id)) {
            Ok(()) | Err(StoreError::NotFound { .. }) => why,
            Err(err) => RepoError::NotWithdrawn {
                id: *id,
                why: Box::new(why),
                failure: err,
            },
        }
    }

    fn judge(
        &self,
        lease: &Lease,
        snapshot: &Snapshot,
        stored: Timestamp,
    ) -> Result<(), RepoError> {
        let lost = |why: String| {
            Err(RepoError::LostLease {
                id: lease.id(),
                why,
            })
        };
        lease.check()?;
        if landed_late(stored, snapshot.heartbeat, lease.expiry().as_secs_f64()) {
            return lost("the snapshot was stored after it had expired".into());
        }
        for parent in &snapshot.parents {
            if !self.is_root(parent)? {
                return Err(RepoError::ParentGone {
                    id: lease.id(),
                    parent: *parent,
                });
            }
        }
        Ok(())
    }
}
