//! Repair of snapshots. A snapshot that references lost data is replaced by a partial one that
//! lists the losses. An original in quarantine is restored when all its data is available again.
//!
//! Chunks durable, segment → the new snapshot, which names the one that it replaces → the old
//! snapshot moved to quarantine. If both are listed, the replaced one does not count. So after a
//! crash between the steps no reader sees both, and the next repair completes the replacement.
//! Originals are kept in `quarantine/`. A partial snapshot whose original came back is forgotten
//! like any other snapshot.

use std::collections::{BTreeMap, BTreeSet};

use super::dropped::{RootSnapshot, dropped_and_there, missing};
use super::lost::LostList;
use super::partial::{MendedRuns, RunMender};
use super::quarantine::{SetAside, remove, set_aside};
use crate::Error;
use crate::advice::{Advice, RepairAdvice};
use crate::format::{
    LeaseKind, ObjectKind, SNAPSHOT_BYTES_MAX, Snapshot, SnapshotState, SourceKind, decode_snapshot,
};
use crate::index::{ChunkLocation, Index, PackState};
use crate::observe::{Phase, Problem, Severity};
use crate::ops::backup::ChunkWriters;
use crate::ops::memory;
use crate::ops::packs::ListedPacks;
use crate::ops::verify::{AffectedVisitor, FoundDamage, suspects};
use crate::read::reading_lease;
use crate::repo::{
    ChunkReader, Claims, Lease, Packer, PackerOptions, RepoError, Repository, StoredSnapshot,
    open_object, stored_limit,
};
use crate::store::{ObjectDir, ObjectKey, list_all};
use crate::task::Task;
use crate::types::{ByteSize, ChunkClass, PrefixMatch, RelPath, SnapshotId, to_u64};

/// Options of [`repair_snapshots`].
#[derive(Debug, Clone, PartialEq)]
pub struct RepairSnapshotsOptions {
    /// Ids or unambiguous prefixes of the snapshots to repair; empty: all.
    pub snapshots: Vec<String>,
    /// Treat snapshots that cannot be read now as damaged and move them to quarantine. For
    /// snapshots that will not become readable again.
    pub set_aside_unreadable: bool,
    /// Report the results that the repair would have, change nothing.
    pub dry_run: bool,
    /// Memory budget.
    pub memory: ByteSize,
}

impl Default for RepairSnapshotsOptions {
    fn default() -> Self {
        Self {
            snapshots: Vec::new(),
            set_aside_unreadable: false,
            dry_run: false,
            memory: memory::BUDGET_DEFAULT,
        }
    }
}

/// A snapshot that was replaced by another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplacedSnapshot {
    pub old: SnapshotId,
    /// `None` in a dry run.
    pub new: Option<SnapshotId>,
    /// Number of paths of which the new snapshot lacks something; 0 for a complete original.
    pub lost: u64,
}

/// Results of a repair of snapshots; after a dry run, the results that a repair would have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SnapshotsReport {
    pub looked_at: u64,
    /// Snapshots that were replaced by partial ones.
    pub partial: Vec<ReplacedSnapshot>,
    /// Partial snapshots that were replaced by their originals, or by snapshots that lack less.
    pub healed: Vec<ReplacedSnapshot>,
    /// Objects that cannot be read as snapshots and were moved to quarantine, with the reason. They
    /// are damaged, or a writer without the key put them there.
    pub set_aside: Vec<(ObjectKey, String)>,
    /// Snapshots whose objects cannot be read and were left in place.
    pub unreadable: u64,
    /// Snapshots that cannot be read now, or that need data that cannot be read now. The repair did
    /// nothing with them.
    pub unreadable_now: u64,
}

impl SnapshotsReport {
    /// Returns true if this repair found no new losses and no unreadable snapshot.
    pub fn is_whole(&self) -> bool {
        self.partial.is_empty()
            && self.set_aside.is_empty()
            && self.unreadable == 0
            && self.unreadable_now == 0
    }
}

