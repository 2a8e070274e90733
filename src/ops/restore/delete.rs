//! Implements `--delete`: removes names in restored directories that the snapshot accounts for as
//! absent.
//!
//! A name that the snapshot lacks may have existed: a rule, another file system, an error or an
//! unfinished walk may have kept it out. Such names are left alone and reported. The conditions are
//! in docs/format.md, "What a snapshot lacks".
//!
//! The names found in existing directories come out of the sorter in the order of the runs, and the
//! runs are walked a second time alongside. So no directory's names are held in memory.

use std::io;

use super::kept::{KeptDirectories, KeptReason, read_found};
use super::walk::RestoreWalk;
use crate::dest::{InUse, KeptNames, RemovedCounts};
use crate::error::Error;
use crate::observe::{PlannedVerb, Problem, Severity, Subject};
use crate::sys::Sorter;
use crate::types::{EntryFlags, EntryKind, RelPath};

impl RestoreWalk<'_> {
    /// Returns why a name that is missing directly in a directory with these flags may have
    /// existed.
    pub(super) fn doubt(&self, path: &RelPath, flags: EntryFlags) -> Option<KeptReason> {
        if !self.is_accounted_for(path, flags) {
            return Some(if self.blind.is_some() {
                KeptReason::Source
            } else {
                KeptReason::Stale
            });
        }
        if self.job.options.replace_whole {
            return None;
        }
        let missing = flags.missing_names().map(KeptReason::from);
        missing.filter(|doubt| *doubt != KeptReason::Excluded || !self.job.options.delete_excluded)
    }

    /// Returns true if the snapshot's state of a path replaces the existing one.
    pub(super) fn is_accounted_for(&self, path: &RelPath, flags: EntryFlags) -> bool {
        self.job.options.replace_whole || self.blind.is_none() && !self.is_stale(path, flags)
    }

    /// Returns true if the snapshot shows an older state of a path, or of a directory above it, so
    /// that the path may have been different.
    pub(super) fn is_stale(&self, path: &RelPath, flags: EntryFlags) -> bool {
        flags.contains(EntryFlags::STALE)
            || self
                .stale
                .as_ref()
                .is_some_and(|stale| path.is_below(stale))
    }

    /// Checks whether a directory above the restored path is stale.
    pub(super) fn look_above(&mut self) -> Result<(), Error> {
        if !self.job.options.deletes() || self.sub.is_root() || self.run_refs.is_empty() {
            return Ok(());
        }

        let mut above: Vec<RelPath> =
            std::iter::successors(self.sub.parent(), RelPath::parent).collect();
        let mut runs = self.job.open_runs(self.run_refs)?;
        while let Some(directory) = above.pop() {
            runs.seek(directory.key());
            let entry = runs.next_entry()?.filter(|entry| entry.path == directory);
            let is_certain = runs.take_uncertain().is_empty();
            if !is_certain || entry.is_none_or(|entry| entry.flags.contains(EntryFlags::STALE)) {
                self.stale = Some(directory);
                break;
            }
        }

        Ok(())
    }

    /// Removes the found names that the runs lack. Removes nothing from the point on where the runs
    /// cannot be read completely.
    pub(super) fn delete(&mut self, is_certain: bool) -> Result<(), Error> {
        let found = std::mem::replace(
            &mut self.found,
            Sorter::new(&self.job.repo.scratch_dir(), 0),
        );
        let mut found = found.finish()?;
        let mut runs = self.job.open_runs(self.run_refs)?;
        let mut named: Option<RelPath> = None;
        let mut is_certain = is_certain;

        let job = self.job;
        let mut left =
            KeptDirectories::new(job.tally, job.task.observer, &self.source.name, self.blind);

        while let Some((key, value)) = found.next()? {
            self.job.task.check()?;
            // The names come from the file system: a name that the format cannot hold is not in the
            // snapshot.
            let Ok(path) = RelPath::from_key(key) else {
                continue;
            };

            let (doubt, is_directory) = read_found(value);
            if named.as_ref().is_none_or(|named| *named < path) {
                runs.seek(path.key());
                named = runs.next_entry()?.map(|entry| entry.path);
                // The second walk may fail on a page that was readable before, or on one that the
                // first walk skipped.
                is_certain &= runs.take_uncertain().is_empty();
            }

            if !is_certain {
                let why = "nothing more is deleted, as the list of files cannot be read in full";
                self.job.task.observer.problem(&Problem::new(
                    Severity::Note,
                    &self.source.name,
                    why,
                ));
                return Ok(());
            }

            if named.as_ref() == Some(&path) || below_of(named.as_ref(), &path) {
                continue;
            }

            match doubt {
                None => self.delete_one(&path)?,
                Some(_) if self.exclude.excludes(&path, is_directory) => {}
                Some(doubt) => left.add(&path, doubt),
            }
        }
        left.finish();
        Ok(())
    }

    fn delete_one(&self, path: &RelPath) -> Result<(), Error> {
        let Some(tree) = &self.place.tree else {
            return Ok(());
        };
        let done = self.target_of(path).and_then(|target| {
            let (Some(parent), Some(name)) = (target.parent(), target.name()) else {
                return Ok(None);
            };

            let dir = tree.directory(&parent)?;
            let Some(there) = dir.stat(name)? else {
                return Ok(None);
            };

            if self
                .exclude
                .excludes(path, there.kind == Some(EntryKind::Directory))
            {
                return Ok(None);
            }
            // Where two spellings are one name, this may be a file that was just restored.
            let is_one_name = there.nlink < 2 || there.kind == Some(EntryKind::Directory);
            if is_one_name && self.job.claimed.has(&parent, &there) {
                return Ok(None);
            }
            if self.job.options.dry_run {
                self.job.protection.check(&there)?;
                self.would(PlannedVerb::Delete, path, Some(&there), None);
                return Ok(Some(RemovedCounts {
                    names: 1,
                    kept: None,
                }));
            }

            let above = path.parent().unwrap_or_default();
            dir.remove_tree(name, &mut |below, kind| self.stays(&above, below, kind))
                .map(Some)
        });

        match done {
            Ok(None) => Ok(()),
            Ok(Some(removed)) => {
                if removed.names > 0 {
                    self.report_deleted(path);
                }
                match removed.kept {
                    None | Some((_, KeptNames::Asked)) => Ok(()),
                    Some((_, KeptNames::InUse(what))) => {
                        self.left_in_use(path, &InUse { what });
                        Ok(())
                    }
                    Some((at, KeptNames::Mount)) => {
                        let at = RelPath::from_key(at).unwrap_or_default();
                        let err = io::Error::other(format!("something is mounted on '{at}'"));
                        self.refuse_deletion(path, &err)
                    }
                }
            }
            Err(err) => match InUse::of(&err) {
                Some(reason) => {
                    self.left_in_use(path, reason);
                    Ok(())
                }
                None => self.refuse_deletion(path, &err),
            },
        }
    }

    /// Returns true if the restore's own patterns keep a path below the directory `above`.
    fn stays(&self, above: &RelPath, below: &[u8], kind: Option<EntryKind>) -> bool {
        if self.job.options.exclude.is_empty() {
            return false;
        }
        let mut key = above.key().to_vec();
        if !key.is_empty() {
            key.push(0);
        }
        key.extend_from_slice(below);
        // A path that the format cannot hold cannot be matched, so it stays.
        RelPath::from_key(key).map_or(true, |path| {
            self.exclude
                .excludes(&path, kind == Some(EntryKind::Directory))
        })
    }

    fn report_deleted(&self, path: &RelPath) {
        self.job.tally.deleted();
        if self.job.task.observer.wants_detail() {
            self.job
                .task
                .observer
                .detail("deleted", &Subject::path(path));
        }
    }

    fn left_in_use(&self, path: &RelPath, reason: &InUse) {
        self.job.tally.not_deleted();
        let message = format!("not deleted: it is or holds {}", reason.what);
        self.job
            .task
            .observer
            .problem(&Problem::new(Severity::Note, self.subject(path), message));
    }
}

/// Returns true if the snapshot's next entry is below a path that has no entry itself.
fn below_of(named: Option<&RelPath>, path: &RelPath) -> bool {
    named.is_some_and(|named| named.is_below(path))
}

#[cfg(test)]
#[path = "delete_tests.rs"]
mod tests;
