//! Copying of snapshots from one repository to another.
//!
//! Chunk names depend on a key of the repository. So a copy reads each chunk, gives it a new name,
//! deduplicates it against the destination and packs it there. Runs keep their order and their
//! mentions, so that a run that two snapshots share is copied once. Their pages, and the lists of
//! long contents, contain chunk names and are rewritten.
//!
//! Data that was copied before is not read again. Runs of copied snapshots are recognized by their
//! roots. For a new run, contents are compared with those of an earlier copied snapshot of the same
//! source, path by path, and within a content chunk by chunk. If the destination has lost chunks or
//! packs, nothing in it counts as copied: all data is read again, which heals the destination.
//!
//! Each snapshot is committed separately, under its own lease, with the snapshots that it builds on
//! as parents. After a crash the committed snapshots stay, and the next copy finds chunks that were
//! stored.

mod base;
mod copier;
mod error;
mod pairs;
mod report;
#[cfg(test)]
mod tests;
mod translate;

use std::collections::BTreeSet;

pub use report::{CopyItem, CopyOptions, CopyOutcome, CopyReport};

use super::memory;
use crate::Error;
use crate::format::{LeaseKind, Snapshot, SnapshotState, SourceKind};
use crate::observe::{Observer, Phase, Problem, Severity};
use crate::ops::backup::presence;
use crate::ops::forget::forget_replaced;
use crate::ops::list::{SnapshotFilter, snapshots};
use crate::read::ReadSession;
use crate::read::choose;
use crate::repo::{
    Claims, Lease, PackedSource, Packer, RepoError, Repository, StoredSnapshot, without_replaced,
};
use crate::store::ObjectKey;
use crate::task::Task;
use crate::types::SnapshotId;
use copier::Copier;
use error::CopyError;
use translate::TranslatedRun;

/// Copies snapshots, oldest first. Checkpoints and snapshots that the destination already has are
/// skipped.
///
/// A snapshot that cannot be read completely is reported to the observer as damage and is not
/// copied; the others are.
///
/// # Errors
/// Snapshots that were committed before the error stay.
pub fn copy(
    from: &Repository,
    to: &Repository,
    options: &CopyOptions,
    task: Task<'_>,
) -> Result<CopyReport, Error> {
    if from.id() == to.id() {
        return Err(Error::usage("both are the same repository".into()));
    }
    to.check_writable()?;
    task.observer.phase(&Phase::Index);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if options.threads == 0 {
        cores
    } else {
        options.threads.min(64)
    };
    let plan = memory::plan(options.memory, threads);
    // Contents are read in path order, but several threads packed their frames. So the reader
    // leaves a frame and returns to it later.
    let session = ReadSession::with_cache(from, 2 * plan.frame_cache_bytes, task)?;

    let all = snapshots(from, &SnapshotFilter::default(), task.observer)?;
    let wanted = wanted(from, &all, options, task.observer)?;
    // Earlier snapshots serve as bases.
    session.add_snapshots(all.iter().map(|found| found.id));

    session.sync()?;
    crate::read::sync_until(to, task)?;
    let absent = presence::look(to, None, task)?;

    let mut copier = Copier::new(&session, to, options, plan, absent);
    copier.run(all, &wanted)?;
    task.observer.phase(&Phase::End);
    Ok(copier.report)
}

fn wanted(
    from: &Repository,
    all: &[StoredSnapshot],
    options: &CopyOptions,
    observer: &dyn Observer,
) -> Result<BTreeSet<SnapshotId>, Error> {
    if options.names.is_empty() {
        return Ok(all
            .iter()
            .filter(|found| options.filter.accepts(found))
            .map(|found| found.id)
            .collect());
    }

    let mut wanted = BTreeSet::new();
    for name in &options.names {
        let found = choose(from, name, &options.hosts, None, observer)?;
        if found.snapshot.state == SnapshotState::Checkpoint {
            return Err(Error::NotThere(format!(
                "{} is a checkpoint, which is not copied",
                found.id.short()
            )));
        }
        if !all.iter().any(|other| other.id == found.id) {
            let what = format!("{} was replaced by another snapshot", found.id.short());
            return Err(Error::NotThere(what));
        }
        wanted.insert(found.id);
    }
    Ok(wanted)
}

