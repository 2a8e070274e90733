//! Opens the cache of a command's repository, or a temporary one if the cache is not writable.

use icecore::repo::{RepoCache, UnlockedRepo};

use super::temporary_cache::{CacheNeed, TemporaryCache};
use crate::context::Context;
use crate::exit::CliError;
use crate::ui::text;

/// Hint for a cache that is not writable.
const ADVICE: &str = "set ICECORE_CACHE_DIR to a writable directory";

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
            return Ok(unlocked.open_cache(made.path())?);
        }
        Err(CliError::failed("cannot use the cache", error).with_hint(ADVICE))
    }
}
