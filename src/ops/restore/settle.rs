//! Durability: a file gets its time only after its content is on disk. So a file that looks
//! finished is complete after any crash, and a restore that reported success survives one.
//!
//! ```text
//! files written, renamed, with the current time ─▶ sync ─▶ files' times
//!     ─▶ directories' metadata ─▶ sync ─▶ success
//! ```
//!
//! The first two steps are repeated when enough files wait, so that an interrupted restore keeps
//! most of its work. Waiting files are sorted in scratch files. Where the next restore would trust
//! a file by its name or size alone, files get their names only after the sync.

use std::io;
use std::sync::PoisonError;

use super::waiting::{NamelessFile, decode};
use super::walk::RestoreWalk;
use super::writer::{LastDir, WindowWriter};
use crate::dest::UnsettledFile;
use crate::error::Error;
use crate::observe::{Phase, Severity};
use crate::repo::RepoError;
use crate::sys::{PathError, Sorter};
use crate::types::RelPath;

/// Files that get their times in one batch.
const BATCH_FILES: usize = 4096;
/// Files that a thread takes at once.
const BATCH: usize = 64;
/// Open files that may wait for a sync before they get their names.
const NAMELESS_MAX: usize = 128;

impl RestoreWalk<'_> {
    /// Syncs written files if enough of them wait.
    pub(super) fn settle_if_due(&mut self) -> Result<(), Error> {
        let limits = &self.job.limits;
        let is_due = self.execution.as_ref().is_some_and(|execution| {
            let state = execution.waiting.state();
            state.count >= limits.unsettled_files || state.bytes >= limits.unsettled_bytes
        });
        if is_due { self.settle() } else { Ok(()) }
    }

    /// Makes written files durable, then sets their times.
    pub(super) fn settle(&mut self) -> Result<(), Error> {
        // A handle syncs its directory when it is dropped.
        self.dir = None;
        let Some(execution) = &self.execution else {
            return Ok(());
        };
        if self.job.options.dry_run {
            return Ok(());
        }
        self.job.task.observer.phase(&Phase::Sync {
            name: self.source.name.clone(),
        });
        execution
            .tree
            .sync()
            .map_err(|err| execution.not_durable(err))?;
        execution.set_times()?;
        self.job.task.observer.phase(&Phase::Restore {
            name: self.source.name.clone(),
        });
        Ok(())
    }

    /// Makes times, directories' metadata and kept files durable. This is the last step.
    pub(super) fn finish_durably(&self) -> Result<(), Error> {
        let Some(execution) = &self.execution else {
            return Ok(());
        };
        if self.job.options.dry_run {
            return Ok(());
        }
        self.job.task.observer.phase(&Phase::Sync {
            name: self.source.name.clone(),
        });
        execution
            .tree
            .sync_all()
            .map_err(|err| execution.not_durable(err))
    }
}

impl WindowWriter<'_> {
    fn not_durable(&self, err: io::Error) -> Error {
        Error::NotDurable(PathError {
            action: "sync the files restored to",
            path: self.place.path.clone(),
            source: err,
        })
    }

    fn set_times(&self) -> Result<(), Error> {
        let scratch = self.job.repo.scratch_dir();
        let files = {
            let mut state = self.waiting.state();
            (state.count, state.bytes) = (0, 0);
            let next = Sorter::new(&scratch, self.job.sorter_bytes / 3);
            std::mem::replace(&mut state.files, next)
        };

        let mut files = files.finish()?;
        let mut batch = Vec::new();

        loop {
            while batch.len() < BATCH_FILES
                && let Some((key, value)) = files.next()?
            {
                let record = decode(key, value);
                batch.push(
                    record.ok_or_else(|| RepoError::damaged("a sorted record", "a file's time"))?,
                );
            }

            if batch.is_empty() {
                return Ok(());
            }

            self.fetcher.on_all_threads(
                batch.len().div_ceil(BATCH),
                |hand: &mut LastDir, number| {
                    let end = batch.len().min((number + 1) * BATCH);
                    batch[number * BATCH..end]
                        .iter()
                        .try_for_each(|(path, file)| self.set_time(hand, path, file))
                },
            )?;
            batch.clear();
        }
    }

    fn set_time(
        &self,
        hand: &mut LastDir,
        path: &RelPath,
        file: &UnsettledFile,
    ) -> Result<(), Error> {
        let name = path.name().unwrap_or_default();
        let done = self
            .dir_of(hand, path)
            .and_then(|dir| dir.settle(name, file));
        let why = match done {
            Ok(None) => return Ok(()),
            Ok(Some(refusal)) => {
                let error = io::Error::from_raw_os_error(refusal.errno);
                let why = format!("cannot set modification time: {error}");
                self.job.tally.refused(self.subject(path), &why);
                return Ok(());
            }
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                "another program replaced or removed it during the restore".to_owned()
            }
            Err(err) => format!("its modification time cannot be set: {err}"),
        };
        self.job
            .tally
            .fail(Severity::Missing, self.subject(path), &why);
        Ok(())
    }

    /// Keeps a complete file until it is durable. Once there are too many, all get their names.
    pub(super) fn keep_nameless(&self, file: NamelessFile) -> Result<(), Error> {
        let mut nameless = self
            .waiting
            .nameless
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        nameless.push(file);
        // Under the lock, so that other threads do not open more files in the meantime.
        if nameless.len() >= NAMELESS_MAX {
            self.name_files(&mut nameless)
        } else {
            Ok(())
        }
    }

    /// Gives all complete files their names.
    pub(super) fn name_all(&self) -> Result<(), Error> {
        self.name_files(
            &mut self
                .waiting
                .nameless
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    fn name_files(&self, files: &mut Vec<NamelessFile>) -> Result<(), Error> {
        if files.is_empty() {
            return Ok(());
        }
        self.tree
            .sync_files()
            .map_err(|err| self.not_durable(err))?;

        for NamelessFile {
            file,
            path,
            size,
            leader,
            is_claim,
            identity,
        } in files.drain(..)
        {
            let named = file.put(path.name().unwrap_or_default());
            if named.is_ok() && is_claim {
                self.job
                    .claimed
                    .add(&path.parent().unwrap_or_default(), identity);
            }

            match named {
                Ok(()) => self.written(&path, size, true),
                Err(err) => {
                    self.came_to_nothing(&path, leader.as_deref(), self.trouble(&path, err))?;
                }
            }
        }
        Ok(())
    }
}
