//! Container images: the image a service runs with, and the image this machine has under a name.
//!
//! A name such as `postgres:15` refers to the image that was last pulled under it. The digest of an
//! image in its registry never changes, nor does its id within one engine.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::docker::{Container, Docker, DockerError, answer_json, full_id, is_missing};
use super::profile::{NodeLayout, ServerAccess, SourceLocation};
use crate::format::{ServiceImage, legal_images};

/// The registries implied by a name without one, and the path component implied for images without
/// an owner.
const USUAL_REGISTRIES: [&str; 2] = ["docker.io/", "index.docker.io/"];
const USUAL_OWNER: &str = "library/";
const USUAL_TAG: &str = "latest";

/// An image that the engine has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LocalImage {
    /// `sha256:…`
    pub id: String,
    /// `NAME:TAG`
    pub tags: Vec<String>,
    /// `NAME@sha256:…`, one for each registry that it was pulled from or pushed to.
    pub digests: Vec<String>,
}

/// An image reference, as in `image:` of a compose file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageReference {
    name: String,
    tag: Option<String>,
    digest: Option<String>,
}

impl ImageReference {
    /// Parses a reference. Returns `None` if the text is not a valid one.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.to_owned())),
            None => (text, None),
        };
        // A colon before the last slash belongs to a port.
        let from = name.rfind('/').map_or(0, |at| at + 1);
        let (name, tag) = match name[from..].find(':') {
            Some(at) => (&name[..from + at], Some(name[from + at + 1..].to_owned())),
            None => (name, digest.is_none().then(|| USUAL_TAG.to_owned())),
        };

        // An empty component makes the reference invalid.
        let is_empty = |text: &Option<String>| text.as_ref().is_some_and(String::is_empty);
        if name.is_empty() || name.ends_with('/') || is_empty(&tag) || is_empty(&digest) {
            return None;
        }

        // Normalize the name: `docker.io/library/postgres` and `postgres` are the same.
        let usual = USUAL_REGISTRIES
            .iter()
            .find_map(|registry| name.strip_prefix(registry));
        let name = usual.unwrap_or(name);
        let short = name
            .strip_prefix(USUAL_OWNER)
            .filter(|rest| !rest.contains('/'))
            .unwrap_or(name);

        Some(Self {
            name: short.to_owned(),
            tag,
            digest,
        })
    }

    /// Returns the digest, if the reference has one. Such a reference never refers to another
    /// image.
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// Returns true if the engine has the image under this reference.
    fn is_of(&self, image: &LocalImage) -> bool {
        let is_same = |text: &String| match (&self.digest, Self::parse(text)) {
            (Some(_), Some(other)) => other.name == self.name && other.digest == self.digest,
            (None, Some(other)) => other.name == self.name && other.tag == self.tag,
            (_, None) => false,
        };
        image.digests.iter().chain(&image.tags).any(is_same)
    }
}

/// Returns the image that this machine has under a name of the compose file.
pub fn found<'i>(name: &str, images: &'i [LocalImage]) -> Option<&'i LocalImage> {
    let by_id = images.iter().find(|image| image.id == full_id(name));
    let reference = ImageReference::parse(name);
    by_id.or_else(|| {
        images
            .iter()
            .find(|image| reference.as_ref().is_some_and(|name| name.is_of(image)))
    })
}

/// Returns the `sha256:…` of `NAME@sha256:…`.
pub fn bare_digest(text: &str) -> &str {
    text.rsplit_once('@').map_or(text, |(_, digest)| digest)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedImage {
    id: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    repo_digests: Option<Vec<String>>,
}

fn local_images(answer: &[u8]) -> Result<Vec<LocalImage>, DockerError> {
    let found: Vec<InspectedImage> = answer_json(answer, "image inspect")?;
    let image = |one: InspectedImage| LocalImage {
        id: full_id(&one.id),
        tags: one.repo_tags.unwrap_or_default(),
        digests: one.repo_digests.unwrap_or_default(),
    };
    Ok(found.into_iter().map(image).collect())
}

impl Docker {
    /// Returns the images of these names or ids, with one query. Names that the engine does not
    /// have are skipped.
    pub fn images(&self, names: &BTreeSet<&str>) -> Result<Vec<LocalImage>, DockerError> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let words: Vec<&str> = ["image", "inspect", "--"]
            .into_iter()
            .chain(names.iter().copied())
            .collect();
        match self.run_partly(&words) {
            Ok(answer) => local_images(&answer),
            Err((DockerError::Failed { why, .. }, answer))
                if is_missing(&why) || is_no_name(&why) =>
            {
                local_images(&answer)
            }
            Err((err, _)) => Err(err),
        }
    }
}

