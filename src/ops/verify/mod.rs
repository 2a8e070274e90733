//! Verify: checks that every snapshot can be restored.
//!
//! There are two levels:
//!
//! - *Structure*: both copies of `config` and of each key slot, every segment and every snapshot
//!   opens. Every held pack is in the store with the right size. Every root, node and page of a run
//!   and every list node is read. Every chunk that a snapshot needs is in a held pack.
//! - *Data* (`read_data`): packs are read to the end, least recently read first. All bytes hash to
//!   the pack's name, every frame opens, every chunk hashes to its name, and the pack's own
//!   directory agrees with the segments.
//!
//! ```text
//! objects ─▶ packs listed ─▶ runs and chunks resolve ─▶ packs read
//!         ─▶ affected paths (only if there is damage)
//! ```
//!
//! Verify repairs nothing and writes only a lease. A run that several snapshots share is read once.
//! Memory: two bits per chunk, 60 bytes per pack, the snapshots, one batch of look-ups, and about
//! 12 MiB per worker while packs are read.

mod affected;
mod damage;
mod data;
mod objects;
mod options;
mod pack;
mod reach;
mod report;
mod single;
#[cfg(test)]
mod tests;

pub(in crate::ops) use affected::AffectedVisitor;
pub(in crate::ops) use damage::FoundDamage;
pub(in crate::ops) use data::check_all;
pub(in crate::ops) use objects::digest;
pub use options::VerifyOptions;
pub use report::{AffectedPath, DamageHit, FindingKind, LISTED_MAX, VerifyFinding, VerifyReport};
pub(crate) use single::missing;

use crate::Error;
use crate::format::LeaseKind;
use crate::index::PackState;
use crate::observe::{Counters, Phase, Problem, Severity};
use crate::ops::memory;
use crate::read::reading_lease;
use crate::repo::{ChunkReader, Repository, StoredSnapshot};
use crate::task::{Cancel, Task};
use crate::types::SnapshotId;
use damage::PackDamage;
use objects::ListedObjects;
use reach::ReachedChunks;

/// Checks a repository. Damage is listed in the report; an error means that the check could not be
/// completed.
///
/// # Errors
/// [`Error::Interrupted`] if cancelled; packs read until then are remembered as verified.
pub fn verify(
    repo: &Repository,
    options: &VerifyOptions,
    task: Task<'_>,
) -> Result<VerifyReport, Error> {
    if options
        .sample
        .is_some_and(|share| !(share > 0.0 && share <= 1.0))
    {
        return Err(Error::usage(
            "a sample must be more than 0 % and at most 100 %".into(),
        ));
    }

    let threads = match options.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let plan = memory::plan(options.memory, threads);
    let lease = reading_lease(repo, LeaseKind::Verify)?;

    task.observer.phase(&Phase::Structure);
    let mut objects = ListedObjects::check(repo, task)?;
    let reader = ChunkReader::new(repo, plan.frame_cache_bytes);
    let mut damage = FoundDamage::default();
    let reach = structure(&reader, &mut objects, &mut damage, task)?;
    objects.report_late(repo, &reach.suspects, task.observer);

    let mut suspects = reach.suspects;
    if options.read_data {
        task.observer.phase(&Phase::Data);
        let before = damage.clone();
        data::read_packs(repo, options, plan.workers, &mut objects, &mut damage, task)?;
        if damage != before {
            suspects =
                ReachedChunks::run(&reader, &objects.snapshots, &damage, task.cancel)?.suspects;
        }
    }

    if !suspects.is_empty() {
        task.observer.phase(&Phase::Plan);
        affected::name(&reader, &mut objects, &suspects, &damage, task.cancel)?;
        objects.report_dropped(task.observer);
    }

    objects.report_repairs(repo, task.observer)?;
    data::report_age(repo, &mut objects);
    repo.remember_newest(&objects.snapshots);

    drop(lease);

    let mut report = objects.report;
    report.chunks_checked = reach.chunks;

    if reach.unresolved > 0 && report.affected_count == 0 {
        let what = format!(
            "{} chunks of entries that no snapshot shows are missing",
            reach.unresolved
        );
        task.observer
            .problem(&Problem::new(Severity::Note, "runs", what));
    }
    Ok(report)
}

/// Returns the sources of these snapshots that need missing data, each as its snapshot and its
/// index in it, and the damage used for the decision: packs that are missing or have the wrong
/// size.
///
/// Some of the sources may prove undamaged when they are checked alone. `known_only`: chunks in
/// condemned packs count as missing.
pub(in crate::ops) fn suspects(
    reader: &ChunkReader<'_>,
    snapshots: Vec<StoredSnapshot>,
    known_only: bool,
    cancel: &Cancel,
) -> Result<(Vec<(SnapshotId, usize)>, FoundDamage), Error> {
    let mut objects = ListedObjects::of(snapshots);
    let mut damage = FoundDamage::default();
    let reach = structure(
        reader,
        &mut objects,
        &mut damage,
        Task::new(&Counters::default(), cancel),
    )?;

    if !known_only {
        return Ok((reach.suspects, damage));
    }

    for (pack, _) in objects
        .packs
        .iter()
        .filter(|(pack, _)| pack.state == PackState::Condemned)
    {
        damage.add(
            pack.id,
            PackDamage {
                gone: true,
                ..PackDamage::default()
            },
        );
    }

    Ok((
        ReachedChunks::run(reader, &objects.snapshots, &damage, cancel)?.suspects,
        damage,
    ))
}

/// Returns true if every chunk that a snapshot needs is in a known pack that is in the store with
/// the right size.
///
/// The index must include a listing made after the caller's lease began. The caller may then rely
/// on these chunks as on any other chunk in the index.
pub(in crate::ops) fn resolves(
    reader: &ChunkReader<'_>,
    found: &StoredSnapshot,
    cancel: &Cancel,
) -> Result<bool, Error> {
    Ok(suspects(reader, vec![found.clone()], true, cancel)?
        .0
        .is_empty())
}

/// Lists the packs and walks all runs.
///
/// Repeats this if the index was recreated on the way, because chunk numbers and unresolved chunks
/// change then, and once after misses were confirmed.
fn structure(
    reader: &ChunkReader<'_>,
    objects: &mut ListedObjects,
    damage: &mut FoundDamage,
    task: Task<'_>,
) -> Result<ReachedChunks, Error> {
    let repo = reader.repo();
    let so_far = objects.report.clone();
    let mut made_sure = false;
    loop {
        let generation = repo.index().generation();
        objects.report = so_far.clone();
        *damage = FoundDamage::default();
        objects.check_packs(repo, damage, task.cancel)?;

        let reach = ReachedChunks::run(reader, &objects.snapshots, damage, task.cancel)?;
        if (reach.unresolved > 0 || !reach.unreadable.is_empty()) && !made_sure {
            made_sure = true;
            repo.confirm_misses()?;
            continue;
        }

        if repo.index().generation() != generation {
            continue;
        }

        for (object, reason) in &reach.unreadable {
            let kind = if reason.now {
                FindingKind::UnreadableNow
            } else {
                FindingKind::RunUnreadable
            };
            objects.report.find(kind, object, &reason.why);
        }
        objects.report_orphans(task.observer);
        return Ok(reach);
    }
}
