//! Which source is which part of a node, and where the parts live on this machine.

use std::path::PathBuf;

/// Where PostgreSQL's programs reach the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// Inside a container, by `docker exec`; either spelling of a compose container's name.
    Docker { container: String },
    /// Directly, with the programs of this machine.
    Direct {
        /// Host name, address or the directory of the server's socket; none: the programs' own
        /// default.
        address: Option<String>,
        port: Option<u16>,
        /// A file in the form of `.pgpass`, for servers that want a password.
        password_file: Option<PathBuf>,
    },
}

/// How the database is dumped and brought back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    pub access: Access,
    /// The role that connects; none: the programs' own default.
    pub user: Option<String>,
}

/// Where a tree source lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Path(PathBuf),
    /// A Docker volume; its directory is asked from the engine.
    Volume(String),
}

/// A tree source of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The source's name in snapshots.
    pub source: String,
    pub place: Place,
}

/// The database as a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// The source's name in snapshots.
    pub source: String,
    pub server: Server,
}

/// A node: what there is of it in the configuration. Every part may be missing, a bare installation
/// has other ones.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Profile {
    pub database: Option<Database>,
    /// The flat directory of hash-named files.
    pub local_storage: Option<Part>,
    /// kubo's repository.
    pub ipfs: Option<Part>,
    pub keys: Option<Part>,
    pub config: Option<Part>,
    /// Compose's project name, for the labels of volumes that are made anew.
    pub project: Option<String>,
    /// Containers that write to the node's data and must not run while it is restored; either
    /// spelling.
    pub writers: Vec<String>,
}
