//! Compose files: the services of a project, what they mount and how their containers are called.
//!
//! What matters for a node is read, strictly; the rest of a file is passed over. Reading is
//! bounded, for a compose file may come from anywhere.

mod config;
mod read;
mod variables;
mod yaml;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::sys::PathError;

pub use config::{IpfsHosts, ipfs_hosts};
pub(super) use read::clean;
pub use read::{load, load_with, read_text};

/// Names under which compose looks for its file, and those of the file that is laid over it.
const FILES: [&str; 4] = [
    "compose.yaml",
    "compose.yml",
    "docker-compose.yml",
    "docker-compose.yaml",
];
const OVERRIDES: [&str; 4] = [
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
];

/// Why a project is not read.
#[derive(Debug, thiserror::Error)]
pub enum ComposeError {
    /// Something in a file is wrong.
    #[error("{}{why}", place(file, *line, key))]
    Wrong {
        file: PathBuf,
        line: usize,
        /// From the top: `services.postgres.image`.
        key: String,
        why: String,
    },
    #[error(transparent)]
    Path(#[from] PathError),
    /// A directory without a compose file.
    #[error("there is no compose file in {}", .directory.display())]
    NoFile { directory: PathBuf },
    /// Neither options nor files give the project a name, and the directory's cannot be one.
    #[error("the directory {} gives the project no name", .directory.display())]
    NoName { directory: PathBuf },
}

impl ComposeError {
    /// What to do about it, where that can be said.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Wrong { .. } | Self::Path(_) => None,
            Self::NoFile { .. } => Some(
                "name it: icecore node init COMPOSE_FILE; without Docker, write icecore.toml by hand",
            ),
            Self::NoName { .. } => Some("use --project NAME"),
        }
    }
}

fn place(file: &Path, line: usize, key: &str) -> String {
    let key = if key.is_empty() {
        String::new()
    } else {
        format!("{key}: ")
    };
    format!("{}:{line}: {key}", file.display())
}

/// What to read, and with which variables.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// A compose file, or a directory that has one; absolute.
    pub path: &'a Path,
    /// The environment that compose would have.
    pub environment: &'a BTreeMap<String, String>,
    /// The project's name, if it is told.
    pub project: Option<&'a str>,
}

/// Files that a project is read from as if they were there already, before those that are: what a
/// restore is about to write.
#[derive(Clone, Copy, Default)]
pub struct Files<'a>(Option<&'a ReadFile<'a>>);

/// The content of a file by its absolute path; none where it has none.
pub type ReadFile<'a> = dyn Fn(&Path) -> Option<Vec<u8>> + 'a;

impl<'a> Files<'a> {
    /// The files that `read` has.
    pub fn new(read: &'a ReadFile<'a>) -> Self {
        Self(Some(read))
    }

    fn get(self, file: &Path) -> Option<Vec<u8>> {
        self.0.and_then(|read| read(file))
    }
}

/// A compose project, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Project {
    pub name: String,
    /// True if `--project` or a variable gave the name.
    pub named: bool,
    /// The directory that relative paths begin at.
    pub directory: PathBuf,
    /// The compose files that were read, the first one first.
    pub files: Vec<PathBuf>,
    /// Files of variables that were read: `.env` and those of services.
    pub env_files: Vec<PathBuf>,
    pub services: Vec<Service>,
    /// The volumes of the top level.
    pub volumes: BTreeMap<String, VolumeDefinition>,
    /// What was passed over and might matter, each a sentence.
    pub notes: Vec<String>,
}

/// A service.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Service {
    pub name: String,
    pub image: Option<String>,
    pub container_name: Option<String>,
    /// The variables of PostgreSQL's image, those that hold a password without their value.
    pub environment: BTreeMap<String, Option<String>>,
    pub mounts: Vec<ServiceMount>,
}

/// Values may be secret.
impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("name", &self.name)
            .field("image", &self.image)
            .field("container_name", &self.container_name)
            .field("environment", &self.environment.keys())
            .field("mounts", &self.mounts)
            .finish()
    }
}

/// Something that a service mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceMount {
    pub source: MountSource,
    /// Where it is in the container, without a slash at its end.
    pub target: String,
    pub read_only: bool,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountSource {
    /// A volume, by its name in the compose file.
    Volume(String),
    /// A directory or file of this machine, absolute.
    Path(PathBuf),
    /// A volume without a name, or memory.
    Nameless,
}

/// A volume of the top level.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VolumeDefinition {
    /// Its name in the engine, if it is told.
    pub name: Option<String>,
    /// Not made by this project.
    pub external: bool,
    /// The directory of this machine that it is another name of.
    pub device: Option<PathBuf>,
}

impl Project {
    /// The name that a volume of the compose file has in the engine.
    pub fn volume_name(&self, key: &str) -> String {
        let found = self.volumes.get(key);
        let told = found.and_then(|found| found.name.clone());
        told.unwrap_or_else(|| {
            if found.is_some_and(|found| found.external) {
                key.to_owned()
            } else {
                format!("{}_{key}", self.name)
            }
        })
    }

    /// The name of a service's first container, as version 2 of compose gives it.
    pub fn container_name(&self, service: &Service) -> String {
        service
            .container_name
            .clone()
            .unwrap_or_else(|| format!("{}-{}-1", self.name, service.name))
    }
}

/// Makes of a directory's name what compose makes of it; empty if nothing is left.
fn normalised(name: &str) -> String {
    let kept = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    let name: String = name.to_lowercase().chars().filter(kept).collect();
    name.trim_start_matches(['-', '_']).to_owned()
}

#[cfg(test)]
mod tests;
