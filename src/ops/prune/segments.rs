//! Merges small segments into one, and deletes superseded segments once no client can still be
//! about to read them.
//!
//! A merged segment is the union of its segments, except for rows of dropped packs, whose ids it
//! lists as dropped. So merges by several clients, in any order, or twice, agree. A segment is
//! merged only after every pack that it condemns is dropped: the store time of a mark is that of
//! the segment that made it, and merging must not put it off.
//!
//! Crash points: the merged segment is published before any segment is deleted. A superseded
//! segment is deleted only if a segment that stays contains everything in it, whichever segments
//! claim to supersede it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::age::is_older;
use super::pruner::Pruner;
use crate::Error;
use crate::format::encode_segment;
use crate::index::{Index, PackState, SegmentSummary};
use crate::observe::{Problem, Severity};
use crate::repo::Lease;
use crate::store::{ObjectDir, ObjectKey, ObjectMeta, list_all};
use crate::types::{PackId, PackInfo, SegmentBody, SegmentId, Timestamp};

/// Chunks after which a segment is published, so that it stays below the size that readers accept.
pub(super) const SEGMENT_CHUNKS: usize = 256 << 10;
/// A segment below this many stored bytes is small: 4 MiB.
const SMALL_BYTES: u64 = 4 << 20;
/// Up to this many small segments are left as they are.
const SMALL_MAX: usize = 8;
/// Limit of the plain bytes of a merged segment: 32 MiB.
const MERGED_BYTES_MAX: usize = 32 << 20;

impl Pruner<'_> {
    /// Deletes segments that were superseded long enough ago, then merges.
    pub(super) fn merge_segments(&mut self, lease: &Lease) -> Result<(), Error> {
        let now = self.store_time()?;
        let mut listed = BTreeMap::new();
        for meta in list_all(self.repo.store(), ObjectDir::Index)? {
            if let ObjectKey::Segment(id) = meta.key {
                listed.insert(id, meta);
            }
        }

        let summaries = self.repo.with_index(Index::segment_summaries)?;
        let mut superseded: BTreeMap<SegmentId, SegmentId> = BTreeMap::new();
        for id in summaries
            .iter()
            .map(|summary| summary.segment)
            .filter(|id| listed.contains_key(id))
        {
            if let Some(by) = self
                .repo
                .with_index(|index| index.superseder(&id))?
                .filter(|by| listed.contains_key(by))
            {
                superseded.insert(id, by);
            }
        }

        self.delete_superseded(lease, &superseded, &listed, now)?;

        let of: Vec<&SegmentSummary> = summaries
            .iter()
            .filter(|summary| {
                listed.contains_key(&summary.segment) && !superseded.contains_key(&summary.segment)
            })
            .collect();
        self.merge(lease, &of, &listed)
    }

    fn delete_superseded(
        &mut self,
        lease: &Lease,
        superseded: &BTreeMap<SegmentId, SegmentId>,
        listed: &BTreeMap<SegmentId, ObjectMeta>,
        now: Timestamp,
    ) -> Result<(), Error> {
        let grace = self.grace();
        let is_old = |by: &SegmentId| {
            listed
                .get(by)
                .is_some_and(|meta| is_older(meta.modified, now, grace))
        };

        let going: BTreeMap<&SegmentId, &SegmentId> =
            superseded.iter().filter(|(_, by)| is_old(by)).collect();
        let mut heirs: BTreeMap<SegmentId, Vec<SegmentId>> = BTreeMap::new();
        for (old, by) in &going {
            // If the superseding segment is deleted too, the next prune judges this one against the
            // segment that stays.
            if !going.contains_key(by) {
                heirs.entry(**by).or_default().push(**old);
            }
        }

        for (by, olds) in heirs {
            let Some(heir) = self.segment(&by)? else {
                continue;
            };
            let heir = SegmentCover::new(&heir);
            for old in olds {
                self.task.check()?;
                let Some(body) = self.segment(&old)? else {
                    continue;
                };
                if heir.covers(&body) {
                    lease.check()?;
                    self.report.segments_deleted += u64::from(self.delete(&listed[&old])?);
                } else {
                    let what = "the segment that supersedes it has different content; it is kept";
                    self.task.observer.problem(&Problem::new(
                        Severity::Note,
                        ObjectKey::Segment(old),
                        what,
                    ));
                }
            }
        }
        Ok(())
    }

    /// Reads a segment. Returns `None` if it is gone or damaged; a sync reports that.
    fn segment(&self, id: &SegmentId) -> Result<Option<SegmentBody>, Error> {
        match self.repo.read_segment(id) {
            Ok(body) => Ok(Some(body)),
            Err(err) if err.is_unavailable() => Ok(None),
            Err(err) => Err(err.into()),
        }
    }

    fn merge(
        &mut self,
        lease: &Lease,
        summaries: &[&SegmentSummary],
        listed: &BTreeMap<SegmentId, ObjectMeta>,
    ) -> Result<(), Error> {
        let rows = self.repo.with_index(Index::packs)?;
        let dropped: BTreeSet<PackId> = rows
            .iter()
            .filter(|row| row.state == PackState::Dropped)
            .map(|row| row.id)
            .collect();
        let chosen = choose(
            summaries,
            |id| listed.get(id).map_or(0, |meta| meta.size),
            &dropped,
        );

        let mut merged = SegmentBody::empty(lease.id());
        let mut count = 0;
        let mut bytes = 0;
        for id in chosen {
            self.task.check()?;
            let Some(body) = self.segment(&id)? else {
                continue;
            };
            let plain = encode_segment(&body).len();
            if bytes + plain > MERGED_BYTES_MAX {
                continue;
            }
            bytes += plain;
            count += 1;
            join(&mut merged, id, body, &dropped);
        }

        if count == 0 {
            return Ok(());
        }

        // The format requires sorted ids without duplicates.
        for ids in [&mut merged.condemned, &mut merged.dropped] {
            ids.sort_unstable();
            ids.dedup();
        }
        merged.lost.sort_unstable();
        merged.lost.dedup();
        merged.superseded.sort_unstable();
        merged.superseded.dedup();

        lease.check()?;
        self.repo.publish_segment(lease.id(), &merged)?;
        self.report.segments_merged = count;
        Ok(())
    }
}

