//! The error of operations on a node.

use super::compose::ComposeError;
use super::docker::DockerError;
use super::dump::DumpError;
use super::postgres::PostgresError;
use crate::advice::Advice;
use crate::{Error, ErrorKind};

/// The reason why an operation on a node failed.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// An operation of the archive itself failed.
    #[error(transparent)]
    Engine(Error),
    #[error(transparent)]
    Compose(#[from] ComposeError),
    #[error(transparent)]
    Docker(DockerError),
    #[error(transparent)]
    Postgres(PostgresError),
    /// A captured dump is damaged or malformed.
    #[error("the dump '{name}' cannot be read")]
    Dump {
        name: String,
        source: Box<DumpError>,
    },
    /// The restore of the database stopped half-way.
    #[error("the database is half restored: {why}")]
    HalfRestored {
        why: String,
        kind: ErrorKind,
        advice: Advice,
    },
    /// The request is invalid.
    #[error("{why}")]
    Usage { why: String, advice: Advice },
    /// The request makes sense, but is refused for safety.
    #[error("{why}")]
    Refused { why: String, advice: Advice },
}

impl NodeError {
    /// Returns the kind of the error, for callers that act on it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Engine(err) => err.kind(),
            Self::HalfRestored { kind, .. } => *kind,
            Self::Usage { .. } => ErrorKind::Usage,
            Self::Compose(_)
            | Self::Docker(_)
            | Self::Postgres(_)
            | Self::Dump { .. }
            | Self::Refused { .. } => ErrorKind::Failed,
        }
    }

    /// Returns advice for the operator, where there is any.
    pub fn advice(&self) -> Option<Advice> {
        match self {
            Self::Engine(err) => err.advice(),
            Self::Compose(err) => err.advice(),
            Self::Docker(err) => err.advice(),
            Self::Postgres(_) | Self::Dump { .. } => None,
            Self::HalfRestored { advice, .. }
            | Self::Usage { advice, .. }
            | Self::Refused { advice, .. } => Some(advice.clone()),
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