/// Replaces snapshots that reference lost data by partial ones, and restores originals whose data
/// is available again.
///
/// Damage in packs that were not repaired is not noticed: run `repair packs` first.
///
/// # Errors
/// [`RepoError::Refused`] if packs are missing that `repair packs` has not processed, or if dropped
/// packs in the store may hold what snapshots lack. [`Error::Interrupted`] if cancelled;
/// replacements made until then stay.
pub fn repair_snapshots(
    repo: &Repository,
    options: &RepairSnapshotsOptions,
    task: Task<'_>,
) -> Result<SnapshotsReport, Error> {
    let lease = if options.dry_run {
        reading_lease(repo, LeaseKind::Repair)?
    } else {
        repo.check_writable()?;
        Some(Lease::take(repo, LeaseKind::Repair)?)
    };
    task.observer.phase(&Phase::Index);

    let plan = memory::plan(options.memory, 1);
    let reader = ChunkReader::new(repo, plan.frame_cache_bytes);
    let report = SnapshotsReport::default();

    let mut repair = SnapshotRepair {
        repo,
        options,
        lease: lease.as_ref(),
        reader: &reader,
        sorter_bytes: plan.sorter_bytes,
        task,
        report,
    };

    repair.run()?;

    let report = repair.report;
    drop(lease);
    Ok(report)
}

pub(super) struct SnapshotRepair<'a> {
    pub repo: &'a Repository,
    pub options: &'a RepairSnapshotsOptions,
    pub lease: Option<&'a Lease>,
    reader: &'a ChunkReader<'a>,
    sorter_bytes: usize,
    pub task: Task<'a>,
    pub report: SnapshotsReport,
}

