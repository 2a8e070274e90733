//! Names that the parent has and the source does not show. A name is removed from the snapshot only
//! if it is gone: neither the listing shows it nor a look finds it.

use std::sync::Arc;

use super::sink::DirectoryNode;
use super::visit::Seen;
use super::walk::{Step, Walk, WalkError};
use crate::source::{ListedName, SourceDir};
use crate::sys::now;
use crate::types::{Entry, RelPath};

/// A directory under a walk.
pub(super) struct Listed<'l> {
    pub path: &'l RelPath,
    pub directory: &'l SourceDir,
    pub node: &'l Arc<DirectoryNode>,
    /// Only the tag of a cache directory is captured.
    pub only_tag: bool,
    /// It is not entered by the rules: all that the parent has in it goes.
    pub is_closed: bool,
}

impl Walk<'_, '_> {
    /// Takes the parent's next entry if it lies in the directory and before `until`, or anywhere in
    /// it for none: the listing does not show it.
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

    /// Looks for what the listing did not show: a name may be missing from one listing and be there
    /// all the same.
    pub(super) fn visit_unlisted(
        &mut self,
        listed: &Listed<'_>,
        entry: Entry,
    ) -> Result<Option<Step>, WalkError> {
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
                let seen = Seen { stat, clock };
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
