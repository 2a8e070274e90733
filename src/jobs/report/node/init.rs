//! The parts of a node that were found.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::ccn::discover::{FoundDatabase, FoundFiles, FoundTree, NodeDiscovery};
use crate::ccn::profile::SourceLocation;

/// The configuration that was written for a node. A part that was not found is absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeInitSummary {
    /// The configuration file that was written.
    pub file: String,
    /// Name of the compose project.
    pub project: String,
    /// The compose files that were read.
    pub compose_files: Vec<String>,
    /// Why the Docker engine was not asked; absent if it answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_engine: Option<String>,
    /// The database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<FoundDatabaseRecord>,
    /// The directory of local storage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_storage: Option<FoundTreeRecord>,
    /// The repository of kubo.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipfs: Option<FoundTreeRecord>,
    /// The directory of keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys: Option<FoundTreeRecord>,
    /// The files of the configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<FoundFilesRecord>,
    /// The compose files in another directory than the configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compose: Option<FoundFilesRecord>,
    /// Containers that write to the node's data.
    pub writers: Vec<String>,
    /// Notes for the operator.
    pub notes: Vec<String>,
    /// The address of the repository that was written to the file; absent if none was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

impl NodeInitSummary {
    /// Creates the summary of a node that was found. `notes`: its notes with their advice in the
    /// words of the front end. `address`: the repository.
    pub fn new(
        node: &NodeDiscovery,
        file: &Path,
        notes: Vec<String>,
        address: Option<String>,
    ) -> Self {
        let shown = |path: &PathBuf| path.display().to_string();
        Self {
            file: file.display().to_string(),
            project: node.project.clone(),
            compose_files: node.files.iter().map(shown).collect(),
            no_engine: node.no_engine.clone(),
            database: node.database.as_ref().map(FoundDatabaseRecord::from),
            local_storage: node.local_storage.as_ref().map(FoundTreeRecord::from),
            ipfs: node.ipfs.as_ref().map(FoundTreeRecord::from),
            keys: node.keys.as_ref().map(FoundTreeRecord::from),
            config: node.config.as_ref().map(FoundFilesRecord::from),
            compose: node.compose.as_ref().map(FoundFilesRecord::from),
            writers: node.writers.clone(),
            notes,
            address,
        }
    }
}

/// The database of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FoundDatabaseRecord {
    /// The service of the compose project.
    pub service: String,
    /// Name of its container.
    pub container: String,
    /// The engine's state of the container; absent if not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The user of the database.
    pub user: String,
    /// Name of the database.
    pub database: String,
}

impl From<&FoundDatabase> for FoundDatabaseRecord {
    fn from(found: &FoundDatabase) -> Self {
        Self {
            service: found.service.clone(),
            container: found.container.clone(),
            state: found.state.clone(),
            user: found.user.clone(),
            database: found.database.clone(),
        }
    }
}

/// A directory or a volume of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FoundTreeRecord {
    /// The service that uses it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Name of the volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// The directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

impl From<&FoundTree> for FoundTreeRecord {
    fn from(found: &FoundTree) -> Self {
        let directory = found.directory.as_ref();
        Self {
            service: found.service.clone(),
            volume: match &found.place {
                SourceLocation::Volume(name) => Some(name.clone()),
                SourceLocation::Path(_) => None,
            },
            path: directory.map(|directory| directory.display().to_string()),
        }
    }
}

/// Files of a node in one directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FoundFilesRecord {
    /// The directory.
    pub path: String,
    /// The names of files in it.
    pub only: Vec<String>,
}

impl From<&FoundFiles> for FoundFilesRecord {
    fn from(found: &FoundFiles) -> Self {
        Self {
            path: found.directory.display().to_string(),
            only: found.names.clone(),
        }
    }
}
