//! A compose project, with the properties that icecore uses.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

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
pub(super) fn normalised(name: &str) -> String {
    let kept = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    let name: String = name.to_lowercase().chars().filter(kept).collect();
    name.trim_start_matches(['-', '_']).to_owned()
}
