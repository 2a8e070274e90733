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
mod kept;
mod links;
mod meta;
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
mod window;

use std::ffi::OsString;
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rayon::ThreadPool;

use super::absent::no_path;
use super::choose::{choose, source_of};
use super::memory;
use crate::error::Error;
use crate::format::{RunRef, SnapshotState, SourceKind, SourceRecord};
use crate::observe::Phase;
use crate::read::content::{StreamLimits, write_content_with};
use crate::read::fetch::Fetcher;
use crate::read::lost::report_lost;
use crate::repo::{
    ChunkReader, HostChoice, MergedRuns, RepoError, Repository, RunStreams, StoredSnapshot,
};
use crate::source::UnmatchedPatterns;
use crate::sys::StateDir;
use crate::target::{OwnerPolicy, ProtectedDirs, SyncMethod};
use crate::task::Task;
use crate::types::{ByteSize, Entry, EntryFlags, Metadata, Node, Owner, RelPath};

pub(in crate::ops) use links::link_digest;
pub use report::{RestoreReport, UncertainRange, UnmatchedInclude};
pub(in crate::ops) use unmatched::meant;

use crate::read::ReadSession;
use claimed::ClaimedNames;
use place::TargetRoot;
use plan::RestoreWalk;
use report::RestoreTally;
use window::WindowLimits;

/// Treatment of paths that already exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OverwriteRule {
    /// Write everything again.
    Always,
    /// Keep a regular file of equal size and mtime, an equal link and an equal special file, and
    /// correct its metadata. Replace everything else.
    #[default]
    IfChanged,
    /// As [`IfChanged`](Self::IfChanged), but replace an existing path, of any kind, only if the
    /// snapshot's modification time is newer. Directories are entered, and their metadata is set.
    IfNewer,
    /// Replace regular files of a different size; leave everything else as it is. Directories are
    /// entered. For files named by their hash in a directory that a program is using.
    IfSizeDiffers,
    /// Leave everything that exists as it is; directories are entered.
    Never,
}

impl OverwriteRule {
    /// Returns true if existing paths other than regular files, and the metadata of directories,
    /// are left as they are.
    fn leaves_most(self) -> bool {
        matches!(self, Self::IfSizeDiffers | Self::Never)
    }

    /// Returns true if the next restore would keep a file that a crash left with a different time
    /// than the snapshot's. Each file then gets its name only once it is durable.
    fn trusts_names(self) -> bool {
        self.leaves_most() || self == Self::IfNewer
    }
}

/// Chooses single entries, in addition to the patterns.
pub trait SelectPath: fmt::Debug + Send + Sync {
    /// Returns true if the entry is to be restored. One thread calls it in path order for each
    /// entry that the patterns let through, except directories. An error ends the restore.
    fn wants(&self, entry: &Entry) -> Result<bool, Error>;
}

/// Options of a restore.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// Restore only paths that match these patterns, with everything below them. The rules are
    /// gitignore's, from the source's root. Empty: everything.
    pub include: Vec<OsString>,
    /// Leave out paths that match these patterns; they take precedence over `include`.
    pub exclude: Vec<OsString>,
    /// Restore only the entries that this chooses. With `delete`, existing paths of entries that it
    /// does not choose stay.
    pub select: Option<Arc<dyn SelectPath>>,
    pub overwrite: OverwriteRule,
    /// Delete below restored directories the names that the snapshot accounts for as absent; see
    /// `docs/format.md`, "What a snapshot lacks". Paths that match `exclude` stay.
    pub delete: bool,
    /// Delete also in directories from which only the backup's own rules left out names.
    pub delete_excluded: bool,
    /// Delete every name that the snapshot lacks, even where it does not account for absent names.
    /// For directories whose files must all be of the same time.
    pub replace_whole: bool,
    /// Directories and files that the restore never enters, replaces or deletes, in addition to the
    /// repository, its cache and the state directory.
    pub protect: ProtectedDirs,
    pub owner: OwnerPolicy,
    /// Read back written files, and compare files kept because of equal size and time; rewrite
    /// those that differ.
    pub verify: bool,
    /// Count and report, but change nothing.
    pub dry_run: bool,
    pub memory: ByteSize,
    /// `None`: one for each core, as far as memory allows.
    pub threads: Option<usize>,
    /// Hosts whose snapshots `latest` considers.
    pub host: HostChoice,
    /// Whether a successful restore is durable. Only tests change the default.
    pub durability: SyncMethod,
}

