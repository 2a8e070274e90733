//! Restores a node: keys, configuration, file storage, and finally the database.
//!
//! ```text
//! plan (pure) ─▶ look up places, containers, server ─▶ no obstacle? ─▶ files ─▶ psql
//! ```
//!
//! Everything that can be refused is refused before the first write: parts that do not fit
//! together, running writers, a server that is unreachable or holds other data.

mod catalogue;
mod database;
mod execute;
mod feed;
mod identity;
mod images;
mod lacks;
mod places;
mod plan;
mod preview;
mod psql;
mod restored;
mod select;
mod settings;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

pub use images::{ImageCheck, ImageVerdict};
pub use places::{PlaceWriter, ResolvedLocation};
pub use plan::{NodePart, PartPick, RestorePlan, RestoreScope, RestoreStep, plan};
pub use preview::{ExistingDatabase, RestorePreview};

use super::NodeError;
use super::check::{CheckTarget, check};
use super::docker::{Docker, DockerError};
use super::profile::{NodeLayout, ServerAccess, SourceLocation};
use crate::Error;
use crate::format::{LeaseKind, SourceKind};
use crate::observe::{Counters, Phase, Problem, Severity};
use crate::ops::newest;
use crate::read::reading_lease;
use crate::repo::{ChunkReader, HostChoice, Lease, Repository, without_replaced};
use crate::sys::StateDir;
use crate::target::ProtectedDirs;
use crate::task::{Cancel, Task};
use crate::types::{ByteSize, Content, SnapshotId};

use database::DatabaseRestore;

/// Cache for frames of metadata, in bytes.
const CACHE_BYTES: usize = 16 << 20;

/// Options of a node's restore.
#[derive(Debug, Clone)]
pub struct NodeRestoreOptions {
    pub scope: RestoreScope,
    /// A database with tables may be replaced, and so may keys that differ.
    pub replace: bool,
    /// How long to wait for the database server.
    pub wait: Duration,
    /// The hosts whose snapshots `latest` refers to.
    pub hosts: HostChoice,
    /// This machine's name, for the lease.
    pub host: String,
    /// Look for all obstacles, even if one was found already.
    pub is_dry_run: bool,
    /// Environment variables to hide from every program.
    pub env_remove: Vec<String>,
    /// The environment that compose would have, for variables in the compose file.
    pub environment: BTreeMap<String, String>,
    /// The operator's `PGOPTIONS`: settings that PostgreSQL's programs of this machine request when
    /// they connect.
    pub pgoptions: Option<String>,
    /// Paths that are never entered, replaced or deleted; see
    /// [`RestoreOptions::protect`](crate::ops::restore::RestoreOptions).
    pub protect: ProtectedDirs,
    pub memory: ByteSize,
    /// The directory that records which captures were restored. `None`: nothing is recorded.
    pub state: Option<StateDir>,
}

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
    repo: &'a Repository,
    profile: &'a NodeLayout,
    docker: &'a Docker,
    options: &'a NodeRestoreOptions,
    lease: Option<Lease>,
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

/// The result of restoring one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartReport {
    pub part: NodePart,
    pub source: String,
    pub snapshot: SnapshotId,
    /// For messages: a path or a volume; empty for the database.
    pub place: String,
    pub written: u64,
    pub bytes_written: u64,
    pub unchanged: u64,
    pub deleted: u64,
    /// Paths that could not be restored.
    pub failed: u64,
    /// Entries that are incomplete in the snapshot.
    pub incomplete: u64,
    /// Files that were left out because their content does not match their name. The network must
    /// refill them.
    pub left_out: u64,
    pub refused_meta: u64,
    /// Ranges of paths that could not be read from the repository.
    pub uncertain: u64,
}

/// The result of a restore.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeRestoreReport {
    pub parts: Vec<PartReport>,
}

impl NodeRestoreReport {
    /// Returns true if everything was restored as it was backed up.
    pub fn is_complete(&self) -> bool {
        let lacks = |part: &PartReport| {
            part.failed + part.incomplete + part.left_out + part.refused_meta + part.uncertain
        };
        self.parts.iter().all(|part| lacks(part) == 0)
    }

