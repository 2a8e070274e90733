//! The reason why a compose project cannot be read.

use std::path::{Path, PathBuf};

use crate::advice::{Advice, NodeAdvice};
use crate::sys::PathError;

/// The reason why a project cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ComposeError {
    /// A file has an error.
    #[error("{}{why}", place(file, *line, key))]
    Wrong {
        file: PathBuf,
        line: usize,
        /// The key's path from the top: `services.postgres.image`.
        key: String,
        why: String,
    },
    #[error(transparent)]
    Path(#[from] PathError),
    /// A directory has no compose file.
    #[error("there is no compose file in {}", .directory.display())]
    NoFile { directory: PathBuf },
    /// Neither options nor files name the project, and no name can be derived from the directory's.
    #[error("the directory {} gives the project no name", .directory.display())]
    NoName { directory: PathBuf },
}

impl ComposeError {
    /// Returns advice for the operator, where there is any.
    pub fn advice(&self) -> Option<Advice> {
        match self {
            Self::Wrong { .. } | Self::Path(_) => None,
            Self::NoFile { .. } => Some(Advice::Node(NodeAdvice::NameComposeFile)),
            Self::NoName { .. } => Some(Advice::Node(NodeAdvice::NameProject)),
        }
    }
}

fn place(file: &Path, line: usize, key: &str) -> String {
    let key = if key.is_empty() {
        String::new()
    } else {
        format!("{key}: ")
    };
    format!("{}:{line}: {key}", file.display())
}
