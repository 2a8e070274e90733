//! Checkpoints: snapshots of the sources that a running backup has captured so far, from which an
//! interrupted backup resumes (docs/protocol.md).
//!
//! Every few minutes: cut the entries captured so far → write them as a run in front of the others
//! → store everything given to the packer, durable and published → snapshot of state `checkpoint` →
//! did it land within the lease? → delete the previous checkpoint. The scan continues in the
//! meantime. A crash before the snapshot leaves the previous checkpoint; a crash after it leaves
//! two, of which the newer counts.
//!
//! **A checkpoint of another run as previous snapshot.** That run may be alive, and replace or
//! delete its checkpoint at any time. So the backup first stores a checkpoint of its own with the
//! same runs, and then checks whether the other one still exists. If it does, these runs had a root
//! at all times, and ours is one from then on: the other may be deleted. If it does not, ours is
//! withdrawn and the previous snapshots are chosen again. By the same argument each checkpoint
//! replaces the previous one, which it names as a parent.
//!
//! **Deleted at the commit.** Our own checkpoint. Then the checkpoints of this host whose lease has
//! ended and whose every source is in our snapshot with a scan that started later. No backup would
//! choose one of them any more, and the argument above covers a backup that already did.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::previous::PreviousSource;
use super::run::sink::EntrySink;
use super::run::stack::RunStack;
use super::shared::counts::{TreeCounts, counts};
use super::snapshot_head::{SnapshotHead, snapshot_of};
use crate::Error;
use crate::format::{SnapshotState, SourceCounts, SourceKind, SourceRecord};
use crate::observe::{Counter, Observer};
use crate::repo::{
    ChunkReader, CommittedSnapshot, FirstError, Lease, PackerHandle, RepoError, Repository,
    StoredSnapshot,
};
use crate::sys::now;
use crate::types::{SnapshotId, Timestamp};

/// Most entries of the runs that a checkpoint merges: a few seconds' work.
const MERGED_ENTRIES_MAX: u64 = 1 << 20;
/// The same for the last checkpoint of a backup that was asked to stop.
const MERGED_ENTRIES_LAST: u64 = 64 << 10;

/// A tree that is being captured, for its checkpoints.
pub(super) struct UnderWay {
    pub sink: Arc<EntrySink>,
    pub counts: Arc<TreeCounts>,
    pub runs: RunStack,
    /// The record for a checkpoint, without runs, times and counts.
    pub record: SourceRecord,
}

/// The checkpoints of one backup.
pub(super) struct Checkpoints<'e> {
    pub repo: &'e Repository,
    /// `None` for a dry run, which has no checkpoints.
    pub lease: Option<&'e Lease>,
    pub reader: &'e ChunkReader<'e>,
    pub head: &'e SnapshotHead,
    pub observer: &'e dyn Observer,
    state: Mutex<CheckpointState>,
    /// The error that ended the checkpoint thread.
    pub failure: FirstError<RepoError>,
}

#[derive(Default)]
struct CheckpointState {
    finished: Vec<SourceRecord>,
    under_way: Option<UnderWay>,
    /// Sources that are not captured yet and whose previous snapshot is a checkpoint.
    inherited: BTreeMap<String, SourceRecord>,
    /// Previous snapshots that are not checkpoints.
    previous: BTreeSet<SnapshotId>,
    /// Our checkpoint in the store.
    stored: Option<SnapshotId>,
    stored_bytes: u64,
    /// True if a tree was finished or cut since the last checkpoint.
    is_behind: bool,
}

impl<'e> Checkpoints<'e> {
    pub fn new(
        repo: &'e Repository,
        lease: Option<&'e Lease>,
        reader: &'e ChunkReader<'e>,
        head: &'e SnapshotHead,
        observer: &'e dyn Observer,
    ) -> Self {
        let state = Mutex::default();
        let failure = FirstError::default();
        Self {
            repo,
            lease,
            reader,
            head,
            observer,
            state,
            failure,
        }
    }

