//! Backs up all sources, one after another in their order, into one snapshot.
//!
//! Lease → list snapshots → sync the index → for each source: scan ⋈ previous snapshot → read, cut,
//! hash → known? → frame → compress, seal → pack → store → new run. Then the commit: packs durable
//! → segment → snapshot → did it land within the lease? → the lease ends (docs/protocol.md). A
//! crash before the snapshot leaves packs and segments that the next backup deduplicates against;
//! committed data does not change.

mod around;
mod capture_context;
mod checkpoint;
mod heal;
mod names;
#[cfg(test)]
mod names_tests;
mod options;
pub(super) mod presence;
#[cfg(test)]
mod presence_tests;
mod previous;
mod reader;
mod reason;
mod run;
mod scan;
mod shared;
mod snapshot_head;
mod stream;
mod suspect;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::BTreeMap;

pub use self::options::{
    BackupOptions, BackupReport, CommandAndEnv, CommandSpec, DumpCommand, SourceHooks,
    SourceReport, SourceSpec, TreeSpec,
};
pub(in crate::ops) use self::reader::content::{ChunkWriters, ContentBuilder};
pub(in crate::ops) use self::run::sink::EntrySink;
pub use self::stream::SMALLEST_STREAM;
pub use self::stream::ending::{CLUSTER_DUMP_COMPLETE, DATABASE_DUMP_COMPLETE};

use crossbeam_channel::bounded;

use self::capture_context::CaptureContext;
use self::checkpoint::{Checkpoints, OvertakenCheckpoint};
use self::heal::LostChunks;
use self::previous::{PreviousChooser, PreviousSource, state_of};
use self::snapshot_head::{SnapshotHead, snapshot_of};
use self::suspect::suspect_problem;
use self::tree::open::open_tree;
use super::memory;
use crate::Error;
use crate::advice::{Advice, BackupAdvice};
use crate::format::{LeaseKind, Snapshot, SourceCounts, SourceKind, SourceRecord, legal_images};
use crate::index::Index;
use crate::observe::{Counter, Observer, Phase, Problem, Severity};
use crate::repo::{
    ChunkReader, Claims, CommittedSnapshot, Lease, PackedSource, Packer, PackerOptions, RepoError,
    Repository, StoredSnapshot,
};
use crate::source::OwnerNames;
use crate::sys::{PathContext, now};
use crate::task::Task;
use crate::types::{SnapshotId, to_u64};

