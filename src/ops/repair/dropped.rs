//! Packs that segments call dropped and that are in the store all the same.
//!
//! One copy of a repository may have dropped and deleted packs that snapshots of another copy need.
//! When the two are merged, or when a backup of the repository puts old objects back, the
//! snapshots, the packs and the segments that drop them come together. A dropped pack counts for
//! nobody and its name is never used again, so what snapshots need of it is stored again, in packs
//! of new names. What is needed and nowhere to be had is reported as lost.
//!
//! The snapshots are walked only if such packs are there: after a prune that ended there are none.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::packs::Repair;
use super::salvage::salvage;
use crate::Error;
use crate::format::Snapshot;
use crate::index::{Index, Location, PackState};
use crate::observe::{Phase, Problem, Severity};
use crate::ops::Cancel;
use crate::ops::packs::stat_pack;
use crate::ops::reach::{Judge, Piece, Walker};
use crate::repo::{ChunkReader, RepoError, Repository};
use crate::store::{ObjectDir, ObjectKey, list_all};
use crate::types::{ChunkId, PackId};

/// Missing chunks that one walk collects: 12 MiB. What is beyond is found by the next walk.
const MISSING_MAX: usize = 256 << 10;
/// Frames of metadata kept while snapshots are walked: 16 MiB.
const FRAME_CACHE_BYTES: usize = 16 << 20;

/// A snapshot that is walked.
pub(super) struct Root {
    pub snapshot: Snapshot,
    /// What it needs and nobody has is reported as lost. That is not done for a snapshot that was
    /// forgotten, or set aside.
    pub is_listed: bool,
}

/// Chunks that no held pack has, and whether a listed snapshot needs them.
pub(super) type Missing = BTreeMap<ChunkId, bool>;

impl Repair<'_> {
    /// Stores again what snapshots need and only dropped packs have.
    ///
    /// Where a dropped pack held pages of a run, and no segment says any more what is in the pack,
    /// the pages must be stored again before anybody can tell what they name. So the snapshots are
    /// walked until nothing more is found missing.
    pub(super) fn store_dropped_again(&mut self) -> Result<(), Error> {
        if self.packs.dropped.is_empty() {
            return Ok(());
        }
        self.observer.phase(&Phase::Structure);
        self.repo.make_sure_of_misses()?;
        let roots = roots(self.repo, self.cancel)?;
        let mut settled = self.repo.ask_index(Index::lost)?;
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
                self.observer,
                self.cancel,
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
            self.report.lost_chunks += lost.len() as u64;
            self.publish(&[], lost)?;
        }
        if stored > 0 {
            let what = format!(
                "chunks that snapshots need were only in packs that were dropped, as after a merge of two copies of the \
                 repository: {stored} stored again"
            );
            self.observer
                .problem(&Problem::new(Severity::Note, ObjectDir::Packs.name(), what));
        }
        Ok(())
    }

    /// Walks snapshots: what no held pack has.
    fn missing_of(&self, roots: &[Root], settled: &BTreeSet<ChunkId>) -> Result<Missing, Error> {
        // Packs that other writers stored since the listing.
        let mut newer: HashMap<PackId, bool> = HashMap::new();
        let mut is_good = |copy: &Location| -> Result<bool, Error> {
            let id = &copy.pack;
            if copy.state == PackState::Dropped {
                return Ok(false);
            }
            // What a damaged pack holds was saved or reported before, or is left to the medium.
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
        missing(self.repo, roots, settled, &mut is_good, self.cancel)
    }
}

/// All snapshots that can be read: listed ones, forgotten ones, and those that a repair set aside.
fn roots(repo: &Repository, cancel: &Cancel) -> Result<Vec<Root>, Error> {
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
                Ok(snapshot) => roots.push(Root {
                    snapshot,
                    is_listed: directory == ObjectDir::Snapshots,
                }),
                Err(RepoError::Store(err)) if err.is_not_found() => {}
                // The repair of snapshots reports it.
                Err(err) if err.is_unavailable() => {}
                Err(err) => return Err(err.into()),
            }
        }
    }
    Ok(roots)
}

/// The packs that are dropped and in this listing of `packs/`, sorted.
pub(super) fn dropped_and_there(
    repo: &Repository,
    is_listed: impl Fn(&PackId) -> bool,
) -> Result<Vec<PackId>, Error> {
    let rows = repo.ask_index(Index::packs)?.into_iter();
    let dropped = rows
        .filter(|row| row.state == PackState::Dropped)
        .map(|row| row.id);
    let mut there: Vec<PackId> = dropped.filter(is_listed).collect();
    there.sort_unstable();
    Ok(there)
}

/// Walks snapshots, listed ones first, and returns the chunks of which there is no good copy, but
/// for those in `settled`: at most [`MISSING_MAX`]. What hangs below metadata that cannot be read
/// is not found.
pub(super) fn missing(
    repo: &Repository,
    roots: &[Root],
    settled: &BTreeSet<ChunkId>,
    is_good: &mut dyn FnMut(&Location) -> Result<bool, Error>,
    cancel: &Cancel,
) -> Result<Missing, Error> {
    loop {
        repo.sync()?;
        let generation = repo.index().generation();
        let reader = ChunkReader::new(repo, FRAME_CACHE_BYTES);
        let needs = Needs {
            repo,
            settled,
            is_good: &mut *is_good,
            is_listed: true,
            missing: Missing::new(),
            unread: Vec::new(),
        };
        let mut walker = Walker::new(&reader, cancel, needs)?;
        for root in roots {
            walker.judge.is_listed = root.is_listed;
            for source in &root.snapshot.sources {
                walker.source(&source.kind)?;
            }
        }
        let missing = walker.judge.missing;
        // A new index has other chunk numbers, by which the walk knows what it has read.
        if repo.index().generation() == generation {
            return Ok(missing);
        }
    }
}

/// Collects what is missing.
struct Needs<'a> {
    repo: &'a Repository,
    /// What is known to be lost.
    settled: &'a BTreeSet<ChunkId>,
    is_good: &'a mut dyn FnMut(&Location) -> Result<bool, Error>,
    /// The snapshot at hand is in `snapshots/`.
    is_listed: bool,
    missing: Missing,
    /// Pieces that could not be read: they are looked up with the next batch.
    unread: Vec<ChunkId>,
}

impl Needs<'_> {
    /// Looks chunks up and notes what is missing; true if nothing is.
    fn look_up(&mut self, ids: &[ChunkId]) -> Result<bool, Error> {
        let repo = self.repo;
        let mut copies = Vec::new();
        repo.ask_index(|index| {
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

impl Judge for Needs<'_> {
    /// Metadata that was read from a dropped pack need not be read twice either.
    fn place(&mut self, id: &ChunkId) -> Result<Option<Location>, Error> {
        Ok(self.repo.locate(id)?)
    }

    fn chunks(&mut self, batch: &[(ChunkId, u32)]) -> Result<bool, Error> {
        let mut ids = std::mem::take(&mut self.unread);
        ids.extend(batch.iter().map(|(id, _)| *id));
        self.look_up(&ids)
    }

    /// A piece that cannot be read although a held pack has it is for the repair of that pack.
    fn unreadable(&mut self, _: Piece, id: &ChunkId, _: String) {
        self.unread.push(*id);
    }
}
