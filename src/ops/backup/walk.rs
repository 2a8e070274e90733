//! Scan ⋈ parent: the file system and the parent's runs are walked in the same order, and no table
//! of files is held.
//!
//! Directories are walked depth first, names as unsigned bytes, which is the order of runs. What is
//! unchanged is not mentioned; files to be read go to the reader threads in batches; all else gets
//! its entry here. A directory of an immutable source that did not change is not listed: its
//! subdirectories are known from the parent's directory pages.

use std::sync::Arc;

use crossbeam_channel::Sender;

use super::attributes::{Described, describe};
use super::capture::{FileJob, TreeShared};
use super::content::Writers;
use super::cursor::ParentCursor;
use super::gone::Listed;
use super::reason::reason;
use super::rules::{WalkRules, is_leftover};
use super::sink::DirectoryNode;
use super::visit::{JobBatch, Seen, see_many};
use super::windows::Windows;
use crate::Error;
use crate::observe::Counter;
use crate::repo::RepoError;
use crate::source::{DirectoryId, FsKind, HashName, Kind, ListedName, Listing, SourceDir, Stat};
use crate::types::{Entry, EntryFlags, MissingNames, Node, RelPath, Timestamp};

/// Names that are stat'ed at once.
const BATCH_NAMES: usize = 1024;
/// Directories on the way down that are kept open; those above are reopened by `..`.
const OPEN_LEVELS: usize = 48;

/// Why a walk ended early.
#[derive(Debug)]
pub(super) enum WalkError {
    /// The parent's runs cannot be read: the source is captured anew without them (PROTOCOL R10).
    Parent(RepoError),
    Other(Error),
}

impl From<Error> for WalkError {
    fn from(err: Error) -> Self {
        Self::Other(err)
    }
}

type Named = (ListedName, Option<Seen>);

pub(super) enum Mode {
    /// Names come from the directory itself.
    Listed {
        listing: Option<Listing>,
        batch: std::vec::IntoIter<Named>,
        new_names: Vec<ListedName>,
        only_tag: bool,
        is_closed: bool,
    },
    /// Unchanged: subdirectories come from the parent.
    Skipped,
}

impl Mode {
    fn listed(listing: Option<Listing>, only_tag: bool, is_closed: bool) -> Self {
        let batch = Vec::new().into_iter();
        Self::Listed {
            listing,
            batch,
            new_names: Vec::new(),
            only_tag,
            is_closed,
        }
    }
}

pub(super) struct Level {
    pub(super) path: RelPath,
    /// None while a deeper level is walked and too many are open.
    pub(super) directory: Option<SourceDir>,
    id: DirectoryId,
    /// See [`Stat::mount_id`].
    mount_id: u64,
    pub(super) node: Option<Arc<DirectoryNode>>,
    /// The parent's entry of a directory that is skipped.
    skipped: Option<Entry>,
    mode: Mode,
}

impl Drop for Level {
    /// A directory that was not left in order was not seen to its end: a file of it that is read
    /// meanwhile must not make it whole.
    fn drop(&mut self) {
        if let Some(node) = self.node.take() {
            node.give_up();
        }
    }
}

/// One tree being walked.
pub(super) struct Walk<'w, 'a> {
    pub shared: &'w TreeShared<'a>,
    pub rules: &'w WalkRules<'a>,
    /// All entries of the parent, and its directories alone; none without a parent.
    pub parent: Option<ParentCursor<'a>>,
    pub parent_directories: Option<ParentCursor<'a>>,
    pub writers: &'w mut Writers<'a>,
    pub jobs: Sender<Vec<FileJob>>,
    pub batch: JobBatch,
    pub windows: Windows,
}

impl Walk<'_, '_> {
    /// Walks the whole tree from its open root.
    pub fn run(&mut self, root: SourceDir) -> Result<(), WalkError> {
        let mut levels = Vec::new();
        let parent = self.parent_at(&RelPath::root())?;
        let (stat, clock) = (self.rules.root, self.rules.clock);
        self.enter(
            &mut levels,
            Entered {
                path: RelPath::root(),
                directory: root,
                stat,
                clock,
                parent,
            },
        )?;
        while let Some(level) = levels.last_mut() {
            self.shared.check()?;
            let next = match level.mode {
                Mode::Listed { .. } => self.next_listed(level)?,
                Mode::Skipped => self.next_skipped(level)?,
            };
            match next {
                Step::Enter(entered) => {
                    let depth = levels.len();
                    if depth > OPEN_LEVELS {
                        levels[depth - OPEN_LEVELS].directory = None;
                    }
                    self.enter(&mut levels, *entered)?;
                }
                Step::Stay => {}
                Step::Leave => self.leave(&mut levels)?,
            }
        }
        self.send_batch()
    }