    /// Returns true if parts of the repository could not be read.
    pub fn has_damage(&self) -> bool {
        self.parts.iter().any(|part| part.uncertain > 0)
    }
}

/// Requested snapshots and sources: `SNAP` or `SNAP:SOURCE`.
pub type Asked<'a> = [(&'a str, Option<&'a str>)];

/// Decides where each part goes, and checks everything that the restore depends on. Writes nothing.
///
/// # Errors
/// Returns an error if parts do not fit together, or if this machine cannot be examined. Other
/// obstacles are in [`PreparedRestore::obstacles`] of the result.
pub fn prepare<'a>(
    repo: &'a Repository,
    profile: &'a NodeLayout,
    docker: &'a Docker,
    asked: &Asked<'_>,
    options: &'a NodeRestoreOptions,
    task: Task<'_>,
) -> Result<PreparedRestore<'a>, NodeError> {
    task.observer.phase(&Phase::Index);
    // The lease comes first, so that the objects found after it are not deleted.
    let lease = reading_lease(repo, LeaseKind::Restore, &options.host)?;

    let mut picks = Vec::new();
    for &(snapshot, source) in asked {
        let is_latest = snapshot == "latest";
        let snapshot = if is_latest {
            // A suspect part is refused or reported below, with more detail.
            newest(repo, &options.hosts, source, task.observer)?.0
        } else {
            repo.find_snapshot(snapshot, &options.hosts)
                .map_err(Error::from)?
        };
        picks.push(PartPick {
            snapshot,
            source: source.map(str::to_owned),
            is_latest,
        });
    }

    // Unreadable snapshots cannot be suggested in hints.
    let all = without_replaced(repo.snapshots(&mut |_, _| {}).map_err(Error::from)?);
    let plan = plan::plan(profile, &picks, options.scope, &all)?;
    let unknown = restored::compare(options.state.as_ref(), profile, &plan, &all)?;

    crate::ops::sync_until(repo, task)?;
    let refill = if plan.lacks_files {
        refill(repo, profile, &plan, task.cancel)?
    } else {
        None
    };

    let writers = match options.scope {
        RestoreScope::Files => Vec::new(),
        RestoreScope::All | RestoreScope::Minimal => writers_of(profile, &plan, docker)?,
    };

    let mut prepared = PreparedRestore {
        repo,
        profile,
        docker,
        options,
        lease,
        steps: Vec::new(),
        writers,
        database: None,
        images: Vec::new(),
        warnings: plan
            .warnings
            .into_iter()
            .chain(unknown)
            .chain(refill)
            .collect(),
        obstacles: Vec::new(),
    };

    for step in plan.steps {
        let spot = step
            .place
            .as_ref()
            .map(|place| ResolvedLocation::find(place, docker))
            .transpose()?;
        prepared.steps.push(PlacedPart { step, spot });
    }

    prepared.obstacles.extend(at_work(&prepared.writers));
    if !options.replace {
        for placed in &prepared.steps {
            prepared.obstacles.extend(identity::obstacle(
                repo,
                placed,
                options.scope,
                task.cancel,
            )?);
        }
    }

    prepared.look_at_images(task.cancel)?;
    prepared.look_at_database(task)?;
    Ok(prepared)
}

/// Reports how many files the network must refill, if the database and all file storage are of the
/// same snapshot.
fn refill(
    repo: &Repository,
    profile: &NodeLayout,
    plan: &RestorePlan,
    cancel: &Cancel,
) -> Result<Option<Problem>, NodeError> {
    let Some(database) = plan.step(NodePart::Database) else {
        return Ok(None);
    };
    let is_other = |step: &RestoreStep| {
        step.part.is_file_storage() && step.snapshot.id != database.snapshot.id
    };
    if plan.steps.iter().any(is_other) {
        return Ok(None);
    }

    let quiet = Counters::default();
    let against = CheckTarget::Snapshot;

    match check(
        repo,
        &database.snapshot,
        profile,
        &against,
        Task::new(&quiet, cancel),
        &mut |_| Ok(()),
    ) {
        Ok(report) if report.missing == 0 => Ok(None),
        Ok(report) => {
            let what = match report.missing {
                1 => "1 pinned file is not in it: the node must fetch it".to_owned(),
                count => {
                    format!("{count} pinned files are not in it: the node must fetch them")
                }
            };
            Ok(Some(Problem::new(
                Severity::Missing,
                database.snapshot.id.short(),
                what,
            )))
        }
        Err(NodeError::Engine(err @ Error::Interrupted)) => Err(err.into()),
        // The dump of another kind of node has no list of files.
        Err(_) => Ok(None),
    }
}

