//! Visits one path of a walk: compares its current state with the previous entry.

use std::sync::Arc;

use rustix::io::Errno;

use super::observed::{ObservedName, open_listed, see_many};
use super::state::{EnteredDirectory, Scan, ScanStep};
use super::walk_error::WalkError;
use crate::Error;
use crate::observe::{Counter, Problem, Severity, Subject};
use crate::ops::backup::reader::attributes::{DescribedEntry, describe};
use crate::ops::backup::reader::content::CutError;
use crate::ops::backup::reader::job::FileJob;
use crate::ops::backup::reason::reason;
use crate::ops::backup::run::sink::{DirectoryNode, same_entry};
use crate::ops::backup::shared::watch::was_captured;
use crate::repo::RepoError;
use crate::source::{FsKind, HashName, ListedName, SourceDir, SourceStat, StatKind};
use crate::types::{Entry, EntryFlags, MissingNames, Node, RelPath, Timestamp};

/// A larger file of a kernel file system is not read: it represents memory or a device.
const KERNEL_FILE_BYTES_MAX: u64 = 1 << 30;

impl Scan<'_, '_> {
    pub(super) fn visit_new(
        &mut self,
        directory: &SourceDir,
        path: &RelPath,
        names: Vec<ListedName>,
        node: &Arc<DirectoryNode>,
    ) -> Result<(), WalkError> {
        for (name, seen) in names.iter().zip(see_many(directory, &names)) {
            let path = path.join(&name.name).map_err(|err| {
                WalkError::Other(Error::Source {
                    name: self.shared.source.into(),
                    why: err.to_string(),
                })
            })?;
            if let Some(ScanStep::Enter(entered)) =
                self.visit(directory, &name.name, path, seen, None, Some(node))?
            {
                // Listed as a file, now a directory: the next backup walks it.
                node.revisit();
                self.fail(
                    &entered.path,
                    entered.previous.as_ref(),
                    "became a directory while it was scanned",
                )?;
            }
        }
        Ok(())
    }

    /// Handles one existing path: returns a directory to enter, and deals with anything else.
    pub(super) fn visit(
        &mut self,
        directory: &SourceDir,
        name: &[u8],
        path: RelPath,
        seen: ObservedName,
        previous: Option<Entry>,
        node: Option<&Arc<DirectoryNode>>,
    ) -> Result<Option<ScanStep>, WalkError> {
        let clock = seen.clock;
        let stat = match seen.stat {
            Ok(Some(stat)) => stat,
            Ok(None) => {
                self.vanished(previous.as_ref(), node)?;
                return Ok(None);
            }
            Err(err) => {
                node.inspect(|node| node.revisit());
                self.carry_below(&path, previous.as_ref());
                self.fail(&path, previous.as_ref(), &reason("stat", &err))?;
                return Ok(None);
            }
        };

        if stat.kind == StatKind::Directory {
            return self.visit_directory(directory, name, path, (stat, clock), previous, node);
        }
        // A directory of listed paths that is something else is not captured.
        let needed = self.rules.files_from.and_then(|list| list.needed(&path));
        if let Some(needed) = needed.filter(|needed| !needed.is_listed) {
            node.inspect(|node| node.revisit());
            self.miss(&path, previous.as_ref(), &needed, Errno::NOTDIR)?;
            return Ok(None);
        }
        // A directory that became something else: the new entry covers its contents.
        if let Some(previous) = &previous {
            self.hide_below(previous)?;
        }

        self.observe_entry();
        let is_racy = stat.is_racy(clock, self.windows.seconds(&stat));
        // An ordinary name may change in place, which the times of its directory do not show
        // ([R19](docs/protocol.md#r19)).
        if is_racy || self.shared.immutable && HashName::parse(name).is_none() {
            node.inspect(|node| node.revisit());
        }

        if stat.kind == StatKind::File {
            self.visit_file(directory, name, path, stat, is_racy, previous, node)?;
        } else {
            self.visit_other(
                directory,
                name,
                path,
                &stat,
                is_racy,
                previous.as_ref(),
                node,
            )?;
        }
        Ok(None)
    }

