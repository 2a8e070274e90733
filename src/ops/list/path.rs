//! The path of a snapshot that a user names.

use crate::Error;
use crate::observe::Observer;
use crate::read::choose;
use crate::repo::{HostChoice, Repository, StoredSnapshot};
use crate::types::RelPath;

/// `SNAP[:SOURCE[/PATH]]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedPath {
    /// An id, a prefix of one, or `latest`.
    pub snapshot: String,
    /// The hosts whose snapshots count as `latest`.
    pub hosts: HostChoice,
    /// The name is empty for a path without a source, which is refused with the correct form.
    pub source: Option<String>,
    /// The root unless a path was given. Only used with a source.
    pub path: RelPath,
}

impl ListedPath {
    /// Returns the snapshot that this refers to.
    pub(super) fn find(
        &self,
        repo: &Repository,
        observer: &dyn Observer,
    ) -> Result<StoredSnapshot, Error> {
        let source = self.source.as_deref().filter(|name| !name.is_empty());
        choose(repo, &self.snapshot, &self.hosts, source, observer)
    }
}
