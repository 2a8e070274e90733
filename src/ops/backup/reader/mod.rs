//! The work of the reader threads: from a listed file to its entry.

pub(super) mod attributes;
pub(super) mod content;
pub(super) mod file_version;
pub(super) mod job;
mod reading;

use std::io;

use self::attributes::{DescribedEntry, describe};
use self::content::{ChunkWriters, CutBuffer, CutError};
use self::job::FileJob;
use self::reading::FileReading;
use crate::Error;
use crate::observe::{Counter, Problem, Severity, Subject};
use crate::ops::backup::reason::reason;
use crate::ops::backup::run::sink::same_entry;
use crate::ops::backup::shared::TreeShared;
use crate::repo::RepoError;
use crate::source::{HashName, SourceDir, StatKind};
use crate::sys::now;
use crate::types::{Entry, EntryFlags, MissingNames, Node};

/// Tries for a file that is replaced each time it is opened.
const TRIES_MAX: u32 = 4;

impl TreeShared<'_> {
    /// Reads a file and adds its entry.
    pub fn capture(
        &self,
        mut job: FileJob,
        window: &mut CutBuffer,
        writers: &mut ChunkWriters<'_>,
    ) -> Result<(), Error> {
        self.check()?;
        let mut tries = 1;
        while let Err(err) = self.capture_file(&job, window, writers) {
            match err {
                CutError::Read(err) if SourceDir::is_missing(&err) => {
                    if self.look_again(&mut job, err, tries < TRIES_MAX)? {
                        tries += 1;
                        continue;
                    }
                }
                CutError::Read(err) => self.failed(&job, &reason("read", &err))?,
                CutError::Repo(err) => return Err(err.into()),
                CutError::Refused(err) => return Err(err),
            }
            break;
        }
        if let Some(node) = job.node.take() {
            self.sink.settle(node)?;
        }
        Ok(())
    }

    /// Handles a listed file that cannot be found. Returns true if another file of the same name
    /// exists now and is to be tried again.
    fn look_again(&self, job: &mut FileJob, err: io::Error, may_try: bool) -> Result<bool, Error> {
        let clock = now();
        match job.directory.look(&job.name) {
            Ok(None) => self.vanished(job)?,
            Ok(Some(stat)) if stat.kind == StatKind::File && may_try => {
                job.stat = stat;
                job.is_racy = stat.is_racy(clock, job.window_seconds);
                return Ok(true);
            }
            Ok(Some(_)) => self.failed(job, &reason("read", &err))?,
            Err(err) => self.failed(job, &reason("find", &err))?,
        }
        Ok(false)
    }

    fn capture_file(
        &self,
        job: &FileJob,
        window: &mut CutBuffer,
        writers: &mut ChunkWriters<'_>,
    ) -> Result<(), CutError> {
        let file = job.directory.open_file(&job.name).map_err(CutError::Read)?;
        let hash = if self.immutable {
            HashName::parse(&job.name)
        } else {
            None
        };

        let reading = self.read(&file, job, hash.as_ref(), window, writers)?;

        if job.path.is_root() && reading.content.size == 0 {
            let had = job
                .previous
                .as_ref()
                .and_then(|previous| previous.content())
                .is_some_and(|old| old.size > 0);
            let refused = if had {
                self.refuse_emptiness("it is empty, and was not in the last snapshot")
            } else {
                Ok(())
            };
            refused.map_err(CutError::Refused)?;
        }

        let old = job.previous.as_ref().and_then(|previous| previous.meta());
        let described = describe(&reading.stat, self.owners, file.xattrs(), old, writers)?;
        let DescribedEntry { meta, lacks } = described;
        let mut flags = self.flags(job, hash.as_ref(), &reading);
        if let Some(why) = lacks {
            flags = flags.with(EntryFlags::STALE);
            self.lacks_attributes(&job.path, &why);
        }

        // A name that could not be checked is read once more, even if its directory keeps its times
        // ([R19](docs/protocol.md#r19)).
        let is_unsettled =
            hash.is_some() && reading.name_agrees.is_none() && !flags.contains(EntryFlags::SETTLED);
        let again = EntryFlags::RACY
            .with(EntryFlags::PROVISIONAL)
            .with(EntryFlags::TORN);
        let again = again.with(EntryFlags::STALE);
        if let Some(node) = &job.node
            && (is_unsettled || flags.intersects(again))
        {
            node.revisit();
        }

        if reading.is_torn {
            self.sink.count_incomplete();
            self.problem(
                &job.path,
                "changed while it was read, twice; the last version read is kept",
            );
        }
        if flags.contains(EntryFlags::PROVISIONAL) {
            let message = "its content does not match its name; kept, and checked again next time";
            let subject = Subject::captured(self.source, &job.path);
            self.task
                .observer
                .problem(&Problem::new(Severity::Note, subject, message));
        }

        let entry = Entry {
            path: job.path.clone(),
            flags,
            node: Node::File {
                meta,
                content: reading.content,
            },
        };
        self.add(job, entry)
            .map_err(|err| CutError::Repo(RepoError::Path(err)))
    }

    fn add(&self, job: &FileJob, entry: Entry) -> Result<(), crate::sys::PathError> {
        let (which, counter, verb) = match &job.previous {
            Some(previous) if previous.node == entry.node => {
                self.count(&self.counts.files_unchanged, Counter::FilesUnchanged);
                // A file that was read again without a change differs in its flags at most.
                return if same_entry(previous, &entry) {
                    Ok(())
                } else {
                    self.sink.put(&entry, false)
                };
            }
            Some(previous) if previous.is_file() => {
                (&self.counts.files_changed, Counter::FilesChanged, "changed")
            }
            _ => (&self.counts.files_new, Counter::FilesNew, "new"),
        };

        self.count(which, counter);
        if let Some(previous) = job
            .previous
            .as_deref()
            .filter(|previous| previous.content() != entry.content())
        {
            self.alarm_of_change(Some(previous), &entry);
            self.hide(previous);
        }

        if self.task.observer.wants_detail() {
            self.task.observer.detail(verb, &Subject::path(&entry.path));
        }
        self.sink.put(&entry, job.was_directory())
    }

    fn flags(&self, job: &FileJob, hash: Option<&HashName>, reading: &FileReading) -> EntryFlags {
        let mut flags = EntryFlags::empty();
        if reading.is_racy {
            flags = flags.with(EntryFlags::RACY);
        }
        if reading.is_torn {
            flags = flags.with(EntryFlags::TORN);
        }
        match (hash, reading.name_agrees) {
            (Some(_), Some(false)) => flags = flags.with(EntryFlags::PROVISIONAL),
            // The name could not be checked: a second reading with the same content settles it.
            (Some(_), None) => {
                let agrees = job
                    .previous
                    .as_ref()
                    .and_then(|previous| previous.content());
                if agrees == Some(&reading.content) {
                    flags = flags.with(EntryFlags::SETTLED);
                }
            }
            _ => {}
        }
        flags
    }

    /// Handles a file that was listed and is gone, as a second look confirmed. This is not an
    /// error, and the file is not in the snapshot. A source that is a single file has nothing left
    /// then.
    fn vanished(&self, job: &FileJob) -> Result<(), Error> {
        if job.path.is_root() {
            self.refuse_emptiness("it existed before, and is gone")?;
        }
        self.count(&self.counts.vanished, Counter::Vanished);
        if let Some(node) = &job.node {
            // It may have been renamed to a name that the listing did not show.
            node.lacks(MissingNames::Unseen);
        }
        if let Some(previous) = &job.previous {
            self.remove(previous)?;
        }
        Ok(())
    }

    fn failed(&self, job: &FileJob, why: &str) -> Result<(), Error> {
        if let Some(node) = &job.node {
            node.revisit();
        }
        self.fail(&job.path, job.previous.as_deref(), why)
    }
}
