//! Writes a window. Each frame is opened once and its pieces are written; a file is finished after
//! its last piece.

use std::collections::HashSet;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::claimed::NAME_TAKEN;
use super::compare::ComparedFile;
use super::link_group::LinkLeader;
use super::node_parts::kind_and_meta;
use super::waiting::NamelessFile;
use super::window::{HardLink, ItemAction, RestoreWindow, WindowItem};
use super::writer::{LastDir, WindowWriter};
use crate::dest::{DestDir, DestTempFile, MetaReport, MetaToSet};
use crate::error::Error;
use crate::observe::{Counter, Problem, Severity};
use crate::read::fetch::{ChunkRequest, OpenedFrame};
use crate::sys::PathError;
use crate::types::{Node, RelPath, to_u64};

/// Items without chunks that a thread takes at once.
const BATCH: usize = 32;

/// Larger files may stay open for longer than a moment.
const HELD_BYTES_MIN: u64 = 256 << 10;

/// Items and links of a window that must be written in a later one.
#[derive(Default)]
pub(super) struct OpenWrites {
    pub items: Vec<WindowItem>,
    /// Other names of these items, to be linked once they are written.
    pub links: Vec<HardLink>,
}

/// Why an item failed: an error of this item alone, or one that ends the restore.
pub(super) enum ItemError {
    Item(Severity, String),
    Fatal(Error),
}

impl From<Error> for ItemError {
    fn from(err: Error) -> Self {
        Self::Fatal(err)
    }
}

