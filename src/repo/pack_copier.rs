//! Packs → packs: what is live of old packs goes into new ones (PROTOCOL R21).
//!
//! A frame that is kept whole keeps its compressed bytes and gets a new seal; chunks of other
//! frames are framed anew. Every byte that is copied was opened and hashes to its chunk's name.
//! Crash points: a new pack that no segment tells of is an orphan, as a writer's is; nothing is
//! deleted here.

use super::frame_writer::{DATA_FRAME_BYTES, FRAME_CHUNKS_FULL, METADATA_FRAME_BYTES};
use super::pack_writer::{FRAME_SLACK, PackBuilder, PackedFrame};
use super::{ChunkReader, Lease, RepoError, Repository};
use crate::chunk::Compressor;
use crate::index::FrameRow;
use crate::types::{ChunkInfo, Class, FrameInfo, PackId, PackInfo};

/// Copies chunks into new packs. What it was given is durable once [`PackCopier::finish`] has
/// returned.
pub struct PackCopier<'a> {
    repo: &'a Repository,
    lease: &'a Lease,
    reader: ChunkReader<'a>,
    compressor: Compressor,
    builder: Option<PackBuilder>,
    /// Live chunks of frames that are not kept whole, one frame of each class being filled.
    loose: [(Class, Vec<u8>, Vec<ChunkInfo>); 2],
    stored: Vec<PackInfo>,
    stored_bytes: u64,
}

impl std::fmt::Debug for PackCopier<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PackCopier({} packs)", self.stored.len())
    }
}

impl<'a> PackCopier<'a> {
    /// `level`: of zstd, for frames that are made anew.
    pub fn new(repo: &'a Repository, lease: &'a Lease, level: i32) -> Result<Self, RepoError> {
        Ok(Self {
            repo,
            lease,
            reader: ChunkReader::new(repo, 0),
            compressor: Compressor::new(level)?,
            builder: None,
            loose: [Class::Data, Class::Metadata].map(|class| (class, Vec::new(), Vec::new())),
            stored: Vec::new(),
            stored_bytes: 0,
        })
    }

    /// Stored bytes of the packs put so far.
    pub fn stored_bytes(&self) -> u64 {
        self.stored_bytes
    }

    /// Copies a frame's chunks for which `live` says so, in their order: the whole frame as it is
    /// if at least nineteen twentieths of its plain bytes are live. A chunk that its frame does not
    /// give is taken from another copy; an error that is damage says that there is none.
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
        let (kept, all) = (bytes(&|is_live| is_live), bytes(&|_| true));
        if kept == 0 {
            return Ok(());
        }
        let row = FrameRow {
            class: info.class,
            codec: info.codec,
            offset: info.offset,
            stored: info.stored,
            plain: info.plain,
            chunks: u32::try_from(info.chunks.len()).unwrap_or(u32::MAX),
        };
        let (mut packed, plain) = match self.repo.read_frame_twice(pack, number, &row) {
            Ok(both) => both,
            Err(err) if err.is_unavailable() => (Vec::new(), Vec::new()),
            Err(err) => return Err(err),
        };
        let pieces = self.pieces(info, &plain);
        let is_good = pieces.iter().all(Option::is_some);
        if is_good && kept * 20 >= all * 19 {
            packed.reserve_exact(FRAME_SLACK);
            let (class, codec, plain_len) = (info.class, info.codec, info.plain);
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

    /// The bytes of each chunk of an opened frame that are what its name says.
    fn pieces<'b>(&self, info: &FrameInfo, plain: &'b [u8]) -> Vec<Option<&'b [u8]>> {
        let mut at = 0_usize;
        let piece = |chunk: &ChunkInfo| {
            let end = at.saturating_add(chunk.len as usize);
            let piece = plain.get(at..end);
            at = end;
            piece.filter(|piece| self.repo.keys().chunk_id(info.class, piece) == chunk.id)
        };
        info.chunks.iter().map(piece).collect()
    }

    fn loose(&mut self, class: Class, chunk: ChunkInfo, piece: &[u8]) -> Result<(), RepoError> {
        let (n, full) = match class {
            Class::Data => (0, DATA_FRAME_BYTES),
            Class::Metadata => (1, METADATA_FRAME_BYTES),
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

    /// Frames what is loose.
    fn flush(&mut self, n: usize) -> Result<(), RepoError> {
        let (class, bytes, chunks) = &mut self.loose[n];
        if chunks.is_empty() {
            return Ok(());
        }
        let class = *class;
        let (plain, chunks) = (std::mem::take(bytes), std::mem::take(chunks));
        let mut bytes = Vec::new();
        let codec = self.compressor.compress(&plain, &mut bytes, FRAME_SLACK)?;
        let plain_len = u32::try_from(plain.len()).unwrap_or(u32::MAX);
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

    /// Puts what is open; hands out the packs stored since the last time, all durable.
    pub fn finish(&mut self) -> Result<Vec<PackInfo>, RepoError> {
        self.flush(0)?;
        self.flush(1)?;
        if let Some(builder) = self.builder.take() {
            self.put(builder)?;
        }
        Ok(std::mem::take(&mut self.stored))
    }

    /// Gives up: throws away what is open; returns the packs that are in the store since the last
    /// [`PackCopier::finish`] and that nobody needs.
    pub fn abandon(&mut self) -> Vec<PackInfo> {
        self.builder = None;
        for (_, bytes, chunks) in &mut self.loose {
            (*bytes, *chunks) = (Vec::new(), Vec::new());
        }
        let given_up = std::mem::take(&mut self.stored);
        self.stored_bytes -= given_up.iter().map(|pack| pack.size).sum::<u64>();
        given_up
    }
}