impl SnapshotRepair<'_> {
    fn run(&mut self) -> Result<(), Error> {
        self.set_unreadable_aside()?;
        let mut listed = self.list()?;

        crate::read::sync_until(self.repo, self.task)?;
        self.task.observer.phase(&Phase::Structure);
        self.end_what_was_begun(&mut listed)?;
        self.heal(&mut listed)?;

        listed.retain(|found| found.snapshot.state != SnapshotState::Checkpoint);
        if let Some(chosen) = choose(&self.options.snapshots, &listed)? {
            listed.retain(|found| chosen.contains(&found.id));
        }
        self.report.looked_at = to_u64(listed.len());

        let (suspects, damage) = suspects(self.reader, listed.clone(), false, self.task.cancel)?;
        if damage.any_missing() {
            return Err(RepoError::Refused {
                why: "cannot repair snapshots: packs are missing".into(),
                advice: Some(Advice::Repair(RepairAdvice::RepairPacksFirst)),
            }
            .into());
        }
        let ids: BTreeSet<SnapshotId> = suspects.iter().map(|&(id, _)| id).collect();
        self.refuse_for_dropped_packs(listed.iter().filter(|found| ids.contains(&found.id)))?;

        let mut runs = MendedRuns::new();
        for found in listed.iter().filter(|found| ids.contains(&found.id)) {
            self.task.check()?;
            self.replace(found, &damage, &mut runs)?;
        }
        Ok(())
    }

    /// Returns an error if a dropped pack in the store may hold chunks that these snapshots lack.
    ///
    /// `repair packs` stores such chunks again or reports them as lost.
    fn refuse_for_dropped_packs<'s>(
        &self,
        suspects: impl Iterator<Item = &'s StoredSnapshot>,
    ) -> Result<(), Error> {
        let roots: Vec<RootSnapshot> = suspects
            .map(|found| RootSnapshot {
                snapshot: found.snapshot.clone(),
                is_listed: true,
            })
            .collect();
        if roots.is_empty() {
            return Ok(());
        }
        let packs = ListedPacks::list(self.repo)?;
        let dropped = dropped_and_there(self.repo, |id| packs.has(id))?;
        let Some(first) = dropped.first() else {
            return Ok(());
        };

        let lost = self.repo.with_index(Index::lost)?;
        let mut is_held = |copy: &ChunkLocation| Ok(copy.state != PackState::Dropped);
        if missing(self.repo, &roots, &lost, &mut is_held, self.task.cancel)?.is_empty() {
            return Ok(());
        }
        let why = format!(
            "cannot repair snapshots yet: the missing data may be in {} dropped packs that still exist, such as {}",
            dropped.len(),
            ObjectKey::Pack(*first)
        );
        let advice = Some(Advice::Repair(RepairAdvice::StoreDroppedAgain));
        Err(RepoError::Refused { why, advice }.into())
    }

    /// Returns the snapshots that can be read. The others were reported before.
    fn list(&self) -> Result<Vec<StoredSnapshot>, Error> {
        Ok(self.repo.snapshots(&mut |_, _| {})?)
    }

    /// Completes repairs that were interrupted after the new snapshot was committed and before the
    /// old one was moved or forgotten.
    fn end_what_was_begun(&mut self, listed: &mut Vec<StoredSnapshot>) -> Result<(), Error> {
        let by_id: BTreeMap<SnapshotId, Snapshot> = listed
            .iter()
            .map(|found| (found.id, found.snapshot.clone()))
            .collect();

        let mut done = BTreeSet::new();
        for found in listed.iter() {
            let Some(old) = found.snapshot.replaces else {
                continue;
            };
            match by_id.get(&old) {
                // The new snapshot is partial and replaces a better one, or it is better and
                // replaces a partial one.
                Some(_)
                    if found.snapshot.lost.is_some()
                        && is_more(&found.snapshot, by_id.get(&old)) =>
                {
                    self.quarantine(&old)?;
                    done.insert(old);
                }
                Some(partial) if partial.lost.is_some() => {
                    self.forget(&old)?;
                    done.insert(old);
                }
                _ => {}
            }
        }

        listed.retain(|found| !done.contains(&found.id));
        Ok(())
    }

    fn quarantine(&self, id: &SnapshotId) -> Result<(), Error> {
        let from = ObjectKey::Snapshot(*id);
        let to = ObjectKey::QuarantinedSnapshot(*id);
        if !self.options.dry_run
            && set_aside(self.repo, &from, &to, self.task.cancel)? != SetAside::Done
        {
            return Err(RepoError::damaged(to, "it already exists with different content").into());
        }
        Ok(())
    }

    fn forget(&self, id: &SnapshotId) -> Result<(), Error> {
        match self.lease {
            Some(lease) if !self.options.dry_run => Ok(self.repo.forget_snapshot(lease, id)?),
            _ => Ok(()),
        }
    }

    /// Restores originals all of whose chunks are in known packs again.
    fn heal(&mut self, listed: &mut Vec<StoredSnapshot>) -> Result<(), Error> {
        let mut aside = self.quarantined()?;
        self.clear(&mut aside, listed)?;
        if aside.is_empty() {
            return Ok(());
        }

        let (bad, _) = suspects(self.reader, aside.clone(), true, self.task.cancel)?;
        let bad: BTreeSet<SnapshotId> = bad.into_iter().map(|(id, _)| id).collect();
        aside.retain(|found| !bad.contains(&found.id));
        // The snapshot that lacks least comes first.
        aside.sort_by_key(|found| lacks(&found.snapshot));

        let partials: Vec<StoredSnapshot> = listed
            .iter()
            .filter(|found| found.snapshot.lost.is_some())
            .cloned()
            .collect();
        for partial in partials {
            let root = partial.snapshot.original;
            let better = aside.iter().find(|found| {
                root == Some(found.snapshot.original.unwrap_or(found.id))
                    && lacks(&found.snapshot) < lacks(&partial.snapshot)
            });
            if let Some(better) = better {
                self.put_back(&partial, better, root)?;
                listed.retain(|found| found.id != partial.id);
            }
        }
        Ok(())
    }

    /// Deletes snapshots in quarantine whose original is listed again: it has everything that they
    /// have.
    fn clear(
        &self,
        aside: &mut Vec<StoredSnapshot>,
        listed: &[StoredSnapshot],
    ) -> Result<(), Error> {
        let is_back = |found: &StoredSnapshot| {
            let root = Some(found.snapshot.original.unwrap_or(found.id));
            let whole = listed
                .iter()
                .filter(|one| Some(one.first()) == root && lacks(&one.snapshot) == 0);
            let mut sources = whole.map(|one| &one.snapshot.sources);
            sources.any(|whole| found.snapshot.lost.is_some() || *whole == found.snapshot.sources)
        };

        let (back, rest): (Vec<_>, Vec<_>) = aside.drain(..).partition(is_back);
        *aside = rest;
        for found in back.iter().filter(|_| !self.options.dry_run) {
            remove(self.repo, &ObjectKey::QuarantinedSnapshot(found.id))?;
        }
        Ok(())
    }

    /// Returns the snapshots in quarantine that can be read.
    fn quarantined(&self) -> Result<Vec<StoredSnapshot>, Error> {
        let mut out = Vec::new();
        for meta in list_all(self.repo.store(), ObjectDir::Quarantine)? {
            let ObjectKey::QuarantinedSnapshot(id) = meta.key else {
                continue;
            };
            let read = self
                .repo
                .store()
                .get(&meta.key, stored_limit(SNAPSHOT_BYTES_MAX));

            let opened = read.map_err(RepoError::from).and_then(|bytes| {
                let keys = self.repo.keys();
                open_object(
                    keys,
                    ObjectKind::Snapshot,
                    &meta.key,
                    &bytes,
                    SNAPSHOT_BYTES_MAX,
                )
            });

            match opened.map(|(_, plain)| decode_snapshot(&plain)) {
                Ok(Ok(snapshot)) => out.push(StoredSnapshot {
                    id,
                    stored: meta.modified,
                    snapshot,
                }),
                Ok(Err(_)) => {}
                Err(err) if err.is_unavailable() => {}
                Err(err) => return Err(err.into()),
            }
        }
        Ok(out)
    }

    fn put_back(
        &mut self,
        partial: &StoredSnapshot,
        better: &StoredSnapshot,
        original: Option<SnapshotId>,
    ) -> Result<(), Error> {
        let mut replaced = ReplacedSnapshot {
            old: partial.id,
            new: None,
            lost: lacks(&better.snapshot),
        };
        if !self.options.dry_run {
            let lease = self.lease(partial)?;
            let snapshot = Snapshot {
                parents: vec![partial.id],
                // Keep tags and protection that users set on the partial snapshot.
                tags: partial.snapshot.tags.clone(),
                protected: partial.snapshot.protected,
                replaces: Some(partial.id),
                original,
                committed: Some(partial.committed()),
                ..better.snapshot.clone()
            };
            replaced.new = Some(self.repo.commit(lease, snapshot)?.id);
            self.forget(&partial.id)?;
            remove(self.repo, &ObjectKey::QuarantinedSnapshot(better.id))?;
        }

        let what = match replaced.lost {
            0 => "all of its data is available again".to_owned(),
            lost => format!("{lost} of its paths lack data, fewer than before"),
        };
        self.task.observer.problem(&Problem::new(
            Severity::Note,
            ObjectKey::Snapshot(partial.id),
            what,
        ));
        self.report.healed.push(replaced);
        Ok(())
    }

    pub(super) fn lease(&self, parent: &StoredSnapshot) -> Result<Lease, Error> {
        let lease = Lease::take(self.repo, LeaseKind::Repair)?;
        lease.set_parents(&[parent.id])?;
        Ok(lease)
    }

    /// Replaces a snapshot that references lost data by a partial one.
    fn replace(
        &mut self,
        found: &StoredSnapshot,
        damage: &FoundDamage,
        runs: &mut MendedRuns,
    ) -> Result<(), Error> {
        let lease = if self.options.dry_run {
            None
        } else {
            Some(self.lease(found)?)
        };
        // Now the lease exists: this sync shows what earlier prunes did.
        self.repo.sync()?;

        // A dry run stores no runs, so it must not add to `runs`.
        let mut nothing_kept = MendedRuns::new();
        let runs = if lease.is_some() {
            runs
        } else {
            &mut nothing_kept
        };

        let (mut snapshot, lost) = match self.mend(found, damage, runs, lease.as_ref()) {
            Ok(Some(mended)) => mended,
            Ok(None) => return Ok(()),
            // The missing data may come back: leave the snapshot as it is.
            Err(Error::Repo(err @ RepoError::ChunkUnreadable { now: true, .. })) => {
                self.report.unreadable_now += 1;
                let what = format!(
                    "{err}; the snapshot was left unchanged: run this again once that is readable"
                );
                self.task.observer.problem(&Problem::new(
                    Severity::Damage,
                    ObjectKey::Snapshot(found.id),
                    what,
                ));
                return Ok(());
            }
            Err(err) => return Err(err),
        };

        let count = lost.count();
        snapshot.state = SnapshotState::Incomplete;
        snapshot.parents = vec![found.id];
        snapshot.replaces = Some(found.id);
        snapshot.original = Some(found.snapshot.original.unwrap_or(found.id));
        snapshot.committed = Some(found.committed());
        snapshot.lost = Some(lost.into_lost());

        let new = match lease {
            Some(lease) => {
                let committed = self.repo.commit(lease, snapshot)?;
                self.quarantine(&found.id)?;
                Some(committed.id)
            }
            None => None,
        };

        let what = format!("{count} of its paths lack data; the original is in quarantine");
        self.task.observer.problem(&Problem::new(
            Severity::Damage,
            ObjectKey::Snapshot(found.id),
            what,
        ));
        self.report.partial.push(ReplacedSnapshot {
            old: found.id,
            new,
            lost: count,
        });
        Ok(())
    }

    /// Returns the rest of a snapshot without its lost data, or `None` if nothing is lost.
    fn mend(
        &self,
        found: &StoredSnapshot,
        damage: &FoundDamage,
        runs: &mut MendedRuns,
        lease: Option<&Lease>,
    ) -> Result<Option<(Snapshot, LostList)>, Error> {
        let claims = Claims::new(self.repo.index())?;
        let options = PackerOptions {
            workers: 1,
            level: 3,
            dry_run: lease.is_none(),
        };

        std::thread::scope(|scope| {
            let packer = Packer::start(
                scope,
                self.repo,
                lease,
                &claims,
                options,
                self.task.observer,
            )?;
            let mut mender = RunMender {
                reader: self.reader,
                judge: AffectedVisitor::new(self.reader, damage),
                writers: ChunkWriters {
                    data: packer.writer(ChunkClass::Data),
                    metadata: packer.writer(ChunkClass::Metadata),
                },
                runs,
                lost: LostList::after(found.snapshot.lost.as_ref()),
                scratch: &self.repo.scratch_dir(),
                sorter_bytes: self.sorter_bytes,
                cancel: self.task.cancel,
            };

            let mended = mend_sources(&mut mender, &found.snapshot);
            let mended = mended.and_then(|mended| Ok(mender.writers.flush().map(|()| mended)?));
            let RunMender { lost, writers, .. } = mender;
            drop(writers);

            match (mended, packer.finish()) {
                (Err(Error::Repo(RepoError::Stopped)), Err(err)) => Err(err.into()),
                (Err(err), _) => Err(err),
                (Ok(_), Err(err)) => Err(err.into()),
                (Ok(mended), Ok(_)) => Ok(mended.map(|snapshot| (snapshot, lost))),
            }
        })
    }
}

