//! Healing: finds the files that must be read again because one of their chunks is lost
//! ([R22](docs/protocol.md#r22)).

use std::collections::{BTreeSet, HashSet};

use crate::Error;
use crate::format::decode_list_node;
use crate::index::{ChunkLocation, PackState};
use crate::repo::{ChunkReader, RepoError};
use crate::types::{ChunkClass, ChunkId, Entry, Extent, PackId, XattrValue};

/// The lost chunks: a snapshot needs them, and no known pack holds them. Each takes 32 bytes in
/// memory; a lost pack of 64 MiB holds at most 256 k chunks. Chunks in missing packs are not listed
/// here but looked up one by one.
pub(super) struct LostChunks<'a> {
    pub ids: BTreeSet<ChunkId>,
    /// Held packs that are missing in the store.
    pub absent: HashSet<PackId>,
    pub reader: &'a ChunkReader<'a>,
}

impl LostChunks<'_> {
    /// Returns true if nothing is lost, which is the usual case.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.absent.is_empty()
    }

    /// Returns true if a chunk is listed as lost, or if all its copies are in missing packs.
    fn is_lost(&self, id: &ChunkId) -> Result<bool, RepoError> {
        if self.ids.contains(id) || self.absent.is_empty() {
            return Ok(self.ids.contains(id));
        }
        let copies = self.reader.repo().with_index(|index| index.copies(id))?;
        let is_there = |copy: &ChunkLocation| {
            copy.state != PackState::Dropped && !self.absent.contains(&copy.pack)
        };
        Ok(!copies.iter().any(is_there))
    }

    /// Returns true if an entry names a lost chunk, in its content or its attributes. The entry
    /// then counts as changed, and the content that still exists is stored again. Reads the entry's
    /// list nodes; one that cannot be read counts as lost.
    pub fn is_named_by(&self, entry: &Entry) -> Result<bool, Error> {
        if self.is_empty() {
            return Ok(false);
        }

        let xattrs = entry
            .meta()
            .map(|meta| meta.xattrs.as_slice())
            .unwrap_or_default();
        for xattr in xattrs {
            if let XattrValue::Chunk { id, .. } = &xattr.value
                && self.is_lost(id)?
            {
                return Ok(true);
            }
        }

        let extents = entry
            .content()
            .map(|content| content.extents.as_slice())
            .unwrap_or_default();

        match self.is_in(extents) {
            Err(err) if err.is_unavailable() => Ok(true),
            other => Ok(other?),
        }
    }

    /// Recurses at most as deep as lists may be: 8.
    fn is_in(&self, extents: &[Extent]) -> Result<bool, RepoError> {
        for extent in extents {
            let is_lost = match extent {
                Extent::Chunk { id, .. } => self.is_lost(id)?,
                Extent::Hole { .. } | Extent::Literal(_) => false,
                Extent::List { id, .. } if self.is_lost(id)? => true,
                Extent::List { id, len, depth } => {
                    let bytes = self.reader.chunk(ChunkClass::Metadata, id)?;
                    let listed = decode_list_node(&bytes, *len, *depth).map_err(|err| {
                        RepoError::damaged(format!("list node {}", id.short()), err)
                    })?;
                    self.is_in(&listed)?
                }
            };
            if is_lost {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
