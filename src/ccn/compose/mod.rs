//! Compose files: the services of a project, their mounts, and the names of their containers.
//!
//! The keys that matter for a node are read strictly; the rest of a file is skipped. Reading is
//! bounded because a compose file may come from anywhere.

mod config;
mod error;
mod project;
mod read;
mod request;
mod variables;
mod yaml;

pub use config::{IpfsHosts, ipfs_hosts};
pub use error::ComposeError;
pub use project::{ComposeProject, ComposeService, MountSource, ServiceMount, VolumeDefinition};
pub(super) use read::clean;
pub use read::{load, load_with, read_text};
pub use request::{ComposeFiles, ComposeRequest, ReadComposeFile};

#[cfg(test)]
mod tests;
