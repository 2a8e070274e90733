//! What is there, in the order that the protocol asks for: leases, snapshots, segments, packs; then
//! what is live.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Run;
use super::copy::SEGMENT_CHUNKS;
use super::live::{Live, Pack, Packs};
use super::plan::Until;
use super::quarantine::UnknownNeeds;
use super::roots::Roots;
use crate::Error;
use crate::index::{Index, PackState};
use crate::observe::{Observer, Phase, Problem, Severity};
use crate::ops::packs::stat_pack;
use crate::ops::sync;
use crate::repo::{ChunkReader, FoundLease, RepoError};
use crate::store::{ObjectDir, ObjectKey, ObjectMeta, StoreError, list_all};
use crate::types::{PackId, SegmentBody, Timestamp};

/// Frames of metadata kept while roots are walked: 16 MiB.
const FRAME_CACHE_BYTES: usize = 16 << 20;

/// The repository at one time.
#[derive(Debug)]
pub(super) struct Survey {
    /// The store's time before anything was listed.
    pub now: Timestamp,
    /// Leases of others that are alive.
    pub leases: Vec<FoundLease>,
    /// Nobody else is at work and the prune is not to wait.
    pub immediate: bool,
    pub until: Until,
    /// Snapshots of which nobody can tell what they need.
    pub unknown: UnknownNeeds,
    pub roots: Roots,
    /// When each condemned pack was condemned: the store time of the oldest listed segment that
    /// says so.
    pub marks: BTreeMap<PackId, Timestamp>,
    /// Packs listed that were dropped before.
    pub leftovers: Vec<ObjectMeta>,
    pub live: Live,
}

impl Run<'_> {
    /// Takes stock. Orphaned packs are published first, whatever follows.
    ///
    /// # Errors
    /// [`Error::Unresolved`] if a root needs what no held pack has: nothing may be let go then.
    pub(super) fn survey(&mut self) -> Result<Survey, Error> {
        self.observer.phase(&Phase::Mark);
        let now = self.store_time()?;
        let leases = self.leases_of_others(now)?;
        let immediate = self.options.now && leases.is_empty();
        let grace = if immediate { None } else { Some(self.grace()) };
        let roots = Roots::list(self.repo, &leases, now, grace, self.cancel)?;
        sync(self.repo, self.observer)?;
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
        for says in self.repo.ask_index(Index::says)? {
            // A segment that is gone since it was loaded: nothing older than now is known of its
            // marks.
            let time = segments.get(&says.segment).copied().unwrap_or(now);
            for pack in says.condemned {
                let mark = marks.entry(pack).or_insert(time);
                *mark = time.min(*mark);
            }
        }
        let unknown = UnknownNeeds::find(&roots, &live, &self.repo.vanished(), self.times.margin);
        let until = Until {
            grace: grace.map(|grace| minus(now, grace)),
            oldest_lease: leases.iter().map(|lease| lease.started(&self.times)).min(),
            unknown_needs: unknown.until,
        };
        Ok(Survey {
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

    /// Finds out what is live. Done again if the index was found wanting on the way: chunk numbers,
    /// and what did not resolve, are then others.
    fn walk(
        &mut self,
        roots: &Roots,
        listed: &[ObjectMeta],
        adopted: &BTreeSet<PackId>,
    ) -> Result<(Live, Vec<ObjectMeta>), Error> {
        let mut made_sure = false;
        loop {
            let generation = self.repo.index().generation();
            let (packs, leftovers) = self.packs(listed)?;
            let reader = ChunkReader::new(self.repo, FRAME_CACHE_BYTES);
            let mut live = Live::find(&reader, roots, packs, self.cancel)?;
            if live.unresolved > 0 && !made_sure {
                made_sure = true;
                self.repo.make_sure_of_misses()?;
                continue;
            }
            if self.repo.index().generation() != generation {
                continue;
            }
            refuse_unresolved(&live, roots, self.observer)?;
            // Their writers may be about to publish them: they are judged by the next mark.
            for id in adopted {
                if let Some(pack) = live.packs.get_mut(id) {
                    pack.there = pack.there.map(|_| Timestamp::from_seconds(i64::MAX));
                }
            }
            self.report.roots = (roots.snapshots.len() + roots.quarantined.len()) as u64;
            self.report.chunks = live.chunks;
            return Ok((live, leftovers));
        }
    }

    /// The packs that segments tell of, with what the store says of them; and those that were
    /// dropped and are there.
    fn packs(&self, listed: &[ObjectMeta]) -> Result<(Packs, Vec<ObjectMeta>), Error> {
        let mut there: BTreeMap<PackId, &ObjectMeta> = BTreeMap::new();
        for meta in listed {
            if let ObjectKey::Pack(id) = meta.key {
                there.insert(id, meta);
            }
        }
        let (mut packs, mut leftovers) = (Packs::new(), Vec::new());
        for row in self.repo.ask_index(Index::packs)? {
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
            packs.insert(row.id, Pack::new(row, whole));
        }
        Ok((packs, leftovers))
    }

    /// Publishes what orphaned packs hold; returns their names. One that cannot be read is told and
    /// left alone.
    fn adopt(&mut self, listed: &[ObjectMeta]) -> Result<BTreeSet<PackId>, Error> {
        let known = self.repo.ask_index(Index::packs)?;
        let told: BTreeSet<PackId> = known
            .into_iter()
            .filter(|pack| pack.added || pack.state == PackState::Dropped)
            .map(|pack| pack.id)
            .collect();
        let (mut adopted, mut found, mut chunks) = (BTreeSet::new(), Vec::new(), 0);
        for meta in listed {
            let ObjectKey::Pack(id) = meta.key else {
                continue;
            };
            if told.contains(&id) {
                continue;
            }
            self.cancel.check()?;
            match self.repo.read_directory(&id, meta.size) {
                Ok(info) => {
                    chunks += info.chunk_count();
                    adopted.insert(id);
                    self.report.adopted.add(meta.size);
                    found.push(info);
                }
                Err(RepoError::Store(StoreError::NotFound { .. })) => {}
                Err(err) if err.is_unavailable() => {
                    self.observer
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

/// Fails if a root cannot be read or needs what is not there.
fn refuse_unresolved(live: &Live, roots: &Roots, observer: &dyn Observer) -> Result<(), Error> {
    let told: Vec<&(String, String)> = roots.unreadable.iter().chain(&live.told).collect();
    for (object, why) in &told {
        observer.problem(&Problem::new(Severity::Damage, object, why));
    }
    match told.first() {
        Some((object, why)) => Err(Error::Unresolved {
            count: live.unresolved + roots.unreadable.len() as u64,
            example: format!("{object}: {why}"),
        }),
        None => Ok(()),
    }
}

/// A time so much earlier.
pub(super) fn minus(time: Timestamp, span: Duration) -> Timestamp {
    time.plus_seconds(-i64::try_from(span.as_secs()).unwrap_or(i64::MAX))
}
