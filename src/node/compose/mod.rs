//! Compose files: the services of a project, their mounts, and the names of their containers.
//!
//! The keys that matter for a node are read strictly; the rest of a file is skipped. Reading is
//! bounded because a compose file may come from anywhere.

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

/// Names of the compose file, and of the file that overrides it, in the order of search.
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

/// The reason why a project cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ComposeError {
    /// A file has an error.
    #[error("{}{why}", place(file, *line, key))]
    Wrong {
        file: PathBuf,
        line: usize,
        /// The key's path from the top: `services.postgres.image`.
        key: String,
        why: String,
    },
    #[error(transparent)]
    Path(#[from] PathError),
    /// A directory has no compose file.
    #[error("there is no compose file in {}", .directory.display())]
    NoFile { directory: PathBuf },
    /// Neither options nor files name the project, and no name can be derived from the directory's.
    #[error("the directory {} gives the project no name", .directory.display())]
    NoName { directory: PathBuf },
}

impl ComposeError {
    /// Returns advice for the operator, where there is any.
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

/// The project to read, and the variables to read it with.
#[derive(Clone, Copy)]
pub struct ComposeRequest<'a> {
    /// The absolute path of a compose file, or of a directory that has one.
    pub path: &'a Path,
    /// The environment that compose would have.
    pub environment: &'a BTreeMap<String, String>,
    /// The project's name, if the caller sets one.
    pub project: Option<&'a str>,
}

/// Files in memory that take precedence over those on disk. A restore passes the files that it is
/// about to write.
#[derive(Clone, Copy, Default)]
pub struct ComposeFiles<'a>(Option<&'a ReadComposeFile<'a>>);

/// Returns the content of a file by its absolute path; `None` if the file is not in memory.
pub type ReadComposeFile<'a> = dyn Fn(&Path) -> Option<Vec<u8>> + 'a;

impl<'a> ComposeFiles<'a> {
    /// Wraps a function that returns files.
    pub fn new(read: &'a ReadComposeFile<'a>) -> Self {
        Self(Some(read))
    }

    fn get(self, file: &Path) -> Option<Vec<u8>> {
        self.0.and_then(|read| read(file))
    }
}

/// A compose project, with the properties that icecore uses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ComposeProject {
    pub name: String,
    /// True if `--project` or a variable set the name.
    pub named: bool,
    /// The directory that relative paths refer to.
    pub directory: PathBuf,
    /// The compose files that were read, in order.
    pub files: Vec<PathBuf>,
    /// Files of variables that were read: `.env`, and the `env_file` of services.
    pub env_files: Vec<PathBuf>,
    pub services: Vec<ComposeService>,
    /// The volumes of the top level, by key.
    pub volumes: BTreeMap<String, VolumeDefinition>,
    /// Notes about skipped parts that may matter, each a sentence.
    pub notes: Vec<String>,
}

/// A service.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct ComposeService {
    pub name: String,
    pub image: Option<String>,
    pub container_name: Option<String>,
    /// The variables of PostgreSQL's image. Those that hold a password have no value.
    pub environment: BTreeMap<String, Option<String>>,
    pub mounts: Vec<ServiceMount>,
}

/// Prints no values of variables, which may be secret.
impl fmt::Debug for ComposeService {
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
    /// The path in the container, without a trailing slash.
    pub target: String,
    pub read_only: bool,
}

/// The source of a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountSource {
    /// A volume, by its key in the compose file.
    Volume(String),
    /// A directory or file on this machine, by its absolute path.
    Path(PathBuf),
    /// A volume without a name, or a mount in memory.
    Nameless,
}

/// A volume of the top level.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VolumeDefinition {
    /// Its name in the engine, if the file sets one.
    pub name: Option<String>,
    /// True if the project does not create the volume.
    pub external: bool,
    /// The directory on this machine that the volume binds to.
    pub device: Option<PathBuf>,
}

impl ComposeProject {
    /// Returns the name that a volume of the compose file has in the engine.
    pub fn volume_name(&self, key: &str) -> String {
        let found = self.volumes.get(key);
        let name = found.and_then(|found| found.name.clone());
        name.unwrap_or_else(|| {
            if found.is_some_and(|found| found.external) {
                key.to_owned()
            } else {
                format!("{}_{key}", self.name)
            }
        })
    }

    /// Returns the name of a service's first container, as version 2 of compose gives it.
    pub fn container_name(&self, service: &ComposeService) -> String {
        service
            .container_name
            .clone()
            .unwrap_or_else(|| format!("{}-{}-1", self.name, service.name))
    }
}

/// Normalizes a directory's name to a project's name, as compose does. The result may be empty.
fn normalised(name: &str) -> String {
    let kept = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    let name: String = name.to_lowercase().chars().filter(kept).collect();
    name.trim_start_matches(['-', '_']).to_owned()
}

#[cfg(test)]
mod tests;
