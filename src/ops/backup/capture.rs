//! Reading files: the work of the reader threads, from an open file to its entry.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::content::{ContentBuilder, CutError, Span, Window, Writers};
use super::heal::Lost;
use super::sink::{EntrySink, FolderNode, reason, same_entry};
use super::watch::{Watch, is_other, was_captured};
use crate::Error;
use crate::format::PAGE_BYTES_MAX;
use crate::observe::{Counter, Observer, Problem, Severity};
use crate::ops::Cancel;
use crate::repo::{FirstError, RepoError};
use crate::source::{Folder, HashChecker, HashName, Owners, SourceFile, Stat, metadata};
use crate::types::{
    Content, Entry, EntryFlags, Extent, LITERAL_BYTES_MAX, Metadata, MissingNames, Node, Profile, RelPath,
    Xattr, XattrValue,
};

/// Hard-link groups whose content is remembered, so that each is read once.
const LINK_GROUPS_MAX: usize = 64 << 10;
/// Attributes of an entry together; with more of them it could outgrow its page.
const XATTR_BYTES_MAX: usize = PAGE_BYTES_MAX / 4;

/// A file to be read.
pub(super) struct FileJob {
    pub folder: Folder,
    pub name: Vec<u8>,
    pub path: RelPath,
    pub stat: Stat,
    /// Modified too lately for its next change to be seen.
    pub is_racy: bool,
    pub parent: Option<Box<Entry>>,
    pub node: Option<Arc<FolderNode>>,
}

impl Drop for FileJob {
    /// A file that is given up unread is not in its folder's state: whoever settles that must not call it whole.
    fn drop(&mut self) {
        if let Some(node) = self.node.take() {
            node.give_up();
        }
    }
}

impl FileJob {
    pub fn was_folder(&self) -> bool {
        self.parent.as_ref().is_some_and(|parent| parent.is_folder())
    }
}

/// What all threads of one tree source share.
pub(super) struct TreeShared<'a> {
    pub source: &'a str,
    pub profile: Profile,
    pub immutable: bool,
    pub owners: &'a Owners,
    pub sink: &'a EntrySink,
    pub observer: &'a dyn Observer,
    pub cancel: &'a Cancel,
    /// Set by whoever works for this source on a thread of its own and failed.
    pub failure: &'a FirstError<RepoError>,
    /// What ended a reader thread: the others and the walk stop, since nothing can be committed.
    pub reading: FirstError<Error>,
    pub lost: &'a Lost<'a>,
    /// Nothing in the source may change.
    pub watch: Option<Watch>,
    pub counts: Arc<TreeCounts>,
    pub links: Links,
    /// Some directories could not be looked into, and show what the parent has of them.
    pub keeps_old: AtomicBool,
}

/// The content of files that have other names, by device and inode.
pub(super) type Links = Mutex<HashMap<(u64, u64), (Stat, Content)>>;

/// What is counted of one source, by several threads.
#[derive(Default)]
pub(super) struct TreeCounts {
    pub files_new: AtomicU64,
    pub files_changed: AtomicU64,
    pub files_unchanged: AtomicU64,
    pub others: AtomicU64,
    pub removed: AtomicU64,
    pub vanished: AtomicU64,
    pub bytes_read: AtomicU64,
    /// Bytes of content of the parent's entries that went or changed, since they were last told to a run.
    pub hidden: AtomicU64,
}

/// What reading a file gave.
struct Reading {
    content: Content,
    /// The name is a hash of the content; none if that cannot be told.
    name_agrees: Option<bool>,
    is_torn: bool,
    /// The stat that belongs to the content.
    stat: Stat,
}

impl<'a> TreeShared<'a> {
    /// Fails if the backup shall stop, or another part of it has failed.
    pub fn check(&self) -> Result<(), Error> {
        self.cancel.check()?;
        if self.failure.is_set() || self.reading.is_set() { Err(RepoError::Stopped.into()) } else { Ok(()) }
    }

    /// Adds to a count of the source and to the observer's.
    pub fn count(&self, which: &AtomicU64, counter: Counter) {
        which.fetch_add(1, Ordering::Relaxed);
        self.observer.add(counter, 1);
    }

    pub fn problem(&self, path: &RelPath, message: &str) {
        let subject = format!("{}:{path}", self.source);
        self.observer.problem(&Problem::new(Severity::Missing, subject, message));
    }

    /// Reads a file and adds its entry.
    pub fn capture(
        &self,
        mut job: FileJob,
        window: &mut Window,
        writers: &mut Writers<'_>,
    ) -> Result<(), Error> {
        self.check()?;
        if let Err(err) = self.capture_file(&job, window, writers) {
            match err {
                CutError::Read(err) if err.kind() == io::ErrorKind::NotFound => self.vanished(&job)?,
                CutError::Read(err) => self.failed(&job, &reason("read", &err))?,
                CutError::Repo(err) => return Err(err.into()),
            }
        }
        if let Some(node) = job.node.take() {
            self.sink.settle(node)?;
        }
        Ok(())
    }

