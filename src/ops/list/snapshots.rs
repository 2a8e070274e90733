//! Lists the snapshots of a repository.

use crate::Error;
use crate::observe::Observer;
use crate::repo::{Repository, StoredSnapshot, without_replaced};

/// Selects snapshots. All given conditions must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SnapshotFilter {
    pub host: Option<String>,
    /// The snapshot has all of these.
    pub tags: Vec<String>,
    /// The snapshot has a source of this name.
    pub source: Option<String>,
}

impl SnapshotFilter {
    /// Returns true if the snapshot meets all conditions.
    pub fn accepts(&self, found: &StoredSnapshot) -> bool {
        let snapshot = &found.snapshot;
        self.host.as_ref().is_none_or(|host| snapshot.host == *host)
            && self.tags.iter().all(|tag| snapshot.tags.contains(tag))
            && self
                .source
                .as_ref()
                .is_none_or(|name| snapshot.source(name).is_some())
    }
}

/// Returns the snapshots, including checkpoints, without those that another one replaces, oldest
/// first by their sealed times. Snapshots that cannot be read are reported as damage, and times
/// that a copy has lost in a note.
pub fn snapshots(
    repo: &Repository,
    filter: &SnapshotFilter,
    observer: &dyn Observer,
) -> Result<Vec<StoredSnapshot>, Error> {
    let all = crate::read::readable_snapshots(repo, observer)?;
    crate::read::report_vanished(repo, observer);
    crate::read::report_times(repo, &all, observer);
    let mut all = without_replaced(all);
    all.retain(|found| filter.accepts(found));
    Ok(all)
}
