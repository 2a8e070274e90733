//! What a repair tells everybody: which packs are damaged, which chunks are lost.

use std::collections::{BTreeMap, BTreeSet};

use super::{Lease, RepoError, Repository};
use crate::types::{ChunkId, PackId, PackInfo, SegmentBody, SegmentId};

impl Repository {
    /// What the listed segments say of these packs. Of two that differ both are given.
    pub fn told_of(
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
                let told = out.entry(info.id).or_default();
                if !told.contains(&info) {
                    told.push(info);
                }
            }
        }
        Ok(out)
    }

    /// Publishes that packs are condemned because they are damaged or gone, and which chunks are
    /// lost with them. All that could be saved is stored, durable and published by then.
    ///
    /// States only move forward: a pack that a repair condemned is dropped by a later prune,
    /// whatever comes back.
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
