//! One path of a walk: what is there now, against what the parent has.

use std::sync::Arc;

use super::capture::{DescribeError, FileJob, describe};
use super::sink::{FolderNode, reason, same_entry};
use super::walk::{Entered, Seen, Step, Walk, WalkError, see_many};
use super::watch::was_captured;
use crate::Error;
use crate::observe::Counter;
use crate::repo::RepoError;
use crate::source::{Folder, HashName, Kind, ListedName, Stat};
use crate::types::{Entry, EntryFlags, MissingNames, Node, RelPath, Timestamp};

/// A batch of files for a reader thread: at most this many, or this many bytes, or out of this many folders, each of
/// which is held open.
const BATCH_FILES: usize = 32;
const BATCH_BYTES: u64 = 1 << 20;
const BATCH_FOLDERS: usize = 8;

/// Files for a reader thread, as they gather.
#[derive(Default)]
pub(super) struct JobBatch {
    jobs: Vec<FileJob>,
    bytes: u64,
    folders: usize,
}

impl JobBatch {
    /// Adds a file; true if the batch is to be sent.
    pub fn push(&mut self, job: FileJob) -> bool {
        self.bytes = self.bytes.saturating_add(job.stat.size);
        // Files come folder by folder, so a change is another one, or one more handle of the same.
        let is_same = self.jobs.last().is_some_and(|last| last.folder.id() == job.folder.id());
        self.folders += usize::from(!is_same);
        self.jobs.push(job);
        self.jobs.len() >= BATCH_FILES || self.bytes >= BATCH_BYTES || self.folders >= BATCH_FOLDERS
    }
}

impl Walk<'_, '_> {
    pub(super) fn visit_new(
        &mut self,
        folder: &Folder,
        path: &RelPath,
        names: Vec<ListedName>,
        node: &Arc<FolderNode>,
    ) -> Result<(), WalkError> {
        for (name, seen) in names.iter().zip(see_many(folder, &names)) {
            let path = path.join(&name.name).map_err(|err| {
                WalkError::Other(Error::Source { name: self.shared.source.into(), why: err.to_string() })
            })?;
            if let Some(Step::Enter(entered)) =
                self.visit(folder, &name.name, path, seen, None, Some(node))?
            {
                // Listed as a file, now a folder: the next run walks it.
                node.revisit();
                self.fail(&entered.path, entered.parent.as_ref(), "became a folder while it was scanned")?;
            }
        }
        Ok(())
    }

    /// Handles one path that is there: a folder to be entered is returned, anything else is dealt with.
    pub(super) fn visit(
        &mut self,
        folder: &Folder,
        name: &[u8],
        path: RelPath,
        seen: Seen,
        parent: Option<Entry>,
        node: Option<&Arc<FolderNode>>,
    ) -> Result<Option<Step>, WalkError> {
        let clock = seen.clock;
        let stat = match seen.stat {
            Ok(stat) => stat,
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => {
                self.shared.count(&self.shared.counts.vanished, Counter::Vanished);
                self.remove(parent.as_ref())?;
                return Ok(None);
            }
            Err(err) => {
                node.inspect(|node| node.revisit());
                self.carry_below(&path, parent.as_ref());
                self.fail(&path, parent.as_ref(), &reason("stat", &err))?;
                return Ok(None);
            }
        };
        if stat.kind == Kind::Folder {
            return self.visit_folder(folder, name, path, (stat, clock), parent, node);
        }
        // A folder that became something else: its contents are covered by the new entry.
        if parent.as_ref().is_some_and(Entry::is_folder) {
            self.carry_below(&path, parent.as_ref());
        }
        self.observe_entry();
        let is_racy = stat.is_racy(clock, self.rules.grain_seconds);
        // An ordinary name may change in place, which its folder's times do not tell (PROTOCOL R19).
        if is_racy || self.shared.immutable && HashName::parse(name).is_none() {
            node.inspect(|node| node.revisit());
        }
        if stat.kind == Kind::File {
            self.visit_file(folder, name, path, stat, is_racy, parent, node)?;
        } else {
            self.visit_other(folder, name, path, &stat, is_racy, parent.as_ref(), node)?;
        }
        Ok(None)
    }

    fn observe_entry(&self) {
        self.shared.observer.add(Counter::Entries, 1);
    }

