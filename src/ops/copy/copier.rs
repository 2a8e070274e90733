//! A copy under way: both repositories, and the parts of the destination that need no second copy.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::base::CopyBase;
use super::report::{CopyOptions, CopyReport};
use crate::Error;
use crate::format::RunRef;
use crate::index::Index;
use crate::ops::memory::MemoryPlan;
use crate::read::ReadSession;
use crate::repo::{ChunkReader, PackerOptions, Repository, StoredSnapshot, landed_late};
use crate::task::Task;
use crate::types::{ChunkId, PackId, SnapshotId};

pub(super) struct Copier<'a> {
    /// Reads the source repository.
    pub from: &'a ReadSession<'a>,
    pub to: ChunkReader<'a>,
    pub options: &'a CopyOptions,
    pub packing: PackerOptions,
    pub task: Task<'a>,
    /// Packs that the destination's index lists and its store does not have.
    pub absent: HashSet<PackId>,
    /// The destination's runs by the roots of the source's runs, each with a snapshot of the
    /// destination that has it.
    pub runs: HashMap<ChunkId, (RunRef, SnapshotId)>,
    /// The destination's snapshots that were examined; and those of them that count, by the id of
    /// their original.
    pub seen: BTreeSet<SnapshotId>,
    pub there: BTreeMap<SnapshotId, StoredSnapshot>,
    /// By host and source.
    pub bases: BTreeMap<(String, String), CopyBase>,
    pub report: CopyReport,
}

impl<'a> Copier<'a> {
    /// Starts with nothing known about the destination but the packs that it lacks.
    pub fn new(
        from: &'a ReadSession<'a>,
        to: &'a Repository,
        options: &'a CopyOptions,
        plan: MemoryPlan,
        absent: HashSet<PackId>,
    ) -> Self {
        Self {
            from,
            to: ChunkReader::new(to, plan.frame_cache_bytes),
            options,
            packing: PackerOptions {
                workers: plan.workers,
                level: options.level,
                dry_run: false,
            },
            task: from.task(),
            runs: HashMap::new(),
            absent,
            seen: BTreeSet::new(),
            there: BTreeMap::new(),
            bases: BTreeMap::new(),
            report: CopyReport::default(),
        }
    }

    pub fn base(&self, host: &str, name: &str) -> Option<&CopyBase> {
        self.bases.get(&(host.to_owned(), name.to_owned()))
    }

    /// Records the runs and sources of a copied snapshot for reuse, if both snapshots have the same
    /// structure.
    pub fn learn(&mut self, found: &StoredSnapshot, twin: &StoredSnapshot) {
        let expiry = self.to.repo().lease_times().expiry.as_secs_f64();
        if landed_late(twin.stored, twin.snapshot.heartbeat, expiry) || twin.snapshot.lost.is_some()
        {
            return;
        }

        for source in &found.snapshot.sources {
            let Some(to) = twin.snapshot.source(&source.name) else {
                continue;
            };
            let base = CopyBase {
                owner: twin.id,
                from: source.kind.clone(),
                to: to.kind.clone(),
            };
            if let Some((from, to)) = base.runs() {
                let entries =
                    |runs: &[RunRef]| runs.iter().map(|run| run.entries).collect::<Vec<_>>();
                if entries(from) != entries(to) {
                    continue;
                }
                for (from, to) in from.iter().zip(to) {
                    self.runs.insert(from.root, (to.clone(), twin.id));
                }
            }
            self.bases
                .insert((found.snapshot.host.clone(), source.name.clone()), base);
        }
    }

    /// Records snapshots that other clients committed to the destination since it was last listed.
    ///
    /// Two copies that begin with a snapshot at the same moment both copy it: the destination gets
    /// two snapshots, and the chunks once.
    pub fn look_again(&mut self, listed: &BTreeSet<SnapshotId>) -> Result<(), Error> {
        for &id in listed.difference(&self.seen) {
            match self.to.repo().read_snapshot(&id) {
                Ok(snapshot) => {
                    // The store time was not queried: a snapshot this new has not landed late, or
                    // its writer withdraws it.
                    let twin = StoredSnapshot {
                        id,
                        stored: snapshot.heartbeat,
                        snapshot,
                    };
                    self.there.insert(twin.first(), twin);
                }
                // Deleted again, or damaged. The next full listing reports damaged snapshots.
                Err(err) if err.is_unavailable() => {}
                Err(err) => return Err(err.into()),
            }
        }
        self.seen.clone_from(listed);
        Ok(())
    }

    /// Forgets runs and bases that the destination does not have any more. Called after the lease
    /// began.
    pub fn check_known(&mut self, listed: &BTreeSet<SnapshotId>) -> Result<(), Error> {
        if !self.absent.is_empty() || !self.to.repo().with_index(Index::lost)?.is_empty() {
            self.runs.clear();
            self.bases.clear();
        }
        self.runs.retain(|_, (_, owner)| listed.contains(owner));
        self.bases.retain(|_, base| listed.contains(&base.owner));
        Ok(())
    }
}
