//! The cache of a command's repository, or a temporary one where that cannot be written.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use icecore::repo::{Cache, Unlocked};

use crate::context::Context;
use crate::exit::CliError;
use crate::ui::text;

/// What to do where the cache cannot be written.
const ADVICE: &str = "set ICECORE_CACHE_DIR to a directory that can be written";

/// What happens where the cache cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheNeed {
    /// The command fails: every run would build the whole index again.
    Lasting,
    /// A temporary cache takes its place.
    Temporary,
}

/// A cache that goes away with the command.
#[derive(Debug)]
pub struct TemporaryCache(PathBuf);

impl Context<'_> {
    pub(super) fn open_cache(
        &self,
        unlocked: &Unlocked,
        need: CacheNeed,
    ) -> Result<Cache, CliError> {
        let root = self.cache_root()?;
        let error = match unlocked.open_cache(&root) {
            Err(error) if error.is_read_only_cache() => error,
            opened => return Ok(opened?),
        };
        // Where no temporary one can be made either, the first error is the one to mend.
        if need == CacheNeed::Temporary
            && let Ok(made) = TemporaryCache::make()
        {
            let made = self.temporary_cache.get_or_init(|| made);
            let what = format!(
                "the cache {} cannot be written; this command uses a temporary one",
                root.display()
            );
            self.ui
                .warn(format_args!("warning: {}; {ADVICE}", text::clean(&what)));
            return Ok(unlocked.open_cache(&made.0)?);
        }
        Err(CliError::failed("the cache cannot be used", error).with_hint(ADVICE))
    }
}

impl TemporaryCache {
    /// Makes an empty directory that nobody else can enter.
    fn make() -> Result<Self, CliError> {
        let failed = |e| CliError::failed("cannot make a temporary cache", e);
        let mut random = [0_u8; 8];
        getrandom::fill(&mut random)
            .map_err(|e| CliError::failed("the system gives no random bytes", e))?;
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
        // What stays is a copy of what the repository says; the system empties such directories.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
