//! Restores snapshots into a directory, or one file or stream to a pipe
//! ([R23](docs/protocol.md#r23)).
//!
//! ```text
//! runs ─walk─▶ directories are made; files, links and special files fill a window
//!     window full ─▶ looked up, sorted by pack and frame, each frame opened once, files written
//! end ─▶ synced ─▶ files' times ─▶ names that the snapshot lacks deleted (--delete)
//!     ─▶ directories' metadata, deepest first ─▶ synced
//! ```
//!
//! Memory: a window of at most 40 MiB; for each thread a frame and its stored bytes; the state of
//! at most 64 k groups of hard links. Directories' metadata and the names for `--delete` are sorted
//! in scratch files. After a crash some paths are restored and some are not, and there may be
//! temporary files, which the next restore removes. No path that has the snapshot's size and time
//! has different content. A path that cannot be restored is reported, and the restore continues.

#[cfg(test)]
mod choice_tests;
mod claimed;
mod compare;
#[cfg(test)]
mod damage_tests;
mod delete;
mod directories;
#[cfg(test)]
mod durable_tests;
mod execute;
mod job;
mod kept;
mod link_group;
mod links;
mod meta;
mod node_parts;
mod options;
mod place;
mod plan;
mod preview;
mod report;
mod settle;
mod shared;
#[cfg(test)]
mod shared_tests;
#[cfg(test)]
mod tests;
mod unmatched;
mod waiting;
mod walk;
mod window;
mod writer;

use std::io::Write;
use std::sync::{Mutex, PoisonError};

use super::absent::no_path;
use super::memory;
use crate::advice::{Advice, SnapshotAdvice};
use crate::dest::{OwnerPolicy, ProtectedDirs};
use crate::error::Error;
use crate::format::{SnapshotState, SourceKind, SourceRecord};
use crate::observe::{Phase, ProgressUnit};
use crate::read::content::{StreamLimits, write_windows};
use crate::read::lost::report_lost;
use crate::read::source_of;
use crate::repo::{MergedRuns, RepoError, Repository, StoredSnapshot};
use crate::source::UnmatchedPatterns;
use crate::sys::StateDir;
use crate::task::Task;
use crate::types::{Entry, EntryFlags, Metadata, Node, Owner, RelPath};

pub(in crate::ops) use link_group::link_digest;
pub use options::{OverwriteRule, RestoreOptions, RestoreTarget, SelectPath, SnapshotPath};
pub use report::{RestoreReport, UncertainRange, UnmatchedInclude};
pub(in crate::ops) use unmatched::meant;

use crate::read::ReadSession;
use claimed::ClaimedNames;
use job::RestoreJob;
use place::TargetRoot;
use report::RestoreTally;
use walk::RestoreWalk;
use window::WindowLimits;

/// Restores the selected part of a snapshot. A path that cannot be restored is reported as a
/// problem and is not an error; see [`RestoreReport`].
pub fn restore(
    repo: &Repository,
    what: &SnapshotPath,
    target: RestoreTarget<'_>,
    options: &RestoreOptions,
    task: Task<'_>,
) -> Result<RestoreReport, Error> {
    restore_with(
        repo,
        what,
        target,
        options,
        task,
        WindowLimits::for_memory(options.memory),
    )
}

/// Restores like [`restore`], in a session that is open already and whose task it is.
pub(crate) fn restore_in(
    session: &ReadSession<'_>,
    what: &SnapshotPath,
    target: RestoreTarget<'_>,
    options: &RestoreOptions,
) -> Result<RestoreReport, Error> {
    if matches!(target, RestoreTarget::Directory(_)) {
        super::check_proc("restore a tree")?;
    }
    session.task().observer.phase(&Phase::Index);
    let limits = WindowLimits::for_memory(options.memory);
    restore_parts(session, what, target, options, limits)
}

/// Restores like [`restore`] with windows of a given size, for tests.
fn restore_with(
    repo: &Repository,
    what: &SnapshotPath,
    target: RestoreTarget<'_>,
    options: &RestoreOptions,
    task: Task<'_>,
    limits: WindowLimits,
) -> Result<RestoreReport, Error> {
    if matches!(target, RestoreTarget::Directory(_)) {
        super::check_proc("restore a tree")?;
    }
    // A reader takes its lease, lists snapshots, and updates its index, in this order.
    task.observer.phase(&Phase::Index);
    let plan = memory::plan(options.memory, threads(options));
    let session = ReadSession::with_cache(repo, plan.frame_cache_bytes, task)?;
    restore_parts(&session, what, target, options, limits)
}

/// Returns the number of threads that the options ask for. The memory budget limits them.
fn threads(options: &RestoreOptions) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    options.threads.unwrap_or(cores)
}

