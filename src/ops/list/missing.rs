//! Lists the paths that a snapshot lacks.

use super::ls::{EachLs, LsItem, report_uncertain};
use super::path::ListedPath;
use crate::Error;
use crate::format::{SourceKind, SourceRecord};
use crate::ops::absent::no_path;
use crate::read::ReadSession;
use crate::read::source_of;
use crate::read::tree::TreeReader;
use crate::repo::{OnDamage, StoredSnapshot};
use crate::types::{Entry, RelPath};

/// Lists, in path order and at any depth, the entries of a snapshot that are not a full capture
/// (failed, stale, torn), and the directories that held names which it lacks
/// ([`Entry::missing_names`]). With a source and a path, lists those at and below it. Sources are
/// not listed.
///
/// # Errors
/// [`Error::NotThere`] if there is no such source, [`Error::NoPath`] if there is no such path.
pub fn missing(
    session: &ReadSession<'_>,
    what: &ListedPath,
    each: &mut EachLs<'_>,
) -> Result<(), Error> {
    let found = what.find(session)?;
    match &what.source {
        Some(name) => {
            let source = source_of(&found, &what.snapshot, name, &what.path)?;
            missing_of(session, &found, source, &what.path, each)
        }
        None => found
            .snapshot
            .sources
            .iter()
            .try_for_each(|source| missing_of(session, &found, source, &RelPath::root(), each)),
    }
}

fn missing_of(
    session: &ReadSession<'_>,
    found: &StoredSnapshot,
    source: &SourceRecord,
    path: &RelPath,
    each: &mut EachLs<'_>,
) -> Result<(), Error> {
    let SourceKind::Tree { runs, .. } = &source.kind else {
        return if path.is_root() {
            Ok(())
        } else {
            Err(no_path(session.reader(), found.id, source, path))
        };
    };

    let mut walk = TreeReader::open(session.reader(), runs, OnDamage::Skip)?;
    let mut give = |entry: &Entry| {
        if entry.is_incomplete() || entry.missing_names().is_some() {
            each(LsItem::Entry {
                source: &source.name,
                entry,
            })
        } else {
            Ok(())
        }
    };

    let top = walk.entry_at(path)?;
    let result = match &top {
        None if !path.is_root() => Err(no_path(session.reader(), found.id, source, path)),
        Some(entry) if !entry.is_directory() => give(entry),
        top => top.iter().try_for_each(&mut give).and_then(|()| {
            while let Some(entry) = walk.next_below(path)? {
                session.keep()?;
                give(&entry)?;
            }
            Ok(())
        }),
    };

    report_uncertain(&mut walk, found, source, session.task().observer);
    result
}
