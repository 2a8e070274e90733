//! Reads a repository: its snapshots, their contents, the snapshots that contain a path, the bytes
//! of a stream or file, sums.
//!
//! Listings are tolerant: if a page of a run cannot be read, the uncertain range of paths is
//! reported to the observer as damage, and the rest is listed.

mod cat;
mod find;
mod lacking;
mod missing;
mod stats;
mod tar;
mod tar_links;
#[cfg(test)]
mod tests;

pub use cat::cat;
pub use find::{FindItem, FindReport, find};
pub use lacking::{
    LACKING_PATHS_MAX, LackingPath, LackingReport, MissingLister, SourceLacks, WhyLacking,
};
pub use missing::missing;
pub use stats::{RepoStats, stats};

use crate::Error;
use crate::format::{RunRef, SourceKind, SourceRecord};
use crate::observe::{Observer, Problem, Severity};
use crate::ops::absent::no_path;
use crate::ops::choose::{choose, source_of};
use crate::read::ReadSession;
use crate::read::tree::TreeReader;
use crate::repo::{
    ChunkReader, HostChoice, Repository, StoredSnapshot, UncertainPaths, without_replaced,
};
use crate::store::ObjectKey;
use crate::task::Cancel;
use crate::types::{Entry, RelPath, Timestamp};

/// Metadata frames kept while listing.
const CACHE_BYTES: usize = 16 << 20;

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
    fn find(&self, repo: &Repository, observer: &dyn Observer) -> Result<StoredSnapshot, Error> {
        let source = self.source.as_deref().filter(|name| !name.is_empty());
        choose(repo, &self.snapshot, &self.hosts, source, observer)
    }
}

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
    let all = repo.snapshots(&mut |id, err| {
        observer.problem(&Problem::new(
            Severity::Damage,
            ObjectKey::Snapshot(id),
            err,
        ));
    })?;
    crate::ops::report_vanished(repo, observer);
    super::report_times(repo, &all, observer);
    let mut all = without_replaced(all);
    all.retain(|found| filter.accepts(found));
    Ok(all)
}

/// One line of a listing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LsItem<'a> {
    /// A source of the snapshot, and the time that counts as the start of its capture.
    Source {
        source: &'a SourceRecord,
        time: Timestamp,
    },
    /// A path of a tree source.
    Entry { source: &'a str, entry: &'a Entry },
}

/// Receives the listed items. An error that it returns ends the operation.
pub type EachLs<'a> = dyn FnMut(LsItem<'_>) -> Result<(), Error> + 'a;

/// Lists the contents of a snapshot, in path order.
///
/// For a snapshot, lists its sources; for a source or directory, its direct children; for any other
/// path, that entry. `recursive` lists everything below as well; a directory given by its path is
/// not listed itself. Only the pages that lead there are read.
///
/// # Errors
/// [`Error::NotThere`] if there is no such source or path.
pub fn ls(
    session: &ReadSession<'_>,
    what: &ListedPath,
    recursive: bool,
    each: &mut EachLs<'_>,
) -> Result<(), Error> {
    let observer = session.task().observer;
    let reader = session.reader();
    let found = what.find(session.repo(), observer)?;
    crate::ops::sync_until(session.repo(), session.task())?;

    if let Some(lost) = &found.snapshot.lost {
        let message = format!(
            "{} of its paths lack data since a repair; 'restore' lists them",
            lost.count
        );
        observer.problem(&Problem::new(
            Severity::Note,
            format!("snapshot {}", found.id.short()),
            message,
        ));
    }

    if let Some(name) = &what.source {
        let source = source_of(&found, &what.snapshot, name, &what.path)?;
        return ls_source(
            reader, &found, source, &what.path, recursive, observer, each,
        );
    }

    for source in &found.snapshot.sources {
        each(LsItem::Source {
            source,
            time: found.time_of(source),
        })?;
        if recursive && matches!(source.kind, SourceKind::Tree { .. }) {
            ls_source(
                reader,
                &found,
                source,
                &RelPath::root(),
                true,
                observer,
                each,
            )?;
        }
    }
    Ok(())
}

fn ls_source(
    reader: &ChunkReader<'_>,
    found: &StoredSnapshot,
    source: &SourceRecord,
    path: &RelPath,
    recursive: bool,
    observer: &dyn Observer,
    each: &mut EachLs<'_>,
) -> Result<(), Error> {
    let SourceKind::Tree { runs, .. } = &source.kind else {
        return if path.is_root() {
            each(LsItem::Source {
                source,
                time: found.time_of(source),
            })
        } else {
            Err(no_path(reader, found.id, source, path))
        };
    };

    let mut walk = TreeReader::open(reader, runs, true)?;
    let top = walk.entry_at(path)?;

    let result = match &top {
        Some(entry) if entry.is_directory() => ls_below(&mut walk, source, path, recursive, each),
        Some(entry) => each(LsItem::Entry {
            source: &source.name,
            entry,
        }),
        // A tree without a root entry is empty.
        None if path.is_root() => ls_below(&mut walk, source, path, recursive, each),
        None => Err(no_path(reader, found.id, source, path)),
    };

    report_uncertain(&mut walk, found, source, observer);
    result
}

fn ls_below(
    walk: &mut TreeReader<'_>,
    source: &SourceRecord,
    directory: &RelPath,
    recursive: bool,
    each: &mut EachLs<'_>,
) -> Result<(), Error> {
    while let Some(entry) = walk.next_below(directory)? {
        each(LsItem::Entry {
            source: &source.name,
            entry: &entry,
        })?;
        if !recursive && entry.is_directory() {
            walk.skip_below(&entry.path);
        }
    }
    Ok(())
}

/// Reports the ranges of paths that a walk could not read.
fn report_uncertain(
    walk: &mut TreeReader<'_>,
    found: &StoredSnapshot,
    source: &SourceRecord,
    observer: &dyn Observer,
) {
    for UncertainPaths {
        from, until, why, ..
    } in walk.take_uncertain()
    {
        let until = until.map_or_else(|| "the end".to_owned(), |until| until.to_string());
        let subject = format!("{}:{}", found.id.short(), source.name);
        let message = format!("the paths from {from} to {until} are unknown: {why}");
        observer.problem(&Problem::new(Severity::Damage, subject, message));
    }
}

/// Returns the runs of a tree source, or an empty slice for a stream.
fn runs_of(source: &SourceRecord) -> &[RunRef] {
    match &source.kind {
        SourceKind::Tree { runs, .. } => runs,
        SourceKind::Stream { .. } => &[],
    }
}

/// Returns the number and total bytes of a tree's files.
fn tree_size(
    reader: &ChunkReader<'_>,
    runs: &[RunRef],
    cancel: &Cancel,
) -> Result<(u64, u64), Error> {
    let mut walk = TreeReader::open(reader, runs, true)?;
    let mut files = 0;
    let mut bytes = 0u64;
    while let Some(entry) = walk.next()? {
        cancel.check()?;
        if let Some(content) = entry.content() {
            files += 1;
            bytes = bytes.saturating_add(content.size);
        }
    }
    Ok((files, bytes))
}
