//! Leases: a writer's or reader's sign of life, kept by a heartbeat thread (docs/protocol.md, "The
//! writer").
//!
//! A lease is judged only by the store's clock, that is, by the modification time of the object
//! that its holder writes. An expired lease is never revived.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::marker::HolderMarker;
use super::objects::seal_object;
use super::room::SpareRoom;
use super::system::{io_error, random};
use super::{LeaseTimes, RepoError, Repository};
use crate::chunk::Keys;
use crate::format::{LeaseBody, LeaseKind, ObjectKind, encode_lease};
use crate::store::{ObjectBody, ObjectKey, PutMode, SharedStore, StoreError};
use crate::sys::{boot_id, boottime};
use crate::types::{LeaseId, SnapshotId, Timestamp};

/// The most parents that a lease names. Each takes 67 bytes, and readers limit a lease's size.
const PARENTS_MAX: usize = 230_000;

/// State shared by the holder and its heartbeat thread.
#[derive(Debug)]
struct LeaseState {
    /// Store time of the first and of the last heartbeat.
    started: Timestamp,
    last: Timestamp,
    /// CLOCK_BOOTTIME at the first and at the last heartbeat. It continues while the machine
    /// sleeps.
    boot_started: Duration,
    boot_last: Duration,
    parents: Vec<SnapshotId>,
    lost: Option<String>,
    stop: bool,
}

#[derive(Debug)]
struct LeaseShared {
    store: SharedStore,
    keys: Keys,
    body: LeaseBody,
    times: LeaseTimes,
    state: Mutex<LeaseState>,
    wake: Condvar,
    /// False after a failed heartbeat, when the lease's time in the store is unknown. Locked while
    /// a heartbeat is written.
    is_certain: Mutex<bool>,
    /// The file on this machine's disk that shows that the holder lives, and when it last wrote the
    /// lease.
    marker: Option<HolderMarker>,
}

/// A held lease. If it is dropped without [`Lease::release`], it is deleted if possible.
#[derive(Debug)]
pub struct Lease {
    shared: Arc<LeaseShared>,
    thread: Option<JoinHandle<()>>,
    /// Dropped last, so that the remaining space is reserved again once the lease is gone.
    _room: Option<SpareRoom>,
}

fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lease {
    /// Puts a lease under a random name and reads its start time from the store.
    ///
    /// On a store that is nearly full, a lease of [`LeaseKind::Repair`] releases the reserve until
    /// it ends. Its holder writes little, and forgetting is the way to make space.
    pub fn take(repo: &Repository, kind: LeaseKind) -> Result<Self, RepoError> {
        Self::take_with(repo, kind, repo.lease_times())
    }

    /// Like [`Lease::take`], with other times than the repository's.
    pub(super) fn take_with(
        repo: &Repository,
        kind: LeaseKind,
        times: LeaseTimes,
    ) -> Result<Self, RepoError> {
        let body = LeaseBody {
            id: LeaseId::new(random()?),
            kind,
            host: repo.client().to_owned(),
            boot: boot_id(),
            pid: std::process::id(),
            started: None,
            parents: Vec::new(),
        };
        let boot = boottime();
        let store = repo.shared_store();
        repo.baseline.begin();
        let marker = HolderMarker::set(repo, body.id);

        let mut room = (kind == LeaseKind::Repair).then(|| SpareRoom::new(&store));
        let put_new = || put(&store, repo.keys(), &body, PutMode::CreateOnly);
        let stamp = match (put_new(), &mut room) {
            // A quota, which the store does not see as lack of space.
            (Err(RepoError::Store(StoreError::Full { .. })), Some(room)) => {
                room.give_back();
                put_new()?
            }
            (done, _) => done?,
        };
        marker.iter().for_each(|marker| marker.note(stamp));

        let state = LeaseState {
            started: stamp,
            last: stamp,
            boot_started: boot,
            boot_last: boot,
            parents: Vec::new(),
            lost: None,
            stop: false,
        };
        let shared = Arc::new(LeaseShared {
            store,
            keys: repo.keys().clone(),
            body,
            times,
            state: Mutex::new(state),
            wake: Condvar::new(),
            is_certain: Mutex::new(true),
            marker,
        });

        let beating = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("heartbeat".into())
            .spawn(move || beating.run());
        let thread = thread.map_err(|source| io_error("start", "the heartbeat thread", source))?;

        Ok(Self {
            shared,
            thread: Some(thread),
            _room: room,
        })
    }

    /// Returns the lease's id, which packs, segments and snapshots carry as their writer.
    pub fn id(&self) -> LeaseId {
        self.shared.body.id
    }

    /// Returns the store time of the first heartbeat.
    pub fn started(&self) -> Timestamp {
        lock(&self.shared.state).started
    }

    /// Returns the store time of the last heartbeat.
    pub fn last_heartbeat(&self) -> Timestamp {
        lock(&self.shared.state).last
    }

    /// Returns how long the lease lives after its last heartbeat.
    pub fn expiry(&self) -> Duration {
        self.shared.times.expiry
    }

    /// Sets the snapshots that the holder relies on, from the next heartbeat on. At most 230,000,
    /// because readers reject a longer lease.
    pub fn set_parents(&self, parents: &[SnapshotId]) -> Result<(), RepoError> {
        if parents.len() > PARENTS_MAX {
            let why = format!(
                "it would rely on {} snapshots at once, the limit is {PARENTS_MAX}",
                parents.len()
            );
            return Err(RepoError::refused(why));
        }
        lock(&self.shared.state).parents = parents.to_vec();
        Ok(())
    }

    /// Returns an error if the lease is lost. Its holder must then stop and commit nothing.
    pub fn check(&self) -> Result<(), RepoError> {
        let mut state = lock(&self.shared.state);
        self.shared.judge_clock(&mut state);
        self.shared.verdict(&state)
    }

    /// Writes a heartbeat now if the last one is older than `age`. Otherwise only checks the lease.
    pub fn refresh(&self, age: Duration) -> Result<(), RepoError> {
        let old = {
            let state = lock(&self.shared.state);
            boottime().saturating_sub(state.boot_last) > age
        };
        if old {
            self.shared.beat()
        } else {
            self.check()
        }
    }

    /// Ends the lease: stops the heartbeat and deletes the object.
    ///
    /// On a store with delayed listings, a lease of a kind that puts snapshots is left to expire. A
    /// sweep concludes from a missing lease that the lease's snapshot is already listed, which such
    /// a store does not promise. A sweep that finds the lease alive waits until every listing must
    /// show the snapshot (docs/protocol.md, "Why it holds").
    pub fn release(mut self) -> Result<(), RepoError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), RepoError> {
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        lock(&self.shared.state).stop = true;
        self.shared.wake.notify_all();
        // The thread handles its own errors. A panic in it leaves a lease that expires.
        let _ = thread.join();

        let puts_snapshots = matches!(self.shared.body.kind, LeaseKind::Backup | LeaseKind::Repair);
        if puts_snapshots && !self.shared.store.properties().strong_listing {
            return Ok(());
        }

        match self.shared.store.delete(&ObjectKey::Lease(self.id())) {
            Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(err) => Err(err.into()),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // A lease that cannot be deleted expires by itself.
        let _ = self.end();
    }
}