    fn lock(&self) -> MutexGuard<'_, CheckpointState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores a checkpoint of our own with the runs of all previous snapshots that are checkpoints.
    /// Returns false if one of them was deleted in the meantime: then nothing is changed, and the
    /// caller chooses the previous snapshots again.
    pub fn inherit(
        &self,
        previous_sources: &BTreeMap<String, PreviousSource>,
    ) -> Result<bool, RepoError> {
        let mut state = self.lock();
        let (passing, lasting): (Vec<_>, Vec<_>) = previous_sources
            .iter()
            .partition(|(_, one)| one.is_checkpoint);

        state.previous = lasting
            .into_iter()
            .map(|(_, previous)| previous.snapshot)
            .collect();

        let Some(lease) = self.lease.filter(|_| !passing.is_empty()) else {
            return Ok(true);
        };

        let records = passing
            .iter()
            .map(|(_, previous)| previous.record.clone())
            .collect();
        let ids = passing
            .iter()
            .map(|(_, previous)| previous.snapshot)
            .collect();
        match self
            .repo
            .put_checkpoint(lease, snapshot_of(self.head, ids, records))
        {
            Ok(stored) => state.keep(stored, self.observer),
            Err(RepoError::ParentGone { .. }) => return Ok(false),
            Err(err) => return Err(err),
        }

        state.inherited = passing
            .into_iter()
            .map(|(name, previous)| (name.clone(), previous.record.clone()))
            .collect();
        Ok(true)
    }

    /// Returns our checkpoint in the store. It replaces the previous snapshots that were
    /// checkpoints.
    pub fn stored(&self) -> Option<SnapshotId> {
        self.lock().stored
    }

    /// Returns the stored bytes of all checkpoints so far.
    pub fn stored_bytes(&self) -> u64 {
        self.lock().stored_bytes
    }

    /// Starts the checkpoints of this tree. If it was under way, its capture starts over.
    pub fn begin(&self, tree: UnderWay) {
        self.lock().under_way = Some(tree);
    }

    /// Removes a source whose previous snapshot is damaged from all checkpoints to come.
    pub fn disown(&self, source: &str) {
        let mut state = self.lock();
        state.inherited.remove(source);
        state.under_way = None;
    }

    /// Leaves the tree under way out of all checkpoints to come. It is refused, and a checkpoint
    /// would record its lost entries as removed.
    pub fn abandon(&self) {
        self.lock().under_way = None;
    }

    /// Completes the runs of the tree under way. After an error they stay as the last checkpoint
    /// had them.
    pub fn complete(
        &self,
        feed: &PackerHandle<'_>,
        is_stopped: &dyn Fn() -> bool,
    ) -> Result<RunStack, RepoError> {
        let mut state = self.lock();
        let Some(tree) = &mut state.under_way else {
            return Ok(RunStack::default());
        };
        let mut runs = tree.runs.clone();
        let hidden = tree.counts.hidden.swap(0, Ordering::Relaxed);
        runs.complete(feed, self.reader, tree.sink.cut()?, hidden, is_stopped)?;
        Ok(runs)
    }

    /// Records a captured source.
    pub fn finished(&self, record: SourceRecord) {
        let mut state = self.lock();
        state.under_way = None;
        state.inherited.remove(&record.name);
        // A stream alone is not worth a checkpoint: its chunks are already known, and an
        // interrupted backup captures it again anyway.
        state.is_behind |= matches!(record.kind, SourceKind::Tree { .. });
        state.finished.push(record);
    }

    /// Makes checkpoints until the sender of `over` is dropped.
    pub fn run(&self, feed: &PackerHandle<'_>, every: Duration, over: &Receiver<()>) {
        let every = every.max(Duration::from_millis(1));
        while let Err(RecvTimeoutError::Timeout) = over.recv_timeout(every) {
            if let Err(err) = self.tick(feed) {
                self.failure.set(err);
                return;
            }
        }
    }

    fn tick(&self, feed: &PackerHandle<'_>) -> Result<(), RepoError> {
        // Chunks that other writers published in the meantime need not be stored again. A failed
        // sync only costs space.
        if self.repo.sync().is_ok() {
            feed.index_grew();
        }
        match self.make(feed, MERGED_ENTRIES_MAX)? {
            // The next checkpoint may succeed.
            Err(RepoError::Store(_)) | Ok(()) => Ok(()),
            Err(err) => Err(err),
        }
    }

    /// Tries to make a last checkpoint of a backup that is about to fail.
    pub fn last(&self, feed: &PackerHandle<'_>) {
        // The backup has failed for another reason, which is the one to report.
        let _ = self.make(feed, MERGED_ENTRIES_LAST);
    }

