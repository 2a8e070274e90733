//! Lists the repository in the order that the protocol requires (leases, snapshots, segments,
//! packs), then finds the live chunks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::live::{LiveChunks, PackUsage, Packs};
use super::plan::CutoffTimes;
use super::pruner::Pruner;
use super::roots::RootSnapshots;
use super::segments::SEGMENT_CHUNKS;
use super::unknown_needs::UnknownNeeds;
use crate::Error;
use crate::index::{Index, PackState};
use crate::observe::{Observer, Phase, Problem, Severity};
use crate::ops::packs::stat_pack;
use crate::read::reach::UnreadableReason;
use crate::read::sync;
use crate::repo::{ChunkReader, FoundLease, RepoError};
use crate::store::{ObjectDir, ObjectKey, ObjectMeta, StoreError, list_all};
use crate::types::{PackId, SegmentBody, Timestamp, to_u64};

/// Size of the cache for frames of metadata while roots are walked: 16 MiB.
const FRAME_CACHE_BYTES: usize = 16 << 20;

/// State of the repository at one time.
#[derive(Debug)]
pub(super) struct RepoSurvey {
    /// The store's time before anything was listed.
    pub now: Timestamp,
    /// Living leases of others.
    pub leases: Vec<FoundLease>,
    /// True if no other client is active and the prune does not have to wait.
    pub immediate: bool,
    pub until: CutoffTimes,
    /// Snapshots whose needs are unknown.
    pub unknown: UnknownNeeds,
    pub roots: RootSnapshots,
    /// When each condemned pack was condemned: the store time of the oldest listed segment that
    /// condemns it.
    pub marks: BTreeMap<PackId, Timestamp>,
    /// Listed packs that were dropped earlier.
    pub leftovers: Vec<ObjectMeta>,
    pub live: LiveChunks,
}