    fn observe_entry(&self) {
        self.shared.task.observer.add(Counter::Entries, 1);
    }

    fn visit_directory(
        &mut self,
        directory: &SourceDir,
        name: &[u8],
        path: RelPath,
        (stat, clock): (SourceStat, Timestamp),
        previous: Option<Entry>,
        node: Option<&Arc<DirectoryNode>>,
    ) -> Result<Option<ScanStep>, WalkError> {
        if previous
            .as_ref()
            .is_some_and(|previous| !previous.is_directory() && was_captured(previous))
        {
            self.shared.alarm(&path, "changed");
        }

        // If the listing has no types, patterns for directories apply only now.
        let is_never = self.rules.filter.is_never(stat.id());
        if is_never || self.rules.filter.excludes(&path, true) {
            if is_never {
                self.report_beside_repository(directory, name, &path, &stat);
            }
            let why = if is_never {
                MissingNames::Unseen
            } else {
                MissingNames::Excluded
            };
            node.inspect(|node| node.lacks(why));
            self.remove(previous.as_ref())?;
            return Ok(None);
        }

        let opened = open_listed(directory, name);
        match opened.and_then(|child| {
            child
                .map(|child| Ok((child.stat_self()?, child)))
                .transpose()
        }) {
            // It may have been swapped since the stat: only the opened directory counts.
            Ok(Some((stat, directory))) if !self.rules.filter.is_never(stat.id()) => {
                Ok(Some(ScanStep::Enter(Box::new(EnteredDirectory {
                    path,
                    directory,
                    stat,
                    clock,
                    previous,
                }))))
            }
            Ok(Some(_)) => {
                node.inspect(|node| node.lacks(MissingNames::Unseen));
                self.remove(previous.as_ref())?;
                Ok(None)
            }
            Ok(None) => {
                self.vanished(previous.as_ref(), node)?;
                Ok(None)
            }
            Err(err) => {
                node.inspect(|node| node.revisit());
                self.observe_entry();
                self.carry_below(&path, previous.as_ref());
                self.fail(
                    &path,
                    previous.as_ref(),
                    &reason("open the directory", &err),
                )?;
                Ok(None)
            }
        }
    }