/// Backs up all sources into one snapshot.
///
/// # Errors
/// On an error nothing is committed. Paths that could not be captured are not an error: they are
/// reported to the observer, and the snapshot is incomplete.
pub fn backup(
    repo: &Repository,
    options: BackupOptions,
    task: Task<'_>,
) -> Result<BackupReport, Error> {
    check(&options)?;
    repo.check_writable()?;
    let started = now();
    if options
        .sources
        .iter()
        .any(|source| matches!(source, SourceSpec::Tree(_)))
    {
        super::check_proc("capture a tree")?;
    }

    let mut options = options;
    let sources = std::mem::take(&mut options.sources);
    // Before anything is stored, find the trees that are missing or cannot be listed.
    let missing = check_tree_roots(repo, &options, &sources)?;

    task.observer.phase(&Phase::Index);
    let lease = if options.dry_run {
        None
    } else {
        Some(Lease::take(repo, LeaseKind::Backup)?)
    };
    let mut damaged = |id: SnapshotId, err: RepoError| {
        task.observer.problem(&Problem::new(
            Severity::Damage,
            format!("snapshot {}", id.short()),
            err,
        ));
    };

    let mut snapshots = repo.snapshots(&mut damaged)?;
    crate::read::report_times(repo, &snapshots, task.observer);
    crate::read::sync_until(repo, task)?;
    let absent = presence::look(repo, lease.as_ref(), task)?;

    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let plan = memory::plan(
        options.memory,
        options.threads.unwrap_or(cores).clamp(1, 64),
    );
    let reader = ChunkReader::new(repo, plan.frame_cache_bytes);
    let head = SnapshotHead {
        host: options.host.clone(),
        tags: options.tags.clone(),
        images: legal_images(options.images.iter().cloned()),
        started,
    };

    // Choose the snapshot that each tree builds on. If it is the checkpoint of another backup, that
    // backup may delete it at any time: take it over first, and choose again if it is already gone.
    let checkpoints = Checkpoints::new(repo, lease.as_ref(), &reader, &head, task.observer);
    let mut passed_over: Vec<SnapshotId> = Vec::new();
    let mut moved: Option<BTreeMap<String, Vec<Vec<u8>>>> = None;
    let previous_sources = loop {
        let mut chooser = PreviousChooser {
            repo,
            reader: &reader,
            snapshots: &snapshots,
            host: &options.host,
            task,
            judged: BTreeMap::new(),
        };
        if moved.is_none() {
            names::look(&chooser, &options, &sources)?;
            moved = Some(names::moved_from(&chooser, options.moved, &sources));
        }

        let previous_sources = choose_previous_sources(&mut chooser, &sources)?;
        if let Some(lease) = &lease {
            let ids: Vec<SnapshotId> = previous_sources
                .values()
                .map(|previous| previous.snapshot)
                .collect();
            lease.set_parents(&ids)?;
        }
        if checkpoints.inherit(&previous_sources)? {
            break previous_sources;
        }

        // The other backup replaced or deleted its checkpoint. A store whose listings lag may still
        // list it, so it is not tried again.
        task.check()?;
        passed_over.extend(
            previous_sources
                .values()
                .filter(|one| one.is_checkpoint)
                .map(|one| one.snapshot),
        );
        snapshots = repo.snapshots(&mut |_, _| {})?;
        snapshots.retain(|one| !passed_over.contains(&one.id));
    };

    let owners = OwnerNames::read()?;
    let lost = LostChunks {
        ids: repo.with_index(Index::lost)?,
        absent,
        reader: &reader,
    };
    let capture = CaptureContext {
        repo,
        reader: &reader,
        options: &options,
        plan,
        owners: &owners,
        task,
        lost: &lost,
        checkpoints: &checkpoints,
    };

    // If a missing tree was never captured, there is no earlier capture to keep.
    if let Some((name, why)) = missing
        .iter()
        .find(|(name, _)| !previous_sources.contains_key(*name))
    {
        return Err(Error::Source {
            name: name.clone(),
            why: why.clone(),
        });
    }

    let baselines = baselines(&snapshots, &options, &sources);
    let doubts = unaccepted_suspects(&snapshots, &options, &sources);
    let given = CaptureInputs {
        sources,
        baselines,
        doubts,
        previous_sources: &previous_sources,
    };
    let mut captured = capture_all(&capture, lease.as_ref(), given)?;
    for record in &mut captured.records {
        record.moved_from = moved
            .as_mut()
            .and_then(|moved| moved.remove(&record.name))
            .unwrap_or_default();
    }

    let own = checkpoints.stored();
    let passing = |previous: &SnapshotId| {
        previous_sources
            .values()
            .any(|one| one.is_checkpoint && one.snapshot == *previous)
    };

    // Entries of another backup's checkpoint are in our own checkpoint by now.
    let reported = captured.reports.iter().filter_map(|report| report.parent);
    let named = reported
        .filter_map(|previous| {
            if passing(&previous) {
                own
            } else {
                Some(previous)
            }
        })
        .collect();

    let state = state_of(&captured.records);
    let snapshot = Snapshot {
        state,
        ..snapshot_of(&head, named, captured.records)
    };

    let overtaken = |committed: &CommittedSnapshot, sources: &[SourceRecord]| {
        let overtaken = OvertakenCheckpoint {
            snapshots: &snapshots,
            host: &options.host,
            sources,
        };
        Checkpoints::clear(repo, own, &overtaken, committed.stored);
    };

    let mut packed = captured.packed;
    packed.stored_bytes += checkpoints.stored_bytes();
    drop(checkpoints);
    finish(
        repo,
        lease,
        snapshot,
        captured.reports,
        packed,
        task.observer,
        &overtaken,
    )
}

