//! Scan ⋈ previous snapshot: walks the file system and the previous runs in the same order, without
//! a table of all files in memory.
//!
//! Directories are walked depth first, names as unsigned bytes, which is the order of runs.
//! Unchanged entries are not written; files to be read go to the reader threads in batches; all
//! other entries are made here. An unchanged directory of an immutable source is not listed: its
//! subdirectories are known from the directory pages of the previous snapshot.

pub(super) mod committed;
mod observed;
pub(super) mod previous;
pub(super) mod rules;
mod skipped;
pub(super) mod state;
#[cfg(test)]
mod tests;
mod unlisted;
mod visit;
pub(super) mod walk_error;
pub(super) mod windows;

use std::sync::Arc;

use self::observed::{ObservedName, see_many};
use self::rules::is_leftover;
use self::state::{EnteredDirectory, Named, Scan, ScanLevel, ScanMode, ScanStep};
use self::unlisted::{ListedDirectory, UnlistedStep};
use self::walk_error::WalkError;
use crate::advice::Advice;
use crate::observe::Counter;
use crate::ops::backup::reader::attributes::{DescribedEntry, describe};
use crate::ops::backup::reason::reason;
use crate::ops::backup::run::sink::DirectoryNode;
use crate::source::{FsKind, HashName, ListedName, NameListing, SourceDir, SourceStat, StatKind};
use crate::types::{Entry, EntryFlags, MissingNames, Node, RelPath};

/// Names that are stat'ed in one batch.
const BATCH_NAMES: usize = 1024;
/// Directories kept open on the way down; those above are reopened through `..`.
const OPEN_LEVELS: usize = 48;

impl Scan<'_, '_> {
    /// Walks the whole tree from its open root.
    pub fn run(&mut self, root: SourceDir) -> Result<(), WalkError> {
        let mut levels = Vec::new();

        let previous = self.previous_at(&RelPath::root())?;
        let stat = self.rules.root;
        let clock = self.rules.clock;
        self.enter(
            &mut levels,
            EnteredDirectory {
                path: RelPath::root(),
                directory: root,
                stat,
                clock,
                previous,
            },
        )?;

        while let Some(level) = levels.last_mut() {
            self.shared.check()?;
            let next = match level.mode {
                ScanMode::Listed { .. } => self.next_listed(level)?,
                ScanMode::Skipped => self.next_skipped(level)?,
            };
            match next {
                ScanStep::Enter(entered) => {
                    let depth = levels.len();
                    if depth > OPEN_LEVELS {
                        levels[depth - OPEN_LEVELS].directory = None;
                    }
                    self.enter(&mut levels, *entered)?;
                }
                ScanStep::Stay => {}
                ScanStep::Leave => self.leave(&mut levels)?,
            }
        }
        self.send_batch()
    }

    /// Captures a source that is a single file.
    pub fn run_file(
        &mut self,
        directory: &SourceDir,
        name: &[u8],
        stat: SourceStat,
    ) -> Result<(), WalkError> {
        let path = RelPath::root();
        let previous = self.previous_at(&path)?;
        if stat.size == 0 && previous.as_ref().is_some_and(Entry::is_directory) {
            self.refuse_empty_root()?;
        }
        self.windows.learn(directory);
        // The stat is that of the opening, and so is the clock.
        let seen = ObservedName {
            stat: Ok(Some(stat)),
            clock: self.rules.clock,
        };
        self.visit(directory, name, path, seen, previous, None)?;
        self.send_batch()
    }

    /// Decides how a directory is walked, and pushes it onto the stack.
    fn enter(
        &mut self,
        levels: &mut Vec<ScanLevel>,
        EnteredDirectory {
            path,
            directory,
            stat,
            clock,
            previous,
        }: EnteredDirectory,
    ) -> Result<(), WalkError> {
        self.shared
            .count(&self.shared.counts.others, Counter::Entries);
        self.shared
            .counts
            .directories
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);

        if let Some(file) = previous
            .as_ref()
            .filter(|previous| path.is_root() && !previous.is_directory())
        {
            // A container engine may create a directory in place of a missing file.
            self.shared.hide(file);
        }

