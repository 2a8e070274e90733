//! Reads a configuration file.

use std::io;
use std::path::{Path, PathBuf};

use super::{Config, ConfigError};
use crate::sys::{PathContext, PathError, read_bounded};

/// Longest file that is read.
const FILE_BYTES_MAX: usize = 1 << 20;

/// A configuration file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFileError {
    /// The file cannot be read.
    #[error(transparent)]
    Read(PathError),
    /// The file is larger than any configuration.
    #[error("{} is larger than 1 MiB", .0.display())]
    TooLarge(PathBuf),
    /// The file is not text.
    #[error("the configuration {} is not UTF-8", .0.display())]
    NotText(PathBuf),
    /// A mistake in the file.
    #[error(transparent)]
    Mistake(#[from] ConfigError),
}

impl Config {
    /// Reads a configuration file. `home`: the home directory, for `~/`. Returns `None` if the file
    /// does not exist.
    pub fn load(file: &Path, home: Option<&Path>) -> Result<Option<Self>, ConfigFileError> {
        let file = std::path::absolute(file)
            .context("resolve", file)
            .map_err(ConfigFileError::Read)?;
        let bytes = match read_bounded(&file, FILE_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(err) if err.kind() == io::ErrorKind::FileTooLarge => {
                return Err(ConfigFileError::TooLarge(file));
            }
            Err(err) => return Err(ConfigFileError::Read(err)),
        };
        let text = String::from_utf8(bytes).map_err(|_| ConfigFileError::NotText(file.clone()))?;
        Ok(Some(Self::parse(&file, &text, home)?))
    }
}