    fn visit_folder(
        &mut self,
        folder: &Folder,
        name: &[u8],
        path: RelPath,
        (stat, clock): (Stat, Timestamp),
        parent: Option<Entry>,
        node: Option<&Arc<FolderNode>>,
    ) -> Result<Option<Step>, WalkError> {
        if parent.as_ref().is_some_and(|parent| !parent.is_folder() && was_captured(parent)) {
            self.shared.alarm(&path, "changed");
        }
        // Where the listing does not tell types, patterns for folders apply only now.
        let is_never = self.rules.filter.is_never(stat.id());
        if is_never || self.rules.filter.excludes(&path, true) {
            let why = if is_never { MissingNames::Unseen } else { MissingNames::Excluded };
            node.inspect(|node| node.lacks(why));
            self.carry_below(&path, parent.as_ref());
            self.remove(parent.as_ref())?;
            return Ok(None);
        }
        match folder.open_child(name).and_then(|child| Ok((child.stat_self()?, child))) {
            // What was opened is what counts, should it have been swapped since the stat.
            Ok((stat, folder)) => {
                Ok(Some(Step::Enter(Box::new(Entered { path, folder, stat, clock, parent }))))
            }
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => {
                self.shared.count(&self.shared.counts.vanished, Counter::Vanished);
                self.remove(parent.as_ref())?;
                Ok(None)
            }
            Err(err) => {
                node.inspect(|node| node.revisit());
                self.observe_entry();
                self.carry_below(&path, parent.as_ref());
                self.fail(&path, parent.as_ref(), &reason("open the folder", &err))?;
                Ok(None)
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one job")]
    fn visit_file(
        &mut self,
        folder: &Folder,
        name: &[u8],
        path: RelPath,
        stat: Stat,
        is_racy: bool,
        parent: Option<Entry>,
        node: Option<&Arc<FolderNode>>,
    ) -> Result<(), WalkError> {
        if self.rules.filter.excludes_size(stat.size) {
            node.inspect(|node| node.lacks(MissingNames::Excluded));
            return self.remove(parent.as_ref());
        }
        let unchanged = parent.as_ref().filter(|parent| self.is_unchanged(parent, name, &stat));
        if let Some(unchanged) = unchanged
            && !self.shared.lost.is_named_by(unchanged)?
        {
            self.shared.count(&self.shared.counts.files_unchanged, Counter::FilesUnchanged);
            if parent.is_some_and(|parent| parent.wants_revisit()) {
                node.inspect(|node| node.revisit());
            }
            return Ok(());
        }
        let is_due = self.batch.push(FileJob {
            folder: folder.clone(),
            name: name.to_vec(),
            path,
            stat,
            is_racy,
            parent: parent.map(Box::new),
            node: node.cloned(),
        });
        if is_due { self.send_batch() } else { Ok(()) }
    }

    pub(super) fn send_batch(&mut self) -> Result<(), WalkError> {
        let batch = std::mem::take(&mut self.batch).jobs;
        if batch.is_empty() {
            return Ok(());
        }
        // The readers are gone only if one of them failed; its error is the one to report.
        self.jobs.send(batch).map_err(|_| WalkError::Other(RepoError::Stopped.into()))
    }

    fn is_unchanged(&self, parent: &Entry, name: &[u8], stat: &Stat) -> bool {
        let Node::File { meta, content } = &parent.node else { return false };
        let again = EntryFlags::RACY.with(EntryFlags::STALE).with(EntryFlags::TORN);
        let unsettled = self.shared.immutable
            && !parent.flags.contains(EntryFlags::SETTLED)
            && HashName::parse(name).is_some_and(|hash| hash.expected_sha256().is_none());
        !self.rules.force
            && !unsettled
            && !parent.flags.intersects(again)
            && content.size == stat.size
            && meta.mtime == stat.mtime
            && (self.rules.ignore_inode || meta.inode == stat.inode)
            && (meta.ctime == stat.ctime
                || self.rules.ignore_ctime
                    && (meta.mode, meta.owner.uid, meta.owner.gid) == (stat.mode, stat.uid, stat.gid))
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one entry")]
    fn visit_other(
        &mut self,
        folder: &Folder,
        name: &[u8],
        path: RelPath,
        stat: &Stat,
        is_racy: bool,
        parent: Option<&Entry>,
        node: Option<&Arc<FolderNode>>,
    ) -> Result<(), WalkError> {
        self.shared.counts.others.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let described =
            folder.xattrs(name, stat).map(|xattrs| describe(stat, self.shared.owners, xattrs, self.writers));
        let entry = described.and_then(|meta| {
            let meta = match meta {
                Ok(meta) => meta,
                Err(DescribeError::TooMuch) => {
                    return Err(std::io::Error::other("more extended attributes than an entry can hold"));
                }
                Err(DescribeError::Repo(err)) => return Ok(Err(err)),
            };
            let device = stat.rdev;
            let made = match stat.kind {
                Kind::Symlink => Node::Symlink { meta, target: folder.read_link(name)? },
                Kind::Fifo => Node::Fifo { meta },
                Kind::Socket => Node::Socket { meta },
                Kind::Char => Node::Char { meta, device },
                Kind::Block | Kind::File | Kind::Folder => Node::Block { meta, device },
            };
            Ok(Ok(made))
        });
        let made = match entry {
            Ok(Ok(made)) => made,
            Ok(Err(err)) => return Err(WalkError::Other(err.into())),
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => {
                self.shared.count(&self.shared.counts.vanished, Counter::Vanished);
                return self.remove(parent);
            }
            Err(err) => {
                node.inspect(|node| node.revisit());
                return self.fail(&path, parent, &reason("read", &err));
            }
        };
        let flags = if is_racy { EntryFlags::RACY } else { EntryFlags::empty() };
        let entry = Entry { path, flags, node: made };
        if parent.is_some_and(|parent| same_entry(parent, &entry)) {
            return Ok(());
        }
        self.shared.alarm_of_change(parent, &entry);
        if self.shared.observer.wants_detail() {
            self.shared.observer.detail(if parent.is_some() { "changed" } else { "new" }, &entry.path);
        }
        Ok(self.shared.sink.put(&entry, parent.is_some_and(Entry::is_folder))?)
    }

    /// Steps over what the parent has below a path whose own entry was taken.
    pub(super) fn carry_below(&mut self, path: &RelPath, parent: Option<&Entry>) {
        if let (Some(cursor), true) = (&mut self.parent, parent.is_some_and(Entry::is_folder)) {
            cursor.skip_below(path);
        }
    }

    fn remove(&mut self, parent: Option<&Entry>) -> Result<(), WalkError> {
        let Some(parent) = parent else { return Ok(()) };
        if let Some(cursor) = &mut self.parent {
            cursor.pass_below(parent, |entry| self.shared.hide(entry))?;
        }
        Ok(self.shared.remove(parent)?)
    }

    pub(super) fn fail(
        &mut self,
        path: &RelPath,
        parent: Option<&Entry>,
        why: &str,
    ) -> Result<(), WalkError> {
        Ok(self.shared.fail(path, parent, why)?)
    }
}