/// Returns true if the engine rejected a name as an invalid image reference.
fn is_no_name(why: &str) -> bool {
    why.to_lowercase().contains("invalid reference format")
}

/// Returns the images that the node's services run with: those of its compose project, and of the
/// containers that the profile names. A container need not be running. Those of
/// `docker compose run` do not count.
///
/// The number of queries does not depend on the number of services. If the last query, for digests,
/// fails, its error is returned together with the results of the others.
///
/// # Errors
/// Returns an error if the engine does not answer at all.
pub fn images_in_use(
    profile: &NodeLayout,
    docker: &Docker,
) -> Result<(Vec<ServiceImage>, Option<DockerError>), DockerError> {
    let containers = by_service(containers(profile, docker)?);
    let ids: BTreeSet<&str> = containers
        .values()
        .map(|container| container.image_id.as_str())
        .collect();
    let (images, err) = match docker.images(&ids) {
        Ok(images) => (images, None),
        Err(err) => (Vec::new(), Some(err)),
    };
    let used = containers
        .iter()
        .map(|(service, container)| in_use(service, container, &images, profile));
    Ok((legal_images(used), err))
}

/// Returns the containers of the node, running or not.
pub(super) fn containers(
    profile: &NodeLayout,
    docker: &Docker,
) -> Result<Vec<Container>, DockerError> {
    let mut found = match &profile.project {
        Some(project) => docker.project(project)?,
        None => Vec::new(),
    };
    let database = database_container(profile);
    let named = database
        .into_iter()
        .chain(profile.writers.iter().map(String::as_str));
    let missing: Vec<&str> = named
        .filter(|name| !found.iter().any(|container| container.is_called(name)))
        .collect();
    found.extend(docker.named(&missing)?);
    Ok(found)
}

fn database_container(profile: &NodeLayout) -> Option<&str> {
    match &profile.database.as_ref()?.server.access {
        ServerAccess::Docker { container } => Some(container),
        ServerAccess::Direct { .. } => None,
    }
}

/// Chooses one container for each service: running containers come first, then order by name.
fn by_service(mut containers: Vec<Container>) -> BTreeMap<String, Container> {
    let is_once = |container: &Container| {
        container
            .labels
            .get("com.docker.compose.oneoff")
            .is_some_and(|once| once == "True")
    };
    containers.retain(|container| !is_once(container));
    containers.sort_by(|a, b| (!a.is_running(), &a.name).cmp(&(!b.is_running(), &b.name)));
    let mut services = BTreeMap::new();
    for container in containers {
        let service = container
            .service()
            .map_or_else(|| container.name.clone(), |(_, name)| name.to_owned());
        services.entry(service).or_insert(container);
    }
    services
}

fn in_use(
    service: &str,
    container: &Container,
    images: &[LocalImage],
    profile: &NodeLayout,
) -> ServiceImage {
    let image = images.iter().find(|image| image.id == container.image_id);
    let digest = image.and_then(|image| digest_of(&container.image, &image.digests));
    ServiceImage {
        service: service.to_owned(),
        image: container.image.clone(),
        id: container.image_id.clone(),
        digest: digest.cloned(),
        sources: sources_of(container, profile),
    }
}

/// Returns the digest from the registry of this name, or else the first.
pub fn digest_of<'d>(name: &str, digests: &'d [String]) -> Option<&'d String> {
    let name = ImageReference::parse(name).map(|reference| reference.name);
    let is_of =
        |digest: &&String| ImageReference::parse(digest).map(|reference| reference.name) == name;
    digests.iter().find(is_of).or_else(|| digests.first())
}

/// Returns the node's sources that a container uses, in the order in which a restore writes them.
fn sources_of(container: &Container, profile: &NodeLayout) -> Vec<String> {
    let uses = |place: &SourceLocation| {
        container.mounts.iter().any(|mount| match place {
            SourceLocation::Volume(name) => mount.volume == *name,
            // A container that mounts `/`, such as one that collects metrics, uses no source.
            SourceLocation::Path(path) => {
                let is_all = mount.source.parent().is_none();
                !is_all && (mount.source.starts_with(path) || path.starts_with(&mount.source))
            }
        })
    };

    let parts = [
        &profile.keys,
        &profile.config,
        &profile.local_storage,
        &profile.ipfs,
    ];
    let parts = parts
        .into_iter()
        .flatten()
        .filter(|part| uses(&part.place))
        .map(|part| part.source.clone());

    let is_server = database_container(profile).is_some_and(|name| container.is_called(name));
    let database = profile
        .database
        .as_ref()
        .filter(|_| is_server)
        .map(|database| database.source.clone());

    parts.chain(database).collect()
}

#[cfg(test)]
#[path = "images_tests.rs"]
mod tests;