/// Returns the segments to merge into one: small ones if there are many, and large ones whose packs
/// are mostly dropped.
fn choose(
    summaries: &[&SegmentSummary],
    size: impl Fn(&SegmentId) -> u64,
    dropped: &BTreeSet<PackId>,
) -> Vec<SegmentId> {
    let free = summaries
        .iter()
        .filter(|summary| summary.condemned.iter().all(|pack| dropped.contains(pack)));
    let is_stale = |summary: &SegmentSummary| {
        let gone = summary
            .added
            .iter()
            .filter(|pack| dropped.contains(pack))
            .count();
        gone > 0 && gone * 2 >= summary.added.len()
    };

    let (mut small, mut stale): (Vec<&SegmentSummary>, Vec<&SegmentSummary>) = free
        .filter(|summary| size(&summary.segment) < SMALL_BYTES || is_stale(summary))
        .partition(|summary| size(&summary.segment) < SMALL_BYTES);

    if small.len() <= SMALL_MAX {
        small.clear();
    }

    small.sort_unstable_by_key(|summary| (size(&summary.segment), summary.segment));
    stale.sort_unstable_by_key(|summary| (size(&summary.segment), summary.segment));

    stale
        .into_iter()
        .chain(small)
        .map(|summary| summary.segment)
        .collect()
}

/// Adds the contents of a segment to a merged one.
fn join(merged: &mut SegmentBody, id: SegmentId, body: SegmentBody, dropped: &BTreeSet<PackId>) {
    let held: BTreeSet<PackId> = merged.packs.iter().map(|pack| pack.id).collect();
    for pack in body.packs {
        if dropped.contains(&pack.id) {
            merged.dropped.push(pack.id);
        } else if !held.contains(&pack.id) {
            merged.packs.push(pack);
        }
    }
    merged.condemned.extend(
        body.condemned
            .into_iter()
            .filter(|pack| !dropped.contains(pack)),
    );
    merged.dropped.extend(body.dropped);
    merged.lost.extend(body.lost);
    merged.superseded.extend(body.superseded);
    merged.superseded.push(id);
}

/// The contents of a segment, with its packs by id.
struct SegmentCover<'a> {
    packs: HashMap<PackId, &'a PackInfo>,
    body: &'a SegmentBody,
}

impl<'a> SegmentCover<'a> {
    fn new(body: &'a SegmentBody) -> Self {
        Self {
            packs: body.packs.iter().map(|pack| (pack.id, pack)).collect(),
            body,
        }
    }

    /// Returns true if no statement of `old` would be lost without it.
    fn covers(&self, old: &SegmentBody) -> bool {
        let is_dropped = |pack: &PackId| self.body.dropped.binary_search(pack).is_ok();
        old.packs
            .iter()
            .all(|pack| is_dropped(&pack.id) || self.packs.get(&pack.id) == Some(&pack))
            && old
                .condemned
                .iter()
                .all(|pack| is_dropped(pack) || self.body.condemned.binary_search(pack).is_ok())
            && old.dropped.iter().all(is_dropped)
            && old
                .lost
                .iter()
                .all(|chunk| self.body.lost.binary_search(chunk).is_ok())
            && old
                .superseded
                .iter()
                .all(|id| self.body.superseded.binary_search(id).is_ok())
    }
}
