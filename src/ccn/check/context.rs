//! The context of a check, which opens the parts of the file storage.

use std::path::{Path, PathBuf};

use super::live::LiveCheck;
use super::snapshot::SnapshotSide;
use super::stored::{FileSide, NoFiles};
use super::target::{CheckTarget, LiveDirectories};
use crate::ccn::NodeError;
use crate::ccn::profile::NodeSource;
use crate::format::{SourceKind, SourceRecord};
use crate::observe::{Phase, Problem, Severity};
use crate::read::ReadSession;
use crate::repo::StoredSnapshot;
use crate::source::SourceDir;
use crate::sys::PathError;
use crate::task::Task;

/// The context of a check, for both parts of the file storage.
pub(super) struct CheckContext<'a> {
    pub(super) session: &'a ReadSession<'a>,
    pub(super) found: &'a StoredSnapshot,
    pub(super) against: &'a CheckTarget,
    pub(super) task: Task<'a>,
    pub(super) scratch: PathBuf,
}

impl<'a> CheckContext<'a> {
    pub(super) fn directory(
        &self,
        which: impl Fn(&LiveDirectories) -> &Option<PathBuf>,
    ) -> Option<&'a Path> {
        match self.against {
            CheckTarget::Snapshot => None,
            CheckTarget::Live { directories, .. } => which(directories).as_deref(),
        }
    }

    /// Opens one part. Reports a problem and returns an empty side if there is none.
    pub(super) fn side(
        &self,
        part: Option<&NodeSource>,
        what: &str,
        directory: Option<&Path>,
        open: impl FnOnce(SourceDir, LiveCheck<'a>) -> Result<Box<dyn FileSide + 'a>, PathError>,
    ) -> Result<Box<dyn FileSide + 'a>, NodeError> {
        let missing = |subject: &str, message: String| {
            self.task
                .observer
                .problem(&Problem::new(Severity::Missing, subject, message));
            Ok(Box::new(NoFiles) as Box<dyn FileSide>)
        };

        let Some(part) = part else {
            return missing(
                what,
                "not checked: no source is configured as this part of the node".into(),
            );
        };

        let name = &part.source;
        self.task
            .observer
            .phase(&Phase::Check { name: name.clone() });

        match self.against {
            CheckTarget::Snapshot => match self.found.snapshot.source(name) {
                Some(SourceRecord {
                    kind:
                        SourceKind::Tree {
                            runs, immutable, ..
                        },
                    ..
                }) => {
                    if !immutable {
                        let message =
                            "not captured as immutable: names were not compared with contents";
                        self.task
                            .observer
                            .problem(&Problem::new(Severity::Note, name, message));
                    }

                    let id = self.found.id.short();
                    let side = SnapshotSide::open(self.session, &id, name, runs, self.task)?;
                    Ok(Box::new(side))
                }
                Some(_) => missing(name, "it is not a tree in this snapshot".into()),
                None => missing(
                    name,
                    format!("snapshot {} does not have it", self.found.id.short()),
                ),
            },
            CheckTarget::Live { quick, .. } => {
                let Some(path) = directory else {
                    return missing(name, "its directory is unknown".into());
                };
                let looking = LiveCheck {
                    path: path.to_owned(),
                    source: name.clone(),
                    scratch: self.scratch.clone(),
                    quick: *quick,
                    task: self.task,
                };
                Ok(open(SourceDir::open_root(path)?, looking)?)
            }
        }
    }
}
