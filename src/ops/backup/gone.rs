//! Names that the previous snapshot has and the listing does not show. A name is removed from the
//! snapshot only if it is really gone: not in the listing, and not found by a lookup.

use std::sync::Arc;

use super::sink::DirectoryNode;
use super::visit::ObservedName;
use super::walk::{Scan, ScanStep, WalkError};
use crate::source::{ListedName, SourceDir};
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

impl Scan<'_, '_> {
    /// Takes the next previous entry if it is in the directory and before `until`; `None`: anywhere
    /// in the directory. The listing does not show such an entry.
    pub(super) fn take_unlisted(
        &mut self,
        directory: &RelPath,
        until: Option<&RelPath>,
    ) -> Result<Option<Entry>, WalkError> {
        let Some(cursor) = &mut self.parent else {
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
    pub(super) fn visit_unlisted(
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
                let seen = ObservedName { stat, clock };
                let path = entry.path.clone();
                self.visit(
                    listed.directory,
                    &name.name,
                    path,
                    seen,
                    Some(entry),
                    Some(listed.node),
                )
            }
        }
    }
}
