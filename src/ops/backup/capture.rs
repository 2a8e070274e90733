//! The work of the reader threads: from a listed file to its entry.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use super::attributes::{DescribedEntry, describe};
use super::content::{ChunkWriters, CutBuffer, CutError};
use super::file_job::FileJob;
use super::reading::FileReading;
use super::reason::reason;
use super::sink::same_entry;
use super::tree_shared::TreeShared;
use super::watch::was_captured;
use crate::Error;
use crate::observe::{Counter, Problem, Severity, Subject};
use crate::repo::RepoError;
use crate::source::{HashName, SourceDir, StatKind};
use crate::sys::now;
use crate::types::{Entry, EntryFlags, MissingNames, Node, RelPath};

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

    /// Adds the removal of the previous entry at this path.
    pub fn remove(&self, previous: &Entry) -> Result<(), Error> {
        self.count(&self.counts.removed, Counter::Removed);
        if self.task.observer.wants_detail() {
            self.task
                .observer
                .detail("removed", &Subject::path(&previous.path));
        }
        if was_captured(previous) {
            self.alarm(&previous.path, "is missing");
        }
        self.hide(previous);
        let entry = Entry {
            path: previous.path.clone(),
            flags: EntryFlags::empty(),
            node: Node::Removed,
        };
        Ok(self.sink.put(&entry, previous.is_directory())?)
    }

    /// Adds an entry for a path that the user listed and that does not exist, so that the snapshot
    /// names it. The caller reports it. The previous entry is removed like that of any other path
    /// that is gone.
    pub fn miss(&self, path: &RelPath, previous: Option<&Entry>, why: String) -> Result<(), Error> {
        self.sink.count_incomplete();

        let entry = Entry {
            path: path.clone(),
            flags: EntryFlags::empty(),
            node: Node::Failed { reason: why },
        };
        if previous.is_some_and(|previous| same_entry(previous, &entry)) {
            return Ok(());
        }

        if let Some(gone) = previous.filter(|previous| was_captured(previous)) {
            self.count(&self.counts.removed, Counter::Removed);
            self.alarm(path, "is missing");
            self.hide(gone);
        }
        Ok(self
            .sink
            .put(&entry, previous.is_some_and(Entry::is_directory))?)
    }

    /// Counts the content of a previous entry that the new run hides.
    pub fn hide(&self, previous: &Entry) {
        if !previous.is_directory() && was_captured(previous) {
            self.counts.gone.fetch_add(1, Ordering::Relaxed);
        }
        let bytes = previous.content().map_or(0, |content| content.size);
        self.counts.hidden.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Returns true if an empty source is accepted. A source in which nothing may change is not
    /// refused: its alarms name each missing path.
    pub fn may_be_empty(&self) -> bool {
        self.allow_empty || self.watch.is_some()
    }

    /// Returns an error if a source may not become empty suddenly.
    pub fn refuse_emptiness(&self, why: &str) -> Result<(), Error> {
        if self.may_be_empty() {
            return Ok(());
        }
        Err(Error::Empty {
            name: self.source.to_owned(),
            why: why.to_owned(),
        })
    }

    /// Returns true if anything but directories was captured, or kept from the previous snapshot
    /// because it cannot be read.
    pub fn has_anything(&self) -> bool {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let counts = &self.counts;

        let files = [
            &counts.files_new,
            &counts.files_changed,
            &counts.files_unchanged,
        ];

        files.into_iter().any(|count| get(count) > 0)
            || get(&counts.others) > get(&counts.directories)
            || self.sink.incomplete() > 0
            || self.keeps_old.load(Ordering::Relaxed)
    }

    /// Reports an entry that is captured without some attributes. The caller sets its flag *stale*,
    /// so that the next backup looks at it again.
    pub fn lacks_attributes(&self, path: &RelPath, why: &str) {
        self.task.observer.add(Counter::Failed, 1);
        self.sink.count_incomplete();
        self.problem(path, &format!("{why}; the rest of it is captured"));
    }

    fn failed(&self, job: &FileJob, why: &str) -> Result<(), Error> {
        if let Some(node) = &job.node {
            node.revisit();
        }
        self.fail(&job.path, job.previous.as_deref(), why)
    }

    /// Records a failure in this snapshot and in all that follow until the path can be read
    /// ([R7](docs/protocol.md#r7)). The previous entry is kept as stale. Without one, a new entry
    /// gives the reason why there is none.
    pub fn fail(&self, path: &RelPath, previous: Option<&Entry>, why: &str) -> Result<(), Error> {
        self.check()?;
        self.task.observer.add(Counter::Failed, 1);
        self.sink.count_incomplete();

        let usable = previous.filter(|previous| was_captured(previous));
        let message = match usable {
            Some(_) => {
                self.alarm(path, "cannot be read");
                format!("{why}; the last readable version is kept")
            }
            None => why.to_owned(),
        };

        self.problem(path, &message);

        let entry = match usable {
            Some(previous) if previous.is_directory() => {
                self.keeps_old.store(true, Ordering::Relaxed);
                self.sink.count_partial(MissingNames::Unseen);
                let flags = previous
                    .flags
                    .with(EntryFlags::STALE)
                    .with(MissingNames::Unseen.flags());
                Entry {
                    flags,
                    ..previous.clone()
                }
            }
            Some(previous) => Entry {
                flags: previous.flags.with(EntryFlags::STALE),
                ..previous.clone()
            },
            None => Entry {
                path: path.clone(),
                flags: EntryFlags::empty(),
                node: Node::Failed {
                    reason: why.to_owned(),
                },
            },
        };

        if previous.is_some_and(|previous| same_entry(previous, &entry)) {
            return Ok(());
        }

        let was_directory = previous.is_some_and(Entry::is_directory);
        Ok(self
            .sink
            .put(&entry, was_directory || entry.is_directory())?)
    }
}
