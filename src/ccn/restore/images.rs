//! Compares the images that the snapshot's services ran with and the images that they will run with
//! after the restore.
//!
//! A newer pyaleph migrates the database, and a newer kubo rejects old settings. A restored node
//! may then fail to start, or differ from the node that was backed up, although every byte was
//! restored. The restore is not refused for this reason. The operator gets a warning with the line
//! that pins the snapshot's image.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::super::check::stored_file;
use super::super::compose::{self, ComposeError, ComposeFiles, ComposeProject, ComposeRequest};
use super::super::docker::DockerError;
use super::super::images::{ImageReference, containers};
use super::super::profile::NodeLayout;
use super::image_check::{ImageCheck, ImageRole, role};
use super::places::ResolvedLocation;
use super::plan::{NodePart, RestoreScope, RestoreStep};
use super::prepared::{PlacedPart, PreparedRestore};
use crate::Error;
use crate::format::{ServiceImage, SourceKind};
use crate::task::Cancel;
use crate::types::SnapshotId;

/// Upper limit of compose files, in bytes.
const FILE_BYTES_MAX: usize = 1 << 20;

/// Returns the recorded images to compare. They are those of the snapshot that the database is
/// restored from, because its rows belong to the version that ran then. kubo's image is taken from
/// the snapshot that kubo's repository is restored from.
fn recorded<'s>(
    steps: &'s [PlacedPart],
    profile: &NodeLayout,
) -> Vec<(SnapshotId, &'s ServiceImage)> {
    let step = |part: NodePart| {
        steps
            .iter()
            .map(|placed| &placed.step)
            .find(|step| step.part == part)
    };
    let base = step(NodePart::Database).or_else(|| steps.first().map(|placed| &placed.step));
    let Some(base) = base else { return Vec::new() };
    let of = |step: &'s RestoreStep| {
        step.snapshot
            .snapshot
            .images
            .iter()
            .map(move |image| (step.snapshot.id, image))
    };
    let is_kubo = |image: &ServiceImage| role(image, profile) == ImageRole::Kubo;
    let Some(ipfs) = step(NodePart::Ipfs).filter(|ipfs| ipfs.snapshot.id != base.snapshot.id)
    else {
        return of(base).collect();
    };
    let mut images: Vec<_> = of(base).filter(|(_, image)| !is_kubo(image)).collect();
    images.extend(of(ipfs).filter(|(_, image)| is_kubo(image)));
    images
}

