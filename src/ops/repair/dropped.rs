//! Packs that segments list as dropped and that are still in the store.
//!
//! One copy of a repository may have dropped and deleted packs that snapshots of another copy need.
//! When the copies are merged, or when a backup of the repository restores old objects, the store
//! has the snapshots, the packs and the segments that drop them. References to a dropped pack are
//! not valid, and its name is never used again. So chunks of it that snapshots need are stored
//! again in packs with new names. Chunks that are needed and cannot be read anywhere are reported
//! as lost.
//!
//! The snapshots are walked only if the store has such packs. After a complete prune it has none.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::pack_repair::PackRepair;
use super::salvage::salvage;
use crate::Error;
use crate::format::Snapshot;
use crate::index::{ChunkLocation, Index, PackState};
use crate::observe::{Phase, Problem, Severity};
use crate::ops::packs::stat_pack;
use crate::read::reach::{ReachVisitor, ReachWalker, ReachedPiece, UnreadableReason};
use crate::repo::{ChunkReader, RepoError, Repository};
use crate::store::{ObjectDir, ObjectKey, list_all};
use crate::task::{Cancel, Task};
use crate::types::{ChunkId, PackId, PlainLen, to_u64};

/// Missing chunks that one walk collects: 12 MiB. The next walk finds the rest.
const MISSING_MAX: usize = 256 << 10;
/// Size of the frame cache for metadata while snapshots are walked: 16 MiB.
const FRAME_CACHE_BYTES: usize = 16 << 20;

/// A snapshot to walk.
pub(super) struct RootSnapshot {
    pub snapshot: Snapshot,
    /// True for a listed snapshot: missing chunks that it needs are reported as lost. For forgotten
    /// snapshots and those in quarantine they are not.
    pub is_listed: bool,
}

/// Chunks that no held pack has, with true if a listed snapshot needs them.
pub(super) type Missing = BTreeMap<ChunkId, bool>;

impl PackRepair<'_> {
    /// Stores chunks again that snapshots need and only dropped packs have.
    ///
    /// If a dropped pack holds pages of a run, and no segment lists its contents any more, the
    /// pages must be stored again before a walk can see which chunks they reference. So the
    /// snapshots are walked until no more chunks are found missing.
    pub(super) fn store_dropped_again(&mut self) -> Result<(), Error> {
        if self.packs.dropped.is_empty() {
            return Ok(());
        }
        self.task.observer.phase(&Phase::Structure);
        self.repo.confirm_misses()?;
        let roots = roots(self.repo, self.task.cancel)?;
        let mut settled = self.repo.with_index(Index::lost)?;
        let mut stored = 0;

        loop {
            self.relist(1)?;
            let missing = self.missing_of(&roots, &settled)?;
            if missing.is_empty() {
                break;
            }
            let wanted: BTreeSet<ChunkId> = missing.keys().copied().collect();
            if self.lease.is_none() {
                // Nothing is stored in a dry run, so the next walk would find the same again.
                settled.extend(&wanted);
            }

            let saved = salvage(
                self.repo,
                self.lease,
                &self.packs,
                &[],
                wanted,
                Task::new(self.task.observer, self.task.cancel),
            )?;
            stored += saved.chunks;
            self.report.saved_chunks += saved.chunks;
            self.report.saved_bytes += saved.bytes;

            let lost: Vec<ChunkId> = saved
                .lost
                .iter()
                .filter(|id| missing[id])
                .copied()
                .collect();
            settled.extend(saved.lost);
            self.report.lost_chunks += to_u64(lost.len());
            self.publish(&[], lost)?;
        }

        if stored > 0 {
            let what = format!(
                "chunks that snapshots need were only in dropped packs, as after a merge of two copies of the \
                 repository: {stored} stored again"
            );
            self.task.observer.problem(&Problem::new(
                Severity::Note,
                ObjectDir::Packs.name(),
                what,
            ));
        }
        Ok(())
    }

    /// Walks the snapshots and returns the chunks that no held pack has.
    fn missing_of(
        &self,
        roots: &[RootSnapshot],
        settled: &BTreeSet<ChunkId>,
    ) -> Result<Missing, Error> {
        // Packs that are not in the listing and whether they are in the store: other writers may
        // have stored them since.
        let mut newer: HashMap<PackId, bool> = HashMap::new();
        let mut is_good = |copy: &ChunkLocation| -> Result<bool, Error> {
            let id = &copy.pack;
            if copy.state == PackState::Dropped {
                return Ok(false);
            }
            // Chunks of a damaged pack were saved or reported before, or the pack was left alone
            // because the medium fails.
            if self.packs.bad.contains(id) || self.packs.listed.contains_key(id) {
                return Ok(true);
            }
            if let Some(&is_there) = newer.get(id) {
                return Ok(is_there);
            }
            let is_there = stat_pack(self.repo, id)?.is_some();
            newer.insert(*id, is_there);
            Ok(is_there)
        };
        missing(self.repo, roots, settled, &mut is_good, self.task.cancel)
    }
}