    fn capture_file(
        &self,
        job: &FileJob,
        window: &mut Window,
        writers: &mut Writers<'_>,
    ) -> Result<(), CutError> {
        let mut file = job.folder.open_file(&job.name).map_err(CutError::Read)?;
        let hash = if self.immutable { HashName::parse(&job.name) } else { None };
        let reading = self.read(&mut file, job, hash.as_ref(), window, writers)?;
        let xattrs = file.xattrs().map_err(CutError::Read)?;
        let meta = describe(&reading.stat, self.owners, xattrs, writers).map_err(from_describe)?;
        let flags = self.flags(job, hash.as_ref(), &reading);
        // A name that proves nothing is read once more, also if its folder keeps its times (PROTOCOL R19).
        let is_unsettled =
            hash.is_some() && reading.name_agrees.is_none() && !flags.contains(EntryFlags::SETTLED);
        let again = EntryFlags::RACY.with(EntryFlags::PROVISIONAL).with(EntryFlags::TORN);
        if let Some(node) = &job.node
            && (is_unsettled || flags.intersects(again))
        {
            node.revisit();
        }
        if reading.is_torn {
            self.sink.count_incomplete();
            self.problem(&job.path, "changed while it was read, twice; what was read last is kept");
        }
        if flags.contains(EntryFlags::PROVISIONAL) {
            let message = "its content does not match its name; kept, and looked at again next time";
            let subject = format!("{}:{}", self.source, job.path);
            self.observer.problem(&Problem::new(Severity::Note, subject, message));
        }
        let entry =
            Entry { path: job.path.clone(), flags, node: Node::File { meta, content: reading.content } };
        self.add(job, entry).map_err(|err| CutError::Repo(RepoError::Path(err)))
    }

    fn add(&self, job: &FileJob, entry: Entry) -> Result<(), crate::sys::PathError> {
        let (which, counter, verb) = match &job.parent {
            Some(parent) if parent.is_file() => {
                (&self.counts.files_changed, Counter::FilesChanged, "changed")
            }
            _ => (&self.counts.files_new, Counter::FilesNew, "new"),
        };
        if job.parent.as_ref().is_some_and(|parent| same_entry(parent, &entry)) {
            self.count(&self.counts.files_unchanged, Counter::FilesUnchanged);
            return Ok(());
        }
        self.count(which, counter);
        if let Some(parent) = job.parent.as_deref().filter(|parent| parent.content() != entry.content()) {
            self.alarm_of_change(Some(parent), &entry);
            self.hide(parent);
        }
        if self.observer.wants_detail() {
            self.observer.detail(verb, &entry.path);
        }
        self.sink.put(&entry, job.was_folder())
    }

    fn flags(&self, job: &FileJob, hash: Option<&HashName>, reading: &Reading) -> EntryFlags {
        let mut flags = EntryFlags::empty();
        if job.is_racy {
            flags = flags.with(EntryFlags::RACY);
        }
        if reading.is_torn {
            flags = flags.with(EntryFlags::TORN);
        }
        match (hash, reading.name_agrees) {
            (Some(_), Some(false)) => flags = flags.with(EntryFlags::PROVISIONAL),
            // The name proves nothing: a second reading that agrees with the first settles it.
            (Some(_), None) => {
                let agrees = job.parent.as_ref().and_then(|parent| parent.content());
                if agrees == Some(&reading.content) {
                    flags = flags.with(EntryFlags::SETTLED);
                }
            }
            _ => {}
        }
        flags
    }

    /// Reads the content; a file that changes meanwhile is read once more, then kept as torn (PROTOCOL R17).
    fn read(
        &self,
        file: &mut SourceFile,
        job: &FileJob,
        hash: Option<&HashName>,
        window: &mut Window,
        writers: &mut Writers<'_>,
    ) -> Result<Reading, CutError> {
        let mut before = job.stat;
        // A name that is a hash is checked against the bytes, so those are read for every name.
        if hash.is_none()
            && let Some(content) = self.linked(&before, file)
        {
            return Ok(Reading { content, name_agrees: None, is_torn: false, stat: before });
        }
        let mut is_torn = false;
        loop {
            let checker = hash.and_then(HashName::checker);
            let (content, name_agrees) = self.read_once(file, &before, checker, window, writers)?;
            let after = file.stat().map_err(CutError::Read)?;
            let steady = is_same_version(&before, &after);
            if steady || is_torn {
                if steady && before.nlink > 1 {
                    self.remember_link(&before, &content);
                }
                return Ok(Reading { content, name_agrees, is_torn: !steady, stat: before });
            }
            // The second reading counts, whole or torn, up to the size that it began with.
            is_torn = true;
            before = after;
        }
    }

