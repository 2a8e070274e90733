//! Why a node's operation failed.

use super::compose::ComposeError;
use super::docker::DockerError;
use super::dump::DumpError;
use super::postgres::PostgresError;
use crate::{Error, ErrorKind};

/// Why an operation on a node failed.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The archive's own operations.
    #[error(transparent)]
    Engine(Error),
    #[error(transparent)]
    Compose(#[from] ComposeError),
    #[error(transparent)]
    Docker(DockerError),
    #[error(transparent)]
    Postgres(PostgresError),
    /// A captured dump is not what it should be.
    #[error("the dump '{name}' cannot be read")]
    Dump {
        name: String,
        source: Box<DumpError>,
    },
    /// The database's restore ended half-way.
    #[error("the database is half restored: {why}")]
    HalfRestored {
        why: String,
        kind: ErrorKind,
        hint: String,
    },
    /// It makes sense, but is not done for safety's sake.
    #[error("{why}")]
    Refused { why: String, hint: String },
}

impl NodeError {
    /// What callers act on.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Engine(err) => err.kind(),
            Self::HalfRestored { kind, .. } => *kind,
            Self::Compose(_)
            | Self::Docker(_)
            | Self::Postgres(_)
            | Self::Dump { .. }
            | Self::Refused { .. } => ErrorKind::Failed,
        }
    }

    /// What to do about it, where that can be said.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Engine(err) => err.hint(),
            Self::Compose(err) => err.hint(),
            Self::Docker(err) => err.hint(),
            Self::Postgres(_) | Self::Dump { .. } => None,
            Self::HalfRestored { hint, .. } | Self::Refused { hint, .. } => Some(hint),
        }
    }
}

impl From<DockerError> for NodeError {
    fn from(err: DockerError) -> Self {
        match err {
            DockerError::Interrupted { .. } => Self::Engine(Error::Interrupted),
            err => Self::Docker(err),
        }
    }
}

impl From<PostgresError> for NodeError {
    fn from(err: PostgresError) -> Self {
        match err {
            PostgresError::Interrupted { .. } => Self::Engine(Error::Interrupted),
            err => Self::Postgres(err),
        }
    }
}

impl<E: Into<Error>> From<E> for NodeError {
    fn from(err: E) -> Self {
        Self::Engine(err.into())
    }
}
