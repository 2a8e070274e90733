//! Makes the entries of links, devices, sockets and pipes, which have no content to read.

use super::candidate::PathCandidate;
use super::state::Scan;
use super::walk_error::WalkError;
use crate::observe::Subject;
use crate::ops::backup::reader::attributes::{DescribedEntry, describe};
use crate::ops::backup::reader::content::CutError;
use crate::ops::backup::reason::reason;
use crate::ops::backup::run::sink::same_entry;
use crate::source::{SourceDir, SourceStat, StatKind};
use crate::types::{Entry, EntryFlags, Node};

impl Scan<'_, '_> {
    /// Makes the entry of a path that is neither a file nor a directory, and adds it if it differs
    /// from the previous one.
    pub(super) fn record(
        &mut self,
        candidate: PathCandidate<'_>,
        stat: &SourceStat,
        is_racy: bool,
    ) -> Result<(), WalkError> {
        self.shared
            .counts
            .others
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);

        let (node, lacks) = match self.read_other(&candidate, stat) {
            Ok(read) => read,
            Err(CutError::Read(err)) => return self.look_again(&candidate, stat, &err),
            Err(err) => return Err(WalkError::Other(err.named(self.shared.source))),
        };

        let mut flags = if is_racy {
            EntryFlags::RACY
        } else {
            EntryFlags::empty()
        };
        if let Some(why) = lacks {
            flags = flags.with(EntryFlags::STALE);
            candidate.revisit_parent();
            self.shared.lacks_attributes(&candidate.path, &why);
        }

        let previous = candidate.previous.as_ref();
        let was_directory = candidate.was_directory();
        let entry = Entry {
            path: candidate.path,
            flags,
            node,
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

        Ok(self.shared.sink.put(&entry, was_directory)?)
    }

    /// Handles a path that could not be read: it is gone, or this is a failure.
    fn look_again(
        &mut self,
        candidate: &PathCandidate<'_>,
        stat: &SourceStat,
        err: &std::io::Error,
    ) -> Result<(), WalkError> {
        let look = if is_replaced(err) {
            candidate.directory.look(candidate.name)
        } else {
            Ok(Some(*stat))
        };
        if matches!(look, Ok(None)) {
            return self.vanished(candidate);
        }

        candidate.revisit_parent();
        let why = reason("read", look.as_ref().err().unwrap_or(err));
        self.fail_candidate(candidate, &why)
    }

    /// Reads a path that is neither a file nor a directory. Also returns why attributes are
    /// missing.
    fn read_other(
        &mut self,
        candidate: &PathCandidate<'_>,
        stat: &SourceStat,
    ) -> Result<(Node, Option<String>), CutError> {
        let PathCandidate {
            directory, name, ..
        } = candidate;
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

        let old = candidate.previous.as_ref().and_then(Entry::meta);
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
}

/// Returns true if an error can mean that a link is gone, or is not a link any more.
fn is_replaced(err: &std::io::Error) -> bool {
    SourceDir::is_missing(err) || err.kind() == std::io::ErrorKind::InvalidInput
}
