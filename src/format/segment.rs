//! Index segments (docs/format.md, "Index segment").

use super::frames::{put_frames, read_frames};
use super::wire::{WireError, WireReader, put_number, put_record};
use crate::types::{
    ChunkId, LeaseId, PackId, PackInfo, PackOffset, SegmentBody, SegmentId, to_u64,
};

/// Maximal plain bytes of a segment that is read: 64 MiB.
pub const SEGMENT_BYTES_MAX: usize = 64 << 20;
/// Maximal size of a pack; keeps sums of offsets in range.
const PACK_SIZE_MAX: u64 = 1 << 48;

/// Encodes a segment. Ids in the four id sections must be sorted and unique.
pub fn encode_segment(body: &SegmentBody) -> Vec<u8> {
    let mut out = Vec::new();
    let mut scratch = Vec::new();
    out.extend_from_slice(body.writer.as_bytes());
    put_number(&mut out, to_u64(body.packs.len()));
    for pack in &body.packs {
        put_record(&mut out, &mut scratch, |out| {
            out.extend_from_slice(pack.id.as_bytes());
            put_number(out, pack.size);
            put_frames(out, &pack.frames);
        });
    }
    put_ids(&mut out, body.condemned.iter().map(PackId::as_bytes));
    put_ids(&mut out, body.dropped.iter().map(PackId::as_bytes));
    put_ids(&mut out, body.lost.iter().map(ChunkId::as_bytes));
    put_ids(&mut out, body.superseded.iter().map(SegmentId::as_bytes));
    out
}

fn put_ids<'a>(out: &mut Vec<u8>, ids: impl ExactSizeIterator<Item = &'a [u8; 32]>) {
    put_number(out, to_u64(ids.len()));
    ids.for_each(|id| out.extend_from_slice(id));
}

fn read_ids<T>(reader: &mut WireReader<'_>, wrap: fn([u8; 32]) -> T) -> Result<Vec<T>, WireError> {
    let count = reader.count(32)?;
    let mut out = Vec::with_capacity(count);
    let mut last: Option<[u8; 32]> = None;
    for _ in 0..count {
        let id: [u8; 32] = reader.array()?;
        if last.is_some_and(|last| last >= id) {
            return Err(reader.error("ids out of order"));
        }
        last = Some(id);
        out.push(wrap(id));
    }
    Ok(out)
}

/// Decodes a segment.
pub fn decode_segment(bytes: &[u8]) -> Result<SegmentBody, WireError> {
    let mut reader = WireReader::new(bytes);
    let writer = LeaseId::new(reader.array()?);
    let count = reader.count(34)?;
    let mut packs = Vec::with_capacity(count);
    for _ in 0..count {
        let mut record = reader.record()?;
        let id = PackId::new(record.array()?);
        let size = record.number()?;
        if size > PACK_SIZE_MAX {
            return Err(record.error("a pack of invalid size"));
        }
        let frames = read_frames(&mut record, PackOffset::new(size))?;
        record.tail()?;
        packs.push(PackInfo { id, size, frames });
    }

    let condemned = read_ids(&mut reader, PackId::new)?;
    let dropped = read_ids(&mut reader, PackId::new)?;
    let lost = read_ids(&mut reader, ChunkId::new)?;
    let superseded = read_ids(&mut reader, SegmentId::new)?;
    reader.tail()?;

    Ok(SegmentBody {
        writer,
        packs,
        condemned,
        dropped,
        lost,
        superseded,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ChunkClass, ChunkInfo, FrameCodec, FrameInfo, PlainLen, StoredLen};

    fn sample() -> SegmentBody {
        let chunk = |n: u8| ChunkInfo {
            id: ChunkId::new([n; 32]),
            len: PlainLen::new(u32::from(n) * 100),
        };
        let frame = |offset, n| FrameInfo {
            class: ChunkClass::Data,
            codec: FrameCodec::Zstd,
            offset: PackOffset::new(offset),
            stored: StoredLen::new(50),
            plain: PlainLen::new(u32::from(n) * 100 + 700),
            chunks: vec![chunk(n), chunk(7)],
        };
        SegmentBody {
            writer: LeaseId::new([1; 16]),
            packs: vec![PackInfo {
                id: PackId::new([2; 32]),
                size: 300,
                frames: vec![frame(61, 3), frame(111, 4)],
            }],
            condemned: vec![PackId::new([3; 32])],
            dropped: vec![],
            lost: vec![ChunkId::new([1; 32]), ChunkId::new([2; 32])],
            superseded: vec![SegmentId::new([8; 32])],
        }
    }

    #[test]
    fn segments_round_trip_and_never_panic_when_cut_or_changed() {
        let body = sample();
        let bytes = encode_segment(&body);
        assert_eq!(decode_segment(&bytes), Ok(body.clone()));
        for end in 0..bytes.len() {
            assert!(decode_segment(&bytes[..end]).is_err(), "cut at {end}");
        }
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0xff;
            assert_ne!(decode_segment(&bad), Ok(body.clone()), "byte {at}");
        }
    }

    #[test]
    fn inconsistent_segments_are_refused() {
        let mut body = sample();
        body.packs[0].frames[0].plain = PlainLen::new(1001);
        assert!(decode_segment(&encode_segment(&body)).is_err());
        let mut body = sample();
        body.packs[0].size = 100;
        assert!(decode_segment(&encode_segment(&body)).is_err());
        let mut body = sample();
        body.lost.reverse();
        assert!(decode_segment(&encode_segment(&body)).is_err());
    }
}