/// The sources to capture, with the earlier captures that they are compared with.
struct CaptureInputs<'p> {
    /// In the order in which they are captured: a database dump must not be newer than the files
    /// that it refers to.
    sources: Vec<SourceSpec>,
    /// By source name: the size of the last good stream.
    baselines: BTreeMap<String, u64>,
    /// By source name: the reason why the source is suspect even if this capture is good.
    doubts: BTreeMap<String, String>,
    /// By source name: the capture that a tree builds on.
    previous_sources: &'p BTreeMap<String, PreviousSource>,
}

/// Opens the root of each tree, and returns those that cannot be opened, with the reason.
///
/// Such a root is an error before anything is stored. The exception is a source in which nothing
/// may change: its root is returned, to be reported as an alarm, and the snapshot keeps the last
/// good capture. A source with `before` commands is only opened in a dry run: they may be what
/// mounts it.
fn check_tree_roots(
    repo: &Repository,
    options: &BackupOptions,
    sources: &[SourceSpec],
) -> Result<BTreeMap<String, String>, Error> {
    let mut missing = BTreeMap::new();
    for source in sources {
        let SourceSpec::Tree(spec) = source else {
            continue;
        };

        let is_prepared = !spec.around.before.is_empty();
        if is_prepared && !options.dry_run {
            continue;
        }

        match open_tree(repo, spec) {
            Ok(_) => {}
            Err(Error::Source { name, why }) if is_prepared => {
                let why = format!("{why} (a dry run does not run its 'before' commands)");
                return Err(Error::Source { name, why });
            }
            Err(Error::Source { name, why }) if options.keeps(spec) => {
                missing.insert(name, why);
            }
            Err(err) => return Err(err),
        }
    }

    Ok(missing)
}

/// Returns the size of the last good stream of each stream source, except those of which any size
/// is accepted.
fn baselines(
    snapshots: &[StoredSnapshot],
    options: &BackupOptions,
    sources: &[SourceSpec],
) -> BTreeMap<String, u64> {
    let measured = sources.iter().filter_map(|source| match source {
        SourceSpec::Command(command) => Some(&command.name),
        SourceSpec::Stream { name, .. } => Some(name),
        SourceSpec::Tree(_) => None,
    });
    measured
        .filter(|name| !options.accept.contains(*name))
        .filter_map(|name| {
            let last = previous::last_good(snapshots, &options.host, name)?;
            match &last.kind {
                SourceKind::Stream { content, .. } => Some((name.clone(), content.size)),
                SourceKind::Tree { .. } => None,
            }
        })
        .collect()
}

/// Returns the sources that are suspect even if this capture is good, with the reason: the last
/// capture was suspect, it was not accepted, and no good one is left to compare with. If this
/// capture counted as good, all later ones would be compared with a change that no user has
/// accepted.
fn unaccepted_suspects(
    snapshots: &[StoredSnapshot],
    options: &BackupOptions,
    sources: &[SourceSpec],
) -> BTreeMap<String, String> {
    let is_compared = |source: &&SourceSpec| match source {
        SourceSpec::Tree(tree) => tree.unchanged,
        SourceSpec::Command(command) => command.smallest != Some(0.0),
        SourceSpec::Stream { .. } => true,
    };
    let compared = sources.iter().filter(is_compared).map(SourceSpec::name);

    compared
        .filter(|name| !options.accept.contains(*name))
        .filter(|name| previous::last_good(snapshots, &options.host, name).is_none())
        .filter_map(|name| {
            let last = previous::last_committed(snapshots, &options.host, name)?;
            let why = last.suspect.as_ref()?;
            Some((
                name.to_owned(),
                format!(
                    "{NO_GOOD_ONE}: {}",
                    why.trim_start_matches(NO_GOOD_ONE).trim_start_matches(": ")
                ),
            ))
        })
        .collect()
}

/// First words of such a reason.
const NO_GOOD_ONE: &str =
    "no good snapshot of it is left to compare with, and the last one was not accepted";

