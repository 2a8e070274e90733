//! The state of a tree being walked: its levels, and the steps of the walk.

use std::sync::Arc;

use crossbeam_channel::Sender;

use super::candidate::TimedStat;
use super::observed::ObservedName;
use super::previous::PreviousEntries;
use super::rules::{ScanInputs, ScanRules};
use super::windows::RacyWindows;
use crate::ops::backup::reader::content::ChunkWriters;
use crate::ops::backup::reader::job::{FileJob, JobBatch};
use crate::ops::backup::run::sink::DirectoryNode;
use crate::ops::backup::shared::TreeShared;
use crate::source::{DirectoryId, ListedName, NameListing, SourceDir};
use crate::types::{Entry, RelPath};

pub(super) type Named = (ListedName, Option<ObservedName>);

pub(super) enum ScanMode {
    /// Names come from the directory.
    Listed {
        listing: Option<NameListing>,
        batch: std::vec::IntoIter<Named>,
        new_names: Vec<ListedName>,
        /// Position in the list of files of the next name that it needs here.
        needed: Option<usize>,
        only_tag: bool,
        is_closed: bool,
    },
    /// The directory is unchanged: its subdirectories come from the previous snapshot.
    Skipped,
}

impl ScanMode {
    pub(super) fn listed(listing: NameListing, needed: Option<usize>, only_tag: bool) -> Self {
        Self::Listed {
            listing: Some(listing),
            batch: Vec::new().into_iter(),
            new_names: Vec::new(),
            needed,
            only_tag,
            is_closed: false,
        }
    }

    /// Of a directory whose names are not known. `is_closed`: the rules forbid entering it.
    pub(super) fn unlisted(is_closed: bool) -> Self {
        Self::Listed {
            listing: None,
            batch: Vec::new().into_iter(),
            new_names: Vec::new(),
            needed: None,
            only_tag: false,
            is_closed,
        }
    }
}

pub(super) struct ScanLevel {
    pub(super) path: RelPath,
    /// `None` while a deeper level is walked and too many directories are open.
    pub(super) directory: Option<SourceDir>,
    pub(super) id: DirectoryId,
    /// See [`SourceStat::mount_id`](crate::source::SourceStat::mount_id).
    pub(super) mount_id: u64,
    pub(super) node: Option<Arc<DirectoryNode>>,
    /// The previous entry of a directory that is skipped.
    pub(super) skipped: Option<Entry>,
    pub(super) mode: ScanMode,
}

impl Drop for ScanLevel {
    /// Marks a directory whose walk ended early: its names were not all seen, and a reader that
    /// finishes one of its files must not make it complete.
    fn drop(&mut self) {
        if let Some(node) = self.node.take() {
            node.give_up();
        }
    }
}

/// A directory to enter.
pub(super) struct EnteredDirectory {
    pub path: RelPath,
    pub directory: SourceDir,
    pub seen: TimedStat,
    pub previous: Option<Entry>,
}

/// The next step of a walk.
pub(super) enum ScanStep {
    Enter(Box<EnteredDirectory>),
    Stay,
    Leave,
}

/// One tree being walked.
pub(in crate::ops::backup) struct Scan<'w, 'a> {
    pub shared: &'w TreeShared<'a>,
    pub inputs: &'w ScanInputs<'a>,
    /// Those of the inputs.
    pub rules: &'w ScanRules<'a>,
    /// All entries of the previous snapshot, and its directories alone. `None` without one.
    pub previous: Option<PreviousEntries<'a>>,
    pub previous_directories: Option<PreviousEntries<'a>>,
    pub writers: &'w mut ChunkWriters<'a>,
    pub jobs: Sender<Vec<FileJob>>,
    pub batch: JobBatch,
    pub windows: RacyWindows,
}

impl Scan<'_, '_> {
    pub(super) fn has_runs(&self) -> bool {
        self.previous.is_some()
    }
}
