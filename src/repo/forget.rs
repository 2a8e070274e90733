//! Forgetting: a snapshot moves from `snapshots/` to `forgotten/`, where it stays a root until a
//! sweep.

use super::{Lease, RepoError, Repository, StoredSnapshot};
use crate::chunk::object_hash;
use crate::format::SNAPSHOT_BYTES_MAX;
use crate::repo::objects::stored_limit;
use crate::store::{ObjectBody, ObjectDir, ObjectKey, PutMode, StoreError, list_all};
use crate::types::{SnapshotId, Timestamp, to_u64};

/// A snapshot in `forgotten/` that no sweep has deleted yet.
#[derive(Debug, Clone, PartialEq)]
pub struct ForgottenSnapshot {
    /// Its `stored` is the heartbeat, because the move lost the object's time in `snapshots/`.
    pub found: StoredSnapshot,
    /// When it was forgotten, by the store's clock.
    pub forgotten: Timestamp,
}

impl Repository {
    /// Moves a snapshot to `forgotten/`.
    ///
    /// It is copied first and deleted second, and listings read `snapshots/` before `forgotten/`,
    /// so every listing finds it. A crash between these steps leaves it in both directories, which
    /// counts as not forgotten. Two processes may forget the same snapshot at once.
    ///
    /// # Errors
    /// [`RepoError::Damaged`] if its object is damaged: `forgotten/` holds only snapshots that can
    /// be restored.
    pub fn forget_snapshot(&self, lease: &Lease, id: &SnapshotId) -> Result<(), RepoError> {
        let listed = ObjectKey::Snapshot(*id);
        let forgotten = ObjectKey::Forgotten(*id);
        let bytes = match self.store().get(&listed, stored_limit(SNAPSHOT_BYTES_MAX)) {
            Ok(bytes) => bytes,
            // Another process has forgotten it since it was listed.
            Err(StoreError::NotFound { .. }) if self.is_root(id)? => return Ok(()),
            Err(err) => return Err(err.into()),
        };
        if SnapshotId::from(object_hash(&bytes)) != *id {
            return Err(RepoError::bad_object(
                &listed,
                "its bytes do not hash to its name",
            ));
        }

        self.drop_stale_copy(lease, &forgotten, &bytes)?;
        self.put_forgotten(&forgotten, &bytes)?;
        // A process that was suspended until now might delete the snapshot although its copy is
        // about to be swept, or already was.
        lease.check()?;

        match self.store().delete(&listed) {
            Ok(()) | Err(StoreError::NotFound { .. }) => {}
            Err(err) => return Err(err.into()),
        }
        // Another process that was forgetting the same snapshot may have deleted this copy as
        // stale, and stopped before it put its own.
        if !self.is_root(id)? {
            self.put_forgotten(&forgotten, &bytes)?;
        }

        self.memory().forget_snapshot(id);
        Ok(())
    }

    /// Removes the copy that an earlier forgetting left, unless it is new and intact: a sweep
    /// judges a copy by its age, and would delete an old one at once. The snapshot is still in
    /// `snapshots/`.
    fn drop_stale_copy(
        &self,
        lease: &Lease,
        key: &ObjectKey,
        bytes: &[u8],
    ) -> Result<(), RepoError> {
        let modified = match self.store().stat(key) {
            Ok(meta) => meta.modified,
            Err(StoreError::NotFound { .. }) => return Ok(()),
            Err(err) => return Err(err.into()),
        };
        let age = lease.started().seconds_since(modified);
        let is_new = age.abs() <= self.lease_times().margin.as_secs_f64();

        if is_new
            && self
                .store()
                .get(key, to_u64(bytes.len()))
                .is_ok_and(|found| found == bytes)
        {
            return Ok(());
        }
        // Another process may have forgotten the snapshot while the copy was read. Then this name
        // is its new copy.
        match self.store().stat(key) {
            Ok(meta) if meta.modified != modified => return Ok(()),
            Ok(_) => {}
            Err(StoreError::NotFound { .. }) => return Ok(()),
            Err(err) => return Err(err.into()),
        }

        match self.store().delete(key) {
            Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(err) => Err(err.into()),
        }
    }

    fn put_forgotten(&self, key: &ObjectKey, bytes: &[u8]) -> Result<(), RepoError> {
        match self
            .store()
            .put(key, ObjectBody::Bytes(bytes), PutMode::CreateOnly)
        {
            Ok(()) => Ok(()),
            Err(err @ StoreError::Exists { .. }) => {
                match self.store().get(key, to_u64(bytes.len())) {
                    Ok(found) if found == bytes => Ok(()),
                    _ => Err(err.into()),
                }
            }
            Err(err) => Err(err.into()),
        }
    }

    /// Returns the snapshots that are only in `forgotten/`, in the order in which they were
    /// forgotten. Calls `bad` for each one that cannot be read.
    pub fn forgotten_snapshots(
        &self,
        bad: &mut dyn FnMut(SnapshotId, RepoError),
    ) -> Result<Vec<ForgottenSnapshot>, RepoError> {
        let mut forgotten = list_all(self.store(), ObjectDir::Forgotten)?;
        let listed = list_all(self.store(), ObjectDir::Snapshots)?;
        forgotten.sort_by(|a, b| (a.modified, &a.key).cmp(&(b.modified, &b.key)));

        let mut out = Vec::new();
        for meta in forgotten {
            let ObjectKey::Forgotten(id) = meta.key else {
                continue;
            };
            if listed
                .iter()
                .any(|listed| listed.key == ObjectKey::Snapshot(id))
            {
                continue;
            }
            match self.read_snapshot_cached(&meta.key, &id) {
                Ok(snapshot) => {
                    let found = StoredSnapshot {
                        id,
                        stored: snapshot.heartbeat,
                        snapshot,
                    };
                    out.push(ForgottenSnapshot {
                        found,
                        forgotten: meta.modified,
                    });
                }
                // Swept since the listing.
                Err(RepoError::Store(err)) if err.is_not_found() => {}
                Err(err) if err.is_unavailable() => bad(id, err),
                Err(err) => return Err(err),
            }
        }

        Ok(out)
    }
}
