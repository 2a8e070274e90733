//! Captures one file tree: the walk, the reader threads, and the new run.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use crossbeam_channel::{Receiver, bounded};

use super::capture_context::CaptureContext;
use super::checkpoint::UnderWay;
use super::committed::{CommittedCapture, has_more_files};
use super::content::{ChunkWriters, CutBuffer};
use super::counts::counts;
use super::cursor::PreviousEntries;
use super::file_job::{FileJob, JobBatch};
use super::file_version::Links;
use super::options::{SourceReport, TreeSpec};
use super::previous::PreviousSource;
use super::reason::about_mount;
use super::rules::WalkRules;
use super::runs::RunStack;
use super::scan::Scan;
use super::sink::EntrySink;
use super::suspect::suspect_problem;
use super::tree_shared::TreeShared;
use super::walk_error::{WalkError, previous_error};
use super::watch::ImmutableWatch;
use super::windows::RacyWindows;
use crate::Error;
use crate::format::{RunRef, SourceCounts, SourceKind, SourceRecord};
use crate::observe::{Problem, Severity};
use crate::repo::{FirstError, MergedRuns, OnDamage, Packer, RepoError, Repository, RunStreams};
use crate::source::{DirectoryId, FilesFrom, Filter, SourceDir, SourceStat, StatKind};
use crate::sys::{PathContext, PathError, StateDir, now, recorded_path};
use crate::types::{ChunkClass, ChunkProfile, RelPath, Timestamp, to_u64};

/// Increased whenever the capture rules change. The next walk then skips nothing
/// ([R17](docs/protocol.md#r17)).
const RULES_VERSION: u32 = 3;

/// A tree source whose root is open: it exists and can be listed.
pub(super) struct OpenTree<'o> {
    pub spec: &'o TreeSpec,
    filter: Filter,
    /// Warnings about the filter.
    misread: Vec<String>,
    root: TreeRoot,
    stat: SourceStat,
    clock: Timestamp,
}

enum TreeRoot {
    Directory(SourceDir),
    /// The source is a single file: its directory, and its name there.
    Single(SourceDir, Vec<u8>),
}

/// Returns true for paths in which containers keep their files: below the engines' usual
/// directories, and volumes wherever they are. Their owners are user numbers of the containers.
fn is_of_containers(path: &Path) -> bool {
    let parts: Vec<&std::ffi::OsStr> = path.iter().collect();
    let is_volume = |window: &[&std::ffi::OsStr]| window[0] == "volumes" && window[2] == "_data";
    ["/var/lib/docker", "/var/lib/containers", "/var/snap/docker"]
        .iter()
        .any(|root| path.starts_with(root))
        || parts.windows(3).any(is_volume)
}

/// Opens a tree's root and compiles its filter. A root that is missing or cannot be listed ends the
/// backup before anything is stored.
pub(super) fn open<'o>(repo: &Repository, spec: &'o TreeSpec) -> Result<OpenTree<'o>, Error> {
    let refused = |err: &dyn std::fmt::Display| Error::Source {
        name: spec.name.clone(),
        why: err.to_string(),
    };
    let named = |err: PathError| {
        refused(&format!(
            "{err}: {}{}",
            err.source,
            about_mount(&err.source).unwrap_or_default()
        ))
    };

    let mut options = spec.filter.clone();
    options.never.extend(own_directories(repo));
    let filter = Filter::new(&options)?;
    let mut misread = Vec::new();

    let clock = now();
    let (root, stat) = match SourceDir::open_root(&spec.path) {
        Ok(directory) => {
            let stat = directory
                .stat_self()
                .context("stat", &spec.path)
                .map_err(named)?;
            if filter.is_never(stat.id()) {
                return Err(refused(
                    &"it is the directory of the repository, of the cache or of the state itself",
                ));
            }

            let path = std::path::absolute(&spec.path).unwrap_or_else(|_| spec.path.clone());
            filter.refuse_absolute(&path, |name| directory.stat(name).is_ok())?;
            misread = filter.misread(&spec.name, &path, |name| directory.stat(name).is_ok());
            if let Some(list) = &spec.files_from {
                refuse_absolute_list(list, &path, &directory)?;
            }
            (TreeRoot::Directory(directory), stat)
        }
        Err(err) if err.kind() == std::io::ErrorKind::NotADirectory => {
            // The source may be a single file: open its directory.
            let name = spec
                .path
                .file_name()
                .ok_or_else(|| refused(&"it has no name"))?;
            let above = match spec.path.parent() {
                Some(above) if !above.as_os_str().is_empty() => above,
                _ => Path::new("."),
            };
            let directory = SourceDir::open_root(above).map_err(named)?;
            let name = std::os::unix::ffi::OsStrExt::as_bytes(name).to_vec();
            let stat = directory
                .stat(&name)
                .context("stat", &spec.path)
                .map_err(named)?;
            if stat.kind != StatKind::File {
                let path = spec.path.display();
                let advice = match stat.kind {
                    StatKind::Symlink => {
                        "it is a link to something other than a directory: give its target (readlink -f)"
                    }
                    StatKind::Fifo => {
                        "it is a pipe: give it as standard input, or give the command that writes to it"
                    }
                    _ => "only directories, files, commands and standard input are sources",
                };
                return Err(refused(&format!(
                    "{path} is neither a directory nor a regular file: {advice}"
                )));
            }
            (TreeRoot::Single(directory, name), stat)
        }
        Err(err) => return Err(named(err)),
    };

    Ok(OpenTree {
        spec,
        filter,
        misread,
        root,
        stat,
        clock,
    })
}