/// Returns all readable snapshots: listed ones, forgotten ones, and those in quarantine.
fn roots(repo: &Repository, cancel: &Cancel) -> Result<Vec<RootSnapshot>, Error> {
    let mut roots = Vec::new();
    for directory in [
        ObjectDir::Snapshots,
        ObjectDir::Forgotten,
        ObjectDir::Quarantine,
    ] {
        for meta in list_all(repo.store(), directory)? {
            cancel.check()?;
            if !matches!(
                meta.key,
                ObjectKey::Snapshot(_)
                    | ObjectKey::Forgotten(_)
                    | ObjectKey::QuarantinedSnapshot(_)
            ) {
                continue;
            }

            match repo.read_snapshot_at(&meta.key) {
                Ok(snapshot) => roots.push(RootSnapshot {
                    snapshot,
                    is_listed: directory == ObjectDir::Snapshots,
                }),
                Err(RepoError::Store(err)) if err.is_not_found() => {}
                // The repair of snapshots reports this error.
                Err(err) if err.is_unavailable() => {}
                Err(err) => return Err(err.into()),
            }
        }
    }
    Ok(roots)
}

/// Returns the packs that are dropped and in this listing of `packs/`, sorted by id.
pub(super) fn dropped_and_there(
    repo: &Repository,
    is_listed: impl Fn(&PackId) -> bool,
) -> Result<Vec<PackId>, Error> {
    let rows = repo.with_index(Index::packs)?.into_iter();
    let dropped = rows
        .filter(|row| row.state == PackState::Dropped)
        .map(|row| row.id);
    let mut there: Vec<PackId> = dropped.filter(is_listed).collect();
    there.sort_unstable();
    Ok(there)
}

/// Walks `roots` in order and returns at most [`MISSING_MAX`] chunks that have no good copy and are
/// not in `settled`. Listed snapshots must come first, because the first snapshot that needs a
/// chunk decides whether it counts as needed by a listed one. Chunks referenced by unreadable
/// metadata are not found.
pub(super) fn missing(
    repo: &Repository,
    roots: &[RootSnapshot],
    settled: &BTreeSet<ChunkId>,
    is_good: &mut dyn FnMut(&ChunkLocation) -> Result<bool, Error>,
    cancel: &Cancel,
) -> Result<Missing, Error> {
    loop {
        repo.sync()?;
        let generation = repo.index().generation();
        let reader = ChunkReader::new(repo, FRAME_CACHE_BYTES);
        let needs = NeededChunks {
            repo,
            settled,
            is_good: &mut *is_good,
            is_listed: true,
            missing: Missing::new(),
            unread: Vec::new(),
        };

        let mut walker = ReachWalker::new(&reader, cancel, needs)?;
        for root in roots {
            walker.judge.is_listed = root.is_listed;
            for source in &root.snapshot.sources {
                walker.source(&source.kind)?;
            }
        }

        let missing = walker.judge.missing;
        // The walk records visited chunks by their numbers in the index. A new index has other
        // numbers: walk again.
        if repo.index().generation() == generation {
            return Ok(missing);
        }
    }
}

/// Collects missing chunks during a walk.
struct NeededChunks<'a> {
    repo: &'a Repository,
    /// Chunks to ignore: known as lost, or processed before.
    settled: &'a BTreeSet<ChunkId>,
    is_good: &'a mut dyn FnMut(&ChunkLocation) -> Result<bool, Error>,
    /// True if the current snapshot is in `snapshots/`.
    is_listed: bool,
    missing: Missing,
    /// Metadata chunks that could not be read; looked up with the next batch.
    unread: Vec<ChunkId>,
}

impl NeededChunks<'_> {
    /// Looks up chunks and records the missing ones. Returns true if none is missing.
    fn look_up(&mut self, ids: &[ChunkId]) -> Result<bool, Error> {
        let repo = self.repo;
        let mut copies = Vec::new();
        repo.with_index(|index| {
            copies.clear();
            index.each_copy(ids, &mut |n, copy| copies.push((n, copy)))
        })?;
        let mut is_had = vec![false; ids.len()];
        for (n, copy) in &copies {
            is_had[*n] = is_had[*n] || (self.is_good)(copy)?;
        }
        let all_there = is_had.iter().all(|had| *had);
        for (id, _) in ids.iter().zip(is_had).filter(|(_, had)| !had) {
            if self.missing.len() < MISSING_MAX && !self.settled.contains(id) {
                self.missing.entry(*id).or_insert(self.is_listed);
            }
        }
        Ok(all_there)
    }
}

impl ReachVisitor for NeededChunks<'_> {
    /// Accepts any copy: metadata that was read from a dropped pack need not be read twice either.
    fn place(&mut self, id: &ChunkId) -> Result<Option<ChunkLocation>, Error> {
        Ok(self.repo.locate(id)?)
    }

    fn chunks(&mut self, batch: &[(ChunkId, PlainLen)]) -> Result<bool, Error> {
        let mut ids = std::mem::take(&mut self.unread);
        ids.extend(batch.iter().map(|(id, _)| *id));
        self.look_up(&ids)
    }

    /// Records the chunk for the next look-up. If a held pack has it, the repair of that pack deals
    /// with it.
    fn unreadable(&mut self, _: ReachedPiece, id: &ChunkId, _: UnreadableReason) {
        self.unread.push(*id);
    }
}
