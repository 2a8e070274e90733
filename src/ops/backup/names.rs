//! Compares the things that source names stand for from one backup to the next.

use std::collections::BTreeMap;

use super::previous::PreviousChooser;
use super::{BackupOptions, SourceSpec};
use crate::Error;
use crate::advice::{Advice, BackupAdvice};
use crate::format::{SnapshotState, SourceRecord};
use crate::observe::{Problem, Severity};
use crate::ops::things::SourceThing;
use crate::repo::StoredSnapshot;

/// Most earlier paths of a moved source in its record; the newest are kept.
const MOVED_FROM_MAX: usize = 100;

/// Compares each source with the newest snapshot that has its name. A name that was derived from a
/// path stands for that path only. A name that the user gave may stand for another path, which is
/// reported.
pub(super) fn look(
    chooser: &PreviousChooser<'_>,
    options: &BackupOptions,
    sources: &[SourceSpec],
) -> Result<(), Error> {
    for source in sources {
        let name = source.name();
        let (Some(now), Some((one, record))) = (source.thing(), chooser.newest(name)) else {
            continue;
        };

        let before = SourceThing::of(&record.kind);
        if before == now {
            continue;
        }

        let was = format!(
            "it was {before} in snapshot {} and is now {now}",
            one.id.short()
        );

        let message = match source {
            _ if before.fits(&now) => format!("{was}, which is treated as the same"),
            SourceSpec::Tree(spec)
                if spec.is_name_derived && !options.moved && spec.parent.is_none() =>
            {
                return Err(Error::Usage {
                    why: format!("source '{name}': {was}"),
                    advice: Some(Advice::Backup(BackupAdvice::NameOrMove {
                        path: now.to_string(),
                    })),
                });
            }
            _ => format!("{was}; its history continues"),
        };

        chooser.task.observer.problem(&Problem::new(
            Severity::Note,
            format!("source '{name}'"),
            message,
        ));
    }
    Ok(())
}

/// Returns, by source name, the earlier paths whose history the source continues, for its record.
///
/// A source that is captured at a path for the first time continues the path that its name stood
/// for before. A source that was captured there before keeps the paths in its last record, except
/// those captured since under this name: two jobs that use one name in turn are two sources.
/// `is_moved`: the user states that the source continues all paths of its name.
pub(super) fn moved_from(
    chooser: &PreviousChooser<'_>,
    is_moved: bool,
    sources: &[SourceSpec],
) -> BTreeMap<String, Vec<Vec<u8>>> {
    let mut out = BTreeMap::new();
    for source in sources {
        let Some(now) = source.thing() else { continue };
        let mut all = chooser.by_scan(source.name());
        all.retain(|(one, _)| one.snapshot.state != SnapshotState::Checkpoint);
        let paths = paths_continued(&all, &now, is_moved);
        if !paths.is_empty() {
            out.insert(source.name().to_owned(), paths);
        }
    }
    out
}

/// Returns the paths that a source continues. `all`: the committed captures of its name, oldest
/// first.
fn paths_continued(
    all: &[(&StoredSnapshot, &SourceRecord)],
    now: &SourceThing,
    is_moved: bool,
) -> Vec<Vec<u8>> {
    let is_own = |record: &SourceRecord| match (SourceThing::of(&record.kind), now) {
        // The program of a stream may change.
        (SourceThing::Stream(_), SourceThing::Stream(_)) => true,
        (before, now) => before.fits(now),
    };
    let last_own = all.iter().rposition(|(_, record)| is_own(record));
    let Some(from) = last_own.or_else(|| all.len().checked_sub(1)) else {
        return Vec::new();
    };

    // The paths that the last record continues and that were not captured since.
    let mut paths: Vec<Vec<u8>> = all[from].1.moved_from.clone();
    paths.retain(|path| {
        all[from + 1..]
            .iter()
            .all(|(_, record)| record.path() != path)
    });
    if last_own.is_none() {
        paths.push(all[from].1.path().to_vec());
    }
    if is_moved {
        let others = all.iter().filter(|(_, record)| !is_own(record));
        paths.extend(others.map(|(_, record)| record.path().to_vec()));
    }

    // Keep the last occurrence of each path, newest last. A path without a snapshot has no history
    // to continue.
    let mut seen = std::collections::BTreeSet::new();
    let mut paths: Vec<Vec<u8>> = paths
        .into_iter()
        .rev()
        .filter(|path| seen.insert(path.clone()))
        .collect();
    paths.retain(|path| {
        all.iter()
            .any(|(_, record)| record.path() == path && !is_own(record))
    });
    paths.truncate(MOVED_FROM_MAX);
    paths.reverse();
    paths
}
