//! Frames → packs: one pack at a time, sealed and hashed while it is written.

use super::RepoError;
use super::system::random;
use crate::chunk::{Keys, ObjectHasher, ObjectSeal, PartKind, SealClass, TAG_BYTES, shrink_bytes};
use crate::format::{
    ObjectHeader, ObjectKind, PackTrailer, encode_body_prefix, encode_directory, encode_header,
    encode_trailer,
};
use crate::store::{Spool, Store};
use crate::types::{
    ChunkClass, ChunkInfo, FrameCodec, FrameInfo, LeaseId, PackId, PackInfo, PackOffset, PlainLen,
    StoredLen, to_u64,
};

/// Stored bytes at which a pack is full: 64 MiB.
pub const PACK_BYTES_FULL: u64 = 64 << 20;
/// Chunks at which a pack is full.
pub const PACK_CHUNKS_FULL: usize = 256 << 10;
/// The largest plain directory that is read: 16 MiB.
pub const DIRECTORY_BYTES_MAX: usize = 16 << 20;

/// A compressed frame on its way into a pack. `bytes` has capacity for the tag.
#[derive(Debug)]
pub(super) struct PackedFrame {
    pub number: u64,
    pub class: ChunkClass,
    pub codec: FrameCodec,
    pub plain_len: PlainLen,
    pub bytes: Vec<u8>,
    pub chunks: Vec<ChunkInfo>,
}

/// A pack being written. After any failure it is discarded together with its random bytes, so no
/// number is sealed twice.
pub(super) struct PackBuilder {
    spool: Spool,
    hasher: ObjectHasher,
    data: ObjectSeal,
    metadata: ObjectSeal,
    index: ObjectSeal,
    frames: Vec<FrameInfo>,
    chunks: usize,
    /// Bytes written so far.
    size: u64,
}

/// A pack with its directory, trailer and name, not yet in the store.
#[derive(Debug)]
pub(super) struct SealedPack {
    pub info: PackInfo,
    pub spool: Spool,
}

impl PackBuilder {
    pub fn begin(store: &dyn Store, keys: &Keys, writer: LeaseId) -> Result<Self, RepoError> {
        let header = ObjectHeader {
            kind: ObjectKind::Pack,
            random: random()?,
            writer,
        };
        let bytes = encode_header(&header);
        let seal = |class| ObjectSeal::new(keys, class, &header.random, &bytes);
        let mut builder = Self {
            spool: store.spool()?,
            hasher: ObjectHasher::default(),
            data: seal(SealClass::Data),
            metadata: seal(SealClass::Metadata),
            index: seal(SealClass::Index),
            frames: Vec::new(),
            chunks: 0,
            size: 0,
        };
        builder.write(&bytes)?;
        Ok(builder)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), RepoError> {
        self.hasher.update(bytes);
        self.size += to_u64(bytes.len());
        Ok(self.spool.append(bytes)?)
    }

    /// Seals a frame and writes it.
    pub fn add(&mut self, mut frame: PackedFrame) -> Result<(), RepoError> {
        let seal = match frame.class {
            ChunkClass::Data => &self.data,
            ChunkClass::Metadata => &self.metadata,
        };
        let number = to_u64(self.frames.len());
        let plain_len = u64::from(frame.plain_len);
        seal.seal(
            PartKind::Frame,
            number,
            frame.codec,
            plain_len,
            &mut frame.bytes,
        );
        self.chunks += frame.chunks.len();
        self.frames.push(FrameInfo {
            class: frame.class,
            codec: frame.codec,
            offset: PackOffset::new(self.size),
            stored: StoredLen::of(&frame.bytes).ok_or_else(too_long)?,
            plain: frame.plain_len,
            chunks: frame.chunks,
        });
        self.write(&frame.bytes)
    }

    pub fn is_full(&self) -> bool {
        self.size >= PACK_BYTES_FULL || self.chunks >= PACK_CHUNKS_FULL
    }

    /// Writes the directory and the trailer, and names the pack.
    pub fn finish(mut self) -> Result<SealedPack, RepoError> {
        let plain = encode_directory(&self.frames);
        let (codec, mut sealed) = shrink_bytes(&plain)?;
        let plain_len = to_u64(plain.len());
        self.index
            .seal(PartKind::Directory, 0, codec, plain_len, &mut sealed);
        let prefix = encode_body_prefix(codec, plain.len());
        let directory_offset = PackOffset::new(self.size);
        let directory_len = to_u64(prefix.len() + sealed.len());
        self.write(&prefix)?;
        self.write(&sealed)?;
        self.write(&encode_trailer(PackTrailer {
            directory_offset,
            directory_len,
        }))?;
        let id = PackId::from(self.hasher.finish());
        Ok(SealedPack {
            info: PackInfo {
                id,
                size: self.size,
                frames: self.frames,
            },
            spool: self.spool,
        })
    }
}

/// Returns the length of a chunk, or of a frame before it is compressed.
pub(super) fn plain_len(bytes: &[u8]) -> Result<PlainLen, RepoError> {
    PlainLen::of(bytes).ok_or_else(too_long)
}

fn too_long() -> RepoError {
    RepoError::refused("a chunk or a frame of 4 GiB or more cannot be stored")
}

/// Capacity that a compressed frame's buffer leaves for the tag.
pub(super) const FRAME_SLACK: usize = TAG_BYTES;
