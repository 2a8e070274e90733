//! Records what happened to a path: it is removed, missing, cannot be read, or lacks attributes.

use std::sync::atomic::Ordering;

use super::TreeShared;
use super::watch::was_captured;
use crate::Error;
use crate::observe::{Counter, Subject};
use crate::ops::backup::run::sink::same_entry;
use crate::types::{Entry, EntryFlags, MissingNames, Node, RelPath};

impl TreeShared<'_> {
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

    /// Reports an entry that is captured without some attributes. The caller sets its flag *stale*,
    /// so that the next backup looks at it again.
    pub fn lacks_attributes(&self, path: &RelPath, why: &str) {
        self.task.observer.add(Counter::Failed, 1);
        self.sink.count_incomplete();
        self.problem(path, &format!("{why}; the rest of it is captured"));
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
