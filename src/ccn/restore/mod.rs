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
mod image_check;
mod images;
mod lacks;
mod options;
mod places;
mod plan;
mod prepared;
mod preview;
mod psql;
mod report;
mod restored;
mod select;
mod settings;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use image_check::{ImageCheck, ImageVerdict};
pub use options::{Asked, NodeRestoreOptions};
pub use places::{PlaceWriter, ResolvedLocation};
pub use plan::{NodePart, PartPick, RestorePlan, RestoreScope, RestoreStep, plan};
pub use prepared::{PlacedPart, PreparedRestore};
pub use preview::{ExistingDatabase, RestorePreview};
pub use report::{NodeRestoreReport, PartReport};

use super::NodeError;
use super::check::{CheckTarget, check};
use super::docker::{Docker, DockerError};
use super::profile::{NodeLayout, ServerAccess, SourceLocation};
use crate::Error;
use crate::observe::{Counters, Phase, Problem, Severity};
use crate::read::{ReadSession, newest};
use crate::repo::{Repository, without_replaced};
use crate::task::{Cancel, Task};

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
    task: Task<'a>,
) -> Result<PreparedRestore<'a>, NodeError> {
    task.observer.phase(&Phase::Index);
    // The session comes first, so that the objects found after it are not deleted.
    let session = ReadSession::open(repo, task)?;

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

    // Unreadable snapshots cannot be suggested in advice.
    let all = without_replaced(repo.snapshots(&mut |_, _| {}).map_err(Error::from)?);
    let plan = plan::plan(profile, &picks, options.scope, &all)?;
    let unknown = restored::compare(options.state.as_ref(), profile, &plan, &all)?;

    session.add_snapshots(plan.steps.iter().map(|step| step.snapshot.id));
    session.sync()?;
    let refill = if plan.lacks_files {
        refill(&session, profile, &plan, task.cancel)?
    } else {
        None
    };

    let writers = match options.scope {
        RestoreScope::Files => Vec::new(),
        RestoreScope::All | RestoreScope::Minimal => writers_of(profile, &plan, docker)?,
    };

    let mut prepared = PreparedRestore {
        session,
        profile,
        docker,
        options,
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
                prepared.session.reader(),
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
    session: &ReadSession<'_>,
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
        session,
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
        advice: format!("stop them: docker stop {}", names.join(" ")).into(),
    })
}

impl PreparedRestore<'_> {
    fn look_at_database(&mut self, task: Task<'_>) -> Result<(), NodeError> {
        // If the restore is refused anyway, do not wait: containers that must be stopped may keep
        // the server busy.
        let wait = if self.obstacles.is_empty() {
            self.options.wait
        } else {
            Duration::ZERO
        };

        let Some(database) = self.database(task) else {
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
}