fn check(options: &BackupOptions) -> Result<(), Error> {
    if options.sources.is_empty() {
        return Err(Error::Usage {
            why: "nothing to back up".into(),
            advice: Some(Advice::Backup(BackupAdvice::GiveSource)),
        });
    }
    if !(1..=19).contains(&options.level) {
        return Err(Error::usage(format!(
            "level {} is not within 1 to 19",
            options.level
        )));
    }

    let mut names: Vec<&str> = options.sources.iter().map(SourceSpec::name).collect();
    names.sort_unstable();
    if let Some(bad) = names.iter().find(|name| !is_source_name(name)) {
        return Err(Error::usage(format!(
            "invalid source name '{bad}': use 1 to 64 bytes without '/', ':' and '='"
        )));
    }

    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(Error::usage(format!(
            "two sources are named '{}'; write NAME=PATH for one",
            pair[0]
        ))),
        None => Ok(()),
    }
}

/// Returns true if a text can name a source.
pub fn is_source_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name != "."
        && name != ".."
        && !name.contains(['/', ':', '=', '\0'])
}

fn choose_previous_sources(
    chooser: &mut PreviousChooser<'_>,
    sources: &[SourceSpec],
) -> Result<BTreeMap<String, PreviousSource>, Error> {
    let mut out = BTreeMap::new();
    for source in sources {
        let SourceSpec::Tree(spec) = source else {
            continue;
        };
        let name = &spec.name;
        let previous = match &spec.parent {
            Some((snapshot, source)) => Some(chooser.named(snapshot, source)?),
            // A source in which nothing may change is compared with its last good capture, until a
            // change is accepted.
            None => chooser.latest(name, &spec.thing(), spec.unchanged)?,
        };
        if let Some(previous) = previous {
            out.insert(name.clone(), previous);
        }
    }
    Ok(out)
}

/// The result of capturing all sources.
struct CapturedSource {
    records: Vec<SourceRecord>,
    reports: Vec<SourceReport>,
    packed: PackedSource,
}

fn capture_all<'e>(
    capture: &CaptureContext<'e>,
    lease: Option<&'e Lease>,
    given: CaptureInputs<'_>,
) -> Result<CapturedSource, Error> {
    let &CaptureContext {
        repo,
        options,
        plan,
        task,
        checkpoints,
        ..
    } = capture;

    let claims = if options.dry_run {
        Claims::of_dry_run(repo.index())
    } else {
        Claims::new(repo.index())
    }?;
    let claims = claims.without(capture.lost.absent.clone());

    let packing = PackerOptions {
        workers: plan.workers,
        level: options.level,
        dry_run: options.dry_run,
    };

    std::thread::scope(|scope| {
        let packer = Packer::start(scope, repo, lease, &claims, packing, task.observer)?;

        // The checkpoint thread runs until `going_on` is dropped.
        let (going_on, over) = bounded::<()>(0);
        let feed = packer.feed();
        let every = options.checkpoint_every;
        let ticking = std::thread::Builder::new()
            .name("checkpoint".into())
            .spawn_scoped(scope, move || checkpoints.run(&feed, every, &over))
            .context("start", "a thread");

        let captured = match &ticking {
            Ok(_) => capture.sources(&packer, given),
            Err(_) => Err(RepoError::Stopped.into()),
        };

        // The last check for cancellation: here a cancelled backup still makes a checkpoint of all
        // it captured. After this, only one small object is left to write.
        let captured = captured.and_then(|captured| {
            task.check()?;
            Ok(captured)
        });

        drop(going_on);
        if captured.is_err() {
            packer.hurry();
        }

        let ticked = ticking.map(std::thread::ScopedJoinHandle::join);
        if let Ok(Err(panic)) = ticked {
            std::panic::resume_unwind(panic);
        }
        if captured.is_err() {
            checkpoints.last(&packer.feed());
        } else {
            task.observer.phase(&Phase::Commit);
        }

        // Also after a failure: a failed stage may be the reason why the sources stopped.
        let packed = packer.finish();
        let stopped_by = || {
            ticked
                .err()
                .map(Error::from)
                .or_else(|| checkpoints.failure.take().map(Error::from))
        };

        // The first error counts. `Stopped` only says that another thread failed.
        match (captured, packed) {
            (Err(err), Err(first)) if is_stop(&err) => Err(first.into()),
            (Err(err), _) if is_stop(&err) => {
                let cancelled = task.check().err().map(Error::from);
                Err(cancelled.or_else(stopped_by).unwrap_or(err))
            }
            (Err(err), _) => Err(err),
            (Ok(_), Err(err)) => Err(err.into()),
            (Ok(_), Ok(_)) if checkpoints.failure.is_set() => {
                Err(stopped_by().unwrap_or(Error::Interrupted))
            }
            (Ok((records, reports)), Ok(packed)) => Ok(CapturedSource {
                records,
                reports,
                packed,
            }),
        }
    })
}

