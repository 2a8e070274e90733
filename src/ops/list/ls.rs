//! Lists the sources of a snapshot and the entries of its trees.

use super::path::ListedPath;
use crate::Error;
use crate::advice::{Advice, SnapshotAdvice};
use crate::format::{SourceKind, SourceRecord};
use crate::observe::{Observer, Problem, Severity};
use crate::ops::absent::no_path;
use crate::read::ReadSession;
use crate::read::source_of;
use crate::read::tree::TreeReader;
use crate::repo::{OnDamage, StoredSnapshot, UncertainPaths};
use crate::types::{Entry, RelPath, Timestamp};

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

/// How far a listing of a directory goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListDepth {
    /// The sources of a snapshot, or the direct children of a directory.
    Children,
    /// Everything below.
    Everything,
}

/// Receives the listed items. An error that it returns ends the operation.
pub type EachLs<'a> = dyn FnMut(LsItem<'_>) -> Result<(), Error> + 'a;

/// Lists the contents of a snapshot, in path order.
///
/// For a snapshot, lists its sources; for a source or directory, its direct children; for any other
/// path, that entry. [`ListDepth::Everything`] lists everything below as well; a directory given by
/// its path is not listed itself. Only the pages that lead there are read.
///
/// # Errors
/// [`Error::NotThere`] if there is no such source, [`Error::NoPath`] if there is no such path.
pub fn ls(
    session: &ReadSession<'_>,
    what: &ListedPath,
    depth: ListDepth,
    each: &mut EachLs<'_>,
) -> Result<(), Error> {
    let observer = session.task().observer;
    let found = what.find(session)?;

    if let Some(lost) = &found.snapshot.lost {
        let snapshot = format!("snapshot {}", found.id.short());
        let message = format!("{} of its paths lack data since a repair", lost.count);
        let problem = Problem::new(Severity::Note, snapshot, message);
        observer.problem(&problem.with_advice(Advice::Snapshot(SnapshotAdvice::RestoreToList)));
    }

    if let Some(name) = &what.source {
        let source = source_of(&found, &what.snapshot, name, &what.path)?;
        return ls_source(session, &found, source, &what.path, depth, each);
    }

    for source in &found.snapshot.sources {
        each(LsItem::Source {
            source,
            time: found.time_of(source),
        })?;
        if depth == ListDepth::Everything && matches!(source.kind, SourceKind::Tree { .. }) {
            ls_source(session, &found, source, &RelPath::root(), depth, each)?;
        }
    }
    Ok(())
}

fn ls_source(
    session: &ReadSession<'_>,
    found: &StoredSnapshot,
    source: &SourceRecord,
    path: &RelPath,
    depth: ListDepth,
    each: &mut EachLs<'_>,
) -> Result<(), Error> {
    let reader = session.reader();
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

    let mut walk = TreeReader::open(reader, runs, OnDamage::Skip)?;
    let top = walk.entry_at(path)?;

    let result = match &top {
        Some(entry) if entry.is_directory() => {
            ls_below(session, &mut walk, source, path, depth, each)
        }
        Some(entry) => each(LsItem::Entry {
            source: &source.name,
            entry,
        }),
        // A tree without a root entry is empty.
        None if path.is_root() => ls_below(session, &mut walk, source, path, depth, each),
        None => Err(no_path(reader, found.id, source, path)),
    };

    report_uncertain(&mut walk, found, source, session.task().observer);
    result
}

fn ls_below(
    session: &ReadSession<'_>,
    walk: &mut TreeReader<'_>,
    source: &SourceRecord,
    directory: &RelPath,
    depth: ListDepth,
    each: &mut EachLs<'_>,
) -> Result<(), Error> {
    while let Some(entry) = walk.next_below(directory)? {
        session.keep()?;
        each(LsItem::Entry {
            source: &source.name,
            entry: &entry,
        })?;
        if depth == ListDepth::Children && entry.is_directory() {
            walk.skip_below(&entry.path);
        }
    }
    Ok(())
}

/// Reports the ranges of paths that a walk could not read.
pub(super) fn report_uncertain(
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