impl PreparedRestore<'_> {
    /// Compares the images that the snapshot ran with and the present ones. Failed look-ups are
    /// recorded in the result.
    pub(super) fn look_at_images(&mut self, cancel: &Cancel) -> Result<(), Error> {
        // While only files are restored, the node is already running.
        if self.options.scope == RestoreScope::Files {
            return Ok(());
        }

        let recorded: Vec<(SnapshotId, ServiceImage)> = recorded(&self.steps, self.profile)
            .into_iter()
            .map(|(snapshot, image)| (snapshot, image.clone()))
            .collect();
        if recorded.is_empty() {
            return Ok(());
        }

        let project = self.project(cancel);
        cancel.check()?;

        let named = |image: &ServiceImage| match &project {
            Err(why) => Err(why.clone()),
            Ok(project) => named(project, &image.service),
        };
        let nows: Vec<Result<String, String>> =
            recorded.iter().map(|(_, image)| named(image)).collect();

        let asked = nows
            .iter()
            .flatten()
            .map(String::as_str)
            .filter(|name| ImageReference::parse(name).is_some());
        let asked: BTreeSet<&str> = asked
            .chain(recorded.iter().map(|(_, image)| image.id.as_str()))
            .collect();

        let images = match self.docker.images(&asked) {
            Err(DockerError::Interrupted { .. }) => return Err(Error::Interrupted),
            images => images.map_err(|err| err.to_string()),
        };

        for ((snapshot, was), now) in recorded.into_iter().zip(nows) {
            let images = images.as_deref().map_err(String::as_str);
            let check = ImageCheck::new(snapshot, was, now, images);
            self.warnings
                .extend(check.problem(self.profile, images.is_ok()));
            self.images.push(check);
        }

        Ok(())
    }

    /// Returns the compose project as it will be after the restore, or the reason why it is not
    /// known. The compose file is beside the configuration, or else where compose created the
    /// present containers.
    fn project(&self, cancel: &Cancel) -> Result<ComposeProject, String> {
        let restored = self
            .step(NodePart::Config)
            .and_then(|placed| Some((placed, directory(placed)?)));

        // The restore of the configuration reports damage.
        let stored = |file: &Path| {
            let (placed, directory) = restored.as_ref()?;
            let below = file.strip_prefix(directory).ok()?;
            let SourceKind::Tree { runs, .. } = &placed.step.record().kind else {
                return None;
            };
            stored_file(
                self.session.reader(),
                runs,
                below.as_os_str().as_bytes(),
                FILE_BYTES_MAX,
                cancel,
            )
            .ok()?
        };

        let beside = match (&restored, &self.profile.config) {
            (Some((_, directory)), _) => Some(directory.clone()),
            (None, Some(part)) => ResolvedLocation::find(&part.place, self.docker)
                .ok()
                .and_then(|spot| there(&spot)),
            (None, None) => None,
        };

        let environment = &self.options.environment;
        let project = self.profile.project.as_deref();
        let load = |path: &Path, environment| {
            compose::load_with(
                ComposeRequest {
                    path,
                    environment,
                    project,
                },
                ComposeFiles::new(&stored),
            )
        };

        match beside.map(|directory| load(&directory, environment)) {
            Some(Ok(project)) => return Ok(project),
            Some(Err(ComposeError::NoFile { .. })) | None => {}
            Some(Err(ComposeError::Path(err))) if err.kind() == std::io::ErrorKind::NotFound => {}
            Some(Err(err)) => return Err(format!("cannot read the compose file: {err}")),
        }

        let Some((directory, files)) = self.compose_files() else {
            return Err("no compose file was found".into());
        };

        let mut environment = environment.clone();
        environment.insert("COMPOSE_FILE".into(), files);
        environment.insert("COMPOSE_PATH_SEPARATOR".into(), ",".into());
        load(&directory, &environment).map_err(|err| format!("cannot read the compose file: {err}"))
    }

    /// Returns the directory and the compose files that the present containers were created from.
    fn compose_files(&self) -> Option<(PathBuf, String)> {
        let found = containers(self.profile, self.docker).ok()?;
        found.iter().find_map(|container| {
            let label = |name: &str| {
                container
                    .labels
                    .get(&format!("com.docker.compose.project.{name}"))
            };
            Some((
                PathBuf::from(label("working_dir")?),
                label("config_files")?.clone(),
            ))
        })
    }
}

/// Returns the image that a project names for a service.
fn named(project: &ComposeProject, service: &str) -> Result<String, String> {
    let found = project.services.iter().find(|one| one.name == service);
    let Some(found) = found else {
        return Err(format!("the compose file has no service '{service}'"));
    };
    let image = found.image.clone().filter(|image| !image.is_empty());
    image.ok_or_else(|| "the compose file names no image for it".to_owned())
}

/// Returns the directory of a destination, unless it is a volume that must be created.
fn there(spot: &ResolvedLocation) -> Option<PathBuf> {
    match spot {
        ResolvedLocation::Directory(directory)
        | ResolvedLocation::Volume {
            directory: Some(directory),
            ..
        } => Some(compose::clean(directory)),
        ResolvedLocation::Volume {
            directory: None, ..
        } => None,
    }
}

/// Returns the directory that a step restores into.
fn directory(placed: &PlacedPart) -> Option<PathBuf> {
    there(placed.spot.as_ref()?)
}
