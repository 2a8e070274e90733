//! The comparison of the image that a service of the snapshot ran with and the present one.

use super::super::images::{ImageReference, LocalImage, bare_digest, digest_of, found};
use super::super::profile::NodeLayout;
use super::plan::NodePart;
use crate::format::ServiceImage;
use crate::observe::{Problem, Severity};
use crate::types::SnapshotId;

/// The role of a service in the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ImageRole {
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
    pub(super) fn new(
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
    pub(super) fn problem(&self, profile: &NodeLayout, answered: bool) -> Option<Problem> {
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
            Some(pin) => problem.with_advice(format!(
                "to run the snapshot's image, write into the compose file after the restore, at service '{service}': {pin}"
            )),
            None if answered => problem.with_advice(format!(
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

pub(super) fn role(image: &ServiceImage, profile: &NodeLayout) -> ImageRole {
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

#[cfg(test)]
#[path = "image_check_tests.rs"]
mod tests;
