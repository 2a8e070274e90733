//! State that all parts of one restore share.

use std::sync::Mutex;

use rayon::ThreadPool;

use super::claimed::ClaimedNames;
use super::options::RestoreOptions;
use super::report::RestoreTally;
use super::window::WindowLimits;
use crate::dest::ProtectedDirs;
use crate::error::Error;
use crate::format::RunRef;
use crate::read::ReadSession;
use crate::read::fetch::Fetcher;
use crate::repo::{ChunkReader, MergedRuns, OnDamage, Repository, RunStreams};
use crate::source::UnmatchedPatterns;
use crate::task::Task;

/// State that all parts of one restore share.
pub(super) struct RestoreJob<'a> {
    pub(super) repo: &'a Repository,
    pub(super) session: &'a ReadSession<'a>,
    pub(super) reader: &'a ChunkReader<'a>,
    pub(super) pool: &'a ThreadPool,
    pub(super) options: &'a RestoreOptions,
    pub(super) limits: WindowLimits,
    pub(super) sorter_bytes: usize,
    pub(super) task: Task<'a>,
    pub(super) tally: &'a RestoreTally<'a>,
    /// A repair found that the snapshot lacks something.
    pub(super) is_repaired: bool,
    pub(super) claimed: ClaimedNames,
    /// The snapshot is a checkpoint of a running backup.
    pub(super) is_checkpoint: bool,
    pub(super) protection: ProtectedDirs,
    /// The include patterns that have matched nothing so far. A source's walk takes them while it
    /// runs.
    pub(super) unmatched: Mutex<UnmatchedPatterns>,
}

impl<'a> RestoreJob<'a> {
    pub(super) fn fetcher(&self) -> Fetcher<'a> {
        Fetcher::new(self.reader, Some(self.pool), 0, self.task)
    }

    pub(super) fn open_runs(&self, runs: &[RunRef]) -> Result<MergedRuns<'a>, Error> {
        Ok(MergedRuns::open(
            self.reader,
            runs,
            RunStreams::All,
            OnDamage::Skip,
        )?)
    }
}