    /// Captures a source that is a single file.
    pub fn run_file(
        &mut self,
        directory: &SourceDir,
        name: &[u8],
        stat: Stat,
    ) -> Result<(), WalkError> {
        let path = RelPath::root();
        let parent = self.parent_at(&path)?;
        if stat.size == 0 && parent.as_ref().is_some_and(Entry::is_directory) {
            self.refuse_empty_root()?;
        }
        self.windows.learn(directory);
        // The stat of the opening may be older than what ran before the source.
        let seen = Seen {
            stat: Ok(Some(stat)),
            clock: self.rules.clock,
        };
        self.visit(directory, name, path, seen, parent, None)?;
        self.send_batch()
    }

    fn has_runs(&self) -> bool {
        self.parent.is_some()
    }

    /// Decides how a directory is walked and puts it on the stack.
    fn enter(
        &mut self,
        levels: &mut Vec<Level>,
        Entered {
            path,
            directory,
            stat,
            clock,
            parent,
        }: Entered,
    ) -> Result<(), WalkError> {
        self.shared
            .count(&self.shared.counts.others, Counter::Entries);
        self.shared
            .counts
            .directories
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if let Some(file) = parent
            .as_ref()
            .filter(|parent| path.is_root() && !parent.is_directory())
        {
            // What makes a container may put a directory in the place of a file that is missing.
            self.shared.hide(file);
        }
        let is_mount = levels
            .last()
            .is_some_and(|above| (above.id.device, above.mount_id) != (stat.device, stat.mount_id));
        let is_kernels = self.windows.learn(&directory) == FsKind::Kernel
            && levels
                .last()
                .is_some_and(|above| above.id.device != stat.device);
        if !is_kernels && self.may_skip(&stat, parent.as_ref()) {
            let id = directory.id();
            self.shared
                .has_skipped
                .store(true, std::sync::atomic::Ordering::Relaxed);
            levels.push(Level {
                path,
                directory: Some(directory),
                id,
                mount_id: stat.mount_id,
                node: None,
                skipped: parent,
                mode: Mode::Skipped,
            });
            return Ok(());
        }
        let old = parent.as_ref().and_then(|parent| parent.meta());
        let is_open = |parent: &Entry| {
            parent
                .flags
                .intersects(EntryFlags::REVISIT.with(EntryFlags::STALE))
        };
        let attributes = match old {
            // The times and the inode are those of the parent, and were not young then: so are the
            // attributes.
            Some(meta)
                if (meta.ctime, meta.inode) == (stat.ctime, stat.inode)
                    && !self.rules.no_skip
                    && !parent.as_ref().is_some_and(is_open) =>
            {
                None
            }
            _ => Some(directory.xattrs_self()),
        };
        let is_carried = attributes.is_none();
        let attributes = attributes.unwrap_or_default();
        let Described { mut meta, lacks } =
            describe(&stat, self.shared.owners, attributes, old, self.writers)
                .map_err(|err| WalkError::Other(err.into()))?;
        if let Some(old) = old.filter(|_| is_carried) {
            meta.xattrs.clone_from(&old.xattrs);
        }

        let node = Arc::new(DirectoryNode::new(
            path.clone(),
            meta,
            parent,
            self.has_runs(),
        ));
        if is_mount {
            node.mark_mount();
        }
        self.shared.sink.begin(&node);
        if let Some(why) = lacks {
            self.shared.lacks_attributes(&path, &why);
            node.lacks_attributes();
        }
        if stat.is_racy(clock, self.windows.seconds(&stat)) {
            node.revisit();
        }
        let mode = match is_kernels {
            true => self.leave_kernels(&path, &node),
            false => self.list(&path, &directory, &stat, &node)?,
        };
        let id = directory.id();
        let mount_id = stat.mount_id;
        levels.push(Level {
            path,
            directory: Some(directory),
            id,
            mount_id,
            node: Some(node),
            skipped: None,
            mode,
        });
        Ok(())
    }

    /// A mounted file system of the kernel is not entered: what looks like files there is made
    /// while it is read, some of it without end.
    fn leave_kernels(&self, path: &RelPath, node: &DirectoryNode) -> Mode {
        node.lacks(MissingNames::Unseen);
        self.shared.leave_kernels(path);
        Mode::listed(None, false, true)
    }