    /// Warns about foreign files in the repository's directory, which is left out as a whole.
    fn report_beside_repository(
        &self,
        above: &SourceDir,
        name: &[u8],
        path: &RelPath,
        stat: &SourceStat,
    ) {
        let found = match self.rules.beside_repository(above, name, stat) {
            Ok(Some((count, first))) => {
                let first = String::from_utf8_lossy(&first).into_owned();
                let names = if count == 1 {
                    "one name".to_owned()
                } else {
                    format!("{count} names")
                };
                format!("with {names} not part of it, such as '{first}': move them elsewhere")
            }
            Ok(None) => return,
            Err(err) => format!(
                "and its other contents are unknown: {}",
                reason("list it", &err)
            ),
        };

        let subject = Subject::captured(self.shared.source, path);
        let message = format!("it is the repository's directory, which is left out, {found}");
        self.shared
            .task
            .observer
            .problem(&Problem::new(Severity::Warning, subject, message));
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one job")]
    fn visit_file(
        &mut self,
        directory: &SourceDir,
        name: &[u8],
        path: RelPath,
        stat: SourceStat,
        is_racy: bool,
        previous: Option<Entry>,
        node: Option<&Arc<DirectoryNode>>,
    ) -> Result<(), WalkError> {
        if self.rules.filter.excludes_size(stat.size) {
            node.inspect(|node| node.lacks(MissingNames::Excluded));
            return self.remove(previous.as_ref());
        }

        if stat.size > KERNEL_FILE_BYTES_MAX && self.windows.kind(&stat) == FsKind::Kernel {
            node.inspect(|node| node.revisit());
            return self.fail(
                &path,
                previous.as_ref(),
                "it represents kernel memory, not a file",
            );
        }

        let unchanged = previous
            .as_ref()
            .filter(|previous| self.is_unchanged(previous, name, &stat));
        if let Some(unchanged) = unchanged
            && !self.shared.lost.is_named_by(unchanged)?
        {
            self.shared
                .count(&self.shared.counts.files_unchanged, Counter::FilesUnchanged);
            if previous.is_some_and(|previous| previous.wants_revisit()) {
                node.inspect(|node| node.revisit());
            }
            return Ok(());
        }

        let is_due = self.batch.push(FileJob {
            directory: directory.clone(),
            name: name.to_vec(),
            path,
            stat,
            is_racy,
            window_seconds: self.windows.seconds(&stat),
            previous: previous.map(Box::new),
            node: node.cloned(),
        });
        if is_due { self.send_batch() } else { Ok(()) }
    }

    pub(super) fn send_batch(&mut self) -> Result<(), WalkError> {
        let batch = std::mem::take(&mut self.batch).jobs;
        if batch.is_empty() {
            return Ok(());
        }
        // The readers exit early only if one of them failed. Its error is the one to report.
        self.jobs
            .send(batch)
            .map_err(|_| WalkError::Other(RepoError::Stopped.into()))
    }

    fn is_unchanged(&self, previous: &Entry, name: &[u8], stat: &SourceStat) -> bool {
        let Node::File { meta, content } = &previous.node else {
            return false;
        };
        let again = EntryFlags::RACY
            .with(EntryFlags::STALE)
            .with(EntryFlags::TORN);

        let unsettled = self.shared.immutable
            && !previous.flags.contains(EntryFlags::SETTLED)
            && HashName::parse(name).is_some_and(|hash| hash.expected_sha256().is_none());

        // An empty file was accepted by its size alone, under rules that have changed since.
        let is_suspect = stat.size == 0 && self.rules.no_skip;
        !self.rules.force
            && !is_suspect
            && !unsettled
            && !previous.flags.intersects(again)
            && content.size == stat.size
            && meta.mtime == stat.mtime
            && (self.rules.ignore_inode || meta.inode == stat.inode)
            && (meta.ctime == stat.ctime
                || self.rules.ignore_ctime
                    && (meta.mode, meta.owner.uid, meta.owner.gid)
                        == (stat.mode, stat.uid, stat.gid))
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one entry")]
    fn visit_other(
        &mut self,
        directory: &SourceDir,
        name: &[u8],
        path: RelPath,
        stat: &SourceStat,
        is_racy: bool,
        previous: Option<&Entry>,
        node: Option<&Arc<DirectoryNode>>,
    ) -> Result<(), WalkError> {
        self.shared
            .counts
            .others
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);

        let made = match self.read_other(directory, name, stat, previous) {
            Ok(made) => made,
            Err(CutError::Read(err)) => {
                let look = if is_replaced(&err) {
                    directory.look(name)
                } else {
                    Ok(Some(*stat))
                };
                if matches!(look, Ok(None)) {
                    return self.vanished(previous, node);
                }
                node.inspect(|node| node.revisit());
                return self.fail(
                    &path,
                    previous,
                    &reason("read", look.as_ref().err().unwrap_or(&err)),
                );
            }
            Err(err) => return Err(WalkError::Other(err.named(self.shared.source))),
        };

        let (made, lacks) = made;
        let mut flags = if is_racy {
            EntryFlags::RACY
        } else {
            EntryFlags::empty()
        };
        if let Some(why) = lacks {
            flags = flags.with(EntryFlags::STALE);
            node.inspect(|node| node.revisit());
            self.shared.lacks_attributes(&path, &why);
        }

        let entry = Entry {
            path,
            flags,
            node: made,
        };

        if previous.is_some_and(|previous| same_entry(previous, &entry)) {
            return Ok(());
        }

        self.shared.alarm_of_change(previous, &entry);
        if self.shared.task.observer.wants_detail()
            && previous.is_none_or(|previous| previous.node != entry.node)
        {
            self.shared.task.observer.detail(
                if previous.is_some() { "changed" } else { "new" },
                &Subject::path(&entry.path),
            );
        }

        Ok(self
            .shared
            .sink
            .put(&entry, previous.is_some_and(Entry::is_directory))?)
    }

    /// Reads a path that is neither a file nor a directory. Also returns why attributes are
    /// missing.
    fn read_other(
        &mut self,
        directory: &SourceDir,
        name: &[u8],
        stat: &SourceStat,
        previous: Option<&Entry>,
    ) -> Result<(Node, Option<String>), CutError> {
        let attributes = directory.xattrs(name).map_err(CutError::Read)?;

        let target = match stat.kind {
            StatKind::Symlink => Some(directory.read_link(name).map_err(CutError::Read)?),
            _ => None,
        };

        if attributes
            .unread
            .as_ref()
            .is_some_and(|unread| SourceDir::is_missing(&unread.error))
        {
            // If the path still exists unchanged, only its attributes cannot be read. Otherwise it
            // was removed or replaced.
            match directory.look(name).map_err(CutError::Read)? {
                Some(now) if now.id() == stat.id() => {}
                _ => return Err(CutError::Read(std::io::ErrorKind::NotFound.into())),
            }
        }

        let old = previous.and_then(Entry::meta);
        let DescribedEntry { meta, lacks } =
            describe(stat, self.shared.owners, attributes, old, self.writers)?;
        let device = stat.rdev;
        let made = match (stat.kind, target) {
            (StatKind::Symlink, Some(target)) => Node::Symlink { meta, target },
            (StatKind::Fifo, _) => Node::Fifo { meta },
            (StatKind::Socket, _) => Node::Socket { meta },
            (StatKind::Char, _) => Node::Char { meta, device },
            _ => Node::Block { meta, device },
        };
        Ok((made, lacks))
    }

    /// Handles a listed name that is gone, as a second look confirmed. It may have been renamed to
    /// a name that the listing did not show, so the directory no longer accounts for all its
    /// missing names.
    fn vanished(
        &mut self,
        previous: Option<&Entry>,
        node: Option<&Arc<DirectoryNode>>,
    ) -> Result<(), WalkError> {
        node.inspect(|node| node.lacks(MissingNames::Unseen));
        self.shared
            .count(&self.shared.counts.vanished, Counter::Vanished);
        self.remove(previous)
    }

    /// Skips the previous entries below a path whose own entry was taken.
    pub(super) fn carry_below(&mut self, path: &RelPath, previous: Option<&Entry>) {
        if let (Some(cursor), true) = (
            &mut self.previous,
            previous.is_some_and(Entry::is_directory),
        ) {
            cursor.skip_below(path);
        }
    }

    pub(super) fn remove(&mut self, previous: Option<&Entry>) -> Result<(), WalkError> {
        let Some(previous) = previous else {
            return Ok(());
        };
        self.hide_below(previous)?;
        Ok(self.shared.remove(previous)?)
    }

    /// Takes the previous entries below a path that is gone or is no longer a directory, and counts
    /// them.
    pub(super) fn hide_below(&mut self, previous: &Entry) -> Result<(), WalkError> {
        match &mut self.previous {
            Some(cursor) => cursor.pass_below(previous, |entry| self.shared.hide(entry)),
            None => Ok(()),
        }
    }

    pub(super) fn fail(
        &mut self,
        path: &RelPath,
        previous: Option<&Entry>,
        why: &str,
    ) -> Result<(), WalkError> {
        Ok(self.shared.fail(path, previous, why)?)
    }
}

/// Returns true if an error can mean that a link is gone, or is not a link any more.
fn is_replaced(err: &std::io::Error) -> bool {
    SourceDir::is_missing(err) || err.kind() == std::io::ErrorKind::InvalidInput
}