impl Copier<'_> {
    fn run(
        &mut self,
        all: Vec<StoredSnapshot>,
        wanted: &BTreeSet<SnapshotId>,
    ) -> Result<(), Error> {
        let observer = self.task.observer;
        let there = crate::read::readable_snapshots(self.to.repo(), observer)?;

        self.seen = there.iter().map(|found| found.id).collect();
        self.there = without_replaced(there)
            .into_iter()
            .map(|found| (found.first(), found))
            .collect();
        // Newest first, so that the base of a source is an old snapshot until the loop below
        // reaches a newer one.
        for found in all.iter().rev() {
            if let Some(twin) = self.there.get(&found.first()).cloned() {
                self.learn(found, &twin);
            }
        }

        for found in all {
            if found.snapshot.state == SnapshotState::Checkpoint {
                continue;
            }
            self.from.keep()?;
            let twin = self.there.get(&found.first()).cloned();
            if let Some(twin) = &twin {
                self.learn(&found, twin);
            }
            if !wanted.contains(&found.id) {
                continue;
            }

            let outcome = match twin.as_ref().filter(|twin| !is_less(twin, &found)) {
                Some(twin) => CopyOutcome::There(twin.id),
                None if self.options.dry_run => CopyOutcome::Wanted,
                None => self.one(&found, twin.as_ref().map(|twin| twin.id))?,
            };

            if let CopyOutcome::Copied(id) = outcome {
                let snapshot = self.to.repo().read_snapshot(&id)?;
                let twin = StoredSnapshot {
                    id,
                    stored: snapshot.heartbeat,
                    snapshot,
                };
                self.learn(&found, &twin);
                self.there.insert(found.first(), twin);
            }
            self.report.items.push(CopyItem { found, outcome });
        }
        Ok(())
    }

    /// Copies one snapshot. `replaces`: a snapshot in the destination that lacks data of it.
    fn one(
        &mut self,
        found: &StoredSnapshot,
        replaces: Option<SnapshotId>,
    ) -> Result<CopyOutcome, Error> {
        let to = self.to.repo();
        self.task.observer.phase(&Phase::Copy {
            name: found.id.short(),
        });
        let lease = Lease::take(to, LeaseKind::Backup)?;

        let listed: BTreeSet<SnapshotId> = to
            .listed_snapshots()?
            .into_iter()
            .map(|(id, _)| id)
            .collect();
        self.look_again(&listed)?;

        if let Some(twin) = self
            .there
            .get(&found.first())
            .filter(|twin| !is_less(twin, found))
        {
            return Ok(CopyOutcome::There(twin.id));
        }

        to.sync()?;
        self.check_known(&listed)?;

        let mut parents: Vec<SnapshotId> = self.runs.values().map(|known| known.1).collect();
        parents.extend(self.bases.values().map(|base| base.owner));
        parents.sort_unstable();
        parents.dedup();
        lease.set_parents(&parents)?;

        let (translated, packed) = match self.pack(&lease, found) {
            Ok(done) => done,
            Err(CopyError::Other(err)) => return Err(err),
            Err(CopyError::Source(err)) if !err.is_unavailable() => return Err(err.into()),
            Err(CopyError::Source(err)) => {
                let what = format!("{err}; it was not copied");
                self.task.observer.problem(&Problem::new(
                    Severity::Damage,
                    ObjectKey::Snapshot(found.id),
                    &what,
                ));
                return Ok(CopyOutcome::Failed(err.to_string()));
            }
            Err(CopyError::Skip(what)) => {
                self.task.observer.problem(&Problem::new(
                    Severity::Missing,
                    ObjectKey::Snapshot(found.id),
                    &what,
                ));
                return Ok(CopyOutcome::Failed(what));
            }
        };

        self.report.packs += packed.packs;
        self.report.stored_bytes += packed.stored_bytes;

        let mut snapshot = describe(found, translated.kinds, replaces);
        snapshot.parents = translated.parents.into_iter().collect();
        let committed = to.commit(lease, snapshot)?;
        self.report.stored_bytes += committed.bytes;

        if let Some(old) = replaces {
            forget_replaced(to, &old)?;
        }
        Ok(CopyOutcome::Copied(committed.id))
    }

    fn pack(
        &self,
        lease: &Lease,
        found: &StoredSnapshot,
    ) -> Result<(TranslatedRun, PackedSource), CopyError> {
        let claims = Claims::new(self.to.repo().index())?.without(self.absent.clone());
        std::thread::scope(|scope| {
            let packer = Packer::start(
                scope,
                self.to.repo(),
                Some(lease),
                &claims,
                self.packing,
                self.task.observer,
            )?;
            let translated = self.translate(&packer, found);
            // Also after a failure: frames that are under way are published and serve the next
            // copy.
            let packed = packer.finish();
            match (translated, packed) {
                (Err(CopyError::Other(Error::Repo(RepoError::Stopped))), Err(first)) => {
                    Err(first.into())
                }
                (Err(trouble), _) => Err(trouble),
                (Ok(_), Err(err)) => Err(err.into()),
                (Ok(translated), Ok(packed)) => Ok((translated, packed)),
            }
        })
    }
}

/// Returns true if the destination's snapshot lacks data that the source's has: it was copied from
/// a repaired snapshot that was healed since.
fn is_less(there: &StoredSnapshot, found: &StoredSnapshot) -> bool {
    there.snapshot.lost.is_some() && found.snapshot.lost.is_none()
}

fn describe(
    found: &StoredSnapshot,
    kinds: Vec<SourceKind>,
    replaces: Option<SnapshotId>,
) -> Snapshot {
    let mut sources = found.snapshot.sources.clone();
    for (source, kind) in sources.iter_mut().zip(kinds) {
        source.kind = kind;
    }
    Snapshot {
        sources,
        protected: false,
        replaces,
        original: Some(found.first()),
        committed: Some(found.committed()),
        ..found.snapshot.clone()
    }
}