/// Refuses a list of absolute paths, as other programs take them: below the root they match
/// nothing, and the files would be missing from the backup. The list is accepted if the root has an
/// entry with the name of the first component of its own path.
fn refuse_absolute_list(list: &FilesFrom, path: &Path, root: &SourceDir) -> Result<(), Error> {
    let Ok(own) = RelPath::from_slashed(path.as_os_str().as_bytes()) else {
        return Ok(());
    };
    let Some(below) = list.first_below(&own) else {
        return Ok(());
    };
    let first = own
        .key()
        .split(|&byte| byte == 0)
        .next()
        .unwrap_or_default();
    if root.stat(first).is_ok() {
        return Ok(());
    }
    Err(Error::usage(format!(
        "the list of files has '{own}/{below}', which begins with the source's own path; listed paths begin at the source's root: write '{below}'"
    )))
}

/// Returns the directories of the repository, the cache and the state, which are never captured.
/// They are compared by device and inode, not by path.
fn own_directories(repo: &Repository) -> Vec<DirectoryId> {
    let cache_root = repo.cache_dir().parent().unwrap_or(repo.cache_dir());
    let others = [
        Some(cache_root),
        Some(repo.cache_dir()),
        repo.state().map(StateDir::path),
    ];
    let others = others
        .into_iter()
        .flatten()
        .filter(|path| !path.as_os_str().is_empty());
    let others = others
        .filter_map(|path| SourceDir::open_root(path).ok())
        .map(|directory| directory.id());
    repository_directory(repo)
        .into_iter()
        .chain(others)
        .collect()
}

fn repository_directory(repo: &Repository) -> Option<DirectoryId> {
    repo.store().directory().map(|id| DirectoryId {
        device: id.device,
        inode: id.inode,
    })
}

impl OpenTree<'_> {
    /// Returns a digest of everything that decides which paths are captured.
    fn digest(&self) -> [u8; 32] {
        let spec = self.spec;
        let path = recorded_path(&spec.path).into_os_string();
        let path = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str());
        let mut hasher = blake3::Hasher::new();
        for part in [
            format!("icecore capture rules {RULES_VERSION}").as_bytes(),
            path,
            self.filter.digest_text().as_bytes(),
            if spec.immutable {
                b"immutable"
            } else {
                b"mutable"
            },
        ] {
            hasher.update(&to_u64(part.len()).to_le_bytes());
            hasher.update(part);
        }
        if let Some(list) = &spec.files_from {
            hasher.update(b"files from");
            for key in list.keys() {
                hasher.update(&to_u64(key.len()).to_le_bytes());
                hasher.update(key);
            }
        }
        *hasher.finalize().as_bytes()
    }
}