    fn list(
        &mut self,
        path: &RelPath,
        directory: &SourceDir,
        stat: &Stat,
        node: &Arc<DirectoryNode>,
    ) -> Result<Mode, WalkError> {
        if self.rules.filter.excludes_mount(&self.rules.root, stat) {
            node.lacks(MissingNames::Unseen);
            return Ok(Mode::listed(None, false, true));
        }
        match directory.list(self.rules.scratch, self.rules.listing_bytes) {
            Ok(listing) => {
                let after = directory.stat_self();
                if !after.is_ok_and(|after| (after.mtime, after.ctime) == (stat.mtime, stat.ctime))
                {
                    node.revisit();
                }
                if path.is_root() && listing.total() == 0 {
                    self.refuse_empty_root()?;
                }
                if listing.total() == 0 && self.is_unmounted(path, node)? {
                    return self.keep_unmounted(path, node);
                }
                Ok(Mode::listed(
                    Some(listing),
                    self.rules.filter.is_cache_directory(directory),
                    false,
                ))
            }
            Err(err) => {
                // What the parent has below it is carried over, and the directory says that it is
                // not the truth.
                self.shared
                    .problem(path, &reason("list the directory", &err));
                self.shared.observer.add(Counter::Failed, 1);
                node.mark_stale();
                self.keep_subtree(path)?;
                Ok(Mode::listed(None, false, false))
            }
        }
    }

    /// True if a directory is empty, and was not while something was mounted on it.
    fn is_unmounted(&mut self, path: &RelPath, node: &DirectoryNode) -> Result<bool, WalkError> {
        if self.shared.allow_empty || !node.was_unmounted() {
            return Ok(false);
        }
        let Some(cursor) = &mut self.parent else {
            return Ok(false);
        };
        Ok(cursor.peek()?.is_some_and(|next| next.path.is_below(path)))
    }

    /// What the last snapshot has below an empty mount point stays: more likely nothing is mounted
    /// there than that all was deleted.
    fn keep_unmounted(&mut self, path: &RelPath, node: &DirectoryNode) -> Result<Mode, WalkError> {
        let why = "it is empty, and nothing is mounted on it as at the last backup; what was captured then is kept: mount \
                   it, or say --allow-empty";
        self.shared.problem(path, why);
        self.shared.observer.add(Counter::Failed, 1);
        node.mark_stale();
        // The next backup asks the same.
        node.mark_mount();
        self.keep_subtree(path)?;
        Ok(Mode::listed(None, false, false))
    }

    /// A source that had entries and has none now is more likely an unmounted volume than an empty
    /// one.
    fn refuse_empty_root(&mut self) -> Result<(), WalkError> {
        let had_names = match &mut self.parent {
            Some(cursor) => cursor.peek()?.is_some(),
            None => false,
        };
        let why = match (self.rules.parent_unreadable, had_names) {
            (true, _) => "it is empty, and what the last snapshot has of it cannot be read",
            (false, true) => "it is empty, and was not in the last snapshot",
            (false, false) => return Ok(()),
        };
        Ok(self.shared.refuse_emptiness(why)?)
    }

    /// An unchanged directory of an immutable source is not listed (PROTOCOL R7, R19).
    pub(super) fn may_skip(&self, stat: &Stat, parent: Option<&Entry>) -> bool {
        self.shared.immutable
            && !self.rules.no_skip
            && parent.is_some_and(|parent| {
                !parent.flags.intersects(EntryFlags::REVISIT.with(EntryFlags::STALE))
                    && matches!(&parent.node, Node::Directory { meta }
                        if (meta.mtime, meta.ctime, meta.inode) == (stat.mtime, stat.ctime, stat.inode))
            })
    }

    fn leave(&mut self, levels: &mut Vec<Level>) -> Result<(), WalkError> {
        let Some(mut done) = levels.pop() else {
            return Ok(());
        };
        self.skip_below(&done.path);
        match (done.node.take(), done.skipped.take()) {
            (Some(node), _) => self.shared.sink.settle(node)?,
            (None, Some(skipped)) => self.count_skipped(&skipped),
            (None, None) => {}
        }
        match levels.last_mut() {
            Some(above) if above.directory.is_none() => self.go_back(&done, above),
            _ => Ok(()),
        }
    }

