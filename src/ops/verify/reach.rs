//! Walk over all chunks that snapshots need. Each must be in a held pack that is in the store.

use super::damage::FoundDamage;
use crate::Error;
use crate::index::{ChunkLocation, Index};
use crate::read::reach::{ChunkBits, ReachVisitor, ReachWalker, ReachedPiece, UnreadableReason};
use crate::repo::{ChunkReader, Repository, StoredSnapshot};
use crate::task::Cancel;
use crate::types::{ChunkId, PlainLen, SnapshotId};

/// Reported pieces of unreadable metadata. One damaged frame makes all pages in it unreadable.
const UNREADABLE_MAX: usize = 1000;

/// Sources that need unreadable data: the snapshot, and the index of the source in it.
pub(super) type Suspects = Vec<(SnapshotId, usize)>;

/// Results of a walk over all snapshots.
#[derive(Debug, Default)]
pub(super) struct ReachedChunks {
    /// Chunks that resolved, each counted once.
    pub chunks: u64,
    /// References to chunks that no held pack has, those of hidden entries included.
    pub unresolved: u64,
    /// Roots, nodes and pages that cannot be read, with the error.
    pub unreadable: Vec<(String, UnreadableReason)>,
    /// Newest first.
    pub suspects: Suspects,
}

impl ReachedChunks {
    /// Walks all snapshots.
    pub fn run(
        reader: &ChunkReader<'_>,
        snapshots: &[StoredSnapshot],
        damage: &FoundDamage,
        cancel: &Cancel,
    ) -> Result<Self, Error> {
        let repo = reader.repo();
        let seen = ChunkBits::with_room(repo.with_index(Index::chunk_numbers_end)?);
        let judge = ChunkResolver {
            repo,
            damage,
            seen,
            ids: Vec::new(),
            places: Vec::new(),
            out: Self::default(),
        };
        let mut walker = ReachWalker::new(reader, cancel, judge)?;
        for found in snapshots {
            for (n, source) in found.snapshot.sources.iter().enumerate() {
                if !walker.source(&source.kind)? {
                    walker.judge.out.suspects.push((found.id, n));
                }
            }
        }
        Ok(walker.judge.out)
    }
}

struct ChunkResolver<'a> {
    repo: &'a Repository,
    damage: &'a FoundDamage,
    /// Chunks that resolved.
    seen: ChunkBits,
    ids: Vec<ChunkId>,
    places: Vec<Option<ChunkLocation>>,
    out: ReachedChunks,
}

impl ReachVisitor for ChunkResolver<'_> {
    fn place(&mut self, id: &ChunkId) -> Result<Option<ChunkLocation>, Error> {
        self.damage.good_copy(self.repo, id, self.repo.locate(id)?)
    }

    fn chunks(&mut self, batch: &[(ChunkId, PlainLen)]) -> Result<bool, Error> {
        self.ids.clear();
        self.ids.extend(batch.iter().map(|&(id, _)| id));
        // If this query recreates the index, the caller sees the new generation and walks again.
        self.repo
            .with_index(|index| index.lookup(&self.ids, &mut self.places))?;

        let mut all_good = true;
        for (n, &(id, len)) in batch.iter().enumerate() {
            let best = self.places[n];
            if let Some(place) = best
                && place.len == len
                && self.damage.spares(&place)
            {
                self.out.chunks += u64::from(self.seen.insert(place.number));
                continue;
            }
            let good = self.damage.good_copy(self.repo, &id, best)?;
            if good.is_none_or(|place| place.len != len) {
                all_good = false;
                let in_pack_at_hand = best.is_some_and(|place| self.damage.is_missing(&place.pack));
                self.out.unresolved += u64::from(!in_pack_at_hand);
            }
        }

        Ok(all_good)
    }

    /// Records unreadable metadata. A list node is not a finding; the paths that need it are.
    fn unreadable(&mut self, piece: ReachedPiece, id: &ChunkId, why: UnreadableReason) {
        if piece == ReachedPiece::List {
            self.out.unresolved += 1;
        } else if self.out.unreadable.len() < UNREADABLE_MAX {
            self.out
                .unreadable
                .push((format!("{piece} {}", id.short()), why));
        }
    }
}
