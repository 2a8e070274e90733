//! The lease of a reader, and its renewal (docs/protocol.md, "The reader").

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::Error;
use crate::format::LeaseKind;
use crate::observe::{Problem, Severity};
use crate::repo::{Lease, RepoError, Repository};
use crate::store::{ObjectKey, StoreError};
use crate::sys::boottime;
use crate::task::Task;
use crate::types::SnapshotId;

/// Takes a lease for an operation that reads packs, so that no prune deletes a pack in the
/// meantime. Returns `None` if the store cannot be written.
pub fn reading_lease(repo: &Repository, kind: LeaseKind) -> Result<Option<Lease>, Error> {
    if repo.store().properties().read_only {
        return Ok(None);
    }
    match Lease::take(repo, kind) {
        Ok(lease) => Ok(Some(lease)),
        Err(RepoError::Store(
            StoreError::ReadOnly { .. } | StoreError::Denied { .. } | StoreError::Full { .. },
        )) => Ok(None),
        Err(err) => Err(err.into()),
    }
}

/// How often a reader that asks all the time really looks at its lease.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// The lease of a reader that may take long, and the snapshots that it reads.
///
/// A sweep waits for every lease that is older than the mark before it. A reader that held one
/// lease for days would stop every prune for days. So it renews its lease: see
/// [`ReadLease::renew_if_due`].
///
/// Dropping it ends the lease. A lease that cannot be deleted expires by itself.
#[derive(Debug)]
pub struct ReadLease<'a> {
    repo: &'a Repository,
    /// The boot clock in milliseconds before which the lease is not looked at: readers ask for each
    /// entry.
    next_look: AtomicU64,
    state: Mutex<ReadLeaseState>,
}

#[derive(Debug)]
struct ReadLeaseState {
    /// `None` where the store cannot be written: a full or read-only repository can still be read.
    lease: Option<Lease>,
    /// The boot clock at which the lease is to be renewed.
    due: Duration,
    snapshots: BTreeSet<SnapshotId>,
}

impl<'a> ReadLease<'a> {
    /// Takes a lease, so that no prune that begins later deletes packs of the snapshots listed now.
    ///
    /// # Errors
    /// The lease could not be written although the store is not full, read-only or denied to this
    /// user.
    pub fn take(repo: &'a Repository) -> Result<Self, Error> {
        let state = ReadLeaseState {
            due: boottime() + repo.lease_times().renewal,
            lease: reading_lease(repo, LeaseKind::Restore)?,
            snapshots: BTreeSet::new(),
        };
        Ok(Self {
            repo,
            next_look: AtomicU64::new(0),
            state: Mutex::new(state),
        })
    }

    /// Records snapshots that are read under this lease. They were listed after it was taken.
    pub fn add_snapshots(&self, ids: impl IntoIterator<Item = SnapshotId>) {
        self.state().snapshots.extend(ids);
    }

    /// Renews the lease if it is 45 minutes old, or if it was lost because the machine slept: takes
    /// a new lease, lists the snapshots, calls `update`, and releases the old lease. Returns true
    /// if it did.
    ///
    /// `update` brings the index up to date. After a renewal, packs must not be read at places that
    /// were looked up before it.
    ///
    /// The old lease is kept if a snapshot is not listed any more, because a new lease does not
    /// protect its packs, and also if the store fails. The renewal is then tried again after a
    /// heartbeat. A lost lease protects nothing, so it is replaced in any case, and snapshots that
    /// are not listed any more are reported.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if cancelled.
    pub fn renew_if_due(
        &self,
        task: Task<'_>,
        update: &mut dyn FnMut() -> Result<(), Error>,
    ) -> Result<bool, Error> {
        let now = boottime();
        if milliseconds(now) < self.next_look.load(Ordering::Relaxed) {
            return Ok(false);
        }
        self.look_again_at(now + LOOK_INTERVAL);

        let mut state = self.state();
        let Some(lease) = &state.lease else {
            return Ok(false);
        };
        let is_lost = lease.check().is_err();
        if now < state.due && !is_lost {
            return Ok(false);
        }

        let times = self.repo.lease_times();
        match self.successor(&state.snapshots, is_lost, task, update) {
            Ok(Some(lease)) => {
                state.due = now + times.renewal;
                // Dropping the old lease releases it.
                state.lease = Some(lease);
                Ok(true)
            }
            Err(Error::Interrupted) => Err(Error::Interrupted),
            // After an error of the store, the old lease protects as much as before.
            Ok(None) | Err(_) => {
                self.look_again_at(now + times.heartbeat);
                Ok(false)
            }
        }
    }

    /// Returns a lease under which the reader can continue. Returns `None` if it must keep the old
    /// one.
    fn successor(
        &self,
        snapshots: &BTreeSet<SnapshotId>,
        is_lost: bool,
        task: Task<'_>,
        update: &mut dyn FnMut() -> Result<(), Error>,
    ) -> Result<Option<Lease>, Error> {
        // Lease, snapshots, index: the order in which every reader begins.
        let Some(lease) = reading_lease(self.repo, LeaseKind::Restore)? else {
            return Ok(None);
        };
        let listed = self.repo.listed_snapshots()?;
        let listed: BTreeSet<SnapshotId> = listed.into_iter().map(|(id, _)| id).collect();
        let unlisted: Vec<&SnapshotId> = snapshots.difference(&listed).collect();
        if !unlisted.is_empty() && !is_lost {
            return Ok(None);
        }
        update()?;

        for id in unlisted {
            let what = "it was forgotten while its reader had no lease, so a prune may have deleted \
                        its data";
            task.observer.problem(&Problem::new(
                Severity::Warning,
                ObjectKey::Snapshot(*id),
                what,
            ));
        }
        Ok(Some(lease))
    }

    fn look_again_at(&self, time: Duration) {
        self.next_look.store(milliseconds(time), Ordering::Relaxed);
    }

    fn state(&self) -> MutexGuard<'_, ReadLeaseState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
