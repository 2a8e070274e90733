//! Collects the entries of a new run. They are sorted outside memory, so they may come in any
//! order.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::format::{PageBuilder, decode_page};
use crate::repo::{EntryMention, RepoError};
use crate::sys::{PathError, SortedRecords, Sorter};
use crate::types::{Entry, EntryFlags, Metadata, MissingNames, Node, RelPath};

/// The entries of one source's new run.
///
/// While entries come in, [`EntrySink::cut`] takes those collected so far for a checkpoint; later
/// entries go into the next cut. Each cut holds exactly the entries that were put before it, and is
/// by itself a valid part of the new state. For a new directory that is not finished it holds a
/// provisional entry, so that no child is without its directory; a backup that resumes from there
/// walks the directory again.
pub(in crate::ops) struct EntrySink {
    scratch: PathBuf,
    bytes: usize,
    gathered: Mutex<GatheredEntries>,
    /// Entries of the source that are failed, stale or torn, also if they are carried over.
    incomplete: AtomicU64,
    /// Directories of the source with missing names, also if they are carried over.
    partial: AtomicU64,
    /// Those of `partial` with names missing for other reasons than the user's rules.
    unseen: AtomicU64,
}

struct GatheredEntries {
    sorter: Sorter,
    entries: u64,
    /// New directories whose entry is not written yet.
    open: BTreeMap<RelPath, OpenDirectory>,
    /// A write to a scratch file failed: no cut would be complete.
    is_broken: bool,
}

struct OpenDirectory {
    entry: Entry,
    /// A cut holds its provisional entry, with the flag *cover* if it needs one.
    is_given: bool,
}

/// Entries that were taken out of a sink.
pub(in crate::ops) struct EntryBatch {
    pub entries: u64,
    pub sorted: SortedEntries,
}

