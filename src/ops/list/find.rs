//! Finds paths by pattern in all snapshots.
//!
//! Each run is read once, independent of the number of snapshots that share it, to collect its
//! matching paths. Each snapshot is then searched for these paths alone. Only if a pattern matches
//! more than [`PATHS_MAX`] paths of a run are the snapshots walked in full.

use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use super::ls::report_uncertain;
use super::snapshots::{SnapshotFilter, snapshots};
use crate::Error;
use crate::format::{RunRef, SourceKind, SourceRecord};
use crate::ops::restore::meant;
use crate::read::ReadSession;
use crate::read::tree::TreeReader;
use crate::repo::{OnDamage, StoredSnapshot};
use crate::source::{Filter, FilterOptions, GivenAs};
use crate::types::{ChunkId, Entry, RelPath};

/// Matching paths of one run that are remembered.
const PATHS_MAX: usize = 4096;
/// Matching paths that are remembered in all.
const PATHS_IN_ALL_MAX: usize = 128 << 10;

/// A matching path in one snapshot.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FindItem<'a> {
    pub snapshot: &'a StoredSnapshot,
    pub source: &'a str,
    pub entry: &'a Entry,
}

/// The result of a search.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FindReport {
    /// Paths that were found, counted once for each snapshot that contains them.
    pub found: u64,
    /// Snapshots that were searched.
    pub snapshots: usize,
    /// If nothing was found: the corrected pattern, if it begins with the path or name of a source.
    pub meant: Option<OsString>,
}

/// Receives the found paths. An error that it returns ends the operation.
pub type EachFind<'a> = dyn FnMut(FindItem<'_>) -> Result<(), Error> + 'a;

/// Finds the paths that match a pattern.
///
/// The pattern follows the rules of gitignore, from each source's root: without `/` it matches at
/// any depth, and one that ends in `/` matches only directories. Results are ordered by snapshot,
/// newest first, and each source in path order; a path is returned once for each snapshot that
/// contains it. Roots are not matched, and neither are paths below a match.
pub fn find(
    session: &ReadSession<'_>,
    glob: &OsStr,
    filter: &SnapshotFilter,
    each: &mut EachFind<'_>,
) -> Result<FindReport, Error> {
    let excludes = vec![glob.to_owned()];
    let patterns = Filter::new(&FilterOptions {
        excludes,
        given_as: GivenAs::Search,
        ..FilterOptions::default()
    })?;

    if glob.as_bytes().starts_with(b"!") {
        return Err(Error::usage(format!(
            "the pattern '{0}' begins with '!', which only negates another pattern: write '\\{0}' for a name that begins with '!'",
            glob.to_string_lossy()
        )));
    }

    let task = session.task();
    let reader = session.reader();
    let all = snapshots(session.repo(), filter, task.observer)?;
    session.add_snapshots(all.iter().map(|found| found.id));
    session.sync()?;

    let mut finder = PathFinder {
        session,
        patterns: &patterns,
        runs: HashMap::new(),
        remembered: 0,
    };
    let mut report = FindReport {
        snapshots: all.len(),
        ..FindReport::default()
    };

    for snapshot in all.iter().rev() {
        let sources = snapshot.snapshot.sources.iter();
        for source in sources.filter(|source| {
            filter
                .source
                .as_ref()
                .is_none_or(|name| source.name == *name)
        }) {
            let runs = runs_of(source);
            let mut walk = TreeReader::open(reader, runs, OnDamage::Skip)?;

            let mut give = |entry: &Entry| {
                report.found += 1;
                each(FindItem {
                    snapshot,
                    source: &source.name,
                    entry,
                })
            };

            match finder.candidates(runs)? {
                Some(paths) => {
                    for path in &paths {
                        session.keep()?;
                        if let Some(entry) = walk.entry_at(path)?
                            && finder.matches(&entry)
                        {
                            give(&entry)?;
                        }
                    }
                }
                None => {
                    while let Some(entry) = walk.next()? {
                        session.keep()?;
                        if finder.matches(&entry) {
                            give(&entry)?;
                        }
                    }
                }
            }

            report_uncertain(&mut walk, snapshot, source, task.observer);
        }
    }

    if report.found == 0 {
        let sources: Vec<&SourceRecord> = all
            .iter()
            .rev()
            .flat_map(|one| &one.snapshot.sources)
            .collect();
        report.meant = meant(glob, &sources, &RelPath::root());
    }
    Ok(report)
}

/// Returns the runs of a tree source, or an empty slice for a stream.
fn runs_of(source: &SourceRecord) -> &[RunRef] {
    match &source.kind {
        SourceKind::Tree { runs, .. } => runs,
        SourceKind::Stream { .. } => &[],
    }
}

/// The matching paths of a run. `None`: too many to remember, or the run cannot be read completely.
type Matches = Option<Arc<Vec<RelPath>>>;

struct PathFinder<'a> {
    session: &'a ReadSession<'a>,
    patterns: &'a Filter,
    runs: HashMap<ChunkId, Matches>,
    remembered: usize,
}

impl PathFinder<'_> {
    fn matches(&self, entry: &Entry) -> bool {
        self.patterns.excludes(&entry.path, entry.is_directory())
    }

    /// Returns the paths that may match in a state of these runs, sorted. `None`: any path may
    /// match.
    fn candidates(&mut self, runs: &[RunRef]) -> Result<Option<BTreeSet<RelPath>>, Error> {
        let mut paths = BTreeSet::new();
        for run in runs {
            match self.run(run)? {
                Some(found) => paths.extend(found.iter().cloned()),
                None => return Ok(None),
            }
        }
        Ok(Some(paths))
    }

    fn run(&mut self, run: &RunRef) -> Result<Matches, Error> {
        if let Some(known) = self.runs.get(&run.root) {
            return Ok(known.clone());
        }
        let mut walk = TreeReader::open(
            self.session.reader(),
            std::slice::from_ref(run),
            OnDamage::Skip,
        )?;
        let mut found = Vec::new();
        let mut is_short = true;
        while let Some(mention) = walk.next_mention()? {
            self.session.keep()?;
            if self.matches(&mention.entry) {
                is_short =
                    found.len() < PATHS_MAX && self.remembered + found.len() < PATHS_IN_ALL_MAX;
                if !is_short {
                    break;
                }
                found.push(mention.entry.path);
            }
        }
        let is_whole = is_short && walk.take_uncertain().is_empty();
        let matches = is_whole.then(|| Arc::new(found));
        self.remembered += matches.as_ref().map_or(0, |found| found.len());
        self.runs.insert(run.root, matches.clone());
        Ok(matches)
    }
}