impl Default for RestoreOptions {
    fn default() -> Self {
        Self {
            include: Vec::new(),
            exclude: Vec::new(),
            select: None,
            overwrite: OverwriteRule::default(),
            delete: false,
            delete_excluded: false,
            replace_whole: false,
            protect: ProtectedDirs::default(),
            owner: OwnerPolicy::default(),
            verify: false,
            dry_run: false,
            memory: memory::BUDGET_DEFAULT,
            threads: None,
            host: HostChoice::Any,
            durability: SyncMethod::default(),
        }
    }
}

impl RestoreOptions {
    /// Returns true if any option deletes names.
    fn deletes(&self) -> bool {
        self.delete || self.delete_excluded || self.replace_whole
    }
}

/// The part of a snapshot to restore: `SNAP[:SOURCE[/PATH]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotPath {
    /// An id, an unambiguous prefix of one, or `latest`.
    pub snapshot: String,
    /// `None`: all sources, each into a directory of its name. Empty: the user gave a path without
    /// a source; the error shows the right form.
    pub source: Option<String>,
    /// The root means the whole source.
    pub path: RelPath,
}

/// Destination of a restore.
pub enum RestoreTarget<'a> {
    /// A directory, created if missing. For a single file or stream it may also be the file's new
    /// path.
    Directory(PathBuf),
    /// Standard output; for one file or stream.
    Stdout(&'a mut dyn Write),
}

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
    // The memory budget limits the threads.
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let plan = memory::plan(options.memory, options.threads.unwrap_or(cores));

    // A reader takes its lease, lists snapshots, and updates its index, in this order.
    task.observer.phase(&Phase::Index);
    let session = ReadSession::with_cache(repo, plan.frame_cache_bytes, task)?;
    let named = what.source.as_deref().filter(|name| !name.is_empty());
    let found = choose(repo, &what.snapshot, &options.host, named, task.observer)?;
    let tally = RestoreTally::new(task.observer, found.id);
    super::sync_until(repo, task)?;

    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(plan.workers)
        .thread_name(|n| format!("restore-{n}"))
        .build()
        .map_err(|err| Error::Usage(format!("cannot start {} threads: {err}", plan.workers)))?;
    let reader = session.reader();

    let job = RestoreJob {
        repo,
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

    let store = Path::new(repo.store().address());
    if store.is_absolute() {
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
        return Err(Error::Usage(format!(
            "snapshot {} has {} sources; name one to write to standard output: {}:SOURCE (it has {})",
            found.id.short(),
            all.len(),
            what.snapshot,
            names.join(", ")
        )));
    }
    Ok(all.iter().collect())
}

/// State that all parts of one restore share.
struct RestoreJob<'a> {
    repo: &'a Repository,
    reader: &'a ChunkReader<'a>,
    pool: &'a ThreadPool,
    options: &'a RestoreOptions,
    limits: WindowLimits,
    sorter_bytes: usize,
    task: Task<'a>,
    tally: &'a RestoreTally<'a>,
    /// A repair found that the snapshot lacks something.
    is_repaired: bool,
    claimed: ClaimedNames,
    /// The snapshot is a checkpoint of a running backup.
    is_checkpoint: bool,
    protection: ProtectedDirs,
    /// The include patterns that have matched nothing so far. A source's walk takes them while it
    /// runs.
    unmatched: Mutex<UnmatchedPatterns>,
}

impl<'a> RestoreJob<'a> {
    fn fetcher(&self) -> Fetcher<'a> {
        Fetcher::new(self.reader, Some(self.pool), 0, self.task)
    }

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
                        Some(other) if !other.is_directory() => Error::Usage(format!(
                            "'{named}' is neither a file nor a stream, and cannot be written to standard output"
                        )),
                        _ => Error::Usage(format!(
                            "'{named}' is a directory: 'icecore cat {}:{named}' writes it as tar",
                            what.snapshot
                        )),
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

        self.task.observer.expect(content.size, true);
        let limits = StreamLimits::default();
        write_content_with(
            self.reader,
            Some(self.pool),
            content,
            out,
            self.task,
            limits,
        )?;

        self.tally.add_entry();
        self.tally.file_written(content.size);
        Ok(())
    }

    fn open_runs(&self, runs: &[RunRef]) -> Result<MergedRuns<'a>, Error> {
        Ok(MergedRuns::open(self.reader, runs, RunStreams::All, true)?)
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
                self.task.observer.expect(content.size, true);
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
