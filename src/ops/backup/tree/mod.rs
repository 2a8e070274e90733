//! Captures one file tree: the walk, the reader threads, and the new run.

pub(super) mod open;

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use crossbeam_channel::{Receiver, bounded};

use self::open::{OpenTree, TreeRoot, is_of_containers, repository_directory};
use crate::Error;
use crate::format::{RunRef, SourceCounts, SourceKind, SourceRecord};
use crate::observe::{Problem, Severity};
use crate::ops::backup::capture_context::CaptureContext;
use crate::ops::backup::checkpoint::UnderWay;
use crate::ops::backup::options::SourceReport;
use crate::ops::backup::previous::PreviousSource;
use crate::ops::backup::reader::content::{ChunkWriters, CutBuffer};
use crate::ops::backup::reader::file_version::Links;
use crate::ops::backup::reader::job::{FileJob, JobBatch};
use crate::ops::backup::run::sink::EntrySink;
use crate::ops::backup::run::stack::RunStack;
use crate::ops::backup::scan::committed::{CommittedCapture, has_more_files};
use crate::ops::backup::scan::previous::PreviousEntries;
use crate::ops::backup::scan::rules::{ScanInputs, ScanRules};
use crate::ops::backup::scan::state::Scan;
use crate::ops::backup::scan::walk_error::{WalkError, previous_error};
use crate::ops::backup::scan::windows::RacyWindows;
use crate::ops::backup::shared::TreeShared;
use crate::ops::backup::shared::counts::counts;
use crate::ops::backup::shared::watch::ImmutableWatch;
use crate::ops::backup::suspect::suspect_problem;
use crate::repo::{FirstError, MergedRuns, OnDamage, Packer, RepoError, RunStreams};
use crate::sys::{PathContext, now, recorded_path};
use crate::types::{ChunkClass, ChunkProfile};

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

        let inputs = ScanInputs {
            rules: ScanRules {
                filter: &tree.filter,
                files_from: spec.files_from.as_ref(),
                immutable: spec.immutable,
                no_skip: self.options.force || !same_digest || !self.lost.is_empty(),
                force: self.options.force,
                ignore_ctime: self.options.ignore_ctime,
                ignore_inode: self.options.ignore_inode,
                root: tree.seen.stat,
            },
            root: tree.seen,
            repository: repository_directory(self.repo),
            previous_unreadable,
            committed: CommittedCapture {
                reader: self.reader,
                record: previous.and_then(|previous| previous.committed.as_ref()),
            },
            scratch: &scratch,
            listing_bytes: self.plan.listing_bytes,
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

        self.walk(packer, tree, &shared, &inputs, old_runs)?;
        self.refuse_nothing_left(&shared, &inputs, old_runs)?;
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
        inputs: &ScanInputs<'_>,
        old_runs: &[RunRef],
    ) -> Result<(), WalkError> {
        let gone = shared.counts.gone.load(Ordering::Relaxed);
        let may_have_lost =
            gone > 0 || inputs.previous_unreadable || inputs.committed.record.is_some();
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

        let lost = match gone.max(inputs.committed.files()?) {
            _ if inputs.previous_unreadable => {
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
        inputs: &ScanInputs<'_>,
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
        if shared.watch.is_none() || !has_previous && !inputs.previous_unreadable {
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
                inputs,
                rules: &inputs.rules,
                previous,
                previous_directories,
                writers: &mut own,
                jobs,
                batch: JobBatch::default(),
                windows: RacyWindows::new(self.options.grain_seconds),
            };

            let walked = match &tree.root {
                TreeRoot::Directory(directory) => walk.run(directory.clone()),
                TreeRoot::Single(directory, name) => walk.run_file(directory, name),
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