    fn read_once(
        &self,
        file: &mut SourceFile,
        stat: &Stat,
        mut checker: Option<HashChecker>,
        window: &mut Window,
        writers: &mut Writers<'_>,
    ) -> Result<(Content, Option<bool>), CutError> {
        let mut builder = ContentBuilder::default();
        let is_sparse = stat.may_have_holes();
        let mut at = 0;
        while at < stat.size {
            let data =
                if is_sparse { file.next_data(at).map_err(CutError::Read)? } else { Some(at..stat.size) };
            let data = data.unwrap_or(stat.size..stat.size);
            let (start, end) = (data.start.clamp(at, stat.size), data.end.min(stat.size));
            if start > at {
                if let Some(checker) = &mut checker {
                    self.hash_hole(checker, start - at)?;
                }
                builder.push(Extent::Hole { len: start - at }, writers)?;
            }
            if start >= end {
                break;
            }
            let read =
                self.read_range(file, start, end, stat.size, &mut builder, &mut checker, window, writers)?;
            at = start + read;
            if at < end {
                // It was cut short while we read; the stat behind the reading tells.
                break;
            }
        }
        let content = builder.finish(writers)?;
        Ok((content, checker.map(HashChecker::finish)))
    }

    /// Hashes the zeros of a hole, which may be longer than anything that is read.
    fn hash_hole(&self, checker: &mut HashChecker, mut len: u64) -> Result<(), CutError> {
        static ZEROS: [u8; 1 << 20] = [0; 1 << 20];
        while len > 0 {
            self.check().map_err(|_| CutError::Read(io::ErrorKind::BrokenPipe.into()))?;
            let n = len.min(ZEROS.len() as u64);
            checker.update(&ZEROS[..n as usize]);
            len -= n;
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "one call; a struct would only rename them")]
    fn read_range(
        &self,
        file: &mut SourceFile,
        start: u64,
        end: u64,
        size: u64,
        builder: &mut ContentBuilder,
        checker: &mut Option<HashChecker>,
        window: &mut Window,
        writers: &mut Writers<'_>,
    ) -> Result<u64, CutError> {
        let mut offset = start;
        let mut read = |buf: &mut [u8]| {
            let n = file.read_at(buf, offset)?;
            offset += n as u64;
            self.observer.add(Counter::BytesRead, n as u64);
            self.counts.bytes_read.fetch_add(n as u64, Ordering::Relaxed);
            self.check().map_err(|_| io::ErrorKind::BrokenPipe)?;
            Ok(n)
        };
        let len = end - start;
        let is_all = start == 0 && end == size;
        if is_all && (len <= LITERAL_BYTES_MAX as u64 || self.profile.is_whole(len)) {
            let bytes = window.whole(&mut read, len as usize).map_err(CutError::Read)?;
            if let Some(checker) = checker {
                checker.update(bytes);
            }
            let read = bytes.len() as u64;
            let extent = match bytes.len() {
                0 => return Ok(0),
                n if n <= LITERAL_BYTES_MAX => Extent::Literal(bytes.to_vec()),
                n => Extent::Chunk { id: writers.data.add(bytes)?, len: n as u32 },
            };
            builder.push(extent, writers)?;
            return Ok(read);
        }
        let mut seen = |bytes: &[u8]| {
            if let Some(checker) = checker {
                checker.update(bytes);
            }
        };
        let span = Span { start, limit: len, profile: self.profile };
        window.cut(&mut read, span, builder, writers, &mut seen)
    }

    /// The content of another name of the same file, read in this backup.
    fn linked(&self, stat: &Stat, file: &SourceFile) -> Option<Content> {
        if stat.nlink < 2 {
            return None;
        }
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let (seen, content) = links.get(&(stat.device, stat.inode))?;
        let same = is_same_version(seen, stat) && is_same_version(seen, file.opened_stat());
        same.then(|| content.clone())
    }

