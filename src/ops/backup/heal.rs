//! Healing: which files must be read again because a chunk of theirs is lost (PROTOCOL R22).

use std::collections::{BTreeSet, HashSet};

use crate::Error;
use crate::format::decode_list_node;
use crate::index::{Location, PackState};
use crate::repo::{ChunkReader, RepoError};
use crate::types::{ChunkId, Class, Entry, Extent, PackId, XattrValue};

/// The chunks that no known pack holds although a snapshot needs them. Each takes 32 bytes: a lost
/// pack of 64 MiB is 256 k of them at worst. Chunks in packs that are missing are not listed here
/// but looked up one by one.
pub(super) struct Lost<'a> {
    pub ids: BTreeSet<ChunkId>,
    /// Held packs that the store does not have.
    pub absent: HashSet<PackId>,
    pub reader: &'a ChunkReader<'a>,
}

impl Lost<'_> {
    /// True if nothing is lost, as a rule.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.absent.is_empty()
    }

    /// True if a chunk is listed as lost, or lies in missing packs alone.
    fn is_lost(&self, id: &ChunkId) -> Result<bool, RepoError> {
        if self.ids.contains(id) || self.absent.is_empty() {
            return Ok(self.ids.contains(id));
        }
        let copies = self.reader.repo().ask_index(|index| index.copies(id))?;
        let is_there =
            |copy: &Location| copy.state != PackState::Dropped && !self.absent.contains(&copy.pack);
        Ok(!copies.iter().any(is_there))
    }

    /// True if an entry names a lost chunk, in its content or its attributes: it counts as changed,
    /// and what is still there is stored again. Its list nodes are read; one that cannot be read
    /// counts as lost.
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

    /// Goes at most as deep as lists may be: 8.
    fn is_in(&self, extents: &[Extent]) -> Result<bool, RepoError> {
        for extent in extents {
            let is_lost = match extent {
                Extent::Chunk { id, .. } => self.is_lost(id)?,
                Extent::Hole { .. } | Extent::Literal(_) => false,
                Extent::List { id, .. } if self.is_lost(id)? => true,
                Extent::List { id, len, depth } => {
                    let bytes = self.reader.chunk(Class::Metadata, id)?;
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
