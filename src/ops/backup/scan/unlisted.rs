//! Names that the previous snapshot has, or that the user listed, and that the listing does not
//! show. A name is removed from the snapshot only if it is really gone: not in the listing, and not
//! found by a lookup. A listed name that is gone gets an entry that says so.

use std::sync::Arc;

use rustix::io::Errno;

use super::candidate::PathCandidate;
use super::observed::ObservedName;
use super::state::{Scan, ScanStep};
use super::walk_error::WalkError;
use crate::observe::Counter;
use crate::ops::backup::reason::reason;
use crate::ops::backup::run::sink::DirectoryNode;
use crate::source::{ListedName, NeededName, SourceDir};
use crate::sys::now;
use crate::types::{Entry, RelPath};

/// A directory that is being walked.
pub(super) struct ListedDirectory<'l> {
    pub path: &'l RelPath,
    pub directory: &'l SourceDir,
    pub node: &'l Arc<DirectoryNode>,
    /// Only the tag of a cache directory is captured.
    pub only_tag: bool,
    /// The rules forbid entering it: all previous entries in it are removed.
    pub is_closed: bool,
}

/// The result of a look for names before a listed one that the listing did not show.
pub(super) enum UnlistedStep {
    /// There are none left.
    End,
    /// One was dealt with.
    Done,
    /// One is a directory to enter.
    Enter(ScanStep),
}

impl Scan<'_, '_> {
    /// Handles the next name before `until` that the previous snapshot has or the list of files
    /// needs. The listing does not show it. `until` of `None`: the end of the directory. `needed`
    /// is the position of the next needed name in the list.
    pub(super) fn next_unlisted(
        &mut self,
        listed: &ListedDirectory<'_>,
        needed: &mut Option<usize>,
        until: Option<&RelPath>,
    ) -> Result<UnlistedStep, WalkError> {
        let name = match (self.rules.files_from, *needed) {
            (Some(list), Some(at)) => list.needed_at(listed.path, at),
            _ => None,
        };
        let wanted = name.and_then(|name| Some((listed.path.join(name.name).ok()?, name)));
        let wanted = wanted.filter(|(path, _)| until.is_none_or(|until| path <= until));

        let before = wanted.as_ref().map(|(path, _)| path).or(until);
        if let Some(unlisted) = self.take_unlisted(listed.path, before)? {
            return Ok(self.visit_unlisted(listed, unlisted)?.into());
        }
        let Some((path, name)) = wanted else {
            return Ok(UnlistedStep::End);
        };

        *needed = Some(name.next());
        if Some(&path) == until {
            return Ok(UnlistedStep::End);
        }
        Ok(self.visit_needed(listed, &name, path)?.into())
    }

    /// Takes the next previous entry if it is in the directory and before `until`; `None`: anywhere
    /// in the directory. The listing does not show such an entry.
    fn take_unlisted(
        &mut self,
        directory: &RelPath,
        until: Option<&RelPath>,
    ) -> Result<Option<Entry>, WalkError> {
        let Some(cursor) = &mut self.previous else {
            return Ok(None);
        };
        let is_unlisted = cursor.peek()?.is_some_and(|head| match until {
            Some(until) => head.path < *until,
            None => head.path.is_below(directory),
        });
        if is_unlisted { cursor.take() } else { Ok(None) }
    }

    /// Looks up a name that the listing did not show: one listing may miss a name that still
    /// exists.
    fn visit_unlisted(
        &mut self,
        listed: &ListedDirectory<'_>,
        entry: Entry,
    ) -> Result<Option<ScanStep>, WalkError> {
        let is_direct = entry.path.parent().as_ref() == Some(listed.path);
        let Some(name) = entry.path.name().filter(|_| is_direct && !listed.is_closed) else {
            self.remove(Some(&entry))?;
            return Ok(None);
        };
        let name = ListedName {
            name: name.to_vec(),
            inode: 0,
            kind_hint: None,
        };
        if self
            .rules
            .left_out(listed.path, &name, listed.only_tag)
            .is_some()
        {
            self.remove(Some(&entry))?;
            return Ok(None);
        }

        let clock = now();
        match listed.directory.look_unlisted(&name.name) {
            Ok(None) => {
                self.remove(Some(&entry))?;
                Ok(None)
            }
            stat => {
                let candidate = PathCandidate {
                    directory: listed.directory,
                    name: &name.name,
                    path: entry.path.clone(),
                    previous: Some(entry),
                    parent: Some(listed.node),
                };
                self.visit(candidate, ObservedName { stat, clock })
            }
        }
    }

    /// Looks up a name that the list of files needs and the listing did not show.
    fn visit_needed(
        &mut self,
        listed: &ListedDirectory<'_>,
        needed: &NeededName<'_>,
        path: RelPath,
    ) -> Result<Option<ScanStep>, WalkError> {
        let name = ListedName {
            name: needed.name.to_vec(),
            inode: 0,
            kind_hint: None,
        };
        let left_out = self.rules.left_out(listed.path, &name, listed.only_tag);
        if left_out.is_some() {
            return Ok(None);
        }

        let previous = self.previous_at(&path)?;
        let clock = now();
        match listed.directory.look_unlisted(needed.name) {
            Ok(None) => {
                listed.node.revisit();
                self.miss(&path, previous.as_ref(), needed, Errno::NOENT)?;
                Ok(None)
            }
            stat => {
                let candidate = PathCandidate {
                    directory: listed.directory,
                    name: needed.name,
                    path,
                    previous,
                    parent: Some(listed.node),
                };
                self.visit(candidate, ObservedName { stat, clock })
            }
        }
    }

    /// Records and reports a listed path that does not exist, or a missing directory of listed
    /// paths.
    pub(super) fn miss(
        &mut self,
        path: &RelPath,
        previous: Option<&Entry>,
        needed: &NeededName<'_>,
        err: Errno,
    ) -> Result<(), WalkError> {
        let err = std::io::Error::from(err);
        for listed in needed.paths() {
            self.shared.check()?;
            self.shared.task.observer.add(Counter::Failed, 1);
            self.shared
                .problem(&listed, &reason("find this listed path", &err));
        }

        if let Some(previous) = previous {
            self.hide_below(previous)?;
        }
        let what = if needed.is_listed {
            "find this listed path"
        } else {
            "find this directory of listed paths"
        };
        Ok(self.shared.miss(path, previous, reason(what, &err))?)
    }
}

impl From<Option<ScanStep>> for UnlistedStep {
    fn from(step: Option<ScanStep>) -> Self {
        step.map_or(Self::Done, Self::Enter)
    }
}