/// Returns the containers that must not run. Docker is only asked if the node uses it.
fn writers_of(
    profile: &NodeLayout,
    plan: &RestorePlan,
    docker: &Docker,
) -> Result<Vec<PlaceWriter>, DockerError> {
    let needs_volume = plan
        .steps
        .iter()
        .any(|step| matches!(step.place, Some(SourceLocation::Volume(_))));
    let is_inside = profile
        .database
        .as_ref()
        .is_some_and(|database| matches!(database.server.access, ServerAccess::Docker { .. }));
    if !needs_volume && !is_inside && profile.writers.is_empty() {
        return Ok(Vec::new());
    }
    // Keys and configuration can be written while containers run: they are not read before the next
    // start.
    let is_harmless = plan
        .steps
        .iter()
        .all(|step| matches!(step.part, NodePart::Keys | NodePart::Config));
    if is_harmless {
        Ok(Vec::new())
    } else {
        places::writers(profile, plan, docker)
    }
}

fn at_work(writers: &[PlaceWriter]) -> Option<NodeError> {
    let names: Vec<&str> = writers
        .iter()
        .filter(|writer| writer.is_at_work())
        .map(|writer| writer.name.as_str())
        .collect();
    if names.is_empty() {
        return None;
    }
    let why = match names.as_slice() {
        [one] => format!("the container {one} is running and would write to the restored data"),
        all => format!(
            "the containers {} are running and would write to the restored data",
            all.join(", ")
        ),
    };
    Some(NodeError::Refused {
        why,
        hint: format!("stop them: docker stop {}", names.join(" ")),
    })
}

impl PreparedRestore<'_> {
    /// Returns the step that restores this part.
    pub fn step(&self, part: NodePart) -> Option<&PlacedPart> {
        self.steps.iter().find(|placed| placed.step.part == part)
    }

    fn look_at_database(&mut self, task: Task<'_>) -> Result<(), NodeError> {
        // If the restore is refused anyway, do not wait: containers that must be stopped may keep
        // the server busy.
        let wait = if self.obstacles.is_empty() {
            self.options.wait
        } else {
            Duration::ZERO
        };

        let reader = ChunkReader::new(self.repo, CACHE_BYTES);
        let Some(database) = self.database(&reader, task) else {
            return Ok(());
        };

        let head = database.head()?;
        let mut preview = match database.preview(head, wait) {
            Ok(preview) => preview,
            Err(NodeError::Engine(err)) => return Err(err.into()),
            Err(err) => {
                self.obstacles.push(err);
                return Ok(());
            }
        };

        let mut obstacles = preview.obstacles(self.options.replace);
        // The comparison reads the whole dump, so skip it if the restore is refused anyway.
        let is_clear = self.obstacles.is_empty() && obstacles.is_empty();
        let mut notes = Vec::new();
        if preview.is_superuser && (is_clear || self.options.is_dry_run) {
            match database.compare(&preview) {
                Ok(compared) => preview.compared = compared,
                Err(NodeError::Engine(err)) => return Err(err.into()),
                Err(err) => obstacles.push(err),
            }
            obstacles.extend(preview.misfits(&database.name));
            let note = |what: &String| Problem::new(Severity::Note, &database.name, what);
            notes.extend(preview.compared.notes.iter().map(note));
        }

        self.warnings.extend(notes);
        self.obstacles.extend(obstacles);
        self.database = Some(preview);
        Ok(())
    }

    /// Returns the dump and its server, if the database is to be restored.
    fn database<'s>(
        &'s self,
        reader: &'s ChunkReader<'s>,
        task: Task<'s>,
    ) -> Option<DatabaseRestore<'s>> {
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
            reader,
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
