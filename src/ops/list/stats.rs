//! Totals of a repository.

use std::collections::BTreeMap;

use super::snapshots::{SnapshotFilter, snapshots};
use crate::Error;
use crate::format::{RunRef, SnapshotState, SourceKind};
use crate::index::Index;
use crate::observe::{Problem, Severity};
use crate::read::ReadSession;
use crate::read::tree::TreeReader;
use crate::repo::{OnDamage, Repository};
use crate::types::to_u64;

/// The totals of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RepoStats {
    /// Committed ones.
    pub snapshots: u64,
    pub checkpoints: u64,
    pub segments: u64,
    /// Held packs, including condemned ones.
    pub packs: u64,
    pub condemned_packs: u64,
    /// Stored bytes of held packs.
    pub stored_bytes: u64,
    /// Chunks in held packs.
    pub chunks: u64,
    /// Plain bytes in held packs; each chunk counts once unless two packs hold it.
    pub data_bytes: u64,
    pub metadata_bytes: u64,
    /// The newest snapshot of each host and source: sources, files in them (a stream is one), and
    /// plain bytes as a restore would write them.
    pub latest_sources: u64,
    pub latest_files: u64,
    pub latest_bytes: u64,
    /// The local cache directory, which can be deleted at any time.
    pub cache_bytes: u64,
}

/// Returns the totals of a repository. Reads the runs of the newest snapshots.
pub fn stats(session: &ReadSession<'_>) -> Result<RepoStats, Error> {
    let repo = session.repo();
    let task = session.task();
    let all = snapshots(repo, &SnapshotFilter::default(), task.observer)?;
    session.add_snapshots(all.iter().map(|found| found.id));
    session.sync()?;
    let totals = repo.with_index(Index::totals)?;
    let committed = |state| state != SnapshotState::Checkpoint;

    let snapshots = all
        .iter()
        .filter(|found| committed(found.snapshot.state))
        .count();
    let mut out = RepoStats {
        snapshots: to_u64(snapshots),
        segments: to_u64(repo.listed_segments()?.len()),
        packs: totals.packs,
        condemned_packs: totals.condemned,
        stored_bytes: totals.stored_bytes,
        chunks: totals.chunks,
        data_bytes: totals.data_bytes,
        metadata_bytes: totals.metadata_bytes,
        cache_bytes: cache_bytes(repo),
        ..RepoStats::default()
    };
    out.checkpoints = to_u64(all.len()) - out.snapshots;

    let mut latest = BTreeMap::new();
    for found in all.iter().filter(|found| committed(found.snapshot.state)) {
        for source in &found.snapshot.sources {
            latest.insert((&found.snapshot.host, &source.name), source);
        }
    }

    for ((host, name), source) in &latest {
        if let Some(reason) = &source.suspect {
            let subject = format!("source {name} on host {host}");
            let message = format!("its newest capture is suspect: {reason}");
            task.observer
                .problem(&Problem::new(Severity::Note, subject, message));
        }
    }

    for source in latest.values() {
        session.keep()?;
        let (files, bytes) = match &source.kind {
            SourceKind::Tree { runs, .. } => tree_size(session, runs)?,
            SourceKind::Stream { content, .. } => (1, content.size),
        };
        out.latest_sources += 1;
        out.latest_files += files;
        out.latest_bytes = out.latest_bytes.saturating_add(bytes);
    }

    Ok(out)
}

/// Returns the number and total bytes of a tree's files.
fn tree_size(session: &ReadSession<'_>, runs: &[RunRef]) -> Result<(u64, u64), Error> {
    let mut walk = TreeReader::open(session.reader(), runs, OnDamage::Skip)?;
    let mut files = 0;
    let mut bytes = 0u64;
    while let Some(entry) = walk.next()? {
        session.keep()?;
        if let Some(content) = entry.content() {
            files += 1;
            bytes = bytes.saturating_add(content.size);
        }
    }
    Ok((files, bytes))
}

/// Returns the bytes of the files in the cache directory. Files that cannot be stat'ed count as 0.
fn cache_bytes(repo: &Repository) -> u64 {
    let files = walkdir::WalkDir::new(repo.cache_dir())
        .into_iter()
        .filter_map(Result::ok);
    let files = files.filter(|entry| entry.file_type().is_file());
    files
        .filter_map(|entry| entry.metadata().ok())
        .map(|meta| meta.len())
        .sum()
}
