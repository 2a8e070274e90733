//! Chooses the snapshot that a source builds on ([R18](docs/protocol.md#r18)).

use std::collections::BTreeMap;

use crate::Error;
use crate::advice::{Advice, BackupAdvice};
use crate::format::{SnapshotState, SourceKind, SourceRecord};
use crate::observe::{Problem, Severity};
use crate::ops::things::SourceThing;
use crate::ops::verify::resolves;
use crate::repo::{ChunkReader, Repository, StoredSnapshot, trusted_time};
use crate::store::ObjectKey;
use crate::task::Task;
use crate::types::SnapshotId;

/// A source of an earlier snapshot.
#[derive(Debug, Clone)]
pub(super) struct PreviousSource {
    pub snapshot: SnapshotId,
    /// The snapshot is a checkpoint, which may be deleted at any time.
    pub is_checkpoint: bool,
    pub record: SourceRecord,
    /// For a checkpoint: the source's record in the newest commit that has it.
    pub committed: Option<SourceRecord>,
}

impl PreviousSource {
    /// `snapshots`: all snapshots, in which the commit before a checkpoint is found.
    fn new(found: &StoredSnapshot, record: &SourceRecord, snapshots: &[StoredSnapshot]) -> Self {
        let is_checkpoint = found.snapshot.state == SnapshotState::Checkpoint;
        let host = &found.snapshot.host;
        let committed = is_checkpoint.then(|| last_committed(snapshots, host, &record.name));
        Self {
            snapshot: found.id,
            is_checkpoint,
            record: record.clone(),
            committed: committed.flatten().cloned(),
        }
    }
}

/// Chooses previous snapshots among those that were listed after the lease began.
pub(super) struct PreviousChooser<'a> {
    pub repo: &'a Repository,
    pub reader: &'a ChunkReader<'a>,
    pub snapshots: &'a [StoredSnapshot],
    pub host: &'a str,
    pub task: Task<'a>,
    /// Whether a snapshot that landed late is complete, for those already checked.
    pub judged: BTreeMap<SnapshotId, bool>,
}

impl<'a> PreviousChooser<'a> {
    /// Returns the snapshot of this host whose scan of the source with this name started last, and
    /// the source's record.
    pub fn newest(&self, name: &str) -> Option<(&StoredSnapshot, &SourceRecord)> {
        self.by_scan(name).pop()
    }

    /// Returns the snapshots of this host with a source of this name, ordered by the start of its
    /// scan.
    pub fn by_scan(&self, name: &str) -> Vec<(&'a StoredSnapshot, &'a SourceRecord)> {
        let of_host = self
            .snapshots
            .iter()
            .filter(|one| one.snapshot.host == self.host);
        let mut sources: Vec<(&StoredSnapshot, &SourceRecord)> = of_host
            .filter_map(|one| Some((one, one.snapshot.source(name)?)))
            .collect();
        sources.sort_by_key(|(one, source)| {
            // A commit sorts after the checkpoints of the same scan.
            let is_commit = one.snapshot.state != SnapshotState::Checkpoint;
            (
                trusted_time(source.started, one.committed()),
                one.committed(),
                is_commit,
                one.order(),
            )
        });
        sources
    }

    /// Returns the source to build on: of this host and name, preferably of the same path, the one
    /// whose scan started last. With `good_only`, only committed snapshots with a good capture of
    /// the source count.
    pub fn latest(
        &mut self,
        name: &str,
        thing: &SourceThing,
        good_only: bool,
    ) -> Result<Option<PreviousSource>, Error> {
        let mut sources = self.by_scan(name);
        sources.retain(|(one, _)| !good_only || is_good(one, name));
        sources.sort_by_key(|(_, source)| SourceThing::of(&source.kind).fits(thing));
        for (one, source) in sources.into_iter().rev() {
            if self.is_usable(one)? {
                return Ok(Some(PreviousSource::new(one, source, self.snapshots)));
            }
        }
        Ok(None)
    }