impl WindowWriter<'_> {
    /// Writes a whole window; returns the items and links for a later one.
    pub fn run(&self, window: &mut RestoreWindow) -> Result<OpenWrites, Error> {
        let items = &window.items;

        // Items that need no chunk, or whose chunks were all in earlier windows.
        let ready: Vec<&WindowItem> = items
            .iter()
            .filter(|item| item.is_planned && item.progress().left == 0)
            .collect();
        self.fetcher
            .on_all_threads(ready.len().div_ceil(BATCH), |hand: &mut LastDir, batch| {
                let end = ready.len().min((batch + 1) * BATCH);
                ready[batch * BATCH..end]
                    .iter()
                    .try_for_each(|item| self.simple(hand, item))
            })?;

        // Everything else, in the order of packs and frames.
        let mut wants = std::mem::take(&mut window.wants);
        let packs = self.fetcher.locate(&mut wants)?;
        let frames = frame_counts(&wants, items);
        while !wants.is_empty() {
            let later = self.put_off(&mut wants, items, &frames);
            self.fetcher.each_frame(
                &wants,
                &packs,
                &HashSet::new(),
                |hand: &mut LastDir, opened| self.frame(hand, items, opened),
            )?;
            wants = later;
        }
        // Links are made to names, so every file needs its name first.
        self.name_all()?;
        self.links(std::mem::take(&mut window.links))
    }

    /// Takes out the wants of files that would exceed the limit of open files; they are written in
    /// another pass.
    fn put_off(
        &self,
        wants: &mut Vec<ChunkRequest>,
        items: &[WindowItem],
        frames: &[u32],
    ) -> Vec<ChunkRequest> {
        let threads = self.job.pool.current_num_threads().max(1);
        let open_max = (self.job.limits.open_files / threads).max(1);

        let mut left: Vec<u32> = frames.to_vec();
        // 0: not begun, 1: open, 2: put off.
        let mut states = vec![0u8; items.len()];
        let mut open = 0;
        let mut ended: Vec<usize> = Vec::new();
        let mut any = false;

        for group in wants.chunk_by(|a, b| a.frame() == b.frame()) {
            for part in group.chunk_by(|a, b| a.owner == b.owner) {
                let owner = part[0].owner;
                if frames[owner] < 2 && !items[owner].is_carried {
                    continue;
                }
                if states[owner] == 0 {
                    let fits = open < open_max || items[owner].is_carried;
                    states[owner] = if fits { 1 } else { 2 };
                    open += usize::from(fits);
                    any |= !fits;
                }
                left[owner] -= 1;
                if left[owner] == 0 && states[owner] == 1 {
                    ended.push(owner);
                }
            }
            open -= ended.drain(..).count();
        }

        if !any {
            return Vec::new();
        }

        let later = wants
            .iter()
            .filter(|want| states[want.owner] == 2)
            .copied()
            .collect();
        wants.retain(|want| states[want.owner] != 2);
        later
    }

    /// Writes an item that needs no chunk, or no further chunk.
    fn simple(&self, hand: &mut LastDir, item: &WindowItem) -> Result<(), Error> {
        self.settle(item, self.try_simple(hand, item))
    }

    fn try_simple(&self, hand: &mut LastDir, item: &WindowItem) -> Result<(), ItemError> {
        let (temp, failure) = {
            let mut progress = item.progress();
            (progress.temp.take(), progress.failure.take())
        };
        if let Some((severity, why)) = failure {
            return Err(ItemError::Item(severity, why));
        }

        let name = item.path.name().unwrap_or_default();
        let dir = self
            .dir_of(hand, &item.path)
            .map_err(|err| self.trouble(&item.path, err))?;
        let dir = dir.replacing(item.rule.replace);

        if item.action != ItemAction::Write {
            return self.kept(item, &dir, name);
        }

        match &item.node {
            Node::File { .. } => {
                let temp = match temp {
                    Some(temp) => temp,
                    None => Arc::new(
                        dir.temp_file()
                            .map_err(|err| self.trouble(&item.path, err))?,
                    ),
                };
                self.finish(item, temp)
            }
            Node::Symlink { meta, target } => {
                self.apply(item, meta, |to_set| dir.symlink(name, target, to_set))
            }
            Node::Fifo { meta } => self.apply(item, meta, |to_set| dir.fifo(name, to_set)),
            Node::Socket { meta } => self.apply(item, meta, |to_set| dir.socket(name, to_set)),
            Node::Char { meta, device } => {
                self.apply(item, meta, |to_set| dir.char_device(name, *device, to_set))
            }
            Node::Block { meta, device } => {
                self.apply(item, meta, |to_set| dir.block_device(name, *device, to_set))
            }
            Node::Directory { .. } | Node::Failed { .. } | Node::Removed | Node::Unknown { .. } => {
                Ok(())
            }
        }
    }

    /// Handles an existing file that may stay: compares it if that was requested, and corrects its
    /// metadata.
    fn kept(&self, item: &WindowItem, dir: &DestDir, name: &[u8]) -> Result<(), ItemError> {
        if self.job.options.verify
            && let Node::File { content, .. } = &item.node
        {
            let trouble = |err: io::Error| {
                ItemError::Item(
                    Severity::Missing,
                    format!("the existing file cannot be compared: {err}"),
                )
            };
            let file = dir.open_existing_file(name).map_err(trouble)?;
            match self.job.compare(file, content)?.map_err(trouble)? {
                ComparedFile::Equal => self.job.tally.verified(),
                ComparedFile::Differs => return self.differs(item),
                ComparedFile::Unknown(why) => return Err(ItemError::Item(Severity::Damage, why)),
            }
        }

        match kind_and_meta(&item.node) {
            Some((kind, meta)) if item.action == ItemAction::Keep => {
                self.apply(item, meta, |to_set| dir.set_meta(name, kind, to_set))
            }
            _ => Ok(()),
        }
    }

    /// Records that a file of equal size and time has different content.
    fn differs(&self, item: &WindowItem) -> Result<(), ItemError> {
        self.job.tally.differs();
        if item.action == ItemAction::Look {
            let why = "its content differs from the snapshot's, and it was left unchanged";
            return Err(ItemError::Item(Severity::Missing, why.into()));
        }

        let why =
            "its content differed from the snapshot's, at equal size and time; it is written again";
        self.job.task.observer.problem(&Problem::new(
            Severity::Note,
            self.subject(&item.path),
            why,
        ));

        if let Some(leader) = &item.leader {
            leader.is_late.store(true, Ordering::Relaxed);
        }

        let path = item.path.clone();
        let node = item.node.clone();
        let again = WindowItem::new(
            path,
            node,
            ItemAction::Write,
            item.leader.clone(),
            item.rule,
        );
        self.differing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(again);

        item.progress().is_put_off = true;
        Ok(())
    }

    /// Calls `act` with a path's metadata, and records that the path's name belongs to this
    /// restore.
    fn apply(
        &self,
        item: &WindowItem,
        meta: &crate::types::Metadata,
        act: impl FnOnce(&MetaToSet<'_>) -> io::Result<MetaReport>,
    ) -> Result<(), ItemError> {
        let identity = self
            .with_meta(&item.path, meta, act)?
            .map_err(|err| self.trouble(&item.path, err))?;
        if item.rule.is_claim {
            self.job
                .claimed
                .add(&item.path.parent().unwrap_or_default(), identity);
        }
        Ok(())
    }

    /// Writes the pieces that an opened frame has of each file.
    fn frame(
        &self,
        hand: &mut LastDir,
        items: &[WindowItem],
        opened: &OpenedFrame<'_>,
    ) -> Result<(), Error> {
        let mut start = 0;
        for part in opened.wants.chunk_by(|a, b| a.owner == b.owner) {
            let numbers = start..start + part.len();
            start = numbers.end;

            let item = &items[part[0].owner];
            let result = self.part(hand, item, opened, numbers);

            let is_last = {
                let mut progress = item.progress();
                progress.left -= part.len();
                match result {
                    Err(ItemError::Item(severity, why)) => {
                        progress.temp = None;
                        progress.failure.get_or_insert((severity, why));
                    }
                    Err(ItemError::Fatal(err)) => return Err(err),
                    Ok(()) => {}
                }
                progress.left == 0 && item.is_planned
            };

            if is_last {
                self.simple(hand, item)?;
            }
        }
        Ok(())
    }

    /// Writes one frame's pieces of a file.
    fn part(
        &self,
        hand: &mut LastDir,
        item: &WindowItem,
        opened: &OpenedFrame<'_>,
        numbers: Range<usize>,
    ) -> Result<(), ItemError> {
        let temp = {
            let mut progress = item.progress();
            if progress.failure.is_some() {
                return Ok(());
            }
            match &progress.temp {
                Some(temp) => Arc::clone(temp),
                None => {
                    let temp = self
                        .dir_of(hand, &item.path)
                        .and_then(|dir| dir.replacing(item.rule.replace).temp_file());
                    let temp = Arc::new(temp.map_err(|err| self.trouble(&item.path, err))?);
                    if item.size > HELD_BYTES_MIN || item.is_carried || !item.is_planned {
                        temp.hold();
                    }
                    progress.temp = Some(Arc::clone(&temp));
                    temp
                }
            }
        };

        // Write adjoining pieces in one call.
        let mut from = numbers.start;
        while from < numbers.end {
            let mut to = from + 1;
            while to < numbers.end && adjoin(&opened.wants[to - 1], &opened.wants[to]) {
                to += 1;
            }

            match opened.joined(from..to) {
                Some(bytes) => self.write(item, &temp, bytes, opened.wants[from].at)?,
                None => {
                    for number in from..to {
                        let bytes = opened
                            .bytes(number)
                            .map_err(|why| ItemError::Item(Severity::Damage, why.to_owned()))?;
                        self.write(item, &temp, bytes, opened.wants[number].at)?;
                    }
                }
            }
            from = to;
        }

        Ok(())
    }

    fn write(
        &self,
        item: &WindowItem,
        temp: &DestTempFile,
        bytes: &[u8],
        at: u64,
    ) -> Result<(), ItemError> {
        temp.write_at(bytes, at)
            .map_err(|err| self.trouble(&item.path, err))?;
        if self.job.options.verify {
            let mut back = vec![0; bytes.len()];
            let len = temp
                .read_at(&mut back, at)
                .map_err(|err| self.trouble(&item.path, err))?;
            if len != bytes.len() || back != bytes {
                return Err(ItemError::Item(
                    Severity::Missing,
                    "the written data reads back differently".into(),
                ));
            }
        }
        self.job
            .task
            .observer
            .add(Counter::BytesRead, to_u64(bytes.len()));
        Ok(())
    }

    /// Finishes a file whose content is written: sets its length and metadata, and gives it its
    /// name.
    fn finish(&self, item: &WindowItem, temp: Arc<DestTempFile>) -> Result<(), ItemError> {
        let Node::File { meta, .. } = &item.node else {
            return Ok(());
        };
        // Every other thread has dropped its handle: `left` is counted down after the last write.
        let temp = Arc::into_inner(temp).ok_or_else(|| {
            ItemError::Item(
                Severity::Missing,
                "another thread is still writing it".into(),
            )
        })?;

        for (at, bytes) in &item.literals {
            self.write(item, &temp, bytes, *at)?;
        }
        if item.data_end < item.size {
            temp.set_len(item.size)
                .map_err(|err| self.trouble(&item.path, err))?;
        }

        // The file must be durable before it gets its name.
        if self.job.options.overwrite.trusts_names() {
            let mut whole = None;
            let done = self.with_meta(&item.path, meta, |to_set| {
                let (report, file) = temp.complete(to_set)?;
                whole = Some(file);
                Ok(report)
            })?;
            let identity = done.map_err(|err| self.trouble(&item.path, err))?;
            if let Some(file) = whole {
                item.progress().is_put_off = true;
                self.keep_nameless(NamelessFile::new(item, file, identity))?;
            }
            return Ok(());
        }

        let name = item.path.name().unwrap_or_default();
        let mut unsettled = None;
        self.apply(item, meta, |to_set| {
            let (report, file) = temp.persist_unsettled(name, to_set)?;
            unsettled = file;
            Ok(report)
        })?;

        if let Some(mut file) = unsettled {
            // No other process can reach a directory that this restore has made.
            file.is_shared = item.rule.is_claim;
            self.waiting
                .push(&item.path, &file, item.size)
                .map_err(Error::from)?;
        }
        Ok(())
    }

    /// Counts a finished item, or reports why it failed.
    fn settle(&self, item: &WindowItem, result: Result<(), ItemError>) -> Result<(), Error> {
        match result {
            Ok(()) if item.progress().is_put_off => {}
            Ok(()) if item.action != ItemAction::Write => self.job.tally.unchanged(),
            Ok(()) => {
                let is_file = matches!(item.node, Node::File { .. });
                self.written(&item.path, item.size, is_file);
            }
            Err(trouble) => self.came_to_nothing(&item.path, item.leader.as_deref(), trouble)?,
        }
        Ok(())
    }

    /// Counts a written path. With `--verify` its content has been read back.
    pub(super) fn written(&self, path: &RelPath, size: u64, is_file: bool) {
        self.job.tally.file_written(size);
        if is_file && self.job.options.verify {
            self.job.tally.verified();
        }
        if self.job.task.observer.wants_detail() {
            self.job
                .task
                .observer
                .detail("restored", &self.subject(path));
        }
    }

    /// Reports why a path could not be restored, or ends the restore.
    pub(super) fn came_to_nothing(
        &self,
        path: &RelPath,
        leader: Option<&LinkLeader>,
        trouble: ItemError,
    ) -> Result<(), Error> {
        match trouble {
            ItemError::Fatal(err) => Err(err),
            ItemError::Item(severity, why) => {
                if let Some(leader) = leader {
                    leader.has_failed.store(true, Ordering::Relaxed);
                }
                self.job.tally.fail(severity, self.subject(path), &why);
                Ok(())
            }
        }
    }

    /// Makes further names of written files. Returns names that could not be linked as items, to be
    /// written as separate files.
    fn links(&self, links: Vec<HardLink>) -> Result<OpenWrites, Error> {
        let items = std::mem::take(
            &mut *self
                .differing
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );

        let mut left = OpenWrites {
            items,
            links: Vec::new(),
        };

        for link in links {
            self.job.task.check()?;
            if link.leader.is_late.load(Ordering::Relaxed) {
                left.links.push(link);
                continue;
            }
            let done = if link.leader.has_failed.load(Ordering::Relaxed) {
                Err(io::ErrorKind::NotFound.into())
            } else {
                self.link(&link)
            };
            match done {
                Ok(true) => self.job.tally.linked(),
                Ok(false) => self.job.tally.unchanged(),
                Err(_) => left.items.push(link.apart()),
            }
        }
        // The next window writes these items, and their links after them.
        for item in &left.items {
            item.leader
                .iter()
                .for_each(|leader| leader.is_late.store(false, Ordering::Relaxed));
        }
        Ok(left)
    }

    /// Links a name to its leader. Returns false if both are names of one file already.
    fn link(&self, link: &HardLink) -> io::Result<bool> {
        let parent = |path: &RelPath| path.parent().unwrap_or_default();
        let dir = self.tree.directory(&parent(&link.path))?;
        let from = self.tree.directory(&parent(&link.leader.path))?;
        let name = link.path.name().unwrap_or_default();
        let from_name = link.leader.path.name().unwrap_or_default();

        if link.may_exist
            && let (Some(here), Some(there)) = (dir.stat(name)?, from.stat(from_name)?)
            && (here.device, here.inode) == (there.device, there.inode)
        {
            return Ok(false);
        }

        dir.replacing(link.rule.replace)
            .hard_link(name, &from, from_name)?;

        if link.rule.is_claim
            && let Some(here) = dir.stat(name)?
        {
            self.job
                .claimed
                .add(&parent(&link.path), (here.device, here.inode));
        }

        Ok(true)
    }

    /// Classifies an error of the target: a full or failing disk ends the restore.
    pub(super) fn trouble(&self, path: &RelPath, err: io::Error) -> ItemError {
        if is_fatal(&err) {
            let path = PathBuf::from(self.subject(path).text());
            return ItemError::Fatal(Error::Path(PathError {
                action: "restore",
                path,
                source: err,
            }));
        }
        let dir = path
            .parent()
            .and_then(|parent| self.tree.directory(&parent).ok());
        let why = why_refused(&err, dir.as_ref(), path.name().unwrap_or_default());
        ItemError::Item(Severity::Missing, format!("cannot be written: {why}"))
    }
}

