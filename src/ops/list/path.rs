//! The path of a snapshot that a user names.

use crate::Error;
use crate::read::ReadSession;
use crate::repo::{HostChoice, StoredSnapshot};
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
    /// Returns the snapshot that this refers to, and brings the index up to date.
    pub(super) fn find(&self, session: &ReadSession<'_>) -> Result<StoredSnapshot, Error> {
        let source = self.source.as_deref().filter(|name| !name.is_empty());
        let found = session.choose(&self.snapshot, &self.hosts, source)?;
        session.sync()?;
        Ok(found)
    }
}