impl Pruner<'_> {
    /// Lists the repository and finds the live chunks. Publishes orphaned packs first, even if the
    /// survey fails later.
    ///
    /// # Errors
    /// [`Error::Unresolved`] if a root needs data that no held pack has: nothing may be deleted
    /// then.
    pub(super) fn survey(&mut self) -> Result<RepoSurvey, Error> {
        self.task.observer.phase(&Phase::Mark);
        let now = self.store_time()?;
        let leases = self.leases_of_others(now)?;
        let immediate = self.options.now && leases.is_empty();
        let grace = if immediate { None } else { Some(self.grace()) };

        let roots = RootSnapshots::list(self.repo, &leases, now, grace, self.task.cancel)?;
        sync(self.repo, self.task.observer)?;

        // The times of the segments are those of the marks in them.
        let mut segments = BTreeMap::new();
        for meta in list_all(self.repo.store(), ObjectDir::Index)? {
            if let ObjectKey::Segment(id) = meta.key {
                segments.insert(id, meta.modified);
            }
        }

        let listed = list_all(self.repo.store(), ObjectDir::Packs)?;
        let adopted = self.adopt(&listed)?;
        let (live, leftovers) = self.walk(&roots, &listed, &adopted)?;

        let mut marks = BTreeMap::new();
        for summary in self.repo.with_index(Index::segment_summaries)? {
            // If a segment is gone since it was loaded, the time of its marks is unknown: assume
            // now.
            let time = segments.get(&summary.segment).copied().unwrap_or(now);
            for pack in summary.condemned {
                let mark = marks.entry(pack).or_insert(time);
                *mark = time.min(*mark);
            }
        }

        let unknown = UnknownNeeds::find(&roots, &live, &self.repo.vanished(), self.times.margin);
        let until = CutoffTimes {
            grace: grace.map(|grace| minus(now, grace)),
            oldest_lease: leases.iter().map(|lease| lease.started(&self.times)).min(),
            unknown_needs: unknown.until,
        };
        Ok(RepoSurvey {
            now,
            leases,
            immediate,
            until,
            unknown,
            roots,
            marks,
            leftovers,
            live,
        })
    }

    /// Finds the live chunks. Walks again if the index was refreshed or rebuilt on the way, since
    /// chunk numbers and unresolved references then differ.
    fn walk(
        &mut self,
        roots: &RootSnapshots,
        listed: &[ObjectMeta],
        adopted: &BTreeSet<PackId>,
    ) -> Result<(LiveChunks, Vec<ObjectMeta>), Error> {
        let mut made_sure = false;
        loop {
            let generation = self.repo.index().generation();
            let (packs, leftovers) = self.packs(listed)?;
            let reader = ChunkReader::new(self.repo, FRAME_CACHE_BYTES);
            let mut live = LiveChunks::find(&reader, roots, packs, self.task.cancel)?;
            if live.unresolved > 0 && !made_sure {
                made_sure = true;
                self.repo.confirm_misses()?;
                continue;
            }
            if self.repo.index().generation() != generation {
                continue;
            }

            refuse_unresolved(&live, roots, self.task.observer)?;
            // Another writer may be about to publish these packs, so the next mark judges them.
            for id in adopted {
                if let Some(pack) = live.packs.get_mut(id) {
                    pack.there = pack.there.map(|_| Timestamp::from_seconds(i64::MAX));
                }
            }

            self.report.roots = to_u64(roots.snapshots.len() + roots.quarantined.len());
            self.report.chunks = live.chunks;
            return Ok((live, leftovers));
        }
    }

    /// Returns the packs that segments mention, with the store times of their objects, and the
    /// dropped packs that are still in the store.
    fn packs(&self, listed: &[ObjectMeta]) -> Result<(Packs, Vec<ObjectMeta>), Error> {
        let mut there: BTreeMap<PackId, &ObjectMeta> = BTreeMap::new();
        for meta in listed {
            if let ObjectKey::Pack(id) = meta.key {
                there.insert(id, meta);
            }
        }

        let mut packs = Packs::new();
        let mut leftovers = Vec::new();
        for row in self.repo.with_index(Index::packs)? {
            let found = there.get(&row.id).map(|meta| (*meta).clone());
            if row.state == PackState::Dropped {
                leftovers.extend(found);
                continue;
            }
            let found = match found {
                None if row.added => stat_pack(self.repo, &row.id)?,
                found => found,
            };
            let whole = found
                .filter(|meta| meta.size == row.size)
                .map(|meta| meta.modified);
            packs.insert(row.id, PackUsage::new(row, whole));
        }
        Ok((packs, leftovers))
    }

    /// Publishes the contents of orphaned packs and returns their names. Reports an orphan that
    /// cannot be read and leaves it alone.
    fn adopt(&mut self, listed: &[ObjectMeta]) -> Result<BTreeSet<PackId>, Error> {
        let known = self.repo.with_index(Index::packs)?;
        let recorded: BTreeSet<PackId> = known
            .into_iter()
            .filter(|pack| pack.added || pack.state == PackState::Dropped)
            .map(|pack| pack.id)
            .collect();

        let mut adopted = BTreeSet::new();
        let mut found = Vec::new();
        let mut chunks = 0;
        for meta in listed {
            let ObjectKey::Pack(id) = meta.key else {
                continue;
            };
            if recorded.contains(&id) {
                continue;
            }

            self.task.check()?;
            match self.repo.read_directory(&id, meta.size) {
                Ok(info) => {
                    chunks += info.chunk_count();
                    adopted.insert(id);
                    self.report.adopted.add(meta.size);
                    found.push(info);
                }
                Err(RepoError::Store(StoreError::NotFound { .. })) => {}
                Err(err) if err.is_unavailable() => {
                    self.task
                        .observer
                        .problem(&Problem::new(Severity::Damage, &meta.key, err));
                }
                Err(err) => return Err(err.into()),
            }

            if chunks >= SEGMENT_CHUNKS {
                self.publish_adopted(&mut found)?;
                chunks = 0;
            }
        }

        self.publish_adopted(&mut found)?;
        Ok(adopted)
    }

    fn publish_adopted(&self, found: &mut Vec<crate::types::PackInfo>) -> Result<(), Error> {
        let packs = std::mem::take(found);
        if let Some(lease) = self
            .lease
            .filter(|_| !packs.is_empty() && !self.options.dry_run)
        {
            lease.check()?;
            self.repo.publish_segment(
                lease.id(),
                &SegmentBody {
                    packs,
                    ..SegmentBody::empty(lease.id())
                },
            )?;
        }
        Ok(())
    }
}

/// Returns an error if a root cannot be read or needs missing data.
fn refuse_unresolved(
    live: &LiveChunks,
    roots: &RootSnapshots,
    observer: &dyn Observer,
) -> Result<(), Error> {
    let examples: Vec<&(String, UnreadableReason)> =
        roots.unreadable.iter().chain(&live.examples).collect();
    for (object, reason) in &examples {
        observer.problem(&Problem::new(Severity::Damage, object, &reason.why));
    }
    let any_lost = live.any_lost || roots.unreadable.iter().any(|(_, reason)| !reason.now);
    match examples.first() {
        Some((object, reason)) => Err(Error::Unresolved {
            count: live.unresolved + to_u64(roots.unreadable.len()),
            example: format!("{object}: {}", reason.why),
            now: !any_lost,
        }),
        None => Ok(()),
    }
}

/// Returns the time `span` before `time`.
pub(super) fn minus(time: Timestamp, span: Duration) -> Timestamp {
    time.plus_seconds(-i64::try_from(span.as_secs()).unwrap_or(i64::MAX))
}