/// Returns true for errors that every other path would meet too.
pub(super) fn is_fatal(err: &io::Error) -> bool {
    matches!(
        err.kind(),
        io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::ReadOnlyFilesystem
    )
}

/// Returns the reason of an error of the target, as far as it is known.
pub(super) fn why_refused(err: &io::Error, dir: Option<&DestDir>, name: &[u8]) -> String {
    if err.kind() == io::ErrorKind::AlreadyExists {
        return NAME_TAKEN.to_owned();
    }
    if err.kind() == io::ErrorKind::ResourceBusy {
        return format!("something is mounted on it, or a program is using it: {err}");
    }

    if err.raw_os_error() == Some(rustix::io::Errno::PERM.raw_os_error())
        && let Some((flag, is_dir)) = dir.and_then(|dir| dir.locked_by_flag(name))
    {
        let what = if is_dir {
            "its directory"
        } else {
            "the existing file"
        };
        let flag_name = if flag == 'i' {
            "immutable"
        } else {
            "append-only"
        };
        return format!(
            "the {flag_name} flag (chattr +{flag}) is set on {what}; clear it with 'chattr -{flag}'"
        );
    }

    err.to_string()
}

/// Returns true if `next` directly follows `want` in their file.
fn adjoin(want: &ChunkRequest, next: &ChunkRequest) -> bool {
    want.at + u64::from(want.len) == next.at
}

/// Returns the number of frames that hold chunks of each item.
fn frame_counts(wants: &[ChunkRequest], items: &[WindowItem]) -> Vec<u32> {
    let mut counts = vec![0; items.len()];
    for part in wants.chunk_by(|a, b| a.frame() == b.frame() && a.owner == b.owner) {
        counts[part[0].owner] += 1;
    }
    counts
}
