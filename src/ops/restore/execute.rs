//! Executing a window: frames are opened once and their pieces written, files finished when their last piece is.

use std::collections::HashSet;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Job;
use super::place::Place;
use super::window::{Action, Item, Link, Window};
use crate::error::Error;
use crate::observe::{Counter, Severity};
use crate::ops::fetch::{Fetcher, Opened, Want};
use crate::sys::PathError;
use crate::target::{Dir, MetaToSet, TempFile, Tree};
use crate::types::{EntryKind, Node, RelPath};

/// Items without wants that a thread takes at once.
const BATCH: usize = 32;

/// Writes windows of one source into its place.
pub(super) struct Execution<'a> {
    pub job: &'a Job<'a>,
    pub tree: &'a Tree,
    pub fetcher: Fetcher<'a>,
    /// The source's name, and where its root and the target's lie, to tell paths as people know them.
    pub source: &'a str,
    pub place: &'a Place,
    pub sub: RelPath,
}

/// What a thread keeps from item to item: the folder that it wrote to last.
#[derive(Default)]
struct Hand(Option<(Vec<u8>, Dir)>);

/// Why an item came to nothing: the item's own affair, or the end of the restore.
enum Trouble {
    Item(Severity, String),
    Fatal(Error),
}

impl From<Error> for Trouble {
    fn from(err: Error) -> Self {
        Self::Fatal(err)
    }
}