fn mend_sources(mender: &mut RunMender<'_, '_>, old: &Snapshot) -> Result<Option<Snapshot>, Error> {
    let mut snapshot = old.clone();
    let mut is_changed = false;
    for source in &mut snapshot.sources {
        match &mut source.kind {
            SourceKind::Stream { content, .. } => {
                if let Some((left, bytes)) = mender.content(content)? {
                    mender.lost.add(&source.name, &RelPath::root(), Some(bytes));
                    *content = left;
                    source.counts.incomplete = 1;
                    is_changed = true;
                }
            }
            SourceKind::Tree { runs, .. } => {
                if let Some(left) = mender.tree(&source.name, runs)? {
                    *runs = left.runs;
                    source.counts.incomplete = left.incomplete;
                    // A name that the new runs lack may have existed: `None` says that its absence
                    // proves nothing.
                    source.counts.partial = None;
                    is_changed = true;
                }
            }
        }
    }
    Ok(is_changed.then_some(snapshot))
}

/// Returns the number of paths of which a snapshot lacks something.
pub(super) fn lacks(snapshot: &Snapshot) -> u64 {
    snapshot.lost.as_ref().map_or(0, |lost| lost.count)
}

/// Returns true if `snapshot` lacks more than `other`, or `other` lacks nothing.
fn is_more(snapshot: &Snapshot, other: Option<&Snapshot>) -> bool {
    other.is_some_and(|other| lacks(snapshot) > lacks(other) || other.lost.is_none())
}

/// Returns the named snapshots, or `None` if `names` is empty.
fn choose(
    names: &[String],
    listed: &[StoredSnapshot],
) -> Result<Option<BTreeSet<SnapshotId>>, Error> {
    if names.is_empty() {
        return Ok(None);
    }
    let mut out = BTreeSet::new();
    for name in names {
        match PrefixMatch::find(
            &name.to_ascii_lowercase(),
            listed.iter().map(|found| found.id),
        ) {
            PrefixMatch::One(id) => {
                out.insert(id);
            }
            PrefixMatch::None => {
                return Err(Error::NotThere(format!("there is no snapshot '{name}'")));
            }
            PrefixMatch::Many(ids) => {
                return Err(Error::usage(format!(
                    "{} snapshots begin with '{name}'",
                    ids.len()
                )));
            }
        }
    }
    Ok(Some(out))
}
