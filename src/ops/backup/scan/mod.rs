//! Scan ⋈ previous snapshot: walks the file system and the previous runs in the same order, without
//! a table of all files in memory.
//!
//! Directories are walked depth first, names as unsigned bytes, which is the order of runs.
//! Unchanged entries are not written; files to be read go to the reader threads in batches; all
//! other entries are made here. An unchanged directory of an immutable source is not listed: its
//! subdirectories are known from the directory pages of the previous snapshot.

pub(super) mod candidate;
pub(super) mod committed;
mod decide;
#[cfg(test)]
mod decide_tests;
mod enter;
mod observed;
pub(super) mod previous;
mod record;
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

use self::candidate::{PathCandidate, TimedStat};
use self::decide::{NameDecision, decide_name};
use self::observed::{ObservedName, see_many};
use self::rules::is_leftover;
use self::state::{EnteredDirectory, Named, Scan, ScanLevel, ScanMode, ScanStep};
use self::unlisted::{ListedDirectory, UnlistedStep};
use self::walk_error::WalkError;
use crate::observe::Counter;
use crate::ops::backup::reason::reason;
use crate::ops::backup::run::sink::DirectoryNode;
use crate::source::{NameListing, SourceDir};
use crate::types::{Entry, EntryFlags, RelPath};

/// Names that are stat'ed in one batch.
const BATCH_NAMES: usize = 1024;
/// Directories kept open on the way down; those above are reopened through `..`.
const OPEN_LEVELS: usize = 48;

impl Scan<'_, '_> {
    /// Walks the whole tree from its open root.
    pub fn run(&mut self, root: SourceDir) -> Result<(), WalkError> {
        let mut levels = Vec::new();

        let previous = self.previous_at(&RelPath::root())?;
        self.enter(
            &mut levels,
            EnteredDirectory {
                path: RelPath::root(),
                directory: root,
                seen: self.inputs.root,
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
    pub fn run_file(&mut self, directory: &SourceDir, name: &[u8]) -> Result<(), WalkError> {
        let path = RelPath::root();
        let previous = self.previous_at(&path)?;
        // The stat is that of the opening, and so is the clock.
        let TimedStat { stat, clock } = self.inputs.root;
        if stat.size == 0 && previous.as_ref().is_some_and(Entry::is_directory) {
            self.refuse_empty_root()?;
        }

        self.windows.learn(directory);
        let candidate = PathCandidate {
            directory,
            name,
            path,
            previous,
            parent: None,
        };
        let seen = ObservedName {
            stat: Ok(Some(stat)),
            clock,
        };
        self.visit(candidate, seen)?;
        self.send_batch()
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

            let Some((name, observed)) = batch.next() else {
                continue;
            };
            let previous = self.previous_at(&path)?;

            // Without a stat, the source is immutable, and names are looked at only if needed.
            let observed = match observed {
                Some(observed) => observed,
                None => match decide_name(previous.as_ref(), &name) {
                    NameDecision::Unchanged => {
                        self.shared
                            .count(&self.shared.counts.files_unchanged, Counter::FilesUnchanged);
                        continue;
                    }
                    NameDecision::Collect => {
                        new_names.push(name);
                        if new_names.len() >= BATCH_NAMES {
                            let new_names = std::mem::take(new_names);
                            self.visit_new(&directory, &level.path, new_names, &node)?;
                        }
                        continue;
                    }
                    NameDecision::Look => ObservedName::at(&directory, &name.name),
                },
            };

            let candidate = PathCandidate {
                directory: &directory,
                name: &name.name,
                path,
                previous,
                parent: Some(&node),
            };
            if let Some(step) = self.visit(candidate, observed)? {
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

        if !self.rules.looks_at_each_name() {
            return Ok(names.into_iter().map(|name| (name, None)).collect());
        }
        let seen = see_many(directory, &names);
        Ok(names.into_iter().zip(seen.into_iter().map(Some)).collect())
    }
}
