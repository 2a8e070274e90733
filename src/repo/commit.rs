//! The commit: the snapshot is the only commit point, and it counts only if it landed within its lease.

use super::{Lease, RepoError, Repository};
use crate::format::{Snapshot, SnapshotState};
use crate::store::{ObjectKey, StoreError};
use crate::types::{SnapshotId, Timestamp};

/// A snapshot that landed within its lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    pub id: SnapshotId,
    pub stored: Timestamp,
    /// Stored bytes of the snapshot object.
    pub bytes: u64,
}

impl Repository {
    /// Puts the snapshot, checks that it landed within the lease and that its parents are still roots, and ends the
    /// lease. Everything that it refers to is stored, durable and published by then.
    ///
    /// If it landed too late it is withdrawn: nothing was committed, and what was stored serves the next run. A
    /// crash between put and check leaves a snapshot that may have landed late: verify names it and nobody takes it
    /// as a parent (PROTOCOL R18).
    pub fn commit(&self, lease: Lease, snapshot: Snapshot) -> Result<Committed, RepoError> {
        self.commit_with(lease, snapshot, |_, _| {})
    }

    /// [`Repository::commit`], with something to be done between the commit and the end of the lease.
    pub fn commit_with(
        &self,
        lease: Lease,
        mut snapshot: Snapshot,
        then: impl FnOnce(&Lease, &Committed),
    ) -> Result<Committed, RepoError> {
        let committed = self.put_judged(&lease, &mut snapshot)?;
        if snapshot.state != SnapshotState::Checkpoint {
            for source in &snapshot.sources {
                self.memory().set_last_snapshot(&snapshot.host, &source.name, committed.id, committed.stored);
            }
        }
        then(&lease, &committed);
        // The snapshot is in: a lease that cannot be deleted expires by itself.
        let _ = lease.release();
        Ok(committed)
    }

    /// Puts a checkpoint of a backup under way, by the rules of a commit; the lease goes on. It is a root from then on.
    pub fn put_checkpoint(&self, lease: &Lease, mut snapshot: Snapshot) -> Result<Committed, RepoError> {
        snapshot.state = SnapshotState::Checkpoint;
        self.put_judged(lease, &mut snapshot)
    }

    /// Deletes a checkpoint that something newer overtook. One that is not there any more is as good.
    pub fn delete_checkpoint(&self, id: &SnapshotId) -> Result<(), RepoError> {
        match self.store().delete(&ObjectKey::Snapshot(*id)) {
            Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(err) => Err(err.into()),
        }
    }

    fn put_judged(&self, lease: &Lease, snapshot: &mut Snapshot) -> Result<Committed, RepoError> {
        lease.refresh(lease.expiry() / 2)?;
        snapshot.lease = lease.id();
        snapshot.heartbeat = lease.last_heartbeat();
        let (id, bytes) = self.put_snapshot(lease.id(), snapshot)?;
        let stored = match self.store().stat(&ObjectKey::Snapshot(id)) {
            Ok(meta) => meta.modified,
            Err(err) => return Err(self.withdraw(&id, err.into())),
        };
        match self.judge(lease, snapshot, stored) {
            Ok(()) => Ok(Committed { id, stored, bytes }),
            Err(why) => Err(self.withdraw(&id, why)),
        }
    }

    /// Takes back a snapshot that does not count. Where that fails too, the error says that it is still there.
    fn withdraw(&self, id: &SnapshotId, why: RepoError) -> RepoError {
        match self.store().delete(&ObjectKey::Snapshot(*id)) {
            Ok(()) | Err(StoreError::NotFound { .. }) => why,
            Err(err) => RepoError::NotWithdrawn { id: *id, why: Box::new(why), failure: err },
        }
    }

    fn judge(&self, lease: &Lease, snapshot: &Snapshot, stored: Timestamp) -> Result<(), RepoError> {
        let lost = |why: String| Err(RepoError::LostLease { id: lease.id(), why });
        lease.check()?;
        if landed_late(stored, snapshot.heartbeat, lease.expiry().as_secs_f64()) {
            return lost("the snapshot landed after it had expired".into());
        }
        for parent in &snapshot.parents {
            if !self.is_root(parent)? {
                return Err(RepoError::ParentGone { id: lease.id(), parent: *parent });
            }
        }
        Ok(())
    }
}

/// True if a snapshot landed more than `expiry` seconds after the heartbeat that it records: it is never a parent.
pub fn landed_late(stored: Timestamp, heartbeat: Timestamp, expiry: f64) -> bool {
    stored.seconds_since(heartbeat) > expiry
}
