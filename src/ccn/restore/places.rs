//! The destinations of the parts on this machine, and the containers that must not run during a
//! restore.

use std::path::PathBuf;

use super::super::docker::{Container, Docker, DockerError};
use super::super::profile::{NodeLayout, ServerAccess, SourceLocation};
use super::plan::{RestorePlan, RestoreStep};

/// The destination of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResolvedLocation {
    Directory(PathBuf),
    Volume {
        name: String,
        /// The volume's directory. `None`: the volume must be created.
        directory: Option<PathBuf>,
    },
}

impl ResolvedLocation {
    /// Looks up the destination of a part.
    pub fn find(place: &SourceLocation, docker: &Docker) -> Result<Self, DockerError> {
        Ok(match place {
            SourceLocation::Path(path) => Self::Directory(path.clone()),
            SourceLocation::Volume(name) => Self::Volume {
                name: name.clone(),
                directory: docker
                    .volume(name)?
                    .map(|volume| volume.directory())
                    .transpose()?,
            },
        })
    }

    /// Returns the directory to restore into. Creates a missing volume, labelled as compose would.
    pub fn make(&self, project: Option<&str>, docker: &Docker) -> Result<PathBuf, DockerError> {
        match self {
            Self::Directory(path)
            | Self::Volume {
                directory: Some(path),
                ..
            } => Ok(path.clone()),
            Self::Volume {
                name,
                directory: None,
            } => {
                let labels = labels(name, project);
                let labels: Vec<(&str, &str)> = labels
                    .iter()
                    .map(|(key, value)| (*key, value.as_str()))
                    .collect();
                docker.create_volume(name, &labels)?.directory()
            }
        }
    }
}

impl std::fmt::Display for ResolvedLocation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "{}", path.display()),
            Self::Volume {
                name,
                directory: Some(_),
            } => write!(f, "volume {name}"),
            Self::Volume {
                name,
                directory: None,
            } => write!(f, "volume {name} (to be created)"),
        }
    }
}

/// Returns the labels that compose would give a volume of this name.
fn labels(name: &str, project: Option<&str>) -> Vec<(&'static str, String)> {
    let Some(project) = project else {
        return Vec::new();
    };
    let short = name
        .strip_prefix(project)
        .and_then(|rest| rest.strip_prefix('_'))
        .unwrap_or(name);
    vec![
        ("com.docker.compose.project", project.to_owned()),
        ("com.docker.compose.volume", short.to_owned()),
    ]
}

/// A container that must not run while the node is restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaceWriter {
    /// The name in the engine, or the configured name if there is no such container.
    pub name: String,
    /// `None`: there is no such container.
    pub state: Option<String>,
}

impl PlaceWriter {
    /// Returns true if the container's processes could write: they run, or could resume.
    pub fn is_at_work(&self) -> bool {
        self.state.as_deref().is_some_and(is_at_work)
    }
}

fn is_at_work(state: &str) -> bool {
    !matches!(state, "created" | "exited" | "dead")
}

/// Returns the profile's writers, and other running containers that use a restored volume. The
/// database's container is left out, because it must run.
pub fn writers(
    profile: &NodeLayout,
    plan: &RestorePlan,
    docker: &Docker,
) -> Result<Vec<PlaceWriter>, DockerError> {
    let mut found: Vec<PlaceWriter> = Vec::new();
    for name in &profile.writers {
        let (name, state) = match docker.find_container(name) {
            Ok(Container { name, state, .. }) => (name, Some(state)),
            Err(DockerError::NoContainer { .. } | DockerError::NotInstalled) => {
                (name.clone(), None)
            }
            Err(err) => return Err(err),
        };
        found.push(PlaceWriter { name, state });
    }

    let database = match profile
        .database
        .as_ref()
        .map(|database| &database.server.access)
    {
        Some(ServerAccess::Docker { container }) => match docker.find_container(container) {
            Ok(container) => Some(container.name),
            Err(DockerError::NoContainer { .. }) => None,
            Err(err) => return Err(err),
        },
        _ => None,
    };

    for step in &plan.steps {
        let RestoreStep {
            place: Some(SourceLocation::Volume(volume)),
            ..
        } = step
        else {
            continue;
        };
        for container in docker.users_of_volume(volume)? {
            let is_known = found.iter().any(|writer| writer.name == container.name);
            if !is_known
                && database.as_ref() != Some(&container.name)
                && is_at_work(&container.state)
            {
                found.push(PlaceWriter {
                    name: container.name,
                    state: Some(container.state),
                });
            }
        }
    }

    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_labelled_as_compose_does() {
        let labels = |name, project| {
            labels(name, project)
                .into_iter()
                .map(|(_, value)| value)
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(
            labels("pyaleph_pyaleph-ipfs", Some("pyaleph")),
            "pyaleph pyaleph-ipfs"
        );
        assert_eq!(labels("external", Some("pyaleph")), "pyaleph external");
        assert_eq!(labels("pyalephx_y", Some("pyaleph")), "pyaleph pyalephx_y");
        assert_eq!(labels("any", None), "");
    }

    #[test]
    fn a_container_that_may_write_is_at_work() {
        let writer = |state: Option<&str>| PlaceWriter {
            name: "w".into(),
            state: state.map(str::to_owned),
        };
        for state in ["running", "paused", "restarting", "removing"] {
            assert!(writer(Some(state)).is_at_work(), "{state}");
        }
        for state in [Some("exited"), Some("created"), Some("dead"), None] {
            assert!(!writer(state).is_at_work());
        }
    }
}
