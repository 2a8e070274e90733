//! Chunks that were copied before: finds the destination's name of a chunk by walking the same
//! content in both repositories side by side.

use std::collections::{HashMap, VecDeque};

use crate::read::content::ContentReader;
use crate::repo::{ChunkReader, RepoError};
use crate::types::{ChunkId, Content, Extent, PlainLen};

/// Number of chunks that are read ahead of the chunk that is asked for. As many are kept before it.
/// About 20 MiB in all.
const AHEAD: usize = 64 << 10;

/// The names of chunks in the other repository, around a position that advances with each query.
pub(super) struct EntryPairs<'r, 'a> {
    from: ContentReader<'r, 'a>,
    to: ContentReader<'r, 'a>,
    /// The keys of `known` in content order, oldest first.
    order: VecDeque<ChunkId>,
    known: HashMap<ChunkId, (ChunkId, PlainLen)>,
    /// Number of queries, and of chunks read.
    queries: usize,
    read: usize,
    ended: bool,
}

impl<'r, 'a> EntryPairs<'r, 'a> {
    /// Creates the pairs from a content in the source and its copy in the destination.
    pub fn new(
        (from_reader, from): (&'r ChunkReader<'a>, &Content),
        (to_reader, to): (&'r ChunkReader<'a>, &Content),
    ) -> Self {
        Self {
            from: ContentReader::new(from_reader, from),
            to: ContentReader::new(to_reader, to),
            order: VecDeque::new(),
            known: HashMap::new(),
            queries: 0,
            read: 0,
            ended: from.size != to.size,
        }
    }

    /// Returns the chunk's name in the destination if the chunk is near the current position. If
    /// one of the old contents cannot be read, the pairs end there.
    pub fn find(&mut self, id: &ChunkId, len: PlainLen) -> Result<Option<ChunkId>, RepoError> {
        self.queries += 1;
        while !self.ended && self.read < self.queries + AHEAD {
            match self.step() {
                Err(err) if err.is_unavailable() => self.ended = true,
                other => other?,
            }
        }
        Ok(self
            .known
            .get(id)
            .filter(|known| known.1 == len)
            .map(|known| known.0))
    }

    fn step(&mut self) -> Result<(), RepoError> {
        match (self.from.next_extent()?, self.to.next_extent()?) {
            (
                Some(Extent::Chunk { id, len }),
                Some(Extent::Chunk {
                    id: to,
                    len: to_len,
                }),
            ) if len == to_len => {
                self.read += 1;
                self.known.insert(id, (to, len));
                self.order.push_back(id);
                if self.order.len() > 2 * AHEAD
                    && let Some(old) = self.order.pop_front()
                {
                    self.known.remove(&old);
                }
            }
            (Some(from), Some(to)) if from == to => {}
            // The end, or the contents differ after all.
            _ => self.ended = true,
        }
        Ok(())
    }
}