    /// Makes a checkpoint if there is anything new to record.
    ///
    /// The outer error ends the backup, because it has lost entries. The inner one only means that
    /// there is no new checkpoint.
    fn make(
        &self,
        feed: &PackerHandle<'_>,
        limit: u64,
    ) -> Result<Result<(), RepoError>, RepoError> {
        let Some(lease) = self.lease else {
            return Ok(Ok(()));
        };

        let mut state = self.lock();
        if let Some(tree) = &mut state.under_way
            && let Some(batch) = tree.sink.cut()?
        {
            let hidden = tree.counts.hidden.swap(0, Ordering::Relaxed);
            tree.runs
                .add_part(feed, self.reader, batch, hidden, limit)?;
            state.is_behind = true;
        }

        if !state.is_behind {
            return Ok(Ok(()));
        }

        feed.publish()?;

        // It names the previous checkpoint as a parent, so that it may replace it.
        let parents = state
            .previous
            .iter()
            .chain(&state.stored)
            .copied()
            .collect();
        let checkpoint = snapshot_of(self.head, parents, state.sources());
        Ok(self.repo.put_checkpoint(lease, checkpoint).map(|stored| {
            let old = state.stored;
            state.keep(stored, self.observer);
            if let Some(old) = old {
                // A leftover checkpoint is deleted when its lease has ended.
                let _ = self.repo.delete_checkpoint(&old);
            }
        }))
    }

    /// Deletes our own checkpoint and those that the commit has overtaken. Called after the commit,
    /// before the lease ends.
    pub fn clear(
        repo: &Repository,
        own: Option<SnapshotId>,
        overtaken: &OvertakenCheckpoint<'_>,
        now: Timestamp,
    ) {
        // Checkpoints that cannot be deleted are left to the next backup, or to a prune.
        if let Some(own) = own {
            let _ = repo.delete_checkpoint(&own);
        }
        for id in overtaken.dead(repo, now).unwrap_or_default() {
            if Some(id) != own {
                let _ = repo.delete_checkpoint(&id);
            }
        }
    }
}

impl CheckpointState {
    fn keep(&mut self, stored: CommittedSnapshot, observer: &dyn Observer) {
        observer.add(Counter::BytesStored, stored.bytes);
        self.stored_bytes += stored.bytes;
        self.stored = Some(stored.id);
        self.is_behind = false;
    }

    /// Returns the sources for a checkpoint made now.
    fn sources(&self) -> Vec<SourceRecord> {
        let mut sources = self.finished.clone();
        let mut inherited = self.inherited.clone();
        if let Some(tree) = self.under_way.as_ref().filter(|tree| tree.runs.own > 0) {
            let mut record = tree.record.clone();
            if let SourceKind::Tree { runs, .. } = &mut record.kind {
                runs.clone_from(&tree.runs.all);
            }
            record.ended = now();
            record.counts = SourceCounts {
                partial: None,
                unseen: None,
                ..counts(&tree.counts, &tree.sink)
            };
            inherited.remove(&record.name);
            sources.push(record);
        }
        sources.extend(inherited.into_values());
        sources
    }
}

/// The data that decides which checkpoints a commit has overtaken.
pub(super) struct OvertakenCheckpoint<'a> {
    /// As they were listed when the backup began.
    pub snapshots: &'a [StoredSnapshot],
    pub host: &'a str,
    /// The committed sources.
    pub sources: &'a [SourceRecord],
}

impl OvertakenCheckpoint<'_> {
    /// Returns the overtaken checkpoints whose lease has ended at the store's time `now`.
    fn dead(&self, repo: &Repository, now: Timestamp) -> Result<Vec<SnapshotId>, Error> {
        let is_overtaken = |old: &SourceRecord| {
            self.sources
                .iter()
                .any(|new| new.name == old.name && new.started > old.started)
        };
        let candidates: Vec<&StoredSnapshot> = self
            .snapshots
            .iter()
            .filter(|found| found.snapshot.state == SnapshotState::Checkpoint)
            .filter(|found| found.snapshot.host == self.host && !found.snapshot.protected)
            .filter(|found| found.snapshot.sources.iter().all(is_overtaken))
            .collect();
        if candidates.is_empty() {
            return Ok(Vec::new());
        }
        let times = repo.lease_times();
        let mut alive = repo.leases()?;
        alive.retain(|lease| lease.is_alive(now, &times) && !lease.is_dead_here(repo.client()));
        let is_dead =
            |found: &&StoredSnapshot| alive.iter().all(|lease| lease.id != found.snapshot.lease);
        Ok(candidates
            .into_iter()
            .filter(is_dead)
            .map(|found| found.id)
            .collect())
    }
}
