//! Packs → packs: copies the live chunks of old packs into new ones ([R21](docs/protocol.md#r21)).
//!
//! A frame that is kept whole keeps its compressed bytes and gets a new seal. The live chunks of
//! other frames are put into new frames. Every copied byte was opened and hashes to its chunk's
//! name.
//!
//! Crash points: a new pack without a segment is an orphan, like a writer's. Nothing is deleted
//! here.

use super::frame_writer::{DATA_FRAME_BYTES, FRAME_CHUNKS_FULL, METADATA_FRAME_BYTES};
use super::pack_writer::{FRAME_SLACK, PackBuilder, PackedFrame, plain_len};
use super::{ChunkReader, Lease, RepoError, Repository};
use crate::chunk::Compressor;
use crate::index::FrameRow;
use crate::types::{ChunkClass, ChunkInfo, FrameInfo, FrameOffset, PackId, PackInfo};

/// Copies chunks into new packs. The copies are durable once [`PackCopier::finish`] has returned.
pub struct PackCopier<'a> {
    repo: &'a Repository,
    lease: &'a Lease,
    reader: ChunkReader<'a>,
    compressor: Compressor,
    builder: Option<PackBuilder>,
    /// Live chunks of frames that are not kept whole: one open frame of each class.
    loose: [(ChunkClass, Vec<u8>, Vec<ChunkInfo>); 2],
    stored: Vec<PackInfo>,
    stored_bytes: u64,
}

impl std::fmt::Debug for PackCopier<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PackCopier({} packs)", self.stored.len())
    }
}

impl<'a> PackCopier<'a> {
    /// Creates a copier. `level` is the zstd level of new frames.
    pub fn new(repo: &'a Repository, lease: &'a Lease, level: i32) -> Result<Self, RepoError> {
        Ok(Self {
            repo,
            lease,
            reader: ChunkReader::new(repo, 0),
            compressor: Compressor::new(level)?,
            builder: None,
            loose: [ChunkClass::Data, ChunkClass::Metadata]
                .map(|class| (class, Vec::new(), Vec::new())),
            stored: Vec::new(),
            stored_bytes: 0,
        })
    }

    /// Returns the stored bytes of the packs put so far.
    pub fn stored_bytes(&self) -> u64 {
        self.stored_bytes
    }

    /// Copies the chunks of a frame whose `live` flag is set, in their order.
    ///
    /// If at least 19/20 of the frame's plain bytes are live, the whole frame is copied as it is. A
    /// chunk that cannot be read from this frame is taken from another copy. If there is no other
    /// copy, the error counts as damage ([`RepoError::is_damage`]).
    pub fn frame(
        &mut self,
        pack: &PackId,
        number: u32,
        info: &FrameInfo,
        live: &[bool],
    ) -> Result<(), RepoError> {
        let bytes = |keep: &dyn Fn(bool) -> bool| -> u64 {
            let chosen = info
                .chunks
                .iter()
                .zip(live)
                .filter(|(_, is_live)| keep(**is_live));
            chosen.map(|(chunk, _)| u64::from(chunk.len)).sum()
        };
        let kept = bytes(&|is_live| is_live);
        let all = bytes(&|_| true);
        if kept == 0 {
            return Ok(());
        }

        let row = FrameRow::from(info);
        let (mut packed, plain) = match self.repo.read_frame_twice(pack, number, &row) {
            Ok(both) => both,
            Err(err) if err.is_unavailable() => (Vec::new(), Vec::new()),
            Err(err) => return Err(err),
        };

        let pieces = self.pieces(info, &plain);
        let is_good = pieces.iter().all(Option::is_some);
        if is_good && kept * 20 >= all * 19 {
            packed.reserve_exact(FRAME_SLACK);
            let class = info.class;
            let codec = info.codec;
            let plain_len = info.plain;
            let chunks = info.chunks.clone();
            return self.add(PackedFrame {
                number: 0,
                class,
                codec,
                plain_len,
                bytes: packed,
                chunks,
            });
        }

        for ((chunk, piece), _) in info
            .chunks
            .iter()
            .zip(pieces)
            .zip(live)
            .filter(|(_, live)| **live)
        {
            match piece {
                Some(piece) => self.loose(info.class, *chunk, piece)?,
                None => {
                    let other = self.reader.chunk(info.class, &chunk.id)?;
                    self.loose(info.class, *chunk, &other)?;
                }
            }
        }

        Ok(())
    }

