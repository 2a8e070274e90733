//! Verifying: can every snapshot be restored?
//!
//! Two levels. *Structure*: both copies of `config` and of each key slot, every segment and
//! snapshot opens; every held pack is there with its size; every root, node and page of a run and
//! every list node is read; every chunk that a snapshot needs lies in a held pack. *Data*
//! (`read_data`): packs are read whole, those longest unread first; all bytes hash to the pack's
//! name, every frame opens, every chunk hashes to its name, the pack's own directory is what the
//! segments say.
//!
//! ```text
//! objects ─▶ packs listed ─▶ runs and chunks resolve ─▶ packs read ─▶ paths hit (only if something is wrong)
//! ```
//!
//! Nothing is repaired and nothing but a lease is written. A run that many snapshots share is read
//! once. Memory: two bits a chunk, 60 bytes a pack, the snapshots, one batch of look-ups, and about
//! 12 MiB a worker while packs are read.

mod affected;
mod damage;
mod data;
mod objects;
mod pack;
mod reach;
mod report;
mod single;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub(in crate::ops) use affected::Judge;
pub(in crate::ops) use damage::Damage;
pub(in crate::ops) use data::check_all;
pub(in crate::ops) use objects::digest;
pub use report::{AffectedPath, Finding, FindingKind, Hit, LISTED_MAX, VerifyReport};
pub(crate) use single::missing;

use crate::Error;
use crate::format::LeaseKind;
use crate::index::PackState;
use crate::observe::{Counters, Observer, Phase, Problem, Severity};
use crate::ops::walk::reading_lease;
use crate::ops::{Cancel, memory};
use crate::repo::{ChunkReader, Repository, StoredSnapshot};
use crate::types::{ByteSize, SnapshotId};
use damage::PackDamage;
use objects::Objects;
use reach::Reach;

/// What is verified, and within which limits.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifyOptions {
    /// This machine's name, for the lease.
    pub host: String,
    /// Read packs whole and check every chunk.
    pub read_data: bool,
    /// Read this share of the held packs' stored bytes, above 0 and at most 1, those longest unread
    /// first: twenty runs of 0.05 read all.
    pub sample: Option<f64>,
    /// Begin with no further pack after this time.
    pub max_time: Option<Duration>,
    /// Read at most so many stored bytes, but always one pack.
    pub max_bytes: Option<u64>,
    /// Packs read at a time; 0: as many as there are cores.
    pub threads: usize,
    /// Memory to keep within.
    pub memory: ByteSize,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        Self {
            host: String::new(),
            read_data: false,
            sample: None,
            max_time: None,
            max_bytes: None,
            threads: 0,
            memory: memory::BUDGET_DEFAULT,
        }
    }
}

/// Checks a repository. What is wrong stands in the report; an error is a mishap that ended the
/// check.
///
/// # Errors
/// [`Error::Interrupted`] if cancelled; what was read until then is remembered as verified.
pub fn verify(
    repo: &Repository,
    options: &VerifyOptions,
    observer: &dyn Observer,
    cancel: &Cancel,
) -> Result<VerifyReport, Error> {
    if options
        .sample
        .is_some_and(|share| !(share > 0.0 && share <= 1.0))
    {
        return Err(Error::Usage(
            "a sample is more than 0 % and at most 100 %".into(),
        ));
    }
    let threads = match options.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let plan = memory::plan(options.memory, threads);
    let lease = reading_lease(repo, LeaseKind::Verify, &options.host)?;

    observer.phase(&Phase::Structure);
    let mut objects = Objects::check(repo, observer, cancel)?;
    let reader = ChunkReader::new(repo, plan.frame_cache_bytes);
    let mut damage = Damage::default();
    let reach = structure(&reader, &mut objects, &mut damage, observer, cancel)?;
    objects.tell_late(repo, &reach.suspects, observer);

    let mut suspects = reach.suspects;
    if options.read_data {
        observer.phase(&Phase::Data);
        let before = damage.clone();
        data::read_packs(
            repo,
            options,
            plan.workers,
            &mut objects,
            &mut damage,
            observer,
            cancel,
        )?;
        if damage != before {
            suspects = Reach::run(&reader, &objects.snapshots, &damage, cancel)?.suspects;
        }
    }
    if !suspects.is_empty() {
        observer.phase(&Phase::Plan);
        affected::name(&reader, &mut objects, &suspects, &damage, cancel)?;
        objects.report_dropped(observer);
    }
    objects.tell_repairs(repo, observer)?;
    data::tell_age(repo, &mut objects);
    repo.remember_newest(&objects.snapshots);
    if let Some(lease) = lease {
        // A lease that cannot be deleted expires by itself.
        let _ = lease.release();
    }
    let mut report = objects.report;
    report.chunks_checked = reach.chunks;
    if reach.unresolved > 0 && report.affected_count == 0 {
        let what = format!(
            "{} chunks of entries that no snapshot shows are not there",
            reach.unresolved
        );
        observer.problem(&Problem::new(Severity::Note, "runs", what));
    }
    Ok(report)
}

/// The sources of these snapshots that need what is not there, each by its snapshot and place in
/// it, and the damage by which they were judged: packs that are not there as they should be. Some
/// of the sources may prove whole when they are looked at alone. `known_only`: chunks in condemned
/// packs do not count.
pub(in crate::ops) fn suspects(
    reader: &ChunkReader<'_>,
    snapshots: Vec<StoredSnapshot>,
    known_only: bool,
    cancel: &Cancel,
) -> Result<(Vec<(SnapshotId, usize)>, Damage), Error> {
    let mut objects = Objects::of(snapshots);
    let mut damage = Damage::default();
    let reach = structure(
        reader,
        &mut objects,
        &mut damage,
        &Counters::default(),
        cancel,
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
        Reach::run(reader, &objects.snapshots, &damage, cancel)?.suspects,
        damage,
    ))
}

/// True if all that a snapshot needs lies in known packs that are there with their size. The index
/// is in step with a listing made after the caller's lease began: then the caller may rely on these
/// chunks as on any that it finds there.
pub(in crate::ops) fn resolves(
    reader: &ChunkReader<'_>,
    found: &StoredSnapshot,
    cancel: &Cancel,
) -> Result<bool, Error> {
    Ok(suspects(reader, vec![found.clone()], true, cancel)?
        .0
        .is_empty())
}

/// Lists the packs and walks all runs. Done again if the index was found wanting and made anew on
/// the way: chunk numbers, and what did not resolve, are then others.
fn structure(
    reader: &ChunkReader<'_>,
    objects: &mut Objects,
    damage: &mut Damage,
    observer: &dyn Observer,
    cancel: &Cancel,
) -> Result<Reach, Error> {
    let repo = reader.repo();
    let so_far = objects.report.clone();
    let mut made_sure = false;
    loop {
        let generation = repo.index().generation();
        objects.report = so_far.clone();
        *damage = Damage::default();
        objects.check_packs(repo, damage, cancel)?;
        let reach = Reach::run(reader, &objects.snapshots, damage, cancel)?;
        if (reach.unresolved > 0 || !reach.unreadable.is_empty()) && !made_sure {
            made_sure = true;
            repo.make_sure_of_misses()?;
            continue;
        }
        if repo.index().generation() != generation {
            continue;
        }
        for (object, what) in &reach.unreadable {
            objects
                .report
                .find(FindingKind::RunUnreadable, object, what);
        }
        objects.tell_orphans(observer);
        return Ok(reach);
    }
}
