//! Where entries of the new run gather: sorted outside memory, so that they may come in any order.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::Error;
use crate::format::{PageBuilder, decode_page};
use crate::repo::{Mention, RepoError};
use crate::sys::{PathError, Sorted, Sorter};
use crate::types::{Entry, EntryFlags, Metadata, Node, RelPath};

/// The entries of one source's new run.
pub(in crate::ops) struct EntrySink {
    sorter: Mutex<Sorter>,
    entries: AtomicU64,
    /// Entries of the source that are failed, stale or torn; carried ones too.
    incomplete: AtomicU64,
}

impl EntrySink {
    pub fn new(scratch: &Path, bytes: usize) -> Self {
        Self {
            sorter: Mutex::new(Sorter::new(scratch, bytes)),
            entries: AtomicU64::new(0),
            incomplete: AtomicU64::new(0),
        }
    }

    /// Adds an entry. `in_folders`: it is a folder, or its path was one.
    pub fn put(&self, entry: &Entry, in_folders: bool) -> Result<(), PathError> {
        let mut page = PageBuilder::new();
        page.push(entry);
        let mut value = vec![u8::from(in_folders)];
        if let Some((_, bytes, _)) = page.finish() {
            value.extend_from_slice(&bytes);
        }
        self.entries.fetch_add(1, Ordering::Relaxed);
        self.sorter.lock().unwrap_or_else(PoisonError::into_inner).push(entry.path.key(), &value)
    }

    /// Counts an entry that is not a full capture, whether it was added now or is carried over.
    pub fn count_incomplete(&self) {
        self.incomplete.fetch_add(1, Ordering::Relaxed);
    }

    pub fn incomplete(&self) -> u64 {
        self.incomplete.load(Ordering::Relaxed)
    }

    pub fn entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    /// Adds the folder's entry if this was the last hold on it and its parent entry differs.
    pub(super) fn settle(&self, folder: Arc<FolderNode>) -> Result<(), PathError> {
        match Arc::into_inner(folder) {
            Some(folder) => folder.put(self),
            None => Ok(()),
        }
    }

    /// Ends gathering; the entries come in path order.
    pub fn finish(self) -> Result<SortedEntries, PathError> {
        let sorter = self.sorter.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(SortedEntries(sorter.finish()?))
    }
}

/// The entries of a new run in path order.
pub(in crate::ops) struct SortedEntries(Sorted);

impl SortedEntries {
    pub fn next(&mut self) -> Result<Option<Mention>, RepoError> {
        let Some((_, value)) = self.0.next()? else { return Ok(None) };
        let bad =
            || RepoError::damaged("a scratch file", "an entry reads back otherwise than it was written");
        let (flag, page) = value.split_first().ok_or_else(bad)?;
        let entry = decode_page(page).map_err(|_| bad())?.pop().ok_or_else(bad)?;
        Ok(Some(Mention { entry, in_folders: *flag == 1 }))
    }
}

/// A folder whose entry waits until all its children are done: it must be revisited if one of them was racy, failed
/// or the like.
pub(super) struct FolderNode {
    pub path: RelPath,
    pub meta: Metadata,
    /// What the parent has at this path.
    pub parent: Option<Entry>,
    /// The source has older runs, in which this path may have to be covered.
    pub has_runs: bool,
    revisit: std::sync::atomic::AtomicBool,
    stale: std::sync::atomic::AtomicBool,
}

impl FolderNode {
    pub fn new(path: RelPath, meta: Metadata, parent: Option<Entry>, has_runs: bool) -> Self {
        Self { path, meta, parent, has_runs, revisit: false.into(), stale: false.into() }
    }

    /// It must be listed again next time.
    pub fn revisit(&self) {
        self.revisit.store(true, Ordering::Relaxed);
    }

    /// Something below it could not be captured and has no entry of its own.
    pub fn mark_stale(&self) {
        self.stale.store(true, Ordering::Relaxed);
        self.revisit();
    }

    fn put(self, sink: &EntrySink) -> Result<(), PathError> {
        let was_folder = self.parent.as_ref().is_some_and(Entry::is_folder);
        let mut flags = EntryFlags::empty();
        if self.revisit.into_inner() {
            flags = flags.with(EntryFlags::REVISIT);
        }
        if self.stale.into_inner() {
            flags = flags.with(EntryFlags::STALE);
            sink.count_incomplete();
        }
        let entry = Entry { path: self.path, flags, node: Node::Folder { meta: self.meta } };
        if self.parent.is_some_and(|parent| same_entry(&parent, &entry)) {
            return Ok(());
        }
        let cover = self.has_runs && !was_folder;
        let flags = if cover { flags.with(EntryFlags::COVER) } else { flags };
        sink.put(&Entry { flags, ..entry }, true)
    }
}

/// True if two entries of one path say the same; covers aside, which are about older runs.
pub(super) fn same_entry(a: &Entry, b: &Entry) -> bool {
    a.flags.without(EntryFlags::COVER) == b.flags.without(EntryFlags::COVER) && a.node == b.node
}

/// A reason as entries carry it: the whole error chain, at most 1 KiB.
pub(super) fn reason(action: &str, err: &(dyn std::error::Error + 'static)) -> String {
    let mut text = format!("cannot {action}: {err}");
    let mut next = err.source();
    while let Some(source) = next {
        text.push_str(&format!(": {source}"));
        next = source.source();
    }
    let mut end = text.len().min(1024);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

impl From<PathError> for super::walk::WalkError {
    fn from(err: PathError) -> Self {
        Self::Other(Error::Path(err))
    }
}
