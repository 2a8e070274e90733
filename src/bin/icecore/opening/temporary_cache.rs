//! A cache for one command, where the lasting one is not writable.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::exit::CliError;

/// The reaction to a cache that is not writable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheNeed {
    /// The command fails: otherwise every run would build the whole index again.
    Lasting,
    /// A temporary cache is used instead.
    Temporary,
}

/// A cache that is deleted when the command ends.
#[derive(Debug)]
pub struct TemporaryCache(PathBuf);

impl TemporaryCache {
    /// Creates an empty directory that no other user can enter.
    pub fn make() -> Result<Self, CliError> {
        let failed = |e| CliError::failed("cannot create a temporary cache", e);
        let mut random = [0_u8; 8];
        getrandom::fill(&mut random)
            .map_err(|e| CliError::failed("cannot get random bytes from the system", e))?;
        let name = format!("icecore-cache-{:016x}", u64::from_le_bytes(random));
        let path = std::env::temp_dir().join(name);
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(failed)?;
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TemporaryCache {
    fn drop(&mut self) {
        // A leftover is only a copy of data in the repository, and the system cleans such
        // directories.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
