//! Reading chunks: ranged read, open, verify. A frame is read only once while it stays in the
//! cache.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::{PackHead, RepoError, Repository};
use crate::chunk::{FRAME_PLAIN_BYTES_MAX, FrameOpener, ObjectSeal, PartKind, SealClass};
use crate::format::{HEADER_BYTES, ObjectKind, decode_header};
use crate::index::{ChunkLocation, FrameRow, Index};
use crate::store::{ObjectKey, StoreError};
use crate::types::{ChunkClass, ChunkId, PackId};

thread_local! {
    /// One opener per thread, because setting up zstd costs as much as opening a small frame.
    static OPENER: RefCell<Option<FrameOpener>> = const { RefCell::new(None) };
}

impl Repository {
    /// Returns the head of a pack. It is read once and then kept in memory.
    pub fn pack_head(&self, id: &PackId) -> Result<PackHead, RepoError> {
        if let Some(head) = self.heads.get(id) {
            return Ok(head);
        }
        let head = self.head_of(&ObjectKey::Pack(*id))?;
        self.heads.keep(*id, head.clone());
        Ok(head)
    }

    /// Drops the cached head of a pack, which may have changed.
    pub fn forget_head(&self, id: &PackId) {
        self.heads.forget(id);
    }

    /// Reads a part of an object. If a read ends early although the object is long enough, the
    /// error is one of this read and says nothing about the object.
    pub fn read_at(&self, key: &ObjectKey, offset: u64, buf: &mut [u8]) -> Result<(), StoreError> {
        match self.store().read_at(key, offset, buf) {
            Err(StoreError::Short { wanted, .. })
                if self.store().stat(key).is_ok_and(|meta| meta.size >= wanted) =>
            {
                let source = io::Error::new(io::ErrorKind::UnexpectedEof, "the read ended early");
                Err(StoreError::Io {
                    action: "read",
                    subject: key.to_string(),
                    source,
                })
            }
            done => done,
        }
    }

    /// Reads the head of a pack stored under any name, from the store and not from memory.
    pub fn head_of(&self, key: &ObjectKey) -> Result<PackHead, RepoError> {
        let mut bytes = vec![0; HEADER_BYTES];
        self.read_at(key, 0, &mut bytes)?;
        // A later version may have a longer header. Its length is in the first 12 bytes.
        let len = usize::from(u16::from_le_bytes([bytes[10], bytes[11]]));
        if len > HEADER_BYTES && len <= 4096 {
            bytes.resize(len, 0);
            self.read_at(key, 0, &mut bytes)?;
        }
        let (header, len) = decode_header(&bytes, ObjectKind::Pack)
            .map_err(|err| RepoError::bad_object(key, err))?;
        bytes.truncate(len);
        Ok(PackHead {
            header: bytes,
            random: header.random,
        })
    }

    /// Reads and opens a frame. Returns its plain bytes, authentic as the pack's writer sealed
    /// them.
    pub fn read_frame(
        &self,
        pack: &PackId,
        number: u32,
        row: &FrameRow,
    ) -> Result<Vec<u8>, RepoError> {
        let key = ObjectKey::Pack(*pack);
        let head = self.pack_head(pack)?;
        let mut sealed = vec![0; row.stored.to_usize()];
        self.read_at(&key, row.offset.get(), &mut sealed)?;
        self.open_frame(&key, &head, number, row, sealed)
    }

    /// Opens a frame's sealed bytes.
    pub fn open_frame(
        &self,
        key: &ObjectKey,
        head: &PackHead,
        number: u32,
        row: &FrameRow,
        mut sealed: Vec<u8>,
    ) -> Result<Vec<u8>, RepoError> {
        self.unseal(key, head, number, row, &mut sealed)?;
        self.unpack(key, number, row, sealed)
    }

    /// Reads and opens a frame. Returns its bytes from before sealing, and its plain bytes.
    pub(super) fn read_frame_twice(
        &self,
        pack: &PackId,
        number: u32,
        row: &FrameRow,
    ) -> Result<(Vec<u8>, Vec<u8>), RepoError> {
        let key = ObjectKey::Pack(*pack);
        let head = self.pack_head(pack)?;
        let mut sealed = vec![0; row.stored.to_usize()];
        self.read_at(&key, row.offset.get(), &mut sealed)?;
        self.unseal(&key, &head, number, row, &mut sealed)?;
        let plain = self.unpack(&key, number, row, sealed.clone())?;
        Ok((sealed, plain))
    }

    fn unseal(
        &self,
        key: &ObjectKey,
        head: &PackHead,
        number: u32,
        row: &FrameRow,
        sealed: &mut Vec<u8>,
    ) -> Result<(), RepoError> {
        let seal = ObjectSeal::new(
            self.keys(),
            SealClass::from(row.class),
            &head.random,
            &head.header,
        );
        seal.open(
            PartKind::Frame,
            u64::from(number),
            row.codec,
            u64::from(row.plain),
            sealed,
        )
        .map_err(|err| RepoError::bad_object(key, format!("frame {number}: {err}")))
    }

    fn unpack(
        &self,
        key: &ObjectKey,
        number: u32,
        row: &FrameRow,
        sealed: Vec<u8>,
    ) -> Result<Vec<u8>, RepoError> {
        let bad = |what: &dyn std::fmt::Display| {
            RepoError::bad_object(key, format!("frame {number}: {what}"))
        };
        OPENER.with_borrow_mut(|slot| {
            let mut opener = match slot.take() {
                Some(opener) => opener,
                None => FrameOpener::new()?,
            };
            let plain = opener.open(
                row.codec,
                sealed,
                row.plain.to_usize(),
                FRAME_PLAIN_BYTES_MAX,
            );
            *slot = Some(opener);
            plain.map_err(|err| bad(&err))
        })
    }