    /// Returns false for a snapshot that landed after its lease had ended and lacks chunks.
    ///
    /// If it lacks none, it can be used like any other: all chunks that it names are in packs that
    /// were known after our lease began, as if each chunk had been found there by itself. Only one
    /// such snapshot is read per backup. If it lacks chunks, the others that landed late are
    /// skipped.
    fn is_usable(&mut self, one: &StoredSnapshot) -> Result<bool, Error> {
        if !one.landed_late(&self.repo.lease_times()) {
            return Ok(true);
        }
        if let Some(&is_whole) = self.judged.get(&one.id) {
            return Ok(is_whole);
        }
        if self.judged.values().any(|is_whole| !is_whole) {
            return Ok(false);
        }
        let is_whole = resolves(self.reader, one, self.task.cancel)?;
        self.judged.insert(one.id, is_whole);
        if !is_whole {
            let message = "it landed after its lease had expired, and data that it needs is gone: no backup uses it as a parent";
            self.task.observer.problem(&Problem::new(
                Severity::Note,
                ObjectKey::Snapshot(one.id),
                message,
            ));
        }
        Ok(is_whole)
    }

    /// Returns the source that was named with `--parent`.
    pub fn named(&mut self, snapshot: &SnapshotId, source: &str) -> Result<PreviousSource, Error> {
        let previous = named(self.snapshots, snapshot, source)?;
        let one = self.snapshots.iter().find(|one| one.id == *snapshot);
        match one.map(|one| self.is_usable(one)).transpose()? {
            Some(false) => Err(Error::Refused {
                why: format!(
                    "snapshot {} lacks chunks and cannot be a parent",
                    snapshot.short()
                ),
                advice: Advice::Backup(BackupAdvice::UseNewestParent),
            }),
            _ => Ok(previous),
        }
    }
}

/// Returns the source's record in the newest committed snapshot with a good capture of it.
pub(super) fn last_good<'s>(
    snapshots: &'s [StoredSnapshot],
    host: &str,
    name: &str,
) -> Option<&'s SourceRecord> {
    let good = snapshots
        .iter()
        .filter(|one| one.snapshot.host == host && is_good(one, name));
    let newest = good.max_by_key(|one| one.order())?;
    newest.snapshot.source(name)
}

/// Returns the source's record in the newest committed snapshot that has it.
pub(super) fn last_committed<'s>(
    snapshots: &'s [StoredSnapshot],
    host: &str,
    name: &str,
) -> Option<&'s SourceRecord> {
    let has = |one: &&StoredSnapshot| {
        let is_commit = one.snapshot.state != SnapshotState::Checkpoint;
        one.snapshot.host == host && is_commit && one.snapshot.source(name).is_some()
    };
    snapshots
        .iter()
        .filter(has)
        .max_by_key(|one| one.order())?
        .snapshot
        .source(name)
}

fn is_good(one: &StoredSnapshot, name: &str) -> bool {
    one.snapshot.state != SnapshotState::Checkpoint
        && one
            .snapshot
            .source(name)
            .is_some_and(|source| source.suspect.is_none())
}

fn named(
    snapshots: &[StoredSnapshot],
    snapshot: &SnapshotId,
    source: &str,
) -> Result<PreviousSource, Error> {
    let one = snapshots.iter().find(|one| one.id == *snapshot);
    let one =
        one.ok_or_else(|| Error::NotThere(format!("there is no snapshot {}", snapshot.short())))?;
    let record = one.snapshot.source(source);
    let record = record.ok_or_else(|| {
        Error::NotThere(format!(
            "snapshot {} has no source '{source}'",
            snapshot.short()
        ))
    })?;
    match record.kind {
        SourceKind::Tree { .. } => Ok(PreviousSource::new(one, record, snapshots)),
        SourceKind::Stream { .. } => Err(Error::usage(format!(
            "'{source}' is a stream, which cannot be a parent"
        ))),
    }
}

/// Returns `Incomplete` if any of the sources is incomplete or suspect.
pub(super) fn state_of(sources: &[SourceRecord]) -> SnapshotState {
    if sources
        .iter()
        .any(|source| source.counts.incomplete > 0 || source.suspect.is_some())
    {
        SnapshotState::Incomplete
    } else {
        SnapshotState::Complete
    }
}
