//! Reports how much a snapshot lacks of each source, and the first missing paths, for reports that
//! list many snapshots.

use crate::format::{SourceKind, SourceRecord};
use crate::repo::{ChunkReader, MergedRuns, OnDamage, RepoError, RunStreams, StoredSnapshot};
use crate::types::{Entry, EntryFlags, MissingNames, Node, RelPath, to_u64};

/// Most paths that are listed of a source.
pub const LACKING_PATHS_MAX: usize = 20;

/// How much a snapshot lacks of a source, from its counts. No list of files is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SourceLacks {
    /// Entries that are failed, stale or torn.
    pub incomplete: u64,
    /// Directories with missing names. `None`: not known.
    pub partial: Option<u64>,
    /// Those of `partial` with names missing for other reasons than the user's rules. `None`: not
    /// known.
    pub unseen: Option<u64>,
    /// Paths that lack data since a repair, as far as the snapshot names them.
    pub lost: u64,
    /// A repair named only the first incomplete paths of the snapshot, so this source may have more
    /// of them.
    pub is_lost_cut: bool,
}

impl SourceLacks {
    /// Returns the counts of one source of a snapshot.
    pub fn of(found: &StoredSnapshot, source: &SourceRecord) -> Self {
        let counts = &source.counts;
        let lost = found.snapshot.lost.as_ref();
        let named = lost.map_or(0, |lost| {
            let of_source = lost.paths.iter().filter(|path| path.source == source.name);
            to_u64(of_source.count())
        });
        Self {
            incomplete: counts.incomplete,
            partial: counts.partial,
            unseen: counts.unseen,
            lost: named,
            is_lost_cut: lost.is_some_and(|lost| lost.count > to_u64(lost.paths.len())),
        }
    }

    /// Returns true if nothing is known to be missing.
    pub fn is_nothing(&self) -> bool {
        self.incomplete == 0
            && self.partial.unwrap_or(0) == 0
            && self.lost == 0
            && !self.is_lost_cut
    }
}

/// The first paths that a snapshot lacks of a source.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LackingReport {
    /// At most [`LACKING_PATHS_MAX`]. Paths that a repair could not save come first.
    pub paths: Vec<LackingPath>,
    /// There are more paths than that, or some could not be read.
    pub is_cut: bool,
}

/// A path that a snapshot lacks, in whole or in part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LackingPath {
    pub path: RelPath,
    pub why: WhyLacking,
    /// The reason why a path could not be captured.
    pub reason: Option<String>,
}

/// The way in which a path is incomplete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhyLacking {
    /// It could not be captured.
    Failed,
    /// It is shown as it is in an older snapshot.
    Stale,
    /// It changed while it was read.
    Torn,
    /// The rules of the backup left out names of this directory.
    Excluded,
    /// Not all names of this directory were seen.
    Unseen,
    /// A repair could not save it, or not all of its content.
    Lost,
}

impl WhyLacking {
    /// Returns the name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Stale => "stale",
            Self::Torn => "torn",
            Self::Excluded => "excluded",
            Self::Unseen => "unseen",
            Self::Lost => "lost",
        }
    }
}

/// Lists the paths that snapshots lack. The index must be in sync.
pub struct MissingLister<'a> {
    reader: &'a ChunkReader<'a>,
}

impl<'a> MissingLister<'a> {
    /// The reader's owner holds a lease.
    pub fn new(reader: &'a ChunkReader<'a>) -> Self {
        Self { reader }
    }

    /// Returns the first paths that a snapshot lacks of a source, or `None` if its counts are zero.
    /// The list of files is read until all counted paths are found, and only the directories if no
    /// file is incomplete. Paths that cannot be read are left out, and the list counts as cut.
    pub fn list(&self, found: &StoredSnapshot, source: &SourceRecord) -> Option<LackingReport> {
        let lacks = SourceLacks::of(found, source);
        if lacks.is_nothing() {
            return None;
        }

        let mut out = LackingReport {
            paths: Vec::new(),
            is_cut: lacks.is_lost_cut,
        };

        for lost in found.snapshot.lost.iter().flat_map(|lost| &lost.paths) {
            if lost.source != source.name {
                continue;
            }
            match RelPath::from_slashed(&lost.path) {
                Ok(path) => out.push(LackingPath {
                    path,
                    why: WhyLacking::Lost,
                    reason: None,
                }),
                Err(_) => out.is_cut = true,
            }
        }

        let is_whole = self.add_entries(source, &lacks, &mut out);
        out.is_cut |= !is_whole.unwrap_or(false);
        Some(out)
    }

    /// Adds entries until all counted ones are found. Returns false if there are fewer, or if the
    /// list is full.
    fn add_entries(
        &self,
        source: &SourceRecord,
        lacks: &SourceLacks,
        out: &mut LackingReport,
    ) -> Result<bool, RepoError> {
        let mut incomplete = lacks.incomplete;
        let mut partial = lacks.partial.unwrap_or(0);
        let SourceKind::Tree { runs, .. } = &source.kind else {
            return Ok(true);
        };
        if incomplete == 0 && partial == 0 {
            return Ok(true);
        }

        let streams = if incomplete == 0 {
            RunStreams::Directories
        } else {
            RunStreams::All
        };

        let mut runs = MergedRuns::open(self.reader, runs, streams, OnDamage::Skip)?;

        while (incomplete > 0 || partial > 0) && !out.is_cut {
            let Some(entry) = runs.next_entry()? else {
                return Ok(false);
            };
            let Some(why) = why(&entry) else { continue };
            incomplete = incomplete.saturating_sub(u64::from(entry.is_incomplete()));
            partial = partial.saturating_sub(u64::from(entry.missing_names().is_some()));
            let reason = match entry.node {
                Node::Failed { reason } => Some(reason),
                _ => None,
            };
            out.push(LackingPath {
                path: entry.path,
                why,
                reason,
            });
        }

        Ok(incomplete == 0 && partial == 0)
    }
}

impl LackingReport {
    fn push(&mut self, path: LackingPath) {
        if self.paths.len() < LACKING_PATHS_MAX {
            self.paths.push(path);
        } else {
            self.is_cut = true;
        }
    }
}

fn why(entry: &Entry) -> Option<WhyLacking> {
    Some(match entry.missing_names() {
        _ if matches!(entry.node, Node::Failed { .. }) => WhyLacking::Failed,
        _ if entry.flags.contains(EntryFlags::STALE) => WhyLacking::Stale,
        _ if entry.flags.contains(EntryFlags::TORN) => WhyLacking::Torn,
        Some(MissingNames::Excluded) => WhyLacking::Excluded,
        Some(MissingNames::Unseen) => WhyLacking::Unseen,
        None => return None,
    })
}

#[cfg(test)]
#[path = "lacking_tests.rs"]
mod tests;