fn restore_parts(
    session: &ReadSession<'_>,
    what: &SnapshotPath,
    target: RestoreTarget<'_>,
    options: &RestoreOptions,
    limits: WindowLimits,
) -> Result<RestoreReport, Error> {
    let task = session.task();
    let repo = session.repo();
    let plan = memory::plan(options.memory, threads(options));
    let named = what.source.as_deref().filter(|name| !name.is_empty());
    let found = session.choose(&what.snapshot, &options.host, named)?;
    let tally = RestoreTally::new(task.observer, found.id);
    session.sync()?;

    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(plan.workers)
        .thread_name(|n| format!("restore-{n}"))
        .build()
        .map_err(|err| Error::usage(format!("cannot start {} threads: {err}", plan.workers)))?;
    let reader = session.reader();

    let job = RestoreJob {
        repo,
        session,
        reader,
        pool: &pool,
        options,
        limits,
        sorter_bytes: plan.sorter_bytes,
        task,
        tally: &tally,
        is_repaired: found.snapshot.lost.is_some(),
        claimed: ClaimedNames::new(),
        is_checkpoint: found.snapshot.state == SnapshotState::Checkpoint,
        protection: protection(repo, options),
        unmatched: Mutex::new(UnmatchedPatterns::new(&options.include)),
    };

    let sources = chosen(&found, what, &target)?;
    unmatched::refuse_misread(&options.exclude, &sources, reader)?;
    for source in &sources {
        tally.lost(report_lost(
            &found.snapshot,
            &source.name,
            &what.path,
            task.observer,
        ));
    }

    // Restore, then report.
    match target {
        RestoreTarget::Stdout(out) => job.to_stdout(sources[0], what, out)?,
        RestoreTarget::Directory(directory) => {
            for source in &sources {
                job.source(source, what, &directory)?;
            }
            tally.say_counted(&directory.display().to_string(), options.dry_run);
        }
    }

    task.observer.phase(&Phase::End);
    let unmatched = job
        .unmatched
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    let unmatched = unmatched
        .patterns()
        .map(|pattern| unmatched::explained(pattern, &sources, &what.path));
    let unmatched = unmatched.collect();

    Ok(tally.into_report(unmatched))
}

/// Returns the directories that a restore from this repository must not touch: a local store, its
/// cache, the state directory, and those of the caller.
fn protection(repo: &Repository, options: &RestoreOptions) -> ProtectedDirs {
    let mut held = options.protect.clone();

    let what = "the repository in use";
    if let Some(store) = repo.store().directory() {
        held.add_directory((store.device, store.inode), what);
    }

    if let Some(store) = repo.store().local_path() {
        // One of its directories may be mounted from elsewhere.
        for part in [
            "packs",
            "index",
            "snapshots",
            "forgotten",
            "leases",
            "keys",
            "parity",
            "quarantine",
        ] {
            held.add(&store.join(part), what);
        }
    }

    let cache = repo.cache_dir();
    held.add(cache, "the cache in use");
    // The parent may hold other things too, such as /tmp.
    held.add_open(
        cache.parent().unwrap_or(cache),
        "the directory of caches in use",
    );
    if let Some(state) = repo.state().map(StateDir::path) {
        held.add(state, "the state directory of this machine");
    }
    held
}

/// Returns the selected sources.
fn chosen<'s>(
    found: &'s StoredSnapshot,
    what: &SnapshotPath,
    target: &RestoreTarget<'_>,
) -> Result<Vec<&'s SourceRecord>, Error> {
    if let Some(name) = &what.source {
        return Ok(vec![source_of(found, &what.snapshot, name, &what.path)?]);
    }
    let all = &found.snapshot.sources;
    if matches!(target, RestoreTarget::Stdout(_)) && all.len() != 1 {
        let names: Vec<&str> = all.iter().map(|source| source.name.as_str()).collect();
        return Err(Error::usage(format!(
            "snapshot {} has {} sources; name one to write to standard output: {}:SOURCE (it has {})",
            found.id.short(),
            all.len(),
            what.snapshot,
            names.join(", ")
        )));
    }
    Ok(all.iter().collect())
}

