//! Walks the restored entries of one source in path order. Directories are made at once; everything
//! else is collected in windows.

use std::io;
use std::sync::{Mutex, PoisonError};

use super::execute::{is_fatal, why_refused};
use super::link_group::LinkMembership;
use super::node_parts::{kind_and_meta, size_of};
use super::options::OverwriteRule;
use super::shared::{has_other_names, shares_metadata};
use super::waiting::WaitingFiles;
use super::walk::{LevelState, RestoreWalk};
use super::window::{HardLink, ItemAction, ItemRule, WindowItem};
use super::writer::WindowWriter;
use crate::dest::{FoundEntry, InUse, KeptNames, ReplaceRule};
use crate::error::Error;
use crate::observe::{PlannedVerb, Severity};
use crate::read::content::ContentReader;
use crate::read::fetch::{ChunkRequest, is_of_one_object, with_sources};
use crate::repo::MergedRuns;
use crate::types::{
    Content, Entry, EntryFlags, EntryKind, Extent, Metadata, Node, RelPath, to_u64,
};

/// Why an entry whose content does not match its name does not replace a file whose content does.
const KEPT_WHOLE: &str = "the snapshot's content does not match the name; the existing file's does, and was left unchanged";

impl RestoreWalk<'_> {
    /// Restores the source. `first` is the entry at the restored path, if it can be read.
    pub fn run(mut self, first: Option<Entry>) -> Result<(), Error> {
        self.execution = self.place.tree.as_ref().map(|tree| WindowWriter {
            job: self.job,
            tree,
            fetcher: self.job.fetcher(),
            source: &self.source.name,
            place: self.place,
            sub: self.sub.clone(),
            waiting: WaitingFiles::new(&self.job.repo.scratch_dir(), self.job.sorter_bytes / 3),
            differing: Mutex::default(),
        });

        if let (Some(tree), false) = (&self.place.tree, self.job.options.dry_run) {
            let unlocked = tree.unlock_root();
            self.root_mode =
                unlocked.map_err(|err| self.path_error("restore into", &self.sub, err))?;
        }

        self.select_from_above();
        self.clear_beside_a_file(first.as_ref())?;
        self.look_above()?;

        let mut next = first;
        loop {
            self.keep_session()?;
            if next.is_none() {
                let Some(runs) = &mut self.runs else { break };
                next = runs.next_entry()?;
            }
            let Some(entry) = next.take() else { break };
            if entry.path != self.sub && !entry.path.is_below(&self.sub) {
                break;
            }
            self.entry(entry)?;
        }

        *self
            .job
            .unmatched
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = std::mem::take(&mut self.unmatched);

        self.flush_all()?;
        self.settle()?;

        // Where a page of the runs is unreadable, nothing may be deleted.
        let mut is_certain = true;
        for lost in self
            .runs
            .as_mut()
            .map(MergedRuns::take_uncertain)
            .unwrap_or_default()
        {
            self.job.tally.uncertain(&self.source.name, lost);
            is_certain = false;
        }

        self.delete(is_certain)?;

        // Deletions change the times of directories, so these get their metadata last.
        self.finish_directories()?;
        self.finish_durably()
    }

    fn entry(&mut self, entry: Entry) -> Result<(), Error> {
        let Entry {
            mut path,
            mut flags,
            mut node,
        } = entry;
        if self.leaf.as_ref().is_some_and(|leaf| path.is_below(leaf)) {
            self.fail(
                Severity::Damage,
                &path,
                "the snapshot has it below something that is not a directory",
            );
            return Ok(());
        }

        let is_directory = matches!(node, Node::Directory { .. });
        if self.exclude.excludes(&path, is_directory) {
            if is_directory {
                self.skip_below(&path);
            }
            return Ok(());
        }

        self.unmatched.note(&path, is_directory);
        self.leave_levels(&path);
        if is_directory
            && flags.contains(EntryFlags::STALE)
            && !self.is_stale(&path, EntryFlags::empty())
        {
            self.stale = Some(path.clone());
        }

        if !self.selects(&path, is_directory) {
            if let Node::Directory { meta } = node {
                self.push_level(&path, LevelState::Pending(Box::new(meta)));
            }
            return Ok(());
        }
        if !is_directory && let Some(select) = &self.job.options.select {
            let entry = Entry { path, flags, node };
            if !select.wants(&entry)? {
                return Ok(());
            }
            (path, flags, node) = (entry.path, entry.flags, entry.node);
        }

        self.job.tally.add_entry();
        let incomplete = |why: &str| self.job.tally.incomplete(self.subject(&path), why);

        if self.job.is_repaired && flags.intersects(EntryFlags::STALE.with(EntryFlags::TORN)) {
            incomplete("a repair left out part of it, or the backup could not read all of it");
        } else if flags.contains(EntryFlags::STALE) {
            incomplete(
                "it or its attributes could not be read when it was backed up: this is an older state, or lacks the attributes",
            );
        } else if flags.contains(EntryFlags::TORN) {
            incomplete("it changed while it was backed up: it may never have had this content");
        }

        match node {
            Node::Directory { meta } => self.directory(&path, &meta, flags),
            Node::Failed { reason } => {
                incomplete(&format!("the snapshot lacks it: {reason}"));
                Ok(())
            }
            Node::Unknown { kind, .. } => {
                incomplete(&format!("its kind ({kind}) needs a newer icecore"));
                Ok(())
            }
            Node::Removed => Ok(()),
            node => {
                self.leaf = Some(path.clone());
                let result = self.leaf_item(&path, node, flags);
                if self.window.is_full(&self.job.limits) {
                    self.flush()?;
                }
                result?;
                self.write_apart()
            }
        }
    }

    /// Selects the whole restored path if a pattern matches a directory above it.
    fn select_from_above(&mut self) {
        let Some(include) = &self.include else { return };
        let mut above = self.sub.parent();
        while let Some(directory) = above {
            self.unmatched.note(&directory, true);
            above = directory.parent();
            if self.selected.is_none() && include.excludes(&directory, true) {
                self.selected = Some(directory);
            }
        }
    }

    fn selects(&mut self, path: &RelPath, is_directory: bool) -> bool {
        let Some(include) = &self.include else {
            return true;
        };
        if self
            .selected
            .as_ref()
            .is_some_and(|directory| path.is_below(directory))
        {
            return true;
        }
        // The filter follows gitignore's rules: the paths that it would exclude are those that the
        // patterns match.
        let matches = include.excludes(path, is_directory);
        if matches && is_directory {
            self.selected = Some(path.clone());
        }
        matches
    }

    pub(super) fn skip_below(&mut self, path: &RelPath) {
        if let (Some(runs), Some(after)) = (&mut self.runs, path.after_subtree()) {
            runs.seek(&after);
        }
    }

    fn leaf_item(&mut self, path: &RelPath, node: Node, flags: EntryFlags) -> Result<(), Error> {
        let ready = self.reach_parent(path).and_then(|()| {
            let target = self.target_of(path)?;
            let existing = self.existing(path, &target)?;
            Ok((target, existing))
        });
        let (target, existing) = match ready {
            Ok(ready) => ready,
            Err(err) => return self.refuse(path, &err, ""),
        };

        let is_claim = !self.is_fresh(path);
        let mut rule = ItemRule {
            replace: ReplaceRule::found(existing.as_ref()),
            is_claim,
        };

        let action = match &existing {
            None => ItemAction::Write,
            Some(found) if self.is_newer_here(found, &node, &target) => {
                if self.looks(path, found, &node) {
                    ItemAction::Look
                } else {
                    return Ok(());
                }
            }
            Some(found) if self.leaves(found, &node) => {
                if self.looks(path, found, &node) {
                    ItemAction::Look
                } else {
                    return Ok(());
                }
            }
            Some(found)
                if flags.contains(EntryFlags::PROVISIONAL)
                    && self.is_what_its_name_says(found, &target)? =>
            {
                self.job.tally.incomplete(self.subject(path), KEPT_WHOLE);
                return Ok(());
            }
            Some(found) if found.kind == Some(EntryKind::Directory) => {
                if let Err(err) = self.clear_directory(path, &target, flags) {
                    return self.refuse(path, &err, ": a directory is in its place");
                }
                rule.replace = ReplaceRule::Nothing;
                ItemAction::Write
            }
            Some(found)
                if self.is_same(found, &node, &target)
                    && self.shared_inodes.may_keep(found, &node) =>
            {
                ItemAction::Keep
            }
            Some(found) => {
                if let Err(reason) = self.job.protection.check(found) {
                    return self.refuse(path, &reason.into(), "");
                }
                ItemAction::Write
            }
        };

        if flags.contains(EntryFlags::PROVISIONAL) && action == ItemAction::Write {
            self.job.tally.provisional();
        }

        if self.job.options.dry_run {
            return self.preview_item(path, &target, &node, action, existing.as_ref());
        }

        let leader = match self.group(&target, &node) {
            _ if action == ItemAction::Look => None,
            LinkMembership::Follower(leader) => {
                let may_exist = existing.is_some();
                self.window.push_link(HardLink {
                    path: target,
                    leader,
                    node,
                    may_exist,
                    rule,
                });
                return Ok(());
            }
            LinkMembership::Leader(leader) => Some(leader),
            LinkMembership::Alone => None,
        };

        self.add(WindowItem::new(target, node, action, leader, rule))
    }

    /// Returns the existing file at a path. A directory that this restore made is known to be
    /// empty.
    fn existing(&mut self, path: &RelPath, target: &RelPath) -> io::Result<Option<FoundEntry>> {
        if self.is_fresh(path) {
            return Ok(None);
        }
        let Some(dir) = self.parent_dir(target)? else {
            return Ok(None);
        };
        let name = target.name().unwrap_or_default();
        let parent = target.parent().unwrap_or_default();
        let is_twice = self.job.claimed.add_name(&parent, name);
        let found = dir.stat(name)?;
        if let Some(found) = &found {
            self.job
                .claimed
                .claim(&parent, &dir, name, found, is_twice)?;
        }
        Ok(found)
    }

    /// Removes a directory that is in the way of an entry of another kind. Only an empty one is
    /// removed, or with `--delete` the whole tree, unless patterns keep some of it or the snapshot
    /// shows an older state and does not know its contents.
    fn clear_directory(
        &mut self,
        path: &RelPath,
        target: &RelPath,
        flags: EntryFlags,
    ) -> io::Result<()> {
        let Some(dir) = self.parent_dir(target)? else {
            return Ok(());
        };

        let name = target.name().unwrap_or_default();
        let options = self.job.options;
        let may_empty =
            options.deletes() && options.exclude.is_empty() && self.is_accounted_for(path, flags);

        if options.dry_run {
            // Fails if the removal would fail.
            let below = dir.open_directory(name)?;
            if !may_empty {
                below.names(|_, _| Err(io::ErrorKind::DirectoryNotEmpty.into()))?;
            }
            self.would(PlannedVerb::Delete, path, None, None);
            return Ok(());
        }

        if may_empty {
            let removed = dir.remove_tree(name, &mut |_, _| false)?;
            if removed.names > 0 {
                self.job.tally.deleted();
            }
            return match removed.kept {
                None => Ok(()),
                Some((_, KeptNames::InUse(what))) => Err(InUse { what }.into()),
                Some(_) => Err(io::Error::other("something is mounted below it")),
            };
        }

        dir.remove(name, true)
    }

    /// Returns true if the existing file is left as it is, regardless of the snapshot's.
    fn leaves(&self, found: &FoundEntry, node: &Node) -> bool {
        let both_files = found.kind == Some(EntryKind::File) && matches!(node, Node::File { .. });
        match self.job.options.overwrite {
            OverwriteRule::Never => true,
            OverwriteRule::IfSizeDiffers => !both_files || found.size == size_of(node),
            OverwriteRule::Always | OverwriteRule::IfChanged | OverwriteRule::IfNewer => false,
        }
    }

    /// Returns true if the existing file is left because the snapshot's is not newer.
    fn is_newer_here(&mut self, found: &FoundEntry, node: &Node, target: &RelPath) -> bool {
        let is_newer = self.job.options.overwrite == OverwriteRule::IfNewer
            && kind_and_meta(node).is_some_and(|(_, meta)| found.mtime >= meta.mtime)
            && !self.is_same(found, node, target);
        if is_newer {
            self.job.tally.newer_here();
        }
        is_newer
    }

    /// Returns true if the existing file need not be written again.
    fn is_same(&mut self, found: &FoundEntry, node: &Node, target: &RelPath) -> bool {
        if !matches!(
            self.job.options.overwrite,
            OverwriteRule::IfChanged | OverwriteRule::IfNewer
        ) {
            return false;
        }

        match node {
            Node::File { meta, content } => {
                found.kind == Some(EntryKind::File)
                    && found.size == content.size
                    && found.has_mtime(meta.mtime)
                    && !shares_metadata(found, meta)
                    && !self.shares_attributes(found, meta, target)
            }
            Node::Symlink { target: to, .. } => {
                let name = target.name().unwrap_or_default();
                found.kind == Some(EntryKind::Symlink)
                    && self.parent_dir(target).is_ok_and(|dir| {
                        dir.is_some_and(|dir| dir.read_link(name).is_ok_and(|held| held == *to))
                    })
            }
            Node::Fifo { .. } => found.kind == Some(EntryKind::Fifo),
            Node::Socket { .. } => found.kind == Some(EntryKind::Socket),
            Node::Char { device, .. } => {
                found.kind == Some(EntryKind::Char) && found.rdev == *device
            }
            Node::Block { device, .. } => {
                found.kind == Some(EntryKind::Block) && found.rdev == *device
            }
            Node::Directory { .. } | Node::Failed { .. } | Node::Removed | Node::Unknown { .. } => {
                false
            }
        }
    }

    /// Returns true if an existing file has more names than the snapshot's, and the restore may set
    /// or remove extended attributes on it. That would change the other names too.
    fn shares_attributes(&mut self, found: &FoundEntry, meta: &Metadata, target: &RelPath) -> bool {
        if !has_other_names(found, meta) {
            return false;
        }
        let name = target.name().unwrap_or_default();
        !meta.xattrs.is_empty()
            || self
                .parent_dir(target)
                .ok()
                .flatten()
                .is_none_or(|dir| dir.may_have_xattrs(name))
    }

    /// Adds an item to the window, with requests for its chunks.
    fn add(&mut self, mut item: WindowItem) -> Result<(), Error> {
        let content = match &mut item.node {
            // A kept file needs its content, to be compared.
            Node::File { content, .. } if item.action == ItemAction::Write => {
                std::mem::take(content)
            }
            _ => Content::default(),
        };

        if content.extents.is_empty() {
            self.window.push(item);
            return Ok(());
        }

        item.size = content.size;
        item.is_planned = false;
        let mut number = self.window.push(item);

        let mut extents = ContentReader::new(self.job.reader, &content);
        let mut at = 0;
        loop {
            let extent = match extents.next_extent() {
                Ok(Some(extent)) => extent,
                Ok(None) => break,
                Err(err) if is_of_one_object(&err) => {
                    self.window.items[number].progress().failure =
                        Some((Severity::Damage, with_sources(&err)));
                    break;
                }
                Err(err) => return Err(err.into()),
            };

            let len = extent.len();
            match extent {
                Extent::Chunk { id, len } => {
                    if self.window.is_full(&self.job.limits) {
                        self.flush()?;
                        number = 0;
                    }
                    self.window
                        .push_want(ChunkRequest::new(id, len, number, at));
                    let item = &mut self.window.items[number];
                    item.progress().left += 1;
                    item.data_end = at + u64::from(len);
                }
                Extent::Literal(bytes) => {
                    let item = &mut self.window.items[number];
                    item.data_end = at + to_u64(bytes.len());
                    item.literals.push((at, bytes));
                }
                Extent::Hole { .. } | Extent::List { .. } => {}
            }

            at += len;
        }

        self.window.items[number].is_planned = true;
        Ok(())
    }

    /// Renews the session's lease if that is due. The chunks of the current window are looked up
    /// when it is written.
    fn keep_session(&self) -> Result<(), Error> {
        if self.job.session.keep()?
            && let Some(execution) = &self.execution
        {
            execution.fetcher.index_was_updated();
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.keep_session()?;
        let Some(execution) = &self.execution else {
            return Ok(());
        };
        if !self.window.is_empty() {
            let mut window = std::mem::take(&mut self.window);
            let left = execution.run(&mut window)?;
            self.apart.extend(left.items);
            self.late_links.extend(left.links);
            self.window = window.next();
        }
        self.settle_if_due()
    }

    /// Adds the items and links that earlier windows have left to the current window.
    fn write_apart(&mut self) -> Result<(), Error> {
        while let Some(item) = self.apart.pop() {
            self.add(item)?;
        }
        for link in std::mem::take(&mut self.late_links) {
            self.window.push_link(link);
            if self.window.is_full(&self.job.limits) {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush_all(&mut self) -> Result<(), Error> {
        self.flush()?;
        while !self.apart.is_empty() || !self.late_links.is_empty() {
            self.write_apart()?;
            self.flush()?;
        }
        Ok(())
    }

    /// Reports a path that the target refuses. Ends the restore if every other path would fail too.
    pub(super) fn refuse(&self, path: &RelPath, err: &io::Error, more: &str) -> Result<(), Error> {
        if is_fatal(err) {
            let err = io::Error::new(err.kind(), err.to_string());
            return Err(self.path_error("restore", path, err));
        }
        let why = self.why(path, err);
        self.fail(
            Severity::Missing,
            path,
            &format!("cannot be written{more}: {why}"),
        );
        Ok(())
    }

    pub(super) fn refuse_deletion(&self, path: &RelPath, err: &io::Error) -> Result<(), Error> {
        let why = self.why(path, err);
        self.fail(
            Severity::Missing,
            path,
            &format!("cannot be deleted: {why}"),
        );
        Ok(())
    }

    fn why(&self, path: &RelPath, err: &io::Error) -> String {
        let target = self.target_of(path).unwrap_or_default();
        let parent = target.parent().zip(self.place.tree.as_ref());
        let dir = parent.and_then(|(parent, tree)| tree.directory(&parent).ok());
        why_refused(err, dir.as_ref(), target.name().unwrap_or_default())
    }
}