impl<'e> CaptureContext<'e> {
    /// Captures a tree on top of its previous snapshot, or without one if that cannot be read.
    pub fn tree(
        &self,
        packer: &Packer<'_, 'e>,
        tree: &OpenTree<'_>,
        previous: Option<&PreviousSource>,
    ) -> Result<(SourceRecord, SourceReport), Error> {
        for line in tree.filter.vain_lines() {
            self.task
                .observer
                .problem(&Problem::new(Severity::Note, &tree.spec.name, line));
        }
        for line in &tree.misread {
            self.task
                .observer
                .problem(&Problem::new(Severity::Warning, &tree.spec.name, line));
        }
        let captured = match self.tree_on(packer, tree, previous, false) {
            Err(WalkError::Previous(err)) => self.tree_anew(packer, tree, &err),
            result => result.map_err(other),
        };
        if let Err(Error::Empty { .. }) = &captured {
            self.checkpoints.abandon();
        }
        captured
    }

    /// Captures a tree whose previous snapshot cannot be read. If nothing in it may change, the
    /// capture is suspect, because there is nothing to compare it with.
    fn tree_anew(
        &self,
        packer: &Packer<'_, 'e>,
        tree: &OpenTree<'_>,
        err: &RepoError,
    ) -> Result<(SourceRecord, SourceReport), Error> {
        let is_suspect = self.is_watched(tree.spec);
        let subject = format!("the parent of {}", tree.spec.name);
        let message = format!("{err}; the source is captured in full without it");
        let problem = if is_suspect {
            suspect_problem(Severity::Damage, &tree.spec.name, subject, &message)
        } else {
            Problem::new(Severity::Damage, subject, message)
        };
        self.task.observer.problem(&problem);
        self.checkpoints.disown(&tree.spec.name);
        let (mut record, report) = self.tree_on(packer, tree, None, true).map_err(other)?;
        if is_suspect {
            record.suspect = Some("the last good state cannot be read for comparison".to_owned());
        }
        Ok((record, report))
    }

    fn tree_on(
        &self,
        packer: &Packer<'_, 'e>,
        tree: &OpenTree<'_>,
        previous: Option<&PreviousSource>,
        previous_unreadable: bool,
    ) -> Result<(SourceRecord, SourceReport), WalkError> {
        let spec = tree.spec;
        let profile = if spec.immutable {
            ChunkProfile::Immutable
        } else {
            ChunkProfile::Tree
        };

        let digest = tree.digest();
        let (old_runs, same_digest) =
            match previous.map(|previous| (&previous.record.kind, &previous.record.digest)) {
                Some((SourceKind::Tree { runs, .. }, old)) => (runs.as_slice(), *old == digest),
                _ => (&[][..], true),
            };

        let scratch = self.repo.scratch_dir();
        // While a cut is being written, it uses as much memory as the sink that takes new entries.
        let sink = Arc::new(EntrySink::new(&scratch, self.plan.sorter_bytes / 2));

        let shared = TreeShared {
            source: &spec.name,
            profile,
            immutable: spec.immutable,
            owners: self.owners,
            sink: &sink,
            task: self.task,
            failure: &self.checkpoints.failure,
            reading: FirstError::default(),
            lost: self.lost,
            allow_empty: self.options.allow_empty,
            watch: self.is_watched(spec).then(ImmutableWatch::default),
            kernels: Default::default(),
            counts: Arc::default(),
            links: Links::default(),
            keeps_old: false.into(),
            has_skipped: false.into(),
        };

        let rules = WalkRules {
            filter: &tree.filter,
            repository: repository_directory(self.repo),
            files_from: spec.files_from.as_ref(),
            no_skip: self.options.force || !same_digest || !self.lost.is_empty(),
            previous_unreadable,
            committed: CommittedCapture {
                reader: self.reader,
                record: previous.and_then(|previous| previous.committed.as_ref()),
            },
            force: self.options.force,
            ignore_ctime: self.options.ignore_ctime,
            ignore_inode: self.options.ignore_inode,
            scratch: &scratch,
            listing_bytes: self.plan.listing_bytes,
            root: tree.stat,
            clock: tree.clock,
        };

        let path =
            std::os::unix::ffi::OsStringExt::into_vec(recorded_path(&spec.path).into_os_string());
        let started = now();

        let mut record = SourceRecord {
            name: spec.name.clone(),
            kind: SourceKind::Tree {
                path: path.clone(),
                immutable: spec.immutable,
                runs: Vec::new(),
            },
            profile: profile.name().to_owned(),
            started,
            ended: started,
            // Entries that the walk has not reached yet were captured by the rules of the previous
            // snapshot. A mixture of rules has no digest.
            digest: if same_digest || old_runs.is_empty() {
                digest
            } else {
                [0; 32]
            },
            counts: SourceCounts::default(),
            suspect: None,
            numeric_owners: spec.numeric_owners || is_of_containers(&spec.path),
            moved_from: Vec::new(),
        };

        self.checkpoints.begin(UnderWay {
            sink: Arc::clone(&sink),
            counts: Arc::clone(&shared.counts),
            runs: RunStack::of(old_runs),
            record: record.clone(),
        });

        self.walk(packer, tree, &shared, &rules, old_runs)?;
        self.refuse_nothing_left(&shared, &rules, old_runs)?;
        self.report_kernels(&shared);
        self.report_leftovers(&shared);

        let is_stopped = || self.task.cancel.is_cancelled();
        let runs = self
            .checkpoints
            .complete(&packer.feed(), &is_stopped)
            .map_err(|err| match err {
                err if err.is_unavailable() && !old_runs.is_empty() => WalkError::Previous(err),
                err => WalkError::Other(err.into()),
            })?;

        record.kind = SourceKind::Tree {
            path,
            immutable: spec.immutable,
            runs: runs.all,
        };
        record.ended = now();

        // The next walk must not skip entries that were kept from a snapshot captured by other
        // rules.
        let is_mixed = !same_digest && shared.keeps_old.load(Ordering::Relaxed);
        record.digest = if is_mixed { [0; 32] } else { digest };
        record.counts = counts(&shared.counts, &sink);
        record.suspect = shared.watch.as_ref().and_then(ImmutableWatch::verdict);

        let report = SourceReport {
            name: spec.name.clone(),
            counts: record.counts,
            parent: previous.map(|previous| previous.snapshot),
        };

        Ok((record, report))
    }