impl EntrySink {
    /// Returns a sink that keeps `bytes` in memory, and as many again while a cut is being written.
    pub fn new(scratch: &Path, bytes: usize) -> Self {
        let gathered = GatheredEntries {
            sorter: Sorter::new(scratch, bytes),
            entries: 0,
            open: BTreeMap::new(),
            is_broken: false,
        };
        Self {
            scratch: scratch.to_owned(),
            bytes,
            gathered: Mutex::new(gathered),
            incomplete: AtomicU64::new(0),
            partial: AtomicU64::new(0),
            unseen: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, GatheredEntries> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an entry. `in_directories`: it is a directory, or its path was one.
    pub fn put(&self, entry: &Entry, in_directories: bool) -> Result<(), PathError> {
        self.lock().push(entry, in_directories)
    }

    /// Registers a directory. Must be called before any entry below it is put.
    pub(in crate::ops::backup) fn begin(&self, directory: &DirectoryNode) {
        if !directory.was_directory() {
            // Nothing about its contents is certain before its own entry is written.
            let flags = EntryFlags::REVISIT
                .with(directory.cover())
                .with(MissingNames::Unseen.flags());
            let node = Node::Directory {
                meta: directory.meta.clone(),
            };
            let entry = Entry {
                path: directory.path.clone(),
                flags,
                node,
            };
            self.lock().open.insert(
                directory.path.clone(),
                OpenDirectory {
                    entry,
                    is_given: false,
                },
            );
        }
    }

    /// Counts an entry that is not a full capture, whether it is new or carried over.
    pub fn count_incomplete(&self) {
        self.incomplete.fetch_add(1, Ordering::Relaxed);
    }

    pub fn incomplete(&self) -> u64 {
        self.incomplete.load(Ordering::Relaxed)
    }

    /// Counts a directory with missing names, whether its entry is new or carried over.
    pub fn count_partial(&self, why: MissingNames) {
        self.partial.fetch_add(1, Ordering::Relaxed);
        if why == MissingNames::Unseen {
            self.unseen.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn unseen(&self) -> u64 {
        self.unseen.load(Ordering::Relaxed)
    }

    pub fn partial(&self) -> u64 {
        self.partial.load(Ordering::Relaxed)
    }

    /// Drops one reference to a directory. If it was the last one and the entry differs from the
    /// previous one, adds it.
    pub(in crate::ops::backup) fn settle(
        &self,
        directory: Arc<DirectoryNode>,
    ) -> Result<(), PathError> {
        match Arc::into_inner(directory) {
            Some(directory) => directory.put(self),
            None => Ok(()),
        }
    }

    /// Takes out the entries put so far, in path order. Returns `None` if there are none.
    pub fn cut(&self) -> Result<Option<EntryBatch>, RepoError> {
        let (sorter, entries) = {
            let mut gathered = self.lock();
            if gathered.is_broken {
                return Err(RepoError::Stopped);
            }
            if gathered.entries == 0 {
                return Ok(None);
            }
            gathered.give_open()?;
            let fresh = Sorter::new(&self.scratch, self.bytes);
            (
                std::mem::replace(&mut gathered.sorter, fresh),
                std::mem::take(&mut gathered.entries),
            )
        };

        Ok(Some(EntryBatch {
            entries,
            sorted: SortedEntries(sorter.finish()?),
        }))
    }
}

impl GatheredEntries {
    fn push(&mut self, entry: &Entry, in_directories: bool) -> Result<(), PathError> {
        let mut page = PageBuilder::new();
        page.push(entry);
        let mut value = vec![u8::from(in_directories)];
        if let Some((_, bytes, _)) = page.finish() {
            value.extend_from_slice(&bytes);
        }
        self.entries += 1;
        let pushed = self.sorter.push(entry.path.key(), &value);
        self.is_broken |= pushed.is_err();
        pushed
    }

    /// Adds provisional entries of the unfinished directories. Their own entries, later, must not
    /// cover again: they would hide the entries below them in this cut.
    fn give_open(&mut self) -> Result<(), PathError> {
        let mut open = std::mem::take(&mut self.open);
        for directory in open.values_mut().filter(|directory| !directory.is_given) {
            self.push(&directory.entry, true)?;
            directory.is_given = true;
        }
        self.open = open;
        Ok(())
    }
}

/// The entries of a new run in path order.
pub(in crate::ops) struct SortedEntries(SortedRecords);

impl SortedEntries {
    pub fn next(&mut self) -> Result<Option<EntryMention>, RepoError> {
        let Some((_, value)) = self.0.next()? else {
            return Ok(None);
        };
        let bad = || {
            RepoError::damaged(
                "a scratch file",
                "an entry reads back differently than it was written",
            )
        };
        let (flag, page) = value.split_first().ok_or_else(bad)?;
        let entry = decode_page(page)
            .map_err(|_| bad())?
            .pop()
            .ok_or_else(bad)?;
        Ok(Some(EntryMention {
            entry,
            in_directories: *flag == 1,
        }))
    }
}

/// A directory whose entry is written after all its children are done: it must be revisited if one
/// of them was racy, failed or the like.
pub(in crate::ops::backup) struct DirectoryNode {
    pub path: RelPath,
    pub meta: Metadata,
    /// The previous entry at this path.
    pub previous: Option<Entry>,
    /// The source has older runs, in which this path may have to be covered.
    pub has_runs: bool,
    revisit: std::sync::atomic::AtomicBool,
    stale: std::sync::atomic::AtomicBool,
    partial: std::sync::atomic::AtomicBool,
    unseen: std::sync::atomic::AtomicBool,
    is_unread: std::sync::atomic::AtomicBool,
    is_mount: std::sync::atomic::AtomicBool,
}

impl DirectoryNode {
    pub fn new(path: RelPath, meta: Metadata, previous: Option<Entry>, has_runs: bool) -> Self {
        Self {
            path,
            meta,
            previous,
            has_runs,
            revisit: false.into(),
            stale: false.into(),
            partial: false.into(),
            unseen: false.into(),
            is_unread: false.into(),
            is_mount: false.into(),
        }
    }

    /// Marks it to be listed again next time.
    pub fn revisit(&self) {
        self.revisit.store(true, Ordering::Relaxed);
    }

    /// Records that something below it could not be captured and has no entry.
    pub fn mark_stale(&self) {
        self.stale.store(true, Ordering::Relaxed);
        self.revisit();
        self.lacks(MissingNames::Unseen);
    }

    /// Records that some of its attributes could not be read. No names are missing because of that.
    pub fn lacks_attributes(&self) {
        self.is_unread.store(true, Ordering::Relaxed);
        self.revisit();
    }

    /// Records that one of its names is not in the snapshot.
    pub fn lacks(&self, why: MissingNames) {
        self.partial.store(true, Ordering::Relaxed);
        if why == MissingNames::Unseen {
            self.unseen.store(true, Ordering::Relaxed);
        }
    }

    /// Records that something is mounted on it, or was when it was seen last.
    pub fn mark_mount(&self) {
        self.is_mount.store(true, Ordering::Relaxed);
    }

    /// Returns true if it was a mount point in the last snapshot and is not one in this walk.
    pub fn was_unmounted(&self) -> bool {
        let was_mount = self
            .previous
            .as_ref()
            .is_some_and(|previous| previous.flags.contains(EntryFlags::MOUNT));
        was_mount && !self.is_mount.load(Ordering::Relaxed)
    }

    /// Records that the walk or a reader stopped before all of it was captured.
    pub fn give_up(&self) {
        self.revisit();
        self.lacks(MissingNames::Unseen);
    }

    fn was_directory(&self) -> bool {
        self.previous.as_ref().is_some_and(Entry::is_directory)
    }

    /// Returns the cover flag if older runs may hold something else at this path.
    fn cover(&self) -> EntryFlags {
        if self.has_runs && !self.was_directory() {
            EntryFlags::COVER
        } else {
            EntryFlags::empty()
        }
    }

    fn put(self, sink: &EntrySink) -> Result<(), PathError> {
        let cover = self.cover();

        let mut flags = EntryFlags::empty();
        if self.revisit.into_inner() {
            flags = flags.with(EntryFlags::REVISIT);
        }
        if self.stale.into_inner() {
            flags = flags.with(EntryFlags::STALE);
            sink.count_incomplete();
        }
        if self.is_unread.into_inner() {
            // It was counted as incomplete when the failure was reported.
            flags = flags.with(EntryFlags::STALE);
        }
        if self.is_mount.into_inner() {
            flags = flags.with(EntryFlags::MOUNT);
        }
        if self.unseen.into_inner() {
            flags = flags.with(MissingNames::Unseen.flags());
        }
        if self.partial.into_inner() {
            flags = flags.with(MissingNames::Excluded.flags());
        }

        if let Some(why) = flags.missing_names() {
            sink.count_partial(why);
        }

        let entry = Entry {
            path: self.path,
            flags,
            node: Node::Directory { meta: self.meta },
        };

        if self
            .previous
            .is_some_and(|previous| same_entry(&previous, &entry))
        {
            return Ok(());
        }
        // Under one lock, so that a cut holds either the provisional entry or this one.
        let mut gathered = sink.lock();
        let is_given = gathered
            .open
            .remove(&entry.path)
            .is_some_and(|open| open.is_given);
        let flags = if is_given { flags } else { flags.with(cover) };
        gathered.push(&Entry { flags, ..entry }, true)
    }
}

/// Returns true if two entries of one path are equal except for the cover flag, which is about
/// older runs.
pub(in crate::ops::backup) fn same_entry(a: &Entry, b: &Entry) -> bool {
    a.flags.without(EntryFlags::COVER) == b.flags.without(EntryFlags::COVER) && a.node == b.node
}
