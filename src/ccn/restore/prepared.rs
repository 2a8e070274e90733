//! A restore that was decided on, with everything that was looked up for it.

use super::super::NodeError;
use super::super::docker::Docker;
use super::super::profile::NodeLayout;
use super::database::DatabaseRestore;
use super::image_check::ImageCheck;
use super::options::NodeRestoreOptions;
use super::places::{PlaceWriter, ResolvedLocation};
use super::plan::{NodePart, RestoreStep};
use super::preview::RestorePreview;
use crate::format::SourceKind;
use crate::observe::Problem;
use crate::read::ReadSession;
use crate::task::Task;
use crate::types::Content;

/// A step and its destination.
#[derive(Debug, Clone, PartialEq)]
pub struct PlacedPart {
    pub step: RestoreStep,
    /// `None` for the database.
    pub spot: Option<ResolvedLocation>,
}

/// A restore that was decided on, with everything that was looked up for it. Nothing is written
/// yet.
pub struct PreparedRestore<'a> {
    pub(super) session: ReadSession<'a>,
    pub(super) profile: &'a NodeLayout,
    pub(super) docker: &'a Docker,
    pub(super) options: &'a NodeRestoreOptions,
    pub steps: Vec<PlacedPart>,
    /// Containers that must not run during the restore; empty if the node may run.
    pub writers: Vec<PlaceWriter>,
    /// The state of the database server. `None` if the database is not restored, or if the server
    /// is unreachable.
    pub database: Option<RestorePreview>,
    /// The images that the services ran with, compared with the present ones. Empty if the snapshot
    /// recorded none.
    pub images: Vec<ImageCheck>,
    pub warnings: Vec<Problem>,
    /// The reasons to refuse the restore. The first one is reported first.
    pub obstacles: Vec<NodeError>,
}

impl PreparedRestore<'_> {
    /// Returns the step that restores this part.
    pub fn step(&self, part: NodePart) -> Option<&PlacedPart> {
        self.steps.iter().find(|placed| placed.step.part == part)
    }

    /// Returns the dump and its server, if the database is to be restored.
    pub(super) fn database<'s>(&'s self, task: Task<'s>) -> Option<DatabaseRestore<'s>> {
        let step = &self.step(NodePart::Database)?.step;
        let record = step.record();
        Some(DatabaseRestore {
            server: &self.profile.database.as_ref()?.server,
            docker: self.docker,
            env_remove: &self.options.env_remove,
            pgoptions: self.options.pgoptions.as_deref(),
            source: &record.name,
            name: step.name(),
            content: stream_of(&record.kind)?,
            session: &self.session,
            task,
        })
    }
}

fn stream_of(kind: &SourceKind) -> Option<&Content> {
    match kind {
        SourceKind::Stream { content, .. } => Some(content),
        SourceKind::Tree { .. } => None,
    }
}