fn is_stop(err: &Error) -> bool {
    matches!(err, Error::Repo(RepoError::Stopped))
}

impl<'e> CaptureContext<'e> {
    fn sources(
        &self,
        packer: &Packer<'_, 'e>,
        given: CaptureInputs<'_>,
    ) -> Result<(Vec<SourceRecord>, Vec<SourceReport>), Error> {
        let mut records = Vec::new();
        let mut reports = Vec::new();
        let CaptureInputs {
            sources,
            baselines,
            doubts,
            previous_sources,
        } = given;

        for source in sources {
            self.task.check()?;
            let name = source.name().to_owned();
            self.task
                .observer
                .phase(&Phase::Source { name: name.clone() });
            let previous = previous_sources.get(&name);
            let around = source.around();
            let mut captured = around::run(self, &name, &around, || match source {
                SourceSpec::Tree(spec) => match (open_tree(self.repo, &spec), previous) {
                    (Err(Error::Source { why, .. }), Some(previous))
                        if self.options.keeps(&spec) =>
                    {
                        Ok(self.carried(previous, &why))
                    }
                    (opened, previous) => self.tree(packer, &opened?, previous),
                },
                stream => self.stream(packer, stream, baselines.get(&name).copied()),
            })?;

            if let (None, Some(why)) = (&captured.0.suspect, doubts.get(&name)) {
                let is_tree = matches!(captured.0.kind, SourceKind::Tree { .. });
                let severity = if is_tree {
                    Severity::Alarm
                } else {
                    Severity::Missing
                };
                self.task
                    .observer
                    .problem(&suspect_problem(severity, &name, &name, why));
                captured.0.suspect = Some(why.clone());
            }

            self.checkpoints.finished(captured.0.clone());
            records.push(captured.0);
            reports.push(captured.1);
        }
        Ok((records, reports))
    }

    /// Returns the last good capture of a tree that is missing and in which nothing may change. The
    /// capture is suspect and reported as an alarm.
    fn carried(&self, previous: &PreviousSource, why: &str) -> (SourceRecord, SourceReport) {
        let reason = format!("{why}; its state in the last good snapshot is kept");
        self.task.observer.problem(&Problem::new(
            Severity::Alarm,
            &previous.record.name,
            &reason,
        ));

        // Nothing was seen, so the older state's counts of missing names do not hold for this
        // capture.
        let counts = SourceCounts {
            partial: None,
            unseen: None,
            ..previous.record.counts
        };

        let record = SourceRecord {
            suspect: Some(reason),
            counts,
            ..previous.record.clone()
        };

        let report = SourceReport {
            name: record.name.clone(),
            counts: record.counts,
            parent: Some(previous.snapshot),
        };

        (record, report)
    }
}

/// Commits the snapshot, deletes the checkpoints that it overtakes, and ends the lease.
fn finish(
    repo: &Repository,
    lease: Option<Lease>,
    snapshot: Snapshot,
    sources: Vec<SourceReport>,
    packed: PackedSource,
    observer: &dyn Observer,
    clear: &dyn Fn(&CommittedSnapshot, &[SourceRecord]),
) -> Result<BackupReport, Error> {
    presence::check_own(repo, &packed)?;

    let state = snapshot.state;
    let started = snapshot.started;
    let mut stored_bytes = packed.stored_bytes;

    let records = snapshot.sources.clone();
    let commit =
        |lease| repo.commit_with(lease, snapshot, |_, committed| clear(committed, &records));
    let committed = lease.map(commit).transpose()?;

    if let Some(committed) = &committed {
        observer.add(Counter::BytesStored, committed.bytes);
        stored_bytes += committed.bytes;
    }

    observer.phase(&Phase::End);
    Ok(BackupReport {
        snapshot: committed.map(|committed| committed.id),
        state,
        started,
        sources,
        packs: packed.packs,
        segments: to_u64(packed.segments.len()),
        stored_bytes,
    })
}
