//! Opens the cache of a command's repository, or a temporary one if the cache is not writable.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use icecore::repo::{RepoCache, UnlockedRepo};

use crate::context::Context;
use crate::exit::CliError;
use crate::ui::text;

/// Hint for a cache that is not writable.
const ADVICE: &str = "set ICECORE_CACHE_DIR to a writable directory";

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

impl Context<'_> {
    pub(super) fn open_cache(
        &self,
        unlocked: &UnlockedRepo,
        need: CacheNeed,
    ) -> Result<RepoCache, CliError> {
        let root = self.cache_root()?;
        let error = match unlocked.open_cache(&root) {
            Err(error) if error.is_read_only_cache() => error,
            opened => return Ok(opened?),
        };
        // If no temporary cache can be created either, report the first error: it is the one to
        // fix.
        if need == CacheNeed::Temporary
            && let Ok(made) = TemporaryCache::make()
        {
            let made = self.temporary_cache.get_or_init(|| made);
            let what = format!(
                "cannot write to the cache {}; this command uses a temporary one",
                root.display()
            );
            self.ui
                .warn(format_args!("warning: {}; {ADVICE}", text::clean(&what)));
            return Ok(unlocked.open_cache(&made.0)?);
        }
        Err(CliError::failed("cannot use the cache", error).with_hint(ADVICE))
    }
}

impl TemporaryCache {
    /// Creates an empty directory that no other user can enter.
    fn make() -> Result<Self, CliError> {
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
}

impl Drop for TemporaryCache {
    fn drop(&mut self) {
        // A leftover is only a copy of data in the repository, and the system cleans such
        // directories.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
