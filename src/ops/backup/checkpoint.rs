//! Checkpoints: what a backup under way has captured becomes a snapshot of its own, so that an
//! interrupted backup goes on from there (PROTOCOL section 2).
//!
//! Every few minutes: cut the entries that are there → write them as a run in front of the others →
//! all that was given to the packer stored, durable and published → snapshot of state `checkpoint`
//! → did it land within the lease? → the one before is deleted. The scan goes on meanwhile. A crash
//! before the snapshot leaves the last checkpoint, one behind it two, of which the newer counts.
//!
//! **A checkpoint of another run as parent.** That run may be alive, and replace or delete its
//! checkpoint at any time. So the first thing is to put a checkpoint of our own with the same runs,
//! and then to look whether the other is still there. If so, there was a root for these runs at all
//! times, and ours is one from then on: the other may go. If not, ours is withdrawn and the parents
//! are chosen anew. The same argument lets each checkpoint of ours replace the one before, which it
//! names as a parent.
//!
//! **Which are deleted at the commit.** Our own. Then those of this host whose lease has ended, and
//! of which each source is in our snapshot with a scan that started later: nobody would choose them
//! any more, and who chose one already is covered by the argument above.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::capture::TreeCounts;
use super::parents::ParentSource;
use super::runs::Runs;
use super::sink::EntrySink;
use super::tree::counts;
use super::{SnapshotHead, snapshot_of};
use crate::Error;
use crate::format::{SnapshotState, SourceCounts, SourceKind, SourceRecord};
use crate::observe::{Counter, Observer};
use crate::repo::{
    ChunkReader, Committed, Feed, FirstError, Lease, RepoError, Repository, StoredSnapshot,
};
use crate::sys::now;
use crate::types::{SnapshotId, Timestamp};

/// Runs of so many entries together are merged at a checkpoint: a few seconds' work.
const MERGED_ENTRIES_MAX: u64 = 1 << 20;
/// The same for the last one of a backup that was asked to stop.
const MERGED_ENTRIES_LAST: u64 = 64 << 10;

/// A tree being captured, as far as checkpoints go.
pub(super) struct UnderWay {
    pub sink: Arc<EntrySink>,
    pub counts: Arc<TreeCounts>,
    pub runs: Runs,
    /// What a checkpoint says of it, runs, times and counts aside.
    pub record: SourceRecord,
}

/// The checkpoints of one backup.
pub(super) struct Checkpoints<'e> {
    pub repo: &'e Repository,
    /// None for a dry run, which has no checkpoints.
    pub lease: Option<&'e Lease>,
    pub reader: &'e ChunkReader<'e>,
    pub head: &'e SnapshotHead,
    pub observer: &'e dyn Observer,
    state: Mutex<State>,
    /// What ended the thread of the checkpoints.
    pub failure: FirstError<RepoError>,
}

#[derive(Default)]
struct State {
    finished: Vec<SourceRecord>,
    under_way: Option<UnderWay>,
    /// Sources that are not captured yet and whose parent is a checkpoint.
    inherited: BTreeMap<String, SourceRecord>,
    /// Parents that are no checkpoints.
    parents: BTreeSet<SnapshotId>,
    /// Our checkpoint that is in the store.
    stored: Option<SnapshotId>,
    stored_bytes: u64,
    /// A tree was finished since.
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
        let (state, failure) = (Mutex::default(), FirstError::default());
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

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes what the parents hold that are checkpoints our own. False if one of them was deleted
    /// meanwhile: then nothing is changed, and the parents are to be chosen anew.
    pub fn inherit(&self, parents: &BTreeMap<String, ParentSource>) -> Result<bool, RepoError> {
        let mut state = self.lock();
        let (passing, lasting): (Vec<_>, Vec<_>) =
            parents.iter().partition(|(_, one)| one.is_checkpoint);
        state.parents = lasting
            .into_iter()
            .map(|(_, parent)| parent.snapshot)
            .collect();
        let Some(lease) = self.lease.filter(|_| !passing.is_empty()) else {
            return Ok(true);
        };
        let records = passing
            .iter()
            .map(|(_, parent)| parent.record.clone())
            .collect();
        let ids = passing.iter().map(|(_, parent)| parent.snapshot).collect();
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
            .map(|(name, parent)| (name.clone(), parent.record.clone()))
            .collect();
        Ok(true)
    }

    /// Our checkpoint in the store: it stands for the parents that were checkpoints.
    pub fn stored(&self) -> Option<SnapshotId> {
        self.lock().stored
    }

    /// Stored bytes of all checkpoints so far.
    pub fn stored_bytes(&self) -> u64 {
        self.lock().stored_bytes
    }