    /// The level above was closed on the way down: back by `..`, if it is still the same directory.
    /// If not, there is no way to those above it either, up to the first that stayed open: each
    /// says that it was not seen to its end.
    fn go_back(&mut self, done: &Level, above: &mut Level) -> Result<(), WalkError> {
        let way = done.directory.as_ref().map_or_else(
            || {
                Err(std::io::Error::other(
                    "a directory below it was moved meanwhile",
                ))
            },
            |directory| directory.reopen_parent(above.id),
        );
        let err = match way {
            Ok(directory) => {
                above.directory = Some(directory);
                return Ok(());
            }
            Err(err) => err,
        };
        self.shared
            .problem(&above.path, &reason("go back to the directory", &err));
        self.shared.observer.add(Counter::Failed, 1);
        self.own_node(above);
        above.node.as_ref().inspect(|node| node.mark_stale());
        // The rest of it is not seen in this run; what the parent has is carried over.
        self.keep_subtree(&above.path)?;
        above.mode = Mode::listed(None, false, false);
        Ok(())
    }

    /// Gives a skipped directory an entry of its own: there is something to say of it after all.
    pub(super) fn own_node(&self, level: &mut Level) {
        if level.node.is_none()
            && let Some(parent) = level.skipped.take()
        {
            let meta = parent.meta().cloned().unwrap_or_default();
            let missing = parent.missing_names();
            let parent_flags = parent.flags;
            let node = DirectoryNode::new(level.path.clone(), meta, Some(parent), self.has_runs());
            if parent_flags.contains(EntryFlags::MOUNT) {
                node.mark_mount();
            }
            // It was not listed: what the parent lacks of it is still lacking.
            if let Some(why) = missing {
                node.lacks(why);
            }
            level.node = Some(Arc::new(node));
        }
    }

    /// A skipped directory is as the parent has it.
    pub(super) fn count_skipped(&self, parent: &Entry) {
        if let Some(why) = parent.missing_names() {
            self.shared.sink.count_partial(why);
        }
    }

    pub(super) fn skip_below(&mut self, path: &RelPath) {
        for cursor in [&mut self.parent, &mut self.parent_directories]
            .into_iter()
            .flatten()
        {
            cursor.skip_below(path);
        }
    }

    pub(super) fn keep_subtree(&mut self, path: &RelPath) -> Result<(), WalkError> {
        self.shared
            .keeps_old
            .store(true, std::sync::atomic::Ordering::Relaxed);
        for cursor in [&mut self.parent, &mut self.parent_directories]
            .into_iter()
            .flatten()
        {
            match path.after_subtree() {
                Some(after) => cursor.seek(&after),
                None => while cursor.take()?.is_some() {},
            }
        }
        Ok(())
    }

    /// Takes the parent's entry of `path`; what the parent has before it is gone from the source.
    fn parent_at(&mut self, path: &RelPath) -> Result<Option<Entry>, WalkError> {
        loop {
            let Some(cursor) = &mut self.parent else {
                return Ok(None);
            };
            match cursor.peek()? {
                Some(head) if head.path < *path => {
                    if let Some(gone) = cursor.take()? {
                        cursor.pass_below(&gone, |entry| self.shared.hide(entry))?;
                        self.shared.remove(&gone)?;
                    }
                }
                Some(head) if head.path == *path => return cursor.take(),
                _ => return Ok(None),
            }
        }
    }