    fn remember_link(&self, stat: &Stat, content: &Content) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if links.len() < LINK_GROUPS_MAX {
            links.insert((stat.device, stat.inode), (*stat, content.clone()));
        }
    }

    /// The file was listed and is gone: no error, and not in this snapshot.
    fn vanished(&self, job: &FileJob) -> Result<(), Error> {
        self.count(&self.counts.vanished, Counter::Vanished);
        if let Some(parent) = &job.parent {
            self.remove(parent)?;
        }
        Ok(())
    }

    /// Adds the removal of what the parent has at this path.
    pub fn remove(&self, parent: &Entry) -> Result<(), Error> {
        self.count(&self.counts.removed, Counter::Removed);
        if self.observer.wants_detail() {
            self.observer.detail("removed", &parent.path);
        }
        if was_captured(parent) {
            self.alarm(&parent.path, "is missing");
        }
        self.hide(parent);
        let entry = Entry { path: parent.path.clone(), flags: EntryFlags::empty(), node: Node::Removed };
        Ok(self.sink.put(&entry, parent.is_folder())?)
    }

    /// Raises the alarm of a source of which nothing may change.
    pub fn alarm(&self, path: &RelPath, what: &str) {
        if let Some(watch) = &self.watch {
            watch.alarm(self.observer, self.source, path, what);
        }
    }

    /// The same, if what the parent has is another thing now.
    pub fn alarm_of_change(&self, parent: Option<&Entry>, now: &Entry) {
        if parent.is_some_and(|parent| is_other(parent, now)) {
            self.alarm(&now.path, "changed");
        }
    }

    /// Counts the content of an entry of the parent's that the new run hides.
    pub fn hide(&self, parent: &Entry) {
        let bytes = parent.content().map_or(0, |content| content.size);
        self.counts.hidden.fetch_add(bytes, Ordering::Relaxed);
    }

    fn failed(&self, job: &FileJob, why: &str) -> Result<(), Error> {
        if let Some(node) = &job.node {
            node.revisit();
        }
        self.fail(&job.path, job.parent.as_deref(), why)
    }

    /// Makes a failure visible in this snapshot and in all that follow until the path is read (PROTOCOL R7): the
    /// parent's entry goes on as stale, or there is an entry that says why there is none.
    pub fn fail(&self, path: &RelPath, parent: Option<&Entry>, why: &str) -> Result<(), Error> {
        self.check()?;
        self.observer.add(Counter::Failed, 1);
        self.sink.count_incomplete();
        let usable = parent.filter(|parent| was_captured(parent));
        let message = match usable {
            Some(_) => {
                self.alarm(path, "cannot be read");
                format!("{why}; the last version that could be read is kept")
            }
            None => why.to_owned(),
        };
        self.problem(path, &message);
        let entry = match usable {
            Some(parent) if parent.is_folder() => {
                self.keeps_old.store(true, Ordering::Relaxed);
                self.sink.count_partial();
                let flags = parent.flags.with(EntryFlags::STALE).with(MissingNames::Unseen.flags());
                Entry { flags, ..parent.clone() }
            }
            Some(parent) => Entry { flags: parent.flags.with(EntryFlags::STALE), ..parent.clone() },
            None => Entry {
                path: path.clone(),
                flags: EntryFlags::empty(),
                node: Node::Failed { reason: why.to_owned() },
            },
        };
        if parent.is_some_and(|parent| same_entry(parent, &entry)) {
            return Ok(());
        }
        let was_folder = parent.is_some_and(Entry::is_folder);
        Ok(self.sink.put(&entry, was_folder || entry.is_folder())?)
    }
}

/// True if two stats of a file tell of the same version of its content.
fn is_same_version(a: &Stat, b: &Stat) -> bool {
    (a.size, a.mtime, a.ctime, a.inode, a.device) == (b.size, b.mtime, b.ctime, b.inode, b.device)
}

/// Why metadata could not be taken over.
pub(super) enum DescribeError {
    TooMuch,
    Repo(RepoError),
}

fn from_describe(err: DescribeError) -> CutError {
    match err {
        DescribeError::TooMuch => {
            CutError::Read(io::Error::other("more extended attributes than an entry can hold"))
        }
        DescribeError::Repo(err) => CutError::Repo(err),
    }
}

/// Builds metadata; attribute values that are too long for the entry become chunks.
pub(super) fn describe(
    stat: &Stat,
    owners: &Owners,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    writers: &mut Writers<'_>,
) -> Result<Metadata, DescribeError> {
    let described = metadata(stat, owners, xattrs);
    let mut meta = described.meta;
    for (name, value) in described.long_xattrs {
        let len = value.len() as u32;
        let id = writers.metadata.add(&value).map_err(DescribeError::Repo)?;
        let at = meta.xattrs.partition_point(|xattr| xattr.name < name);
        meta.xattrs.insert(at, Xattr { name, value: XattrValue::Chunk { id, len } });
    }
    let bytes: usize = meta
        .xattrs
        .iter()
        .map(|xattr| {
            let value = match &xattr.value {
                XattrValue::Inline(value) => value.len(),
                XattrValue::Chunk { .. } => 40,
            };
            xattr.name.len() + value + 8
        })
        .sum();
    if bytes > XATTR_BYTES_MAX { Err(DescribeError::TooMuch) } else { Ok(meta) }
}
