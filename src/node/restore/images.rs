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
use super::super::images::{ImageReference, LocalImage, bare_digest, containers, digest_of, found};
use super::super::profile::NodeLayout;
use super::plan::{NodePart, RestoreStep};
use super::{CACHE_BYTES, PlacedPart, PreparedRestore, ResolvedLocation, RestoreScope};
use crate::Error;
use crate::format::{ServiceImage, SourceKind};
use crate::observe::{Problem, Severity};
use crate::repo::ChunkReader;
use crate::task::Cancel;
use crate::types::SnapshotId;

/// Upper limit of compose files, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The role of a service in the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ImageRole {
    Server,
    Kubo,
    Node,
    Other,
}

/// The image of one service: the one that the snapshot ran with, and the present one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageCheck {
    /// The snapshot that recorded it.
    pub snapshot: SnapshotId,
    pub was: ServiceImage,
    /// The image's name in the compose file after the restore. `None`: it is not known.
    pub now: Option<String>,
    /// The image that this machine has under that name.
    pub local: Option<LocalImage>,
    pub verdict: ImageVerdict,
    /// The line of the compose file that pins the snapshot's image. `None`: this machine does not
    /// have the image, and no registry is known that has it.
    pub pin: Option<String>,
}

/// The result of comparing the service's image with that of the snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageVerdict {
    Same,
    Other,
    /// The name is the same, and this machine has no image of this name yet. The image that will be
    /// pulled may be another one.
    NotHere,
    /// The image is unknown, for this reason.
    Unknown(String),
}

impl ImageCheck {
    /// Compares the images. `now`: the name in the compose file, or the reason why there is none.
    /// `images`: all images in question that the engine has, or the reason why it did not answer.
    fn new(
        snapshot: SnapshotId,
        was: ServiceImage,
        now: Result<String, String>,
        images: Result<&[LocalImage], &str>,
    ) -> Self {
        let all = images.unwrap_or_default();
        let local = now.as_ref().ok().and_then(|name| found(name, all));
        let verdict = match &now {
            Err(why) => ImageVerdict::Unknown(why.clone()),
            Ok(name) => verdict(&was, name, local, images.err()),
        };
        let is_here = all.iter().any(|image| image.id == was.id);
        let pin = was
            .digest
            .clone()
            .or_else(|| is_here.then(|| was.id.clone()));
        let pin = pin.map(|pin| format!("image: {pin}"));
        Self {
            snapshot,
            was,
            now: now.ok(),
            local: local.cloned(),
            verdict,
            pin,
        }
    }

    /// Returns the digest of the snapshot's image, or its id in the engine if it has no digest.
    pub fn was_digest(&self) -> &str {
        self.was.digest.as_deref().unwrap_or(&self.was.id)
    }

    /// Returns the digest of this machine's image, or its id.
    pub fn local_digest(&self) -> Option<&str> {
        let local = self.local.as_ref()?;
        let name = self.now.as_deref().unwrap_or_default();
        Some(digest_of(name, &local.digests).unwrap_or(&local.id))
    }

    /// Returns a warning for the operator, for before the first write. `answered`: the engine
    /// answered which images it has.
    fn problem(&self, profile: &NodeLayout, answered: bool) -> Option<Problem> {
        let ran = format!(
            "the snapshot ran with {} ({})",
            self.was.image,
            self.was_digest()
        );
        let name = self.now.as_deref().unwrap_or_default();

        let (severity, now) = match (&self.verdict, self.local_digest()) {
            (ImageVerdict::Same | ImageVerdict::Unknown(_), _) => return None,
            (ImageVerdict::Other, Some(local)) => (
                Severity::Warning,
                format!("{name} is another image here ({local})"),
            ),
            (ImageVerdict::Other, None) => {
                (Severity::Warning, format!("the compose file names {name}"))
            }
            (ImageVerdict::NotHere, _) => (
                Severity::Note,
                "it is not on this machine, and a pull of that name may fetch another one".into(),
            ),
        };

        let risk = match role(&self.was, profile) {
            ImageRole::Server => "the database would run on another version of its server",
            ImageRole::Kubo => {
                "another version of kubo may refuse the snapshot's settings, or migrate its repository"
            }
            ImageRole::Node => {
                "another version may migrate the database, which the older one can then not use"
            }
            ImageRole::Other => "another version may not work with the snapshot's data",
        };

        let service = &self.was.service;
        let problem = Problem::new(
            severity,
            format!("service '{service}'"),
            format!("{ran}; {now}: {risk}"),
        );

        Some(match &self.pin {
            Some(pin) => problem.with_hint(format!(
                "to run the snapshot's image, write into the compose file after the restore, at service '{service}': {pin}"
            )),
            None if answered => problem.with_hint(format!(
                "{} was in no registry and is not here: copy it from where it is with docker save and docker load",
                self.was.id
            )),
            None => problem,
        })
    }
}

fn verdict(
    was: &ServiceImage,
    name: &str,
    local: Option<&LocalImage>,
    no_answer: Option<&str>,
) -> ImageVerdict {
    let reference = ImageReference::parse(name);
    let is_was = |digest: &str| {
        let digest = bare_digest(digest);
        was.digest.as_deref().map(bare_digest) == Some(digest) || was.id == digest
    };
    let is_digest = reference
        .as_ref()
        .is_some_and(|reference| reference.digest().is_some());

    match (local, no_answer) {
        (Some(image), _)
            if is_was(&image.id) || image.digests.iter().any(|digest| is_was(digest)) =>
        {
            ImageVerdict::Same
        }
        (Some(_), _) => ImageVerdict::Other,
        // A name that pins an image can be compared without the image.
        (None, _) if is_digest || name.starts_with("sha256:") => {
            if is_was(name) {
                ImageVerdict::Same
            } else {
                ImageVerdict::Other
            }
        }
        (None, _) if reference.is_none() => {
            ImageVerdict::Unknown(format!("'{name}' is not an image name"))
        }
        (None, _) if reference != ImageReference::parse(&was.image) => ImageVerdict::Other,
        (None, Some(why)) => ImageVerdict::Unknown(why.to_owned()),
        (None, None) => ImageVerdict::NotHere,
    }
}

fn role(image: &ServiceImage, profile: &NodeLayout) -> ImageRole {
    let uses = |part: NodePart| {
        part.source(profile)
            .is_some_and(|source| image.sources.iter().any(|one| one == source))
    };
    match () {
        () if uses(NodePart::Database) => ImageRole::Server,
        () if uses(NodePart::Ipfs) && !uses(NodePart::Keys) => ImageRole::Kubo,
        () if uses(NodePart::LocalStorage) || uses(NodePart::Keys) => ImageRole::Node,
        () => ImageRole::Other,
    }
}

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
        // With --files the node is already running.
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
        let reader = ChunkReader::new(self.repo, CACHE_BYTES);
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
                &reader,
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

#[cfg(test)]
#[path = "images_tests.rs"]
mod tests;
