//! The packs in the store while a repair runs, and the objects that hold their chunks.

use std::collections::{BTreeMap, BTreeSet};

use crate::Error;
use crate::repo::{PackHead, Repository};
use crate::store::ObjectKey;
use crate::types::{ChunkId, FrameInfo, PackId, PackInfo};

/// State of the packs in the store, as far as this repair knows it.
#[derive(Debug, Default)]
pub(super) struct PackListing {
    /// Packs in `packs/` and their sizes.
    pub listed: BTreeMap<PackId, u64>,
    /// Packs that are damaged or missing.
    pub bad: BTreeSet<PackId>,
    pub quarantined: Vec<PackHolder>,
    /// Dropped packs in `packs/`. No reference to them is valid, but they may hold the only copy of
    /// a chunk.
    pub dropped: Vec<PackHolder>,
    /// Undamaged packs with damaged recovery data.
    pub bad_parity: BTreeSet<PackId>,
}

impl PackListing {
    /// Returns true if the pack is in `packs/` and not known to be damaged.
    pub fn is_whole(&self, id: &PackId) -> bool {
        self.listed.contains_key(id) && !self.bad.contains(id)
    }
}

/// An object that may hold chunks: a pack under any name.
#[derive(Debug, Clone)]
pub(super) struct PackHolder {
    pub key: ObjectKey,
    pub id: PackId,
    pub size: u64,
    /// Its frames and chunks as segments list them; segments may differ.
    pub segment_entries: Vec<PackInfo>,
}

impl PackHolder {
    /// Returns its head and frames. The frames come from its own directory or, if that cannot be
    /// read, from the segments. Returns `None` if its head cannot be read: no frame opens without
    /// it.
    pub fn contents(&self, repo: &Repository) -> Result<Option<(PackHead, Vec<FrameInfo>)>, Error> {
        let head = match repo.head_of(&self.key) {
            Ok(head) => head,
            Err(err) if err.is_unavailable() => return Ok(None),
            Err(err) => return Err(err.into()),
        };
        match repo.directory_of(&self.key, &self.id, self.size, &head) {
            Ok(info) => Ok(Some((head, info.frames))),
            Err(err) if err.is_unavailable() => {
                let frames = self.segment_entries.first().map(|info| info.frames.clone());
                Ok(frames.map(|frames| (head, frames)))
            }
            Err(err) => Err(err.into()),
        }
    }

    /// Returns the ids of all chunks that its directory or any segment lists.
    pub fn ids(&self, repo: &Repository) -> Result<BTreeSet<ChunkId>, Error> {
        let mut frames: Vec<FrameInfo> = self
            .segment_entries
            .iter()
            .flat_map(|info| info.frames.clone())
            .collect();
        frames.extend(
            self.contents(repo)?
                .into_iter()
                .flat_map(|(_, frames)| frames),
        );
        Ok(frames
            .iter()
            .flat_map(|frame| &frame.chunks)
            .map(|chunk| chunk.id)
            .collect())
    }
}
