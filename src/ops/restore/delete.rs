//! `--delete`: what restored folders hold and the snapshot lacks.
//!
//! The names found in folders that were there before come out of the sorter in the order of the runs, which are
//! walked a second time beside them; so no folder's names are held in memory.

use super::plan::Walk;
use crate::error::Error;
use crate::observe::{PlannedVerb, Problem, Severity};
use crate::sys::Sorter;
use crate::types::{EntryKind, RelPath};

impl Walk<'_> {
    /// Removes what was found and the runs do not name. Where the runs cannot be read in full, nothing is removed.
    pub(super) fn delete(&mut self, is_certain: bool) -> Result<(), Error> {
        let found = std::mem::replace(&mut self.found, Sorter::new(&self.job.repo.scratch_dir(), 0));
        let mut found = found.finish()?;
        let mut runs = self.job.open_runs(self.run_refs)?;
        let mut named: Option<RelPath> = None;
        let mut is_certain = is_certain;
        while let Some((key, _)) = found.next()? {
            self.job.cancel.check()?;
            // Names are what the file system gave: one that the format cannot hold is not in the snapshot.
            let Ok(path) = RelPath::from_key(key) else { continue };
            if named.as_ref().is_none_or(|named| *named < path) {
                runs.seek(path.key());
                named = runs.next_entry()?.map(|entry| entry.path);
                // A page that could be read before, or lies in a part that was left out.
                is_certain &= runs.take_uncertain().is_empty();
            }
            if !is_certain {
                let why = "nothing more is deleted, as the list of files cannot be read in full";
                self.job.observer.problem(&Problem::new(Severity::Note, &self.source.name, why));
                return Ok(());
            }
            if named.as_ref() != Some(&path) && !below_of(named.as_ref(), &path) {
                self.delete_one(&path)?;
            }
        }
        Ok(())
    }

    fn delete_one(&self, path: &RelPath) -> Result<(), Error> {
        let Some(tree) = &self.place.tree else { return Ok(()) };
        let is_dry = self.job.options.dry_run;
        let done = self.target_of(path).and_then(|target| {
            let (Some(parent), Some(name)) = (target.parent(), target.name()) else { return Ok(false) };
            let dir = tree.folder(&parent)?;
            let Some(there) = dir.stat(name)? else { return Ok(false) };
            if self.exclude.excludes(path, there.kind == Some(EntryKind::Folder)) {
                return Ok(false);
            }
            // Where two spellings are one name, this may be what was just restored.
            let is_one_name = there.nlink < 2 || there.kind == Some(EntryKind::Folder);
            if is_one_name && self.job.claimed.has(&parent, &there) {
                return Ok(false);
            }
            if is_dry {
                self.would(PlannedVerb::Delete, path, Some(&there), None);
            } else {
                dir.remove_tree(name)?;
            }
            Ok(true)
        });
        match done {
            Ok(true) => {
                self.job.tally.deleted();
                if self.job.observer.wants_detail() {
                    self.job.observer.detail("deleted", path);
                }
                Ok(())
            }
            Ok(false) => Ok(()),
            Err(err) => self.refuse_deletion(path, &err),
        }
    }
}

/// True if what the snapshot names next lies below a path of which it has no entry itself.
fn below_of(named: Option<&RelPath>, path: &RelPath) -> bool {
    named.is_some_and(|named| named.is_below(path))
}
