//! The walk through one source of a restore: its state, and the directories above its position.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::sync::PoisonError;

use super::job::RestoreJob;
use super::kept::blindness;
use super::link_group::LinkGroup;
use super::place::TargetRoot;
use super::shared::SharedInodes;
use super::window::{HardLink, RestoreWindow, WindowItem};
use super::writer::WindowWriter;
use crate::dest::DestDir;
use crate::error::Error;
use crate::format::{RunRef, SourceKind, SourceRecord};
use crate::observe::{Severity, Subject};
use crate::repo::MergedRuns;
use crate::source::{Filter, FilterOptions, GivenAs, UnmatchedPatterns};
use crate::sys::{PathError, Sorter};
use crate::types::{Metadata, RelPath};

/// A directory above the walk's position.
pub(super) struct RestoreLevel {
    /// Length of its path's key.
    pub key_len: usize,
    pub state: LevelState,
}

pub(super) enum LevelState {
    /// It exists. `is_fresh`: this restore made it, so nothing else can be in it.
    There { is_fresh: bool },
    /// It is not selected itself; it is made when something below it is.
    Pending(Box<Metadata>),
}

/// The restore of one source.
pub(super) struct RestoreWalk<'w> {
    pub(super) job: &'w RestoreJob<'w>,
    pub(super) source: &'w SourceRecord,
    pub(super) place: &'w TargetRoot,
    /// The restored path of the source.
    pub(super) sub: RelPath,
    pub(super) runs: Option<MergedRuns<'w>>,
    pub(super) run_refs: &'w [RunRef],
    pub(super) exclude: Filter,
    pub(super) include: Option<Filter>,
    /// Include patterns that have matched nothing, in this source and those before it.
    pub(super) unmatched: UnmatchedPatterns,
    pub(super) execution: Option<WindowWriter<'w>>,
    pub(super) window: RestoreWindow,
    pub(super) levels: Vec<RestoreLevel>,
    /// Key of the deepest level.
    pub(super) here: Vec<u8>,
    /// Handle of the deepest level, opened when first needed.
    pub(super) dir: Option<DestDir>,
    /// The directory that the include patterns matched; everything below it is selected.
    pub(super) selected: Option<RelPath>,
    /// The last path that is not a directory; nothing can be below it.
    pub(super) leaf: Option<RelPath>,
    /// Items for a later window: names that could not be linked, and kept files that differ.
    pub(super) apart: Vec<WindowItem>,
    /// Links to these items.
    pub(super) late_links: Vec<HardLink>,
    pub(super) groups: HashMap<(u64, u64), LinkGroup>,
    pub(super) shared_inodes: SharedInodes,
    pub(super) group_bytes: usize,
    /// Previous mode of the target's root, if it was changed to write into it and no entry has set
    /// it.
    pub(super) root_mode: Option<u16>,
    /// Complement of the depth, and path in the target → the directory's entry.
    pub(super) directories: Sorter,
    /// Source paths of the names listed in restored directories, for `--delete`.
    pub(super) found: Sorter,
    /// Why the source accounts for no missing name.
    pub(super) blind: Option<&'static str>,
    /// The topmost stale directory above the walk's position: the snapshot shows an older state of
    /// it.
    pub(super) stale: Option<RelPath>,
}

impl<'w> RestoreWalk<'w> {
    pub fn new(
        job: &'w RestoreJob<'w>,
        source: &'w SourceRecord,
        place: &'w TargetRoot,
        sub: RelPath,
        runs: Option<MergedRuns<'w>>,
    ) -> Result<Self, Error> {
        let filter = |patterns: &[OsString], given_as| {
            Filter::new(&FilterOptions {
                excludes: patterns.to_vec(),
                given_as,
                ..FilterOptions::default()
            })
        };

        let options = job.options;
        let is_all = options.include.is_empty();
        let include = if is_all {
            None
        } else {
            Some(filter(&options.include, GivenAs::Include)?)
        };

        let run_refs = match &source.kind {
            SourceKind::Tree { runs, .. } => runs.as_slice(),
            SourceKind::Stream { .. } => &[],
        };
        let scratch = job.repo.scratch_dir();

        Ok(Self {
            exclude: filter(&options.exclude, GivenAs::Exclude)?,
            include,
            unmatched: std::mem::take(
                &mut *job.unmatched.lock().unwrap_or_else(PoisonError::into_inner),
            ),
            execution: None,
            runs,
            run_refs,
            window: RestoreWindow::default(),
            levels: Vec::new(),
            here: Vec::new(),
            dir: None,
            selected: None,
            leaf: None,
            apart: Vec::new(),
            late_links: Vec::new(),
            groups: HashMap::new(),
            shared_inodes: SharedInodes::default(),
            group_bytes: 0,
            root_mode: None,
            directories: Sorter::new(&scratch, job.sorter_bytes / 3),
            found: Sorter::new(&scratch, job.sorter_bytes / 3),
            blind: blindness(job.is_checkpoint, job.is_repaired, source),
            stale: None,
            job,
            source,
            place,
            sub,
        })
    }

    /// Returns true if this restore made the directory that holds a path.
    pub(super) fn is_fresh(&self, path: &RelPath) -> bool {
        let above = self.levels.last().map(|level| &level.state);
        *path != self.sub && matches!(above, Some(LevelState::There { is_fresh: true }))
    }

    pub(super) fn parent_dir(&mut self, target: &RelPath) -> io::Result<Option<DestDir>> {
        if let Some(dir) = &self.dir {
            return Ok(Some(dir.clone()));
        }
        let Some(tree) = &self.place.tree else {
            return Ok(None);
        };
        match tree.directory(&target.parent().unwrap_or_default()) {
            Ok(dir) => {
                self.dir = Some(dir.clone());
                Ok(Some(dir))
            }
            Err(_) if self.job.options.dry_run => Ok(None),
            Err(err) => Err(err),
        }
    }

    pub(super) fn target_of(&self, path: &RelPath) -> io::Result<RelPath> {
        self.place.target_of(&self.sub, path)
    }

    pub(super) fn subject(&self, path: &RelPath) -> Subject {
        Subject::within(&self.source.name, path)
    }

    pub(super) fn fail(&self, severity: Severity, path: &RelPath, why: &str) {
        self.job.tally.fail(severity, self.subject(path), why);
    }

    pub(super) fn path_error(
        &self,
        action: &'static str,
        path: &RelPath,
        source: io::Error,
    ) -> Error {
        Error::Path(PathError {
            action,
            path: self.subject(path).text().into(),
            source,
        })
    }
}
