//! Publishes the result of a repair: damaged packs and lost chunks.

use std::collections::{BTreeMap, BTreeSet};

use super::{Lease, RepoError, Repository};
use crate::types::{ChunkId, PackId, PackInfo, SegmentBody, SegmentId};

impl Repository {
    /// Returns the records of these packs in the listed segments. If two records of a pack differ,
    /// both are returned.
    pub fn segment_entries_of(
        &self,
        packs: &BTreeSet<PackId>,
    ) -> Result<BTreeMap<PackId, Vec<PackInfo>>, RepoError> {
        let mut out: BTreeMap<PackId, Vec<PackInfo>> = BTreeMap::new();
        if packs.is_empty() {
            return Ok(out);
        }
        for id in self.listed_segments()? {
            let body = match self.read_segment(&id) {
                Ok(body) => body,
                Err(RepoError::Store(err)) if err.is_not_found() => continue,
                Err(err) if err.is_unavailable() => continue,
                Err(err) => return Err(err),
            };
            for info in body
                .packs
                .into_iter()
                .filter(|info| packs.contains(&info.id))
            {
                let descriptions = out.entry(info.id).or_default();
                if !descriptions.contains(&info) {
                    descriptions.push(info);
                }
            }
        }
        Ok(out)
    }

    /// Publishes that these packs are condemned because they are damaged or missing, and that these
    /// chunks are lost with them. All data that could be saved is stored, durable and published by
    /// then.
    ///
    /// States only move forward: a later prune drops the condemned packs, even if they become
    /// readable again.
    pub fn publish_damage(
        &self,
        lease: &Lease,
        mut condemned: Vec<PackId>,
        mut lost: Vec<ChunkId>,
    ) -> Result<SegmentId, RepoError> {
        lease.check()?;
        condemned.sort_unstable();
        condemned.dedup();
        lost.sort_unstable();
        lost.dedup();
        let body = SegmentBody {
            condemned,
            lost,
            ..SegmentBody::empty(lease.id())
        };
        Ok(self.publish_segment(lease.id(), &body)?.0)
    }
}