        let is_mount = levels
            .last()
            .is_some_and(|above| (above.id.device, above.mount_id) != (stat.device, stat.mount_id));
        let is_kernels = self.windows.learn(&directory) == FsKind::Kernel
            && levels
                .last()
                .is_some_and(|above| above.id.device != stat.device);
        if !is_kernels && self.may_skip(&stat, previous.as_ref()) {
            let id = directory.id();
            self.shared
                .has_skipped
                .store(true, std::sync::atomic::Ordering::Relaxed);
            levels.push(ScanLevel {
                path,
                directory: Some(directory),
                id,
                mount_id: stat.mount_id,
                node: None,
                skipped: previous,
                mode: ScanMode::Skipped,
            });
            return Ok(());
        }

        let old = previous.as_ref().and_then(|previous| previous.meta());
        let is_open = |previous: &Entry| {
            previous
                .flags
                .intersects(EntryFlags::REVISIT.with(EntryFlags::STALE))
        };
        let attributes = match old {
            // Times and inode are those of the previous entry, and were not racy then, so the
            // attributes are unchanged too.
            Some(meta)
                if (meta.ctime, meta.inode) == (stat.ctime, stat.inode)
                    && !self.rules.no_skip
                    && !previous.as_ref().is_some_and(is_open) =>
            {
                None
            }
            _ => Some(directory.xattrs_self()),
        };

        let is_carried = attributes.is_none();
        let attributes = attributes.unwrap_or_default();
        let DescribedEntry { mut meta, lacks } =
            describe(&stat, self.shared.owners, attributes, old, self.writers)
                .map_err(|err| WalkError::Other(err.into()))?;
        if let Some(old) = old.filter(|_| is_carried) {
            meta.xattrs.clone_from(&old.xattrs);
        }

