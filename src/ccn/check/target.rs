//! The storage in which a check looks up the files.

use std::path::PathBuf;

use crate::ccn::docker::{Docker, DockerError};
use crate::ccn::profile::{NodeLayout, NodeSource, SourceLocation};

/// The storage in which the files are looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckTarget {
    /// The snapshot that has the dump.
    Snapshot,
    /// Directories of this machine.
    Live {
        directories: LiveDirectories,
        /// Compare only names and sizes, without reading any file.
        quick: bool,
    },
}

/// The directories of a node's file storage; `None` for a part that the profile does not have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LiveDirectories {
    pub local_storage: Option<PathBuf>,
    pub ipfs: Option<PathBuf>,
}

impl LiveDirectories {
    /// Finds the directories. Asks the Docker engine for those of volumes.
    pub fn find(profile: &NodeLayout, docker: &Docker) -> Result<Self, DockerError> {
        let directory = |part: &Option<NodeSource>| match part.as_ref().map(|part| &part.place) {
            None => Ok(None),
            Some(SourceLocation::Path(path)) => Ok(Some(path.clone())),
            Some(SourceLocation::Volume(name)) => match docker.volume(name)? {
                Some(volume) => volume.directory().map(Some),
                None => Err(DockerError::NoVolume { name: name.clone() }),
            },
        };
        Ok(Self {
            local_storage: directory(&profile.local_storage)?,
            ipfs: directory(&profile.ipfs)?,
        })
    }
}