    /// Returns the bytes of each chunk of an opened frame, or `None` for a chunk whose bytes do not
    /// hash to its name.
    fn pieces<'b>(&self, info: &FrameInfo, plain: &'b [u8]) -> Vec<Option<&'b [u8]>> {
        let mut at = FrameOffset::default();
        let piece = |chunk: &ChunkInfo| {
            let piece = plain.get(at.range(chunk.len));
            at = at.saturating_add(chunk.len);
            piece.filter(|piece| self.repo.keys().chunk_id(info.class, piece) == chunk.id)
        };
        info.chunks.iter().map(piece).collect()
    }

    fn loose(
        &mut self,
        class: ChunkClass,
        chunk: ChunkInfo,
        piece: &[u8],
    ) -> Result<(), RepoError> {
        let (n, full) = match class {
            ChunkClass::Data => (0, DATA_FRAME_BYTES),
            ChunkClass::Metadata => (1, METADATA_FRAME_BYTES),
        };
        let (_, bytes, chunks) = &mut self.loose[n];
        bytes.extend_from_slice(piece);
        chunks.push(chunk);
        if bytes.len() >= full || chunks.len() >= FRAME_CHUNKS_FULL {
            self.flush(n)
        } else {
            Ok(())
        }
    }

    /// Compresses the open frame of a class and adds it to a pack.
    fn flush(&mut self, n: usize) -> Result<(), RepoError> {
        let (class, bytes, chunks) = &mut self.loose[n];
        if chunks.is_empty() {
            return Ok(());
        }
        let class = *class;
        let plain = std::mem::take(bytes);
        let chunks = std::mem::take(chunks);
        let mut bytes = Vec::new();
        let codec = self.compressor.compress(&plain, &mut bytes, FRAME_SLACK)?;
        let plain_len = plain_len(&plain)?;
        self.add(PackedFrame {
            number: 0,
            class,
            codec,
            plain_len,
            bytes,
            chunks,
        })
    }

    fn add(&mut self, frame: PackedFrame) -> Result<(), RepoError> {
        let mut builder = match self.builder.take() {
            Some(builder) => builder,
            None => PackBuilder::begin(self.repo.store(), self.repo.keys(), self.lease.id())?,
        };
        builder.add(frame)?;
        if builder.is_full() {
            return self.put(builder);
        }
        self.builder = Some(builder);
        Ok(())
    }

    fn put(&mut self, builder: PackBuilder) -> Result<(), RepoError> {
        self.lease.check()?;
        let pack = builder.finish()?;
        self.repo.put_pack(&pack.info.id, pack.spool)?;
        self.stored_bytes += pack.info.size;
        self.stored.push(pack.info);
        Ok(())
    }

    /// Puts the open frames and the open pack. Returns the packs stored since the last call, all
    /// durable.
    pub fn finish(&mut self) -> Result<Vec<PackInfo>, RepoError> {
        self.flush(0)?;
        self.flush(1)?;
        if let Some(builder) = self.builder.take() {
            self.put(builder)?;
        }
        Ok(std::mem::take(&mut self.stored))
    }

    /// Discards the open frames and the open pack. Returns the packs stored since the last
    /// [`PackCopier::finish`], which nothing refers to.
    pub fn abandon(&mut self) -> Vec<PackInfo> {
        self.builder = None;
        for (_, bytes, chunks) in &mut self.loose {
            *bytes = Vec::new();
            *chunks = Vec::new();
        }
        let given_up = std::mem::take(&mut self.stored);
        self.stored_bytes -= given_up.iter().map(|pack| pack.size).sum::<u64>();
        given_up
    }
}