impl LeaseShared {
    fn run(&self) {
        let mut state = lock(&self.state);
        while !state.stop && state.lost.is_none() {
            let (next, _) = self
                .wake
                .wait_timeout(state, self.times.heartbeat)
                .unwrap_or_else(PoisonError::into_inner);
            if next.stop {
                return;
            }
            drop(next);
            // A failed heartbeat is tried again after the next wait. The clocks decide when it is
            // too late.
            let _ = self.beat();
            state = lock(&self.state);
        }
    }

    /// Writes a heartbeat, and judges the gap since the last one by the store's clock and by our
    /// own.
    fn beat(&self) -> Result<(), RepoError> {
        // One at a time: each heartbeat compares the lease's time in the store with the time of the
        // one before.
        let mut is_certain = lock(&self.is_certain);
        let body = {
            let mut state = lock(&self.state);
            self.judge_clock(&mut state);
            self.verdict(&state)?;
            LeaseBody {
                started: Some(state.started),
                parents: state.parents.clone(),
                ..self.body.clone()
            }
        };

        let boot = boottime();
        if *is_certain {
            self.check_own()?;
        }
        // A put that fails may have landed.
        *is_certain = false;
        let stamp = put(&self.store, &self.keys, &body, PutMode::Replace)?;
        *is_certain = true;
        self.marker.iter().for_each(|marker| marker.note(stamp));

        let mut state = lock(&self.state);
        if stamp.seconds_since(state.last) > self.times.expiry.as_secs_f64() {
            state.lost =
                Some("the store's clock says that it expired between two heartbeats".into());
        }
        self.judge_clock(&mut state);
        self.verdict(&state)?;

        state.last = stamp;
        state.boot_last = boot;
        Ok(())
    }

    /// Returns an error if another process wrote the lease since our last heartbeat. A clone of
    /// this machine then does the same work, and the first of the two to end would delete the lease
    /// of the other. A missing lease was swept while the store's clock was wrong; it is put again.
    fn check_own(&self) -> Result<(), RepoError> {
        let found = match self.store.stat(&ObjectKey::Lease(self.body.id)) {
            Ok(meta) => meta.modified,
            Err(StoreError::NotFound { .. }) => return Ok(()),
            Err(err) => return Err(err.into()),
        };
        let mut state = lock(&self.state);
        if found != state.last {
            state.lost =
                Some("another process writes it; was this machine cloned while it ran?".into());
        }
        self.verdict(&state)
    }

    fn judge_clock(&self, state: &mut LeaseState) {
        let now = boottime();
        if state.lost.is_some() {
        } else if now.saturating_sub(state.boot_last) > self.times.expiry {
            state.lost = Some("no heartbeat reached the store in time".into());
        } else if now.saturating_sub(state.boot_started) > self.times.longest {
            state.lost =
                Some("a backup stops after 14 days; the next run continues from here".into());
        }
    }

    fn verdict(&self, state: &LeaseState) -> Result<(), RepoError> {
        match &state.lost {
            Some(why) => Err(RepoError::LostLease {
                id: self.body.id,
                why: why.clone(),
            }),
            None => Ok(()),
        }
    }
}

/// Writes the lease and returns its store time.
fn put(
    store: &SharedStore,
    keys: &Keys,
    body: &LeaseBody,
    mode: PutMode,
) -> Result<Timestamp, RepoError> {
    let (bytes, _) = seal_object(keys, ObjectKind::Lease, body.id, &encode_lease(body))?;
    let key = ObjectKey::Lease(body.id);
    store.put(&key, ObjectBody::Bytes(&bytes), mode)?;
    Ok(store.stat(&key)?.modified)
}
