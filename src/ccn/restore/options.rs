//! Options of a node's restore, and the requested snapshots.

use std::collections::BTreeMap;
use std::time::Duration;

use super::plan::RestoreScope;
use crate::dest::ProtectedDirs;
use crate::repo::HostChoice;
use crate::sys::StateDir;
use crate::types::ByteSize;

/// Options of a node's restore.
#[derive(Debug, Clone)]
pub struct NodeRestoreOptions {
    pub scope: RestoreScope,
    /// A database with tables may be replaced, and so may keys that differ.
    pub replace: bool,
    /// How long to wait for the database server.
    pub wait: Duration,
    /// The hosts whose snapshots `latest` refers to.
    pub hosts: HostChoice,
    /// Look for all obstacles, even if one was found already.
    pub is_dry_run: bool,
    /// Environment variables to hide from every program.
    pub env_remove: Vec<String>,
    /// The environment that compose would have, for variables in the compose file.
    pub environment: BTreeMap<String, String>,
    /// The operator's `PGOPTIONS`: settings that PostgreSQL's programs of this machine request when
    /// they connect.
    pub pgoptions: Option<String>,
    /// Paths that are never entered, replaced or deleted; see
    /// [`RestoreOptions::protect`](crate::ops::restore::RestoreOptions).
    pub protect: ProtectedDirs,
    pub memory: ByteSize,
    /// The directory that records which captures were restored. `None`: nothing is recorded.
    pub state: Option<StateDir>,
}

/// Requested snapshots and sources: `SNAP` or `SNAP:SOURCE`.
pub type Asked<'a> = [(&'a str, Option<&'a str>)];