    /// From now on this tree is captured; one that was under way is begun anew.
    pub fn begin(&self, tree: UnderWay) {
        self.lock().under_way = Some(tree);
    }

    /// What the parent holds of this source is damaged: no checkpoint goes on from it.
    pub fn disown(&self, source: &str) {
        let mut state = self.lock();
        state.inherited.remove(source);
        state.under_way = None;
    }

    /// Completes the runs of the tree under way. On an error what the last checkpoint had of it
    /// stays.
    pub fn complete(
        &self,
        feed: &Feed<'_>,
        is_stopped: &dyn Fn() -> bool,
    ) -> Result<Runs, RepoError> {
        let mut state = self.lock();
        let Some(tree) = &mut state.under_way else {
            return Ok(Runs::default());
        };
        let mut runs = tree.runs.clone();
        let hidden = tree.counts.hidden.swap(0, Ordering::Relaxed);
        runs.complete(feed, self.reader, tree.sink.cut()?, hidden, is_stopped)?;
        Ok(runs)
    }

    /// A source is done.
    pub fn finished(&self, record: SourceRecord) {
        let mut state = self.lock();
        state.under_way = None;
        state.inherited.remove(&record.name);
        // A stream alone is not worth a checkpoint: its chunks are known already, and it is
        // captured again anyway.
        state.is_behind |= matches!(record.kind, SourceKind::Tree { .. });
        state.finished.push(record);
    }

    /// Makes checkpoints until `over` ends.
    pub fn run(&self, feed: &Feed<'_>, every: Duration, over: &Receiver<()>) {
        let every = every.max(Duration::from_millis(1));
        while let Err(RecvTimeoutError::Timeout) = over.recv_timeout(every) {
            if let Err(err) = self.tick(feed) {
                self.failure.set(err);
                return;
            }
        }
    }

    fn tick(&self, feed: &Feed<'_>) -> Result<(), RepoError> {
        // What others published meanwhile need not be stored again. Not to learn of it costs room,
        // nothing else.
        if self.repo.sync().is_ok() {
            feed.index_grew();
        }
        match self.make(feed, MERGED_ENTRIES_MAX)? {
            // The next one may come through.
            Err(RepoError::Store(_)) | Ok(()) => Ok(()),
            Err(err) => Err(err),
        }
    }

    /// Makes a last checkpoint of a backup that does not come to its end, as far as that works.
    pub fn last(&self, feed: &Feed<'_>) {
        // The backup has failed for another reason, which is the one to tell.
        let _ = self.make(feed, MERGED_ENTRIES_LAST);
    }

    /// Makes a checkpoint if there is anything to tell. The outer error ends the backup: entries
    /// are lost for it. The inner one only means that there is no new checkpoint.
    fn make(&self, feed: &Feed<'_>, limit: u64) -> Result<Result<(), RepoError>, RepoError> {
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
        let parents = state.parents.iter().chain(&state.stored).copied().collect();
        let checkpoint = snapshot_of(self.head, parents, state.sources());
        Ok(self.repo.put_checkpoint(lease, checkpoint).map(|stored| {
            let old = state.stored;
            state.keep(stored, self.observer);
            if let Some(old) = old {
                // One too many is deleted when its lease has ended.
                let _ = self.repo.delete_checkpoint(&old);
            }
        }))
    }

    /// Behind the commit, before the lease ends: deletes our own checkpoint and those that ours
    /// have overtaken.
    pub fn clear(
        repo: &Repository,
        own: Option<SnapshotId>,
        overtaken: &Overtaken<'_>,
        now: Timestamp,
    ) {
        // What cannot be deleted is left to the next backup, or to a prune.
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

impl State {
    fn keep(&mut self, stored: Committed, observer: &dyn Observer) {
        observer.add(Counter::BytesStored, stored.bytes);
        self.stored_bytes += stored.bytes;
        self.stored = Some(stored.id);
        self.is_behind = false;
    }

    /// What a checkpoint holds now.
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

/// The checkpoints that a snapshot has overtaken.
pub(super) struct Overtaken<'a> {
    /// As they were listed when the backup began.
    pub snapshots: &'a [StoredSnapshot],
    pub host: &'a str,
    /// What is committed now.
    pub sources: &'a [SourceRecord],
}

impl Overtaken<'_> {
    /// Those whose lease has ended, at the store's time `now`.
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
        alive.retain(|lease| lease.is_alive(now, &times) && !lease.is_dead_here(self.host));
        let is_dead =
            |found: &&StoredSnapshot| alive.iter().all(|lease| lease.id != found.snapshot.lease);
        Ok(candidates
            .into_iter()
            .filter(is_dead)
            .map(|found| found.id)
            .collect())
    }
}