    /// Refuses a source of which only directories were captured although the last snapshot has
    /// more: filter rules may leave out everything, or each directory may have lost its files.
    fn refuse_nothing_left(
        &self,
        shared: &TreeShared<'_>,
        rules: &WalkRules<'_>,
        old_runs: &[RunRef],
    ) -> Result<(), WalkError> {
        let gone = shared.counts.gone.load(Ordering::Relaxed);
        let may_have_lost =
            gone > 0 || rules.previous_unreadable || rules.committed.record.is_some();
        if !may_have_lost || shared.may_be_empty() || shared.has_anything() {
            return Ok(());
        }
        // If fewer files are gone than the previous snapshot has, the others are in directories
        // that were not listed.
        if shared.has_skipped.load(Ordering::Relaxed)
            && has_more_files(self.reader, old_runs, gone)?
        {
            return Ok(());
        }

        let lost = match gone.max(rules.committed.files()?) {
            _ if rules.previous_unreadable => {
                "its content in the last snapshot cannot be read".to_owned()
            }
            0 => return Ok(()),
            1 => "the last snapshot has 1 file of it".to_owned(),
            files => format!("the last snapshot has {files} files of it"),
        };
        let why = format!(
            "only directories are left of it, or its rules exclude everything else; {lost}"
        );
        Ok(shared.refuse_emptiness(&why)?)
    }

