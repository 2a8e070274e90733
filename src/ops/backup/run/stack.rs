//! Writes a source's new run, or a part of it for a checkpoint, merged with existing runs.

use super::sink::EntryBatch;
use crate::format::RunRef;
use crate::repo::{
    ChunkReader, EntryMention, MergedRuns, OnDamage, PackerHandle, RepoError, RunStreams,
    RunWriter, merged_into, tiers_to_merge,
};
use crate::types::ChunkClass;

/// All runs are merged into one if newer runs hide more than a twentieth of all content, and more
/// bytes than the runs themselves take. A prune keeps all content that any run names, visible or
/// hidden.
const HIDDEN_PARTS: u64 = 20;

/// The runs of a source during its capture.
#[derive(Debug, Clone, Default)]
pub(in crate::ops::backup) struct RunStack {
    /// Newest first: our own, then those of the previous snapshot.
    pub all: Vec<RunRef>,
    /// Number of our own runs, written for checkpoints.
    pub own: usize,
}

impl RunStack {
    /// Returns the runs of a previous snapshot.
    pub fn of(previous: &[RunRef]) -> Self {
        Self {
            all: previous.to_vec(),
            own: 0,
        }
    }

    /// Adds a part of the new run, merged by tiers ([R9](docs/protocol.md#r9)) with the newest of
    /// our own runs that have at most `limit` entries together: a checkpoint must not take long.
    /// The previous snapshot's runs stay as they are until the end.
    pub fn add_part(
        &mut self,
        feed: &PackerHandle<'_>,
        reader: &ChunkReader<'_>,
        batch: EntryBatch,
        hidden: u64,
        limit: u64,
    ) -> Result<(), RepoError> {
        let own = &self.all[..self.own];
        let mut sum = 0u64;
        let small = own.iter().take_while(|run| {
            sum = sum.saturating_add(run.entries);
            sum <= limit
        });

        let joining = tiers_to_merge(batch.entries, own).min(small.count());
        let previous_count = self.all.len() - self.own;

        self.merge(feed, reader, Some(batch), hidden, joining, &|| false)?;
        self.own = self.all.len() - previous_count;
        Ok(())
    }

    /// Adds the last part. Our own runs become one run, which is merged with the previous
    /// snapshot's by tiers. The result has the same runs as a backup without checkpoints.
    pub fn complete(
        &mut self,
        feed: &PackerHandle<'_>,
        reader: &ChunkReader<'_>,
        batch: Option<EntryBatch>,
        hidden: u64,
        is_stopped: &dyn Fn() -> bool,
    ) -> Result<(), RepoError> {
        let (own, previous) = self.all.split_at(self.own);
        let entries = own
            .iter()
            .map(|run| run.entries)
            .chain(batch.as_ref().map(|batch| batch.entries));
        let joining = if self.hides_much(hidden) {
            previous.len()
        } else {
            tiers_to_merge(entries.sum(), previous)
        };
        if batch.is_none() && self.own + joining <= 1 {
            return Ok(());
        }
        self.merge(feed, reader, batch, hidden, self.own + joining, is_stopped)?;
        self.own = 0;
        Ok(())
    }

    /// Returns true if newer runs hide too much of the runs' content, with `hidden` bytes more now.
    fn hides_much(&self, hidden: u64) -> bool {
        let sum = |of: fn(&RunRef) -> u64| self.all.iter().map(of).fold(0, u64::saturating_add);
        let hidden = sum(|run| run.hides).saturating_add(hidden);
        hidden > sum(|run| run.bytes)
            && hidden.saturating_mul(HIDDEN_PARTS) > sum(|run| run.content)
    }

    /// Merges the batch and the newest `joining` runs into one run, which replaces them.
    fn merge(
        &mut self,
        feed: &PackerHandle<'_>,
        reader: &ChunkReader<'_>,
        batch: Option<EntryBatch>,
        hidden: u64,
        joining: usize,
        is_stopped: &dyn Fn() -> bool,
    ) -> Result<(), RepoError> {
        let (old, staying) = self.all.split_at(joining);
        let hides = match staying {
            [] => 0,
            _ => old
                .iter()
                .map(|run| run.hides)
                .fold(hidden, u64::saturating_add),
        };

        let mut pages = feed.writer(ChunkClass::Metadata);
        let mut sorted = batch.map(|batch| batch.sorted);
        // Checked for each page: after the last new entry there may be millions of old ones, for
        // which `next` is not called.
        let mut put = |bytes: &[u8]| {
            if is_stopped() {
                Err(RepoError::Stopped)
            } else {
                pages.add(bytes)
            }
        };

        let writer = RunWriter::new(&mut put);
        let old = MergedRuns::open(reader, old, RunStreams::All, OnDamage::Fail)?;
        let next = || -> Result<Option<EntryMention>, RepoError> {
            match &mut sorted {
                _ if is_stopped() => Err(RepoError::Stopped),
                Some(sorted) => sorted.next(),
                None => Ok(None),
            }
        };

        let run = merged_into(next, old, staying.is_empty(), writer)?;
        pages.flush()?;
        let run = run.map(|run| RunRef { hides, ..run });
        self.all = run.into_iter().chain(staying.iter().cloned()).collect();
        Ok(())
    }
}