        let node = Arc::new(DirectoryNode::new(
            path.clone(),
            meta,
            previous,
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

        let mode = if is_kernels {
            self.leave_kernels(&path, &node)
        } else {
            self.list(&path, &directory, &stat, &node)?
        };

        let id = directory.id();
        let mount_id = stat.mount_id;
        levels.push(ScanLevel {
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

    /// Marks a mount of a kernel file system that is not entered: the kernel generates its files
    /// while they are read, some of them without end.
    fn leave_kernels(&self, path: &RelPath, node: &DirectoryNode) -> ScanMode {
        node.lacks(MissingNames::Unseen);
        self.shared.leave_kernels(path);
        ScanMode::unlisted(true)
    }

    fn list(
        &mut self,
        path: &RelPath,
        directory: &SourceDir,
        stat: &SourceStat,
        node: &Arc<DirectoryNode>,
    ) -> Result<ScanMode, WalkError> {
        if self.rules.filter.excludes_mount(&self.rules.root, stat) {
            node.lacks(MissingNames::Unseen);
            return Ok(ScanMode::unlisted(true));
        }

        match directory.list(self.rules.scratch, self.rules.listing_bytes) {
            Ok(listing) => {
                // A change during the listing may have hidden names: list it again next time.
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

                let needed = self
                    .rules
                    .files_from
                    .and_then(|list| list.first_needed(path))
                    .map(|needed| needed.position());
                Ok(ScanMode::listed(
                    listing,
                    needed,
                    self.rules.filter.is_cache_directory(directory),
                ))
            }
            Err(err) => {
                // The previous entries below the directory are kept, and its flag *stale* marks
                // them as possibly outdated.
                self.shared
                    .problem(path, &reason("list the directory", &err));
                self.shared.task.observer.add(Counter::Failed, 1);
                node.mark_stale();
                self.keep_subtree(path)?;
                Ok(ScanMode::unlisted(false))
            }
        }
    }

    /// Returns true if a directory is empty, had entries in the previous snapshot, and was a mount
    /// point then.
    fn is_unmounted(&mut self, path: &RelPath, node: &DirectoryNode) -> Result<bool, WalkError> {
        if self.shared.allow_empty || !node.was_unmounted() {
            return Ok(false);
        }
        let Some(cursor) = &mut self.previous else {
            return Ok(false);
        };
        Ok(cursor.peek()?.is_some_and(|next| next.path.is_below(path)))
    }

    /// Keeps the previous entries below an empty mount point: more likely the mount is missing than
    /// all files were deleted.
    fn keep_unmounted(
        &mut self,
        path: &RelPath,
        node: &DirectoryNode,
    ) -> Result<ScanMode, WalkError> {
        let why = "it is empty, and no longer a mount point as at the last backup; its previous content is kept";
        self.shared
            .problem_with(path, why, Advice::MountOrAllowEmpty);
        self.shared.task.observer.add(Counter::Failed, 1);
        node.mark_stale();
        // The next backup makes the same check.
        node.mark_mount();
        self.keep_subtree(path)?;
        Ok(ScanMode::unlisted(false))
    }

    /// Refuses a source that had entries and has none now: more likely a volume is not mounted.
    fn refuse_empty_root(&mut self) -> Result<(), WalkError> {
        let had_names = match &mut self.previous {
            Some(cursor) => cursor.peek()?.is_some(),
            None => false,
        };
        let had_names =
            had_names || !self.shared.may_be_empty() && self.rules.committed.has_names()?;
        let why = match (self.rules.previous_unreadable, had_names) {
            (true, _) => "it is empty, and its content in the last snapshot cannot be read",
            (false, true) => "it is empty, and was not in the last snapshot",
            (false, false) => return Ok(()),
        };
        Ok(self.shared.refuse_emptiness(why)?)
    }

    /// Returns true for an unchanged directory of an immutable source, which is not listed
    /// ([R7](docs/protocol.md#r7), [R19](docs/protocol.md#r19)).
    fn may_skip(&self, stat: &SourceStat, previous: Option<&Entry>) -> bool {
        self.shared.immutable
            && !self.rules.no_skip
            && previous.is_some_and(|previous| {
                !previous.flags.intersects(EntryFlags::REVISIT.with(EntryFlags::STALE))
                    && matches!(&previous.node, Node::Directory { meta }
                        if (meta.mtime, meta.ctime, meta.inode) == (stat.mtime, stat.ctime, stat.inode))
            })
    }

    fn leave(&mut self, levels: &mut Vec<ScanLevel>) -> Result<(), WalkError> {
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

    /// Reopens the level above, which was closed on the way down, through `..`, if that is still
    /// the same directory. Otherwise the closed levels above it cannot be reached either: each is
    /// marked as not fully seen.
    fn go_back(&mut self, done: &ScanLevel, above: &mut ScanLevel) -> Result<(), WalkError> {
        let way = done.directory.as_ref().map_or_else(
            || {
                Err(std::io::Error::other(
                    "a directory below it was moved during the scan",
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
        self.shared.task.observer.add(Counter::Failed, 1);
        self.own_node(above);
        above.node.as_ref().inspect(|node| node.mark_stale());
        // The rest of it is not seen in this run: the previous entries are kept.
        self.keep_subtree(&above.path)?;
        above.mode = ScanMode::unlisted(false);
        Ok(())
    }

    /// Gives a skipped directory an entry of its own, because it must carry flags after all.
    fn own_node(&self, level: &mut ScanLevel) {
        if level.node.is_none()
            && let Some(previous) = level.skipped.take()
        {
            let meta = previous.meta().cloned().unwrap_or_default();
            let missing = previous.missing_names();
            let previous_flags = previous.flags;
            let node =
                DirectoryNode::new(level.path.clone(), meta, Some(previous), self.has_runs());
            if previous_flags.contains(EntryFlags::MOUNT) {
                node.mark_mount();
            }
            // It was not listed: names that are missing in the previous entry are still missing.
            if let Some(why) = missing {
                node.lacks(why);
            }
            level.node = Some(Arc::new(node));
        }
    }

    /// Counts a skipped directory as the previous entry describes it.
    fn count_skipped(&self, previous: &Entry) {
        if let Some(why) = previous.missing_names() {
            self.shared.sink.count_partial(why);
        }
    }

    fn skip_below(&mut self, path: &RelPath) {
        for cursor in [&mut self.previous, &mut self.previous_directories]
            .into_iter()
            .flatten()
        {
            cursor.skip_below(path);
        }
    }

    fn keep_subtree(&mut self, path: &RelPath) -> Result<(), WalkError> {
        self.shared
            .keeps_old
            .store(true, std::sync::atomic::Ordering::Relaxed);
        for cursor in [&mut self.previous, &mut self.previous_directories]
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

    /// Takes the previous entry of `path`. Entries before it have vanished from the source, and are
    /// removed.
    fn previous_at(&mut self, path: &RelPath) -> Result<Option<Entry>, WalkError> {
        loop {
            let Some(cursor) = &mut self.previous else {
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

    fn next_listed(&mut self, level: &mut ScanLevel) -> Result<ScanStep, WalkError> {
        let (Some(directory), Some(node)) = (level.directory.clone(), level.node.clone()) else {
            return Ok(ScanStep::Leave);
        };

        loop {
            let ScanMode::Listed {
                listing,
                batch,
                new_names,
                needed,
                only_tag,
                is_closed,
            } = &mut level.mode
            else {
                return Ok(ScanStep::Stay);
            };

            let listed = ListedDirectory {
                path: &level.path,
                directory: &directory,
                node: &node,
                only_tag: *only_tag,
                is_closed: *is_closed,
            };

            // The batch is used up: list more names, or finish the directory.
            let Some((name, _)) = batch.as_slice().first() else {
                // A directory may have millions of names, and the caller checks once per step only.
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
                        self.shared.task.observer.add(Counter::Failed, 1);
                        node.mark_stale();
                        self.keep_subtree(&level.path)?;
                        *listing = None;
                        *needed = None;
                        Vec::new()
                    }
                };

                if names.is_empty() {
                    let new_names = std::mem::take(new_names);
                    self.visit_new(&directory, &level.path, new_names, &node)?;
                    match self.next_unlisted(&listed, needed, None)? {
                        UnlistedStep::End => return Ok(ScanStep::Leave),
                        UnlistedStep::Enter(step) => return Ok(step),
                        UnlistedStep::Done => continue,
                    }
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
            match self.next_unlisted(&listed, needed, Some(&path))? {
                UnlistedStep::End => {}
                UnlistedStep::Enter(step) => return Ok(step),
                UnlistedStep::Done => continue,
            }

            let Some((name, seen)) = batch.next() else {
                continue;
            };

            let previous = self.previous_at(&path)?;
            let Some(seen) = seen else {
                // Immutable: a known name is not looked at, and a new one waits to be stat'ed
                // together with others.
                if previous
                    .as_ref()
                    .is_some_and(|previous| is_settled(previous, &name))
                {
                    self.shared
                        .count(&self.shared.counts.files_unchanged, Counter::FilesUnchanged);
                } else if previous.is_none() && name.kind_hint == Some(StatKind::File) {
                    new_names.push(name);
                    if new_names.len() >= BATCH_NAMES {
                        let new_names = std::mem::take(new_names);
                        self.visit_new(&directory, &level.path, new_names, &node)?;
                    }
                } else {
                    let seen = ObservedName::at(&directory, &name.name);
                    if let Some(step) =
                        self.visit(&directory, &name.name, path, seen, previous, Some(&node))?
                    {
                        return Ok(step);
                    }
                }
                continue;
            };

            if let Some(step) =
                self.visit(&directory, &name.name, path, seen, previous, Some(&node))?
            {
                return Ok(step);
            }
        }
    }

    /// Returns the next names to be captured, with their stats if these are needed now. The result
    /// is empty at the end.
    fn next_batch(
        &self,
        node: &DirectoryNode,
        directory: &SourceDir,
        listing: &mut NameListing,
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

/// Returns true if a name of an immutable source need not be looked at: its hash was checked, or it
/// is settled, and the inode and type are the same ([R19](docs/protocol.md#r19)).
fn is_settled(previous: &Entry, name: &ListedName) -> bool {
    let open = EntryFlags::RACY
        .with(EntryFlags::STALE)
        .with(EntryFlags::TORN)
        .with(EntryFlags::PROVISIONAL);
    let Some(hash) = HashName::parse(&name.name) else {
        return false;
    };
    previous.is_file()
        && !previous.flags.intersects(open)
        && (hash.expected_sha256().is_some() || previous.flags.contains(EntryFlags::SETTLED))
        && name.kind_hint == Some(StatKind::File)
        && previous.meta().is_some_and(|meta| meta.inode == name.inode)
}