impl Execution<'_> {
    /// Does all that a window holds; returns links that must be written as files of their own.
    pub fn run(&self, window: &mut Window) -> Result<Vec<Link>, Error> {
        let items = &window.items;
        let ready: Vec<u32> = (0..items.len() as u32)
            .filter(|&n| items[n as usize].is_planned && items[n as usize].progress().left == 0)
            .collect();
        self.fetcher.on_all_threads(ready.len().div_ceil(BATCH), |hand: &mut Hand, batch| {
            let end = ready.len().min((batch + 1) * BATCH);
            ready[batch * BATCH..end].iter().try_for_each(|&n| self.simple(hand, &items[n as usize]))
        })?;
        let mut wants = std::mem::take(&mut window.wants);
        let packs = self.fetcher.locate(&mut wants)?;
        let frames = frame_counts(&wants, items);
        while !wants.is_empty() {
            let later = self.put_off(&mut wants, items, &frames);
            self.fetcher.each_frame(&wants, &packs, &HashSet::new(), |hand: &mut Hand, opened| {
                self.frame(hand, items, opened)
            })?;
            wants = later;
        }
        self.links(std::mem::take(&mut window.links))
    }

    /// Takes out the wants of files that would be open beside too many others; they come in a pass of their own.
    fn put_off(&self, wants: &mut Vec<Want>, items: &[Item], frames: &[u32]) -> Vec<Want> {
        let threads = self.job.pool.current_num_threads().max(1);
        let open_max = (self.job.limits.open_files / threads).max(1);
        let mut left: Vec<u32> = frames.to_vec();
        // Not begun, open, put off.
        let mut states = vec![0u8; items.len()];
        let mut open = 0;
        let mut ended: Vec<u32> = Vec::new();
        let mut any = false;
        for group in wants.chunk_by(|a, b| a.frame() == b.frame()) {
            for part in group.chunk_by(|a, b| a.owner == b.owner) {
                let owner = part[0].owner as usize;
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
                    ended.push(part[0].owner);
                }
            }
            open -= ended.drain(..).count();
        }
        if !any {
            return Vec::new();
        }
        let later = wants.iter().filter(|want| states[want.owner as usize] == 2).copied().collect();
        wants.retain(|want| states[want.owner as usize] != 2);
        later
    }

    /// An item that needs no chunk, or none any more.
    fn simple(&self, hand: &mut Hand, item: &Item) -> Result<(), Error> {
        self.settle(item, self.try_simple(hand, item))
    }

    fn try_simple(&self, hand: &mut Hand, item: &Item) -> Result<(), Trouble> {
        let (temp, failure) = {
            let mut progress = item.progress();
            (progress.temp.take(), progress.failure.take())
        };
        if let Some((severity, why)) = failure {
            return Err(Trouble::Item(severity, why));
        }
        let name = item.path.name().unwrap_or_default();
        let dir = self.folder_of(hand, &item.path)?;
        if item.action == Action::Keep {
            let Some((kind, meta)) = kind_and_meta(&item.node) else { return Ok(()) };
            return self.apply(item, meta, |to_set| dir.set_meta(name, kind, to_set));
        }
        match &item.node {
            Node::File { .. } => {
                let temp = match temp {
                    Some(temp) => temp,
                    None => Arc::new(dir.temp_file().map_err(|err| self.trouble(&item.path, err))?),
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
            Node::Folder { .. } | Node::Failed { .. } | Node::Removed | Node::Unknown { .. } => Ok(()),
        }
    }

    fn apply(
        &self,
        item: &Item,
        meta: &crate::types::Metadata,
        act: impl FnOnce(&MetaToSet<'_>) -> io::Result<crate::target::MetaReport>,
    ) -> Result<(), Trouble> {
        self.with_meta(&item.path, meta, act)?.map_err(|err| self.trouble(&item.path, err))
    }

    /// A frame was opened: what it holds of each file is written.
    fn frame(&self, hand: &mut Hand, items: &[Item], opened: &Opened<'_>) -> Result<(), Error> {
        let mut start = 0;
        for part in opened.wants.chunk_by(|a, b| a.owner == b.owner) {
            let numbers = start..start + part.len();
            start = numbers.end;
            let item = &items[part[0].owner as usize];
            let result = self.part(hand, item, opened, numbers);
            let is_last = {
                let mut progress = item.progress();
                progress.left -= part.len() as u32;
                match result {
                    Err(Trouble::Item(severity, why)) => {
                        progress.temp = None;
                        progress.failure.get_or_insert((severity, why));
                    }
                    Err(Trouble::Fatal(err)) => return Err(err),
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
        hand: &mut Hand,
        item: &Item,
        opened: &Opened<'_>,
        numbers: Range<usize>,
    ) -> Result<(), Trouble> {
        let temp = {
            let mut progress = item.progress();
            if progress.failure.is_some() {
                return Ok(());
            }
            match &progress.temp {
                Some(temp) => Arc::clone(temp),
                None => {
                    let dir = self.folder_of(hand, &item.path)?;
                    let temp = Arc::new(dir.temp_file().map_err(|err| self.trouble(&item.path, err))?);
                    progress.temp = Some(Arc::clone(&temp));
                    temp
                }
            }
        };
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
                            .map_err(|why| Trouble::Item(Severity::Damage, why.to_owned()))?;
                        self.write(item, &temp, bytes, opened.wants[number].at)?;
                    }
                }
            }
            from = to;
        }
        Ok(())
    }

    fn write(&self, item: &Item, temp: &TempFile, bytes: &[u8], at: u64) -> Result<(), Trouble> {
        temp.write_at(bytes, at).map_err(|err| self.trouble(&item.path, err))?;
        if self.job.options.verify {
            let mut back = vec![0; bytes.len()];
            let len = temp.read_at(&mut back, at).map_err(|err| self.trouble(&item.path, err))?;
            if len != bytes.len() || back != bytes {
                return Err(Trouble::Item(
                    Severity::Missing,
                    "what was written reads back differently".into(),
                ));
            }
        }
        self.job.observer.add(Counter::BytesRead, bytes.len() as u64);
        Ok(())
    }

    /// Everything of a file is written: length, metadata, name.
    fn finish(&self, item: &Item, temp: Arc<TempFile>) -> Result<(), Trouble> {
        let Node::File { meta, .. } = &item.node else { return Ok(()) };
        // All others have let go: `left` is counted down after the last write.
        let temp = Arc::into_inner(temp)
            .ok_or_else(|| Trouble::Item(Severity::Missing, "another thread still writes it".into()))?;
        for (at, bytes) in &item.literals {
            self.write(item, &temp, bytes, *at)?;
        }
        if item.data_end < item.size {
            temp.set_len(item.size).map_err(|err| self.trouble(&item.path, err))?;
        }
        let name = item.path.name().unwrap_or_default();
        self.apply(item, meta, |to_set| temp.persist(name, to_set))
    }

    /// Counts an item that is done, or reports why it is not.
    fn settle(&self, item: &Item, result: Result<(), Trouble>) -> Result<(), Error> {
        match result {
            Ok(()) if item.action == Action::Keep => self.job.tally.unchanged(),
            Ok(()) => {
                self.job.tally.file_written(item.size);
                if self.job.observer.wants_detail() {
                    self.job.observer.detail("restored", &self.subject(&item.path));
                }
            }
            Err(Trouble::Fatal(err)) => return Err(err),
            Err(Trouble::Item(severity, why)) => {
                if let Some(leader) = &item.leader {
                    leader.has_failed.store(true, Ordering::Relaxed);
                }
                self.job.tally.fail(severity, &self.subject(&item.path), &why);
            }
        }
        Ok(())
    }

    /// Makes other names of files that are written; those that cannot be are returned.
    fn links(&self, links: Vec<Link>) -> Result<Vec<Link>, Error> {
        let mut apart = Vec::new();
        for link in links {
            self.job.cancel.check()?;
            if link.leader.has_failed.load(Ordering::Relaxed) {
                apart.push(link);
                continue;
            }
            match self.link(&link) {
                Ok(true) => self.job.tally.linked(),
                Ok(false) => self.job.tally.unchanged(),
                Err(_) => apart.push(link),
            }
        }
        Ok(apart)
    }

    /// False if the names belong together already.
    fn link(&self, link: &Link) -> io::Result<bool> {
        let parent = |path: &RelPath| path.parent().unwrap_or_default();
        let dir = self.tree.folder(&parent(&link.path))?;
        let from = self.tree.folder(&parent(&link.leader.path))?;
        let (name, from_name) =
            (link.path.name().unwrap_or_default(), link.leader.path.name().unwrap_or_default());
        if link.may_exist
            && let (Some(here), Some(there)) = (dir.stat(name)?, from.stat(from_name)?)
            && (here.device, here.inode) == (there.device, there.inode)
        {
            return Ok(false);
        }
        dir.hard_link(name, &from, from_name)?;
        Ok(true)
    }

    fn folder_of(&self, hand: &mut Hand, path: &RelPath) -> Result<Dir, Trouble> {
        let key = path.key();
        let parent = &key[..key.iter().rposition(|&b| b == 0).unwrap_or(0)];
        if let Hand(Some((held, dir))) = hand
            && held == parent
        {
            return Ok(dir.clone());
        }
        let dir =
            self.tree.folder(&path.parent().unwrap_or_default()).map_err(|err| self.trouble(path, err))?;
        *hand = Hand(Some((parent.to_vec(), dir.clone())));
        Ok(dir)
    }

    /// Sorts an error of the target: a full or failing disk ends the restore.
    fn trouble(&self, path: &RelPath, err: io::Error) -> Trouble {
        if is_fatal(&err) {
            let path = PathBuf::from(self.subject(path));
            return Trouble::Fatal(Error::Path(PathError { action: "restore", path, source: err }));
        }
        Trouble::Item(Severity::Missing, format!("cannot be written: {err}"))
    }

    /// A path of the target as people know it: `SOURCE/PATH`.
    pub fn subject(&self, path: &RelPath) -> String {
        subject(self.source, &self.place.source_of(&self.sub, path))
    }
}

/// True for what will meet every other path too.
pub(super) fn is_fatal(err: &io::Error) -> bool {
    matches!(
        err.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::ReadOnlyFilesystem
    )
}

/// A path of a source as people know it.
pub(super) fn subject(source: &str, path: &RelPath) -> String {
    if path.is_root() { source.to_owned() } else { format!("{source}/{path}") }
}

/// True if `next` goes right behind `want` in their file.
fn adjoin(want: &Want, next: &Want) -> bool {
    want.at + u64::from(want.len) == next.at
}

/// In how many frames each item's wants lie.
fn frame_counts(wants: &[Want], items: &[Item]) -> Vec<u32> {
    let mut counts = vec![0; items.len()];
    for part in wants.chunk_by(|a, b| a.frame() == b.frame() && a.owner == b.owner) {
        counts[part[0].owner as usize] += 1;
    }
    counts
}

fn kind_and_meta(node: &Node) -> Option<(EntryKind, &crate::types::Metadata)> {
    Some(match node {
        Node::File { meta, .. } => (EntryKind::File, meta),
        Node::Folder { meta } => (EntryKind::Folder, meta),
        Node::Symlink { meta, .. } => (EntryKind::Symlink, meta),
        Node::Fifo { meta } => (EntryKind::Fifo, meta),
        Node::Socket { meta } => (EntryKind::Socket, meta),
        Node::Char { meta, .. } => (EntryKind::Char, meta),
        Node::Block { meta, .. } => (EntryKind::Block, meta),
        Node::Failed { .. } | Node::Removed | Node::Unknown { .. } => return None,
    })
}