    /// Walks the tree on this thread while reader threads read its files.
    fn walk(
        &self,
        packer: &Packer<'_, 'e>,
        tree: &OpenTree<'_>,
        shared: &TreeShared<'_>,
        rules: &WalkRules<'_>,
        old_runs: &[RunRef],
    ) -> Result<(), WalkError> {
        let cursor = |which| {
            let runs = MergedRuns::open(self.reader, old_runs, which, OnDamage::Fail);
            runs.map(PreviousEntries::new).map_err(previous_error)
        };

        let has_previous = !old_runs.is_empty();
        let previous = has_previous.then(|| cursor(RunStreams::All)).transpose()?;
        let previous_directories = (has_previous && shared.immutable)
            .then(|| cursor(RunStreams::Directories))
            .transpose()?;

        // If nothing in the source may change, an alarm names each missing path instead.
        if shared.watch.is_none() || !has_previous && !rules.previous_unreadable {
            self.reject_unmatched_list(tree)?;
        }

        // Each batch holds at most 8 open directories: 24 descriptors for each worker, with the
        // batch that it is reading.
        let (jobs, queue) = bounded::<Vec<FileJob>>(2 * self.plan.workers);
        let walked = std::thread::scope(|scope| {
            for n in 0..self.plan.workers {
                let queue = queue.clone();
                let writers = writers(packer);
                std::thread::Builder::new()
                    .name(format!("read-{n}"))
                    .spawn_scoped(scope, move || {
                        if let Err(err) = read_files(shared, &queue, writers) {
                            shared.reading.set(err);
                        }
                    })
                    .context("start", "a reader thread")?;
            }
            drop(queue);

            let mut own = writers(packer);
            let mut walk = Scan {
                shared,
                rules,
                previous,
                previous_directories,
                writers: &mut own,
                jobs,
                batch: JobBatch::default(),
                windows: RacyWindows::new(self.options.grain_seconds),
            };

            let walked = match &tree.root {
                TreeRoot::Directory(directory) => walk.run(directory.clone()),
                TreeRoot::Single(directory, name) => walk.run_file(directory, name, tree.stat),
            };
            drop(walk);
            walked.and_then(|()| own.flush().map_err(|err| WalkError::Other(err.into())))
        });

        // The error of a reader explains why the walk stopped.
        match shared.reading.take() {
            Some(err) => Err(WalkError::Other(err)),
            None => walked,
        }
    }

    /// Refuses a list of which no path exists: more likely it is meant for another directory, or a
    /// volume is not mounted.
    fn reject_unmatched_list(&self, tree: &OpenTree<'_>) -> Result<(), WalkError> {
        let (TreeRoot::Directory(root), Some(list), false) =
            (&tree.root, &tree.spec.files_from, self.options.allow_empty)
        else {
            return Ok(());
        };
        if list.any_is_there(root) {
            return Ok(());
        }
        let why = format!(
            "none of the listed paths is in {}",
            tree.spec.path.display()
        );
        Err(WalkError::Other(Error::Empty {
            name: tree.spec.name.clone(),
            why,
        }))
    }

    /// Reports unfinished files of a restore, which were left out.
    fn report_leftovers(&self, shared: &TreeShared<'_>) {
        let what = match shared
            .counts
            .leftovers
            .load(std::sync::atomic::Ordering::Relaxed)
        {
            0 => return,
            1 => "1 unfinished file of a restore (.icecore-…) was left out".to_owned(),
            count => format!("{count} unfinished files of a restore (.icecore-…) were left out"),
        };
        let what = format!(
            "{what}; the next restore into that directory removes the files that a killed one left"
        );
        self.task
            .observer
            .problem(&Problem::new(Severity::Note, shared.source, what));
    }

    /// Reports the mounts of kernel file systems that were not entered, in one message.
    fn report_kernels(&self, shared: &TreeShared<'_>) {
        let named = shared
            .kernels
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .text();
        if let Some(named) = named {
            let message =
                format!("not entered, since the kernel generates their contents: {named}");
            self.task
                .observer
                .problem(&Problem::new(Severity::Note, shared.source, message));
        }
    }
}

fn other(err: WalkError) -> Error {
    match err {
        WalkError::Previous(err) => err.into(),
        WalkError::Other(err) => err,
    }
}

fn writers<'e>(packer: &Packer<'_, 'e>) -> ChunkWriters<'e> {
    ChunkWriters {
        data: packer.writer(ChunkClass::Data),
        metadata: packer.writer(ChunkClass::Metadata),
    }
}

fn read_files(
    shared: &TreeShared<'_>,
    queue: &Receiver<Vec<FileJob>>,
    mut writers: ChunkWriters<'_>,
) -> Result<(), Error> {
    let mut window = CutBuffer::default();
    for batch in queue {
        for job in batch {
            shared.capture(job, &mut window, &mut writers)?;
        }
    }
    Ok(writers.flush()?)
}
