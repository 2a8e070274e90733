//! The layout of a node: the role of each source, and the location of its data on this machine.

use std::path::PathBuf;

/// The way in which PostgreSQL's programs reach the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
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
pub struct Server {
    pub access: Access,
    /// The role to connect as. `None`: the programs' default.
    pub user: Option<String>,
}

/// Location of a tree source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Path(PathBuf),
    /// A Docker volume. The engine reports its directory.
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

/// The parts of a node that the configuration names. Every part may be missing: an installation
/// without Docker has other parts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Profile {
    pub database: Option<Database>,
    /// The flat directory of hash-named files.
    pub local_storage: Option<Part>,
    /// kubo's repository.
    pub ipfs: Option<Part>,
    pub keys: Option<Part>,
    pub config: Option<Part>,
    /// Compose's project name, for the labels of volumes that a restore creates.
    pub project: Option<String>,
    /// Containers that write to the node's data and must not run while it is restored. Names may be
    /// in either spelling.
    pub writers: Vec<String>,
}
