//! How much a snapshot lacks of each source, and the first paths of it, for reports that list many
//! snapshots.

use super::CACHE_BYTES;
use crate::format::{SourceKind, SourceRecord};
use crate::repo::{ChunkReader, MergedRuns, RepoError, Repository, StoredSnapshot, Streams};
use crate::types::{Entry, EntryFlags, MissingNames, Node, RelPath};

/// So many paths of a source are listed.
pub const LACKING_PATHS_MAX: usize = 20;

/// How much a snapshot lacks of a source, as its counts say; no list of files is read for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lacks {
    /// Entries that are failed, stale or torn.
    pub incomplete: u64,
    /// Directories of which the snapshot lacks names. None: not known.
    pub partial: Option<u64>,
    /// Of these: directories of which something else than the user's rules kept names. None: not
    /// known.
    pub unseen: Option<u64>,
    /// Paths that lack something since a repair, as far as the snapshot names them.
    pub lost: u64,
    /// A repair named only the first paths of the snapshot that lack something: this source may
    /// have more of them.
    pub is_lost_cut: bool,
}

impl Lacks {
    /// What the snapshot says of one of its sources.
    pub fn of(found: &StoredSnapshot, source: &SourceRecord) -> Self {
        let counts = &source.counts;
        let lost = found.snapshot.lost.as_ref();
        let named = lost.map_or(0, |lost| {
            lost.paths
                .iter()
                .filter(|path| path.source == source.name)
                .count() as u64
        });
        Self {
            incomplete: counts.incomplete,
            partial: counts.partial,
            unseen: counts.unseen,
            lost: named,
            is_lost_cut: lost.is_some_and(|lost| lost.count > lost.paths.len() as u64),
        }
    }

    /// True if nothing is known to be missing.
    pub fn is_nothing(&self) -> bool {
        self.incomplete == 0
            && self.partial.unwrap_or(0) == 0
            && self.lost == 0
            && !self.is_lost_cut
    }
}

/// The first paths of what a snapshot lacks of a source.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lacking {
    /// At most [`LACKING_PATHS_MAX`]; those that a repair could not save come first.
    pub paths: Vec<LackingPath>,
    /// There is more than that, or not all of it could be read.
    pub is_cut: bool,
}

/// A path of which a snapshot lacks something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LackingPath {
    pub path: RelPath,
    pub why: WhyLacking,
    /// Why a path could not be captured.
    pub reason: Option<String>,
}

/// What is missing of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhyLacking {
    /// It could not be captured.
    Failed,
    /// It is shown as an older snapshot has it.
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
    /// As it stands in JSON.
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

/// Lists what snapshots lack. The index must have been brought up to date.
pub struct MissingLister<'a> {
    reader: ChunkReader<'a>,
}

impl<'a> MissingLister<'a> {
    pub fn new(repo: &'a Repository) -> Self {
        Self {
            reader: ChunkReader::new(repo, CACHE_BYTES),
        }
    }

    /// The first paths of what a snapshot lacks of a source; none if its counts say that it lacks
    /// nothing. The list of files is read as far as the counts say that there is more, and only
    /// that of directories where only these lack something. What cannot be read is left out, and
    /// the list counts as cut.
    pub fn list(&self, found: &StoredSnapshot, source: &SourceRecord) -> Option<Lacking> {
        let lacks = Lacks::of(found, source);
        if lacks.is_nothing() {
            return None;
        }
        let mut out = Lacking {
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

    /// Adds entries until there are as many as the counts say; false if there are fewer, or no room
    /// for them.
    fn add_entries(
        &self,
        source: &SourceRecord,
        lacks: &Lacks,
        out: &mut Lacking,
    ) -> Result<bool, RepoError> {
        let (mut incomplete, mut partial) = (lacks.incomplete, lacks.partial.unwrap_or(0));
        let SourceKind::Tree { runs, .. } = &source.kind else {
            return Ok(true);
        };
        if incomplete == 0 && partial == 0 {
            return Ok(true);
        }
        let streams = if incomplete == 0 {
            Streams::Directories
        } else {
            Streams::All
        };
        let mut runs = MergedRuns::open(&self.reader, runs, streams, true)?;
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

impl Lacking {
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