    fn next_listed(&mut self, level: &mut Level) -> Result<Step, WalkError> {
        let (Some(directory), Some(node)) = (level.directory.clone(), level.node.clone()) else {
            return Ok(Step::Leave);
        };
        loop {
            let Mode::Listed {
                listing,
                batch,
                new_names,
                only_tag,
                is_closed,
            } = &mut level.mode
            else {
                return Ok(Step::Stay);
            };
            let listed = Listed {
                path: &level.path,
                directory: &directory,
                node: &node,
                only_tag: *only_tag,
                is_closed: *is_closed,
            };
            let Some((name, _)) = batch.as_slice().first() else {
                // A directory may have millions of names, none of which is a step of its own.
                self.shared.check()?;
                let more = match listing {
                    Some(listing) => self.next_batch(&node, &directory, listing, *only_tag),
                    None => Ok(Vec::new()),
                };
                let names = match more {
                    Ok(names) => names,
                    Err(err) => {
                        self.shared
                            .problem(&level.path, &reason("list the directory", &err));
                        self.shared.observer.add(Counter::Failed, 1);
                        node.mark_stale();
                        self.keep_subtree(&level.path)?;
                        *listing = None;
                        Vec::new()
                    }
                };
                if names.is_empty() {
                    let new_names = std::mem::take(new_names);
                    self.visit_new(&directory, &level.path, new_names, &node)?;
                    let Some(unlisted) = self.take_unlisted(&level.path, None)? else {
                        return Ok(Step::Leave);
                    };
                    if let Some(step) = self.visit_unlisted(&listed, unlisted)? {
                        return Ok(step);
                    }
                    continue;
                }
                *batch = names.into_iter();
                continue;
            };
            let path = match level.path.join(&name.name) {
                Ok(path) => path,
                Err(err) => {
                    self.shared.problem(
                        &level.path,
                        &format!("holds a path that cannot be captured: {err}"),
                    );
                    node.mark_stale();
                    batch.next();
                    continue;
                }
            };
            if let Some(unlisted) = self.take_unlisted(&level.path, Some(&path))? {
                if let Some(step) = self.visit_unlisted(&listed, unlisted)? {
                    return Ok(step);
                }
                continue;
            }
            let Some((name, seen)) = batch.next() else {
                continue;
            };
            let parent = self.parent_at(&path)?;
            let Some(seen) = seen else {
                // Immutable: a known name is not looked at, a new one waits to be stat'ed with
                // others.
                if parent
                    .as_ref()
                    .is_some_and(|parent| is_settled(parent, &name))
                {
                    self.shared
                        .count(&self.shared.counts.files_unchanged, Counter::FilesUnchanged);
                } else if parent.is_none() && name.kind_hint == Some(Kind::File) {
                    new_names.push(name);
                    if new_names.len() >= BATCH_NAMES {
                        let new_names = std::mem::take(new_names);
                        self.visit_new(&directory, &level.path, new_names, &node)?;
                    }
                } else {
                    let seen = Seen::at(&directory, &name.name);
                    if let Some(step) =
                        self.visit(&directory, &name.name, path, seen, parent, Some(&node))?
                    {
                        return Ok(step);
                    }
                }
                continue;
            };
            if let Some(step) =
                self.visit(&directory, &name.name, path, seen, parent, Some(&node))?
            {
                return Ok(step);
            }
        }
    }

    /// The next names that are to be captured, with their stats where these are wanted now; empty
    /// at the end.
    fn next_batch(
        &self,
        node: &DirectoryNode,
        directory: &SourceDir,
        listing: &mut Listing,
        only_tag: bool,
    ) -> std::io::Result<Vec<Named>> {
        let mut names = Vec::new();
        loop {
            if listing.next_batch(&mut names, BATCH_NAMES)? == 0 {
                return Ok(Vec::new());
            }
            names.retain(|name| {
                if is_leftover(name) {
                    self.shared
                        .counts
                        .leftovers
                        .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
                let left_out = self.rules.left_out(&node.path, name, only_tag);
                left_out.inspect(|why| node.lacks(*why)).is_none()
            });
            if !names.is_empty() {
                break;
            }
        }
        if self.shared.immutable && !self.rules.no_skip {
            return Ok(names.into_iter().map(|name| (name, None)).collect());
        }
        let seen = see_many(directory, &names);
        Ok(names.into_iter().zip(seen.into_iter().map(Some)).collect())
    }
}

/// A directory to be entered.
pub(super) struct Entered {
    pub path: RelPath,
    pub directory: SourceDir,
    pub stat: Stat,
    /// Our clock just before the stat.
    pub clock: Timestamp,
    pub parent: Option<Entry>,
}

/// What a walk does next.
pub(super) enum Step {
    Enter(Box<Entered>),
    Stay,
    Leave,
}

/// True if a name of an immutable source need not be looked at: a hash that was checked, or
/// settled, and still the same inode of the same type (PROTOCOL R19).
fn is_settled(parent: &Entry, name: &ListedName) -> bool {
    let open = EntryFlags::RACY
        .with(EntryFlags::STALE)
        .with(EntryFlags::TORN)
        .with(EntryFlags::PROVISIONAL);
    let Some(hash) = HashName::parse(&name.name) else {
        return false;
    };
    parent.is_file()
        && !parent.flags.intersects(open)
        && (hash.expected_sha256().is_some() || parent.flags.contains(EntryFlags::SETTLED))
        && name.kind_hint == Some(Kind::File)
        && parent.meta().is_some_and(|meta| meta.inode == name.inode)
}

#[cfg(test)]
#[path = "walk_tests.rs"]
mod tests;
