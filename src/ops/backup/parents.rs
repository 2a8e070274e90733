//! Which snapshot a source builds on (PROTOCOL R18).

use crate::Error;
use crate::format::{SnapshotState, SourceKind, SourceRecord};
use crate::repo::{Repository, StoredSnapshot, landed_late, trusted_time};
use crate::types::SnapshotId;

/// A source of an earlier snapshot.
#[derive(Debug, Clone)]
pub(super) struct ParentSource {
    pub snapshot: SnapshotId,
    /// That is a checkpoint, which may be deleted at any time.
    pub is_checkpoint: bool,
    pub record: SourceRecord,
}

impl ParentSource {
    fn new(found: &StoredSnapshot, record: &SourceRecord) -> Self {
        let is_checkpoint = found.snapshot.state == SnapshotState::Checkpoint;
        Self { snapshot: found.id, is_checkpoint, record: record.clone() }
    }
}

/// The snapshot of this host that holds the source of this name and whose scan of it started last.
pub(super) fn latest(
    repo: &Repository,
    snapshots: &[StoredSnapshot],
    host: &str,
    name: &str,
) -> Option<ParentSource> {
    let expiry = repo.lease_times().expiry.as_secs_f64();
    let candidates = snapshots
        .iter()
        .filter(|one| one.snapshot.host == host && !landed_late(one.stored, one.snapshot.heartbeat, expiry));
    let sources = candidates.filter_map(|one| Some((one, one.snapshot.source(name)?)));
    let newest = sources
        .max_by_key(|(one, source)| (trusted_time(source.started, one.committed()), one.stored, one.id));
    newest.map(|(one, source)| ParentSource::new(one, source))
}

/// As [`latest`], of the committed snapshots whose capture of the source is good.
pub(super) fn latest_good(
    repo: &Repository,
    snapshots: &[StoredSnapshot],
    host: &str,
    name: &str,
) -> Option<ParentSource> {
    let good: Vec<StoredSnapshot> = snapshots.iter().filter(|one| is_good(one, name)).cloned().collect();
    latest(repo, &good, host, name)
}

/// The source's record in the newest committed snapshot whose capture of it is good.
pub(super) fn last_good<'s>(
    snapshots: &'s [StoredSnapshot],
    host: &str,
    name: &str,
) -> Option<&'s SourceRecord> {
    let good = snapshots.iter().filter(|one| one.snapshot.host == host && is_good(one, name));
    let newest = good.max_by_key(|one| (one.committed(), one.stored, one.id))?;
    newest.snapshot.source(name)
}

fn is_good(one: &StoredSnapshot, name: &str) -> bool {
    one.snapshot.state != SnapshotState::Checkpoint
        && one.snapshot.source(name).is_some_and(|source| source.suspect.is_none())
}

/// The source that was named with `--parent`.
pub(super) fn named(
    snapshots: &[StoredSnapshot],
    snapshot: &SnapshotId,
    source: &str,
) -> Result<ParentSource, Error> {
    let one = snapshots.iter().find(|one| one.id == *snapshot);
    let one = one.ok_or_else(|| Error::NotThere(format!("there is no snapshot {}", snapshot.short())))?;
    let record = one.snapshot.source(source);
    let record = record
        .ok_or_else(|| Error::NotThere(format!("snapshot {} has no source '{source}'", snapshot.short())))?;
    match record.kind {
        SourceKind::Tree { .. } => Ok(ParentSource::new(one, record)),
        SourceKind::Stream { .. } => Err(Error::Usage(format!("'{source}' is a stream, which is no parent"))),
    }
}

/// True if anything in the snapshot's sources is not a full capture.
pub(super) fn state_of(sources: &[SourceRecord]) -> SnapshotState {
    if sources.iter().any(|source| source.counts.incomplete > 0 || source.suspect.is_some()) {
        SnapshotState::Incomplete
    } else {
        SnapshotState::Complete
    }
}
