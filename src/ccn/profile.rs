//! The layout of a node: the role of each source, and the location of its data on this machine.

use std::path::PathBuf;

/// The way in which PostgreSQL's programs reach the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerAccess {
    /// Inside a container, with `docker exec`. The container's name may be in the spelling of
    /// either version of compose.
    Docker { container: String },
    /// Directly, with the programs of this machine.
    Direct {
        /// Host name, address, or directory of the server's socket. `None`: the programs' default.
        address: Option<String>,
        port: Option<u16>,
        /// A file in `.pgpass` format, for servers that require a password.
        password_file: Option<PathBuf>,
    },
}

/// How the database is dumped and restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseServer {
    pub access: ServerAccess,
    /// The role to connect as. `None`: the programs' default.
    pub user: Option<String>,
}

/// Location of a tree source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceLocation {
    Path(PathBuf),
    /// A Docker volume. The engine reports its directory.
    Volume(String),
}

/// A tree source of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSource {
    /// The source's name in snapshots.
    pub source: String,
    pub place: SourceLocation,
}

/// The database as a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeDatabase {
    /// The source's name in snapshots.
    pub source: String,
    pub server: DatabaseServer,
}

/// The parts of a node that the configuration names. Every part may be missing: an installation
/// without Docker has other parts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeLayout {
    pub database: Option<NodeDatabase>,
    /// The flat directory of hash-named files.
    pub local_storage: Option<NodeSource>,
    /// kubo's repository.
    pub ipfs: Option<NodeSource>,
    pub keys: Option<NodeSource>,
    pub config: Option<NodeSource>,
    /// Compose's project name, for the labels of volumes that a restore creates.
    pub project: Option<String>,
    /// Containers that write to the node's data and must not run while it is restored. Names may be
    /// in either spelling.
    pub writers: Vec<String>,
}