impl RestoreJob<'_> {
    fn to_stdout(
        &self,
        source: &SourceRecord,
        what: &SnapshotPath,
        out: &mut dyn Write,
    ) -> Result<(), Error> {
        self.task.observer.phase(&Phase::Restore {
            name: source.name.clone(),
        });

        let entry;
        let content = match &source.kind {
            SourceKind::Stream { content, .. } if what.path.is_root() => content,
            SourceKind::Stream { .. } => {
                return Err(no_path(
                    self.reader,
                    self.tally.snapshot(),
                    source,
                    &what.path,
                ));
            }
            SourceKind::Tree { runs, .. } => {
                entry = self.first_entry(&mut self.open_runs(runs)?, source, what)?;
                let not_a_file = || {
                    let named = if what.path.is_root() {
                        source.name.clone()
                    } else {
                        format!("{}/{}", source.name, what.path)
                    };
                    match &entry {
                        Some(other) if !other.is_directory() => Error::usage(format!(
                            "'{named}' is neither a file nor a stream, and cannot be written to standard output"
                        )),
                        _ => Error::Usage {
                            why: format!(
                                "'{named}' is a directory, and cannot be written to standard output"
                            ),
                            advice: Some(Advice::Snapshot(SnapshotAdvice::WriteTar {
                                place: format!("{}:{named}", what.snapshot),
                            })),
                        },
                    }
                };
                entry
                    .as_ref()
                    .and_then(Entry::content)
                    .ok_or_else(not_a_file)?
            }
        };

        if self.options.dry_run {
            return Ok(());
        }

        self.task.observer.expect(content.size, ProgressUnit::Bytes);
        let limits = StreamLimits::default();
        write_windows(
            self.reader,
            Some(self.pool),
            content,
            out,
            self.task,
            limits,
            &mut || self.session.keep(),
        )?;

        self.tally.add_entry();
        self.tally.file_written(content.size);
        Ok(())
    }

    /// Returns the entry at the selected path. Returns `None` if it is a directory whose own entry
    /// cannot be read.
    fn first_entry(
        &self,
        runs: &mut MergedRuns<'_>,
        source: &SourceRecord,
        what: &SnapshotPath,
    ) -> Result<Option<Entry>, Error> {
        runs.seek(what.path.key());
        match runs.next_entry()? {
            Some(entry) if entry.path == what.path => Ok(Some(entry)),
            Some(entry) if entry.path.is_below(&what.path) => Ok(None),
            _ => match runs.take_uncertain().pop() {
                Some(lost) if lost.now => Err(Error::Repo(RepoError::ChunkUnreadable {
                    id: lost.chunk,
                    why: lost.reason().to_owned(),
                    now: true,
                })),
                Some(lost) => Err(Error::Repo(RepoError::damaged(
                    format!("the list of files of '{}'", source.name),
                    lost.why,
                ))),
                None => Err(no_path(
                    self.reader,
                    self.tally.snapshot(),
                    source,
                    &what.path,
                )),
            },
        }
    }

    /// Restores one source into a directory.
    fn source(
        &self,
        source: &SourceRecord,
        what: &SnapshotPath,
        directory: &std::path::Path,
    ) -> Result<(), Error> {
        self.task.observer.phase(&Phase::Restore {
            name: source.name.clone(),
        });

        let alone = what.source.is_some();
        match &source.kind {
            SourceKind::Stream { .. } if !what.path.is_root() => Err(no_path(
                self.reader,
                self.tally.snapshot(),
                source,
                &what.path,
            )),
            SourceKind::Stream { content, .. } => {
                self.task.observer.expect(content.size, ProgressUnit::Bytes);
                let meta = Metadata {
                    mode: 0o600,
                    owner: Owner::default(),
                    mtime: source.ended,
                    nlink: 1,
                    ..Metadata::default()
                };
                let node = Node::File {
                    meta,
                    content: content.clone(),
                };
                let entry = Entry {
                    path: RelPath::root(),
                    flags: EntryFlags::empty(),
                    node,
                };
                let place = TargetRoot::for_one(
                    directory,
                    source.name.as_bytes(),
                    alone,
                    self,
                    OwnerPolicy::Keep,
                )?;
                RestoreWalk::new(self, source, &place, RelPath::root(), None)?.run(Some(entry))
            }
            SourceKind::Tree { runs, .. } => {
                let mut merged = self.open_runs(runs)?;
                let first = self.first_entry(&mut merged, source, what)?;
                let is_directory = first.as_ref().is_none_or(Entry::is_directory);
                let owner = match self.options.owner {
                    OwnerPolicy::Names if source.numeric_owners => OwnerPolicy::Numeric,
                    owner => owner,
                };

                let place = if is_directory {
                    let whole = if alone {
                        directory.to_owned()
                    } else {
                        directory.join(&source.name)
                    };
                    place::refuse_above(&whole, source, &what.path, self)?;
                    TargetRoot::for_tree(directory, source.name.as_bytes(), alone, self, owner)?
                } else {
                    let name = what.path.name().unwrap_or(source.name.as_bytes());
                    TargetRoot::for_one(directory, name, alone, self, owner)?
                };
                // Read the runs again from the start: the walk reports a directory's entry that
                // cannot be read.
                let mut merged = if first.is_none() {
                    self.open_runs(runs)?
                } else {
                    merged
                };
                if first.is_none() {
                    merged.seek(what.path.key());
                }
                RestoreWalk::new(self, source, &place, what.path.clone(), Some(merged))?.run(first)
            }
        }
    }
}
