//! Builds the index from packs if segments are lost.

use std::collections::BTreeSet;

use super::objects::stored_limit;
use super::pack_writer::{DIRECTORY_BYTES_MAX, PACK_CHUNKS_FULL};
use super::{Lease, PackHead, RepoError, Repository};
use crate::chunk::{ObjectSeal, PartKind, SealClass, open_bytes};
use crate::format::{TRAILER_BYTES, decode_body, decode_directory, decode_trailer};
use crate::store::{ObjectDir, ObjectKey, list_all};
use crate::types::{PackId, PackInfo, SegmentBody, SegmentId, to_u64};

/// The result of a rebuild.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RebuiltIndex {
    /// Packs that no segment listed, and that are published now.
    pub packs: u64,
    pub chunks: u64,
    pub segments: Vec<SegmentId>,
    /// Packs that no segment lists and whose directory is damaged. They cannot be indexed.
    pub unreadable: Vec<(PackId, String)>,
    /// Packs that no segment lists and that cannot be read now.
    pub unreadable_now: Vec<(PackId, String)>,
    /// Segments that cannot be read.
    pub damaged_segments: Vec<(SegmentId, String)>,
}

impl Repository {
    /// Reads a pack's directory.
    pub fn read_directory(&self, id: &PackId, size: u64) -> Result<PackInfo, RepoError> {
        self.directory_of(&ObjectKey::Pack(*id), id, size, &self.pack_head(id)?)
    }

    /// Reads the directory of a pack stored under any name, given its head.
    pub fn directory_of(
        &self,
        key: &ObjectKey,
        id: &PackId,
        size: u64,
        head: &PackHead,
    ) -> Result<PackInfo, RepoError> {
        let bad = |what: &dyn std::fmt::Display| RepoError::bad_object(key, what);
        let mut trailer = [0; TRAILER_BYTES];
        let at = size
            .checked_sub(to_u64(TRAILER_BYTES))
            .ok_or_else(|| bad(&"it is shorter than its trailer"))?;
        self.read_at(key, at, &mut trailer)?;
        let trailer = decode_trailer(&trailer, size, stored_limit(DIRECTORY_BYTES_MAX))
            .map_err(|err| bad(&err))?;

        let directory_len = usize::try_from(trailer.directory_len)
            .map_err(|_| bad(&"its directory is too long"))?;
        let mut bytes = vec![0; directory_len];
        self.read_at(key, trailer.directory_offset.get(), &mut bytes)?;
        let body = decode_body(&bytes, DIRECTORY_BYTES_MAX).map_err(|err| bad(&err))?;
        let seal = ObjectSeal::new(self.keys(), SealClass::Index, &head.random, &head.header);
        let mut plain = body.sealed.to_vec();
        seal.open(
            PartKind::Directory,
            0,
            body.codec,
            to_u64(body.plain_len),
            &mut plain,
        )
        .map_err(|err| bad(&err))?;

        let plain = open_bytes(body.codec, plain, body.plain_len, DIRECTORY_BYTES_MAX)
            .map_err(|err| bad(&err))?;

        let frames = decode_directory(&plain, trailer.directory_offset).map_err(|err| bad(&err))?;
        Ok(PackInfo {
            id: *id,
            size,
            frames,
        })
    }

    /// Deletes the database, loads every segment, and publishes new segments for the packs that no
    /// segment lists.
    ///
    /// A crash leaves some of the new segments. The next rebuild continues with the remaining
    /// packs.
    pub fn rebuild_index(
        &self,
        lease: &Lease,
        go_on: &mut dyn FnMut() -> Result<(), RepoError>,
    ) -> Result<RebuiltIndex, RepoError> {
        self.check_writable()?;
        self.index().recreate("repair index")?;
        self.adopt_orphans(lease, go_on)
    }

    /// Loads every segment and publishes new ones for the packs that no segment lists. These packs
    /// are from an interrupted writer, or from a running writer that will publish them as well. An
    /// error of `go_on`, which is called before each pack, ends the work.
    ///
    /// A crash leaves some of the new segments. The next call continues with the remaining packs.
    pub fn adopt_orphans(
        &self,
        lease: &Lease,
        go_on: &mut dyn FnMut() -> Result<(), RepoError>,
    ) -> Result<RebuiltIndex, RepoError> {
        self.check_writable()?;
        let mut out = RebuiltIndex {
            damaged_segments: self.sync()?.damaged,
            ..RebuiltIndex::default()
        };
        let indexed: BTreeSet<PackId> = self
            .index()
            .packs()?
            .iter()
            .filter(|pack| pack.added)
            .map(|pack| pack.id)
            .collect();

        let mut body = SegmentBody::empty(lease.id());
        let mut chunks = 0;
        for meta in list_all(self.store(), ObjectDir::Packs)? {
            let ObjectKey::Pack(id) = meta.key else {
                continue;
            };
            if indexed.contains(&id) {
                continue;
            }
            go_on()?;

            match self.read_directory(&id, meta.size) {
                Ok(info) => {
                    chunks += info.chunk_count();
                    out.chunks += to_u64(info.chunk_count());
                    out.packs += 1;
                    body.packs.push(info);
                }
                Err(RepoError::Store(err)) if err.is_not_found() => {}
                Err(err) if err.is_damage() => out.unreadable.push((id, err.to_string())),
                Err(err) if err.is_unreadable_now() => {
                    out.unreadable_now.push((id, err.to_string()));
                }
                Err(err) => return Err(err),
            }

            if chunks >= PACK_CHUNKS_FULL {
                self.publish_rebuilt(lease, &mut body, &mut out)?;
                chunks = 0;
            }
        }

        self.publish_rebuilt(lease, &mut body, &mut out)?;
        Ok(out)
    }

    fn publish_rebuilt(
        &self,
        lease: &Lease,
        body: &mut SegmentBody,
        out: &mut RebuiltIndex,
    ) -> Result<(), RepoError> {
        if body.packs.is_empty() {
            return Ok(());
        }
        lease.check()?;
        let full = std::mem::replace(body, SegmentBody::empty(lease.id()));
        out.segments
            .push(self.publish_segment(lease.id(), &full)?.0);
        Ok(())
    }
}
