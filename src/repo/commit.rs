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
    pub fn commit(&self, lease: Lease, mut snapshot: Snapshot) -> Result<Committed, RepoError> {
        lease.refresh(lease.expiry() / 2)?;
        snapshot.lease = lease.id();
        snapshot.heartbeat = lease.last_heartbeat();
        let (id, bytes) = self.put_snapshot(lease.id(), &snapshot)?;
        let stored = match self.store().stat(&ObjectKey::Snapshot(id)) {
            Ok(meta) => meta.modified,
            Err(err) => return Err(self.withdraw(&id, err.into())),
        };
        if let Err(why) = self.judge(&lease, &snapshot, stored) {
            return Err(self.withdraw(&id, why));
        }
        if snapshot.state != SnapshotState::Checkpoint {
            for source in &snapshot.sources {
                self.memory().set_last_snapshot(&snapshot.host, &source.name, id, stored);
            }
        }
        // The snapshot is in: a lease that cannot be deleted expires by itself.
        let _ = lease.release();
        Ok(Committed { id, stored, bytes })
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
                return lost(format!("its parent {} was removed meanwhile", parent.short()));
            }
        }
        Ok(())
    }
}

/// True if a snapshot landed more than `expiry` seconds after the heartbeat that it records: it is never a parent.
pub fn landed_late(stored: Timestamp, heartbeat: Timestamp, expiry: f64) -> bool {
    stored.seconds_since(heartbeat) > expiry
}
