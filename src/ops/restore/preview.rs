//! The preview of a dry run: reports whether each path would be written, overwritten or deleted.
//! Each path is reported at once; nothing is kept in memory.

use super::compare::ComparedFile;
use super::node_parts::{kind_and_meta, size_of};
use super::walk::RestoreWalk;
use super::window::ItemAction;
use crate::dest::FoundEntry;
use crate::error::Error;
use crate::observe::{PlannedChange, PlannedVerb};
use crate::types::{EntryKind, Node, RelPath, Timestamp};

impl RestoreWalk<'_> {
    /// Counts and reports the planned treatment of one entry.
    pub(super) fn preview_item(
        &mut self,
        path: &RelPath,
        target: &RelPath,
        node: &Node,
        action: ItemAction,
        existing: Option<&FoundEntry>,
    ) -> Result<(), Error> {
        let is_different = action != ItemAction::Write
            && self.job.options.verify
            && !self.is_equal(target, node)?;
        if is_different {
            self.job.tally.differs();
        }

        if action != ItemAction::Write && !(is_different && action == ItemAction::Keep) {
            self.job.tally.unchanged();
            return Ok(());
        }

        let (deed, here) = match existing {
            Some(found) => (PlannedVerb::Overwrite, Some(found)),
            None => (PlannedVerb::Write, None),
        };
        self.would(
            deed,
            path,
            here,
            kind_and_meta(node).map(|(_, meta)| meta.mtime),
        );
        self.job.tally.file_written(size_of(node));
        Ok(())
    }

    /// Reports the planned treatment of a path. `here` is the existing file, `theirs` the
    /// snapshot's modification time.
    pub(super) fn would(
        &self,
        verb: PlannedVerb,
        path: &RelPath,
        here: Option<&FoundEntry>,
        theirs: Option<Timestamp>,
    ) {
        let here = here
            .filter(|found| found.kind != Some(EntryKind::Directory))
            .map(|found| found.mtime);
        let is_newer = here.zip(theirs).is_some_and(|(here, theirs)| here > theirs);
        self.job.task.observer.planned(&PlannedChange {
            verb,
            source: &self.source.name,
            path,
            here,
            is_newer,
        });
    }

    /// Compares a file at once, since a dry run has no windows.
    fn is_equal(&mut self, target: &RelPath, node: &Node) -> Result<bool, Error> {
        let Node::File { content, .. } = node else {
            return Ok(true);
        };
        let name = target.name().unwrap_or_default();
        let file = self.parent_dir(target).and_then(|dir| match dir {
            Some(dir) => dir.open_existing_file(name),
            None => Err(std::io::ErrorKind::NotFound.into()),
        });
        let Ok(file) = file else { return Ok(false) };
        match self.job.compare(file, content)? {
            Ok(ComparedFile::Equal) => {
                self.job.tally.verified();
                Ok(true)
            }
            // A restore would rewrite or report a file that cannot be compared.
            _ => Ok(false),
        }
    }
}
