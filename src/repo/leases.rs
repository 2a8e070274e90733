//! The leases of all clients: which holders are alive, and since when. Judged by the store's clock.

use super::objects::{open_object, stored_limit};
use super::{LeaseTimes, RepoError, Repository};
use crate::format::{LeaseBody, ObjectKind, decode_lease};
use crate::store::{ObjectDir, ObjectKey, StoreError, list_all};
use crate::sys::{boot_id, is_dead};
use crate::types::{LeaseId, Timestamp};

/// The largest plain lease that is read and written: 16 MiB, about 250,000 parents.
pub(super) const LEASE_BYTES_MAX: usize = 16 << 20;

/// A lease that is listed in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundLease {
    pub id: LeaseId,
    /// The store time of its last heartbeat.
    pub modified: Timestamp,
    /// Its content, or `None` if it cannot be read. It counts as a lease in both cases.
    pub body: Option<LeaseBody>,
    /// True if this machine can prove that its holder is gone: see [`FoundLease::is_dead_here`].
    pub is_orphan: bool,
}

impl FoundLease {
    /// Returns when its holder began, as far as is known. A lease that cannot be read may be as old
    /// as any lease can be.
    ///
    /// A start that the lease records as earlier than twice the longest life before its last
    /// heartbeat is not believed, because the holder would have stopped long before. So a lease
    /// that the store dates far in the future began in the future, and packs that were condemned
    /// before then do not wait for it.
    pub fn started(&self, times: &LeaseTimes) -> Timestamp {
        let before = |lives: i64| self.modified.plus_seconds(-lives * seconds(times.longest));
        match &self.body {
            Some(body) => body.started.unwrap_or(self.modified).max(before(2)),
            None => before(1),
        }
    }

    /// Returns false if, at the store's time `now`, its last heartbeat is so old that its holder
    /// must have stopped.
    pub fn is_alive(&self, now: Timestamp, times: &LeaseTimes) -> bool {
        now.seconds_since(self.modified) <= (times.expiry + times.margin).as_secs_f64()
    }

    /// Returns true if its holder was a process of this boot of this machine, under this host name,
    /// and is gone.
    ///
    /// A missing process number is not enough, because the holder may run in a clone of this
    /// machine. The file that the holder kept must also be here, unlocked, and must contain the
    /// store time of the lease's last heartbeat.
    pub fn is_dead_here(&self, host: &str) -> bool {
        let here = boot_id();
        let ours = |body: &&LeaseBody| !here.is_empty() && body.boot == here && body.host == host;
        self.is_orphan
            && self
                .body
                .as_ref()
                .filter(ours)
                .is_some_and(|body| is_dead(body.pid))
    }
}

impl Repository {
    /// Returns all leases in the store, dead ones included. A lease that vanishes during the
    /// listing was released.
    pub fn leases(&self) -> Result<Vec<FoundLease>, RepoError> {
        let mut out = Vec::new();
        for meta in list_all(self.store(), ObjectDir::Leases)? {
            let ObjectKey::Lease(id) = meta.key else {
                continue;
            };

            let body = match self.store().get(&meta.key, stored_limit(LEASE_BYTES_MAX)) {
                Ok(bytes) => open_object(
                    self.keys(),
                    ObjectKind::Lease,
                    &meta.key,
                    &bytes,
                    LEASE_BYTES_MAX,
                )
                .ok()
                .and_then(|(_, plain)| decode_lease(&plain).ok())
                .filter(|body| body.id == id),
                Err(err) if err.is_not_found() => continue,
                Err(StoreError::Short { .. } | StoreError::TooLong { .. }) => None,
                Err(err) => return Err(err.into()),
            };

            let is_orphan = self.holder_is_gone(id, meta.modified);
            out.push(FoundLease {
                id,
                modified: meta.modified,
                body,
                is_orphan,
            });
        }
        Ok(out)
    }
}

fn seconds(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}