    /// Finds a chunk. The index may be outdated or damaged, so a miss counts only after
    /// [`Repository::confirm_misses`].
    pub fn locate(&self, id: &ChunkId) -> Result<Option<ChunkLocation>, RepoError> {
        self.with_index(|index| index.lookup_one(id))
    }

    /// Makes sure that a miss is real: lists the segments again and reads the whole database once.
    pub fn confirm_misses(&self) -> Result<(), RepoError> {
        self.sync()?;
        self.with_index(Index::check)
    }
}

/// Recently opened frames; the oldest is evicted first.
#[derive(Debug, Default)]
struct FrameCache {
    frames: HashMap<(PackId, u32), Arc<Vec<u8>>>,
    order: VecDeque<(PackId, u32)>,
    bytes: usize,
}

/// Reads single chunks through a cache of frames, for metadata and small look-ups. Bulk readers
/// plan by frame instead.
#[derive(Debug)]
pub struct ChunkReader<'a> {
    repo: &'a Repository,
    cache: Mutex<FrameCache>,
    cache_bytes: usize,
    /// True once misses were made sure of. Locked while that runs, so that no thread reports a miss
    /// too early.
    made_sure: Mutex<bool>,
}

impl<'a> ChunkReader<'a> {
    /// Creates a reader whose cache holds up to `cache_bytes` of plain frames, and always the last
    /// frame.
    pub fn new(repo: &'a Repository, cache_bytes: usize) -> Self {
        Self {
            repo,
            cache: Mutex::default(),
            cache_bytes,
            made_sure: Mutex::new(false),
        }
    }

    /// Returns the repository.
    pub fn repo(&self) -> &'a Repository {
        self.repo
    }

    /// Records that the index was brought up to date after this reader had made sure of misses, so
    /// that it makes sure of the next miss again.
    pub fn index_was_updated(&self) {
        *self
            .made_sure
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = false;
    }

    /// Reads a chunk and checks it against its name. If the best copy cannot be read, tries the
    /// others.
    pub fn chunk(&self, class: ChunkClass, id: &ChunkId) -> Result<Vec<u8>, RepoError> {
        let mut place = self.repo.locate(id)?;
        if place.is_none() {
            self.make_sure()?;
            place = self.repo.locate(id)?;
        }
        let Some(place) = place else {
            return Err(RepoError::ChunkUnreadable {
                id: *id,
                why: "no index segment lists it".into(),
                now: false,
            });
        };
        match self.read(class, id, &place) {
            Ok(bytes) => Ok(bytes),
            Err(err) if err.is_unavailable() => self.other_copy(class, id, &place, &err),
            Err(err) => Err(err),
        }
    }

    /// Lists the segments again and checks the database, once until the next update.
    fn make_sure(&self) -> Result<(), RepoError> {
        let mut made_sure = self
            .made_sure
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !*made_sure {
            self.repo.confirm_misses()?;
            *made_sure = true;
        }
        Ok(())
    }

    fn other_copy(
        &self,
        class: ChunkClass,
        id: &ChunkId,
        tried: &ChunkLocation,
        first: &RepoError,
    ) -> Result<Vec<u8>, RepoError> {
        self.make_sure()?;
        let mut now = first.is_unreadable_now();
        for place in self.repo.with_index(|index| index.copies(id))? {
            if (place.pack, place.frame) == (tried.pack, tried.frame) {
                continue;
            }
            match self.read(class, id, &place) {
                Err(err) if err.is_unavailable() => now |= err.is_unreadable_now(),
                other => return other,
            }
        }
        Err(RepoError::ChunkUnreadable {
            id: *id,
            why: first.to_string(),
            now,
        })
    }

    fn read(
        &self,
        class: ChunkClass,
        id: &ChunkId,
        place: &ChunkLocation,
    ) -> Result<Vec<u8>, RepoError> {
        let frame = self.frame(&place.pack, place.frame)?;
        let bytes = frame.get(place.range()).unwrap_or_default();
        if self.repo.keys().chunk_id(class, bytes) != *id {
            let key = ObjectKey::Pack(place.pack);
            return Err(RepoError::bad_object(
                &key,
                format!("chunk {} does not match its name", id.short()),
            ));
        }
        Ok(bytes.to_vec())
    }

    /// Returns a frame's plain bytes, from the cache or the store.
    pub fn frame(&self, pack: &PackId, number: u32) -> Result<Arc<Vec<u8>>, RepoError> {
        let at = (*pack, number);
        if let Some(frame) = self.lock().frames.get(&at) {
            return Ok(Arc::clone(frame));
        }
        let row = self.repo.frame_row(pack, number)?;
        let row = row.ok_or_else(|| {
            RepoError::bad_object(
                &ObjectKey::Pack(*pack),
                format!("the index lacks frame {number}"),
            )
        })?;
        let frame = Arc::new(self.repo.read_frame(pack, number, &row)?);
        let mut cache = self.lock();
        if cache.frames.insert(at, Arc::clone(&frame)).is_none() {
            cache.bytes += frame.len();
            cache.order.push_back(at);
        }
        while cache.bytes > self.cache_bytes && cache.order.len() > 1 {
            if let Some(old) = cache.order.pop_front()
                && let Some(gone) = cache.frames.remove(&old)
            {
                cache.bytes -= gone.len();
            }
        }
        Ok(frame)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, FrameCache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
