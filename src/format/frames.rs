//! Lists of frames and their chunks, as in pack directories and segments (docs/format.md, "Pack").

use super::envelope::read_codec;
use super::wire::{WireError, WireReader, put_number};
use crate::types::{
    ChunkClass, ChunkId, ChunkInfo, FrameCodec, FrameInfo, PackOffset, PlainLen, StoredLen, to_u64,
};

const FRAME_PLAIN_MAX: u64 = 4 << 20;
const CHUNK_MAX: PlainLen = PlainLen::new(2 << 20);
/// Bytes that sealing adds to a frame.
const TAG_BYTES: u32 = 16;
/// Minimal encoded size of a frame: class, codec, gap, stored, plain, count and one chunk.
const FRAME_LEAST: usize = 6 + CHUNK_LEAST;
const CHUNK_LEAST: usize = 33;

pub(super) fn put_frames(out: &mut Vec<u8>, frames: &[FrameInfo]) {
    put_number(out, to_u64(frames.len()));
    let mut end = PackOffset::default();
    for frame in frames {
        out.push(frame.class.number());
        out.push(frame.codec.number());
        // A frame before the end of the last one gets a gap that every reader refuses.
        let gap = frame.offset.checked_since(end).unwrap_or(u64::MAX);
        put_number(out, gap);
        put_number(out, u64::from(frame.stored));
        put_number(out, u64::from(frame.plain));
        put_number(out, to_u64(frame.chunks.len()));
        for chunk in &frame.chunks {
            out.extend_from_slice(chunk.id.as_bytes());
            put_number(out, u64::from(chunk.len));
        }
        end = frame.end().unwrap_or(end);
    }
}

/// Reads frames in ascending, non-overlapping order, all before `limit`.
pub(super) fn read_frames(
    reader: &mut WireReader<'_>,
    limit: PackOffset,
) -> Result<Vec<FrameInfo>, WireError> {
    let count = reader.count(FRAME_LEAST)?;
    let mut frames = Vec::with_capacity(count);
    let mut end = PackOffset::default();
    for _ in 0..count {
        let class = match reader.byte()? {
            1 => ChunkClass::Data,
            2 => ChunkClass::Metadata,
            _ => return Err(reader.error("an unknown class")),
        };
        let codec = read_codec(reader)?;

        let gap = reader.number()?;
        let stored = StoredLen::new(reader.u32()?);
        let offset = end
            .checked_skip(gap)
            .ok_or_else(|| reader.error("a frame outside its pack"))?;
        end = offset
            .checked_add(stored)
            .ok_or_else(|| reader.error("a frame outside its pack"))?;
        if end > limit {
            return Err(reader.error("a frame outside its pack"));
        }

        let plain = PlainLen::new(reader.u32()?);
        // Data that zstd cannot shrink is stored plain, so no frame is longer than its plain bytes
        // and the tag. Readers allocate by this bound.
        let packed = stored
            .get()
            .checked_sub(TAG_BYTES)
            .ok_or_else(|| reader.error("a frame shorter than its tag"))?;
        if packed > plain.get() || (codec == FrameCodec::Plain) != (packed == plain.get()) {
            return Err(reader.error("a frame of invalid length"));
        }

        let chunks = read_chunks(reader, plain)?;
        frames.push(FrameInfo {
            class,
            codec,
            offset,
            stored,
            plain,
            chunks,
        });
    }
    Ok(frames)
}

fn read_chunks(reader: &mut WireReader<'_>, plain: PlainLen) -> Result<Vec<ChunkInfo>, WireError> {
    let count = reader.count(CHUNK_LEAST)?;
    let mut chunks = Vec::with_capacity(count);
    let mut sum = 0u64;
    for _ in 0..count {
        let id = ChunkId::new(reader.array()?);
        let len = PlainLen::new(reader.u32()?);
        if len == PlainLen::default() || len > CHUNK_MAX {
            return Err(reader.error("a chunk of invalid length"));
        }
        sum += u64::from(len);
        chunks.push(ChunkInfo { id, len });
    }
    if sum != u64::from(plain) || sum == 0 || sum > FRAME_PLAIN_MAX {
        return Err(reader.error("a frame whose chunks do not add up to its length"));
    }
    Ok(chunks)
}

/// Encodes a pack's directory.
pub fn encode_directory(frames: &[FrameInfo]) -> Vec<u8> {
    let mut out = Vec::new();
    put_frames(&mut out, frames);
    out
}

/// Decodes a pack's directory. All frames must end before `directory_offset`.
pub fn decode_directory(
    bytes: &[u8],
    directory_offset: PackOffset,
) -> Result<Vec<FrameInfo>, WireError> {
    let mut reader = WireReader::new(bytes);
    let frames = read_frames(&mut reader, directory_offset)?;
    reader.end()?;
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader allocates a frame's stored length before reading it, and a directory could state 4
    /// GiB.
    #[test]
    fn a_frame_is_no_longer_than_its_plain_bytes_and_tag() {
        let frame = |codec, stored| FrameInfo {
            class: ChunkClass::Data,
            codec,
            offset: PackOffset::new(61),
            stored: StoredLen::new(stored),
            plain: PlainLen::new(100),
            chunks: vec![ChunkInfo {
                id: ChunkId::new([1; 32]),
                len: PlainLen::new(100),
            }],
        };
        let legal =
            |frame| decode_directory(&encode_directory(&[frame]), PackOffset::new(1 << 40)).is_ok();
        assert!(
            legal(frame(FrameCodec::Plain, 116))
                && legal(frame(FrameCodec::Zstd, 115))
                && legal(frame(FrameCodec::Zstd, 16))
        );
        assert!(!legal(frame(FrameCodec::Plain, 115)) && !legal(frame(FrameCodec::Plain, 117)));
        assert!(!legal(frame(FrameCodec::Zstd, 116)) && !legal(frame(FrameCodec::Zstd, 15)));
        assert!(!legal(frame(FrameCodec::Zstd, u32::MAX)));
    }
}
