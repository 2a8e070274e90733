//! Content of files and streams: extents and list nodes (docs/format.md, "Content").

use super::wire::{WireError, WireReader, put_bytes, put_number};
use crate::types::{ChunkId, Content, Extent, LITERAL_BYTES_MAX, PlainLen, to_u64};

const CHUNK_MAX: PlainLen = PlainLen::new(2 << 20);
const DEPTH_MAX: u8 = 8;
/// A list node can end after this many entries, if its content decides so.
pub const LIST_ENTRIES_MIN: usize = 4;
/// A list node always ends after this many entries.
pub const LIST_ENTRIES_MAX: usize = 64;

const TAG_CHUNK: u8 = 0;
const TAG_HOLE: u8 = 1;
const TAG_LITERAL: u8 = 2;
const TAG_LIST: u8 = 3;

fn put_extent(out: &mut Vec<u8>, extent: &Extent) {
    match extent {
        Extent::Chunk { id, len } => {
            out.push(TAG_CHUNK);
            out.extend_from_slice(id.as_bytes());
            put_number(out, u64::from(*len));
        }
        Extent::Hole { len } => {
            out.push(TAG_HOLE);
            put_number(out, *len);
        }
        Extent::Literal(bytes) => {
            out.push(TAG_LITERAL);
            put_bytes(out, bytes);
        }
        Extent::List { id, len, depth } => {
            out.push(TAG_LIST);
            out.extend_from_slice(id.as_bytes());
            put_number(out, *len);
            out.push(*depth);
        }
    }
}

fn read_extent(reader: &mut WireReader<'_>) -> Result<Extent, WireError> {
    let extent = match reader.byte()? {
        TAG_CHUNK => {
            let id = ChunkId::new(reader.array()?);
            let len = PlainLen::new(reader.u32()?);
            if len > CHUNK_MAX {
                return Err(reader.error("a chunk of invalid length"));
            }
            Extent::Chunk { id, len }
        }
        TAG_HOLE => Extent::Hole {
            len: reader.number()?,
        },
        TAG_LITERAL => Extent::Literal(reader.bytes(LITERAL_BYTES_MAX)?.to_vec()),
        TAG_LIST => {
            let id = ChunkId::new(reader.array()?);
            let len = reader.number()?;
            let depth = reader.byte()?;
            if !(1..=DEPTH_MAX).contains(&depth) {
                return Err(reader.error("a list of invalid depth"));
            }
            Extent::List { id, len, depth }
        }
        _ => return Err(reader.error("an unknown kind of extent")),
    };

    if extent.is_empty() {
        return Err(reader.error("an empty extent"));
    }

    Ok(extent)
}

fn put_extents(out: &mut Vec<u8>, extents: &[Extent]) {
    put_number(out, to_u64(extents.len()));
    extents.iter().for_each(|extent| put_extent(out, extent));
}

fn read_extents(reader: &mut WireReader<'_>, max: usize) -> Result<Content, WireError> {
    let count = reader.count(2)?;
    if count > max {
        return Err(reader.error("too many extents"));
    }
    let mut extents = Vec::with_capacity(count);
    let mut size = 0u64;
    for _ in 0..count {
        let extent = read_extent(reader)?;
        size = size
            .checked_add(extent.len())
            .filter(|&size| size <= i64::MAX.cast_unsigned())
            .ok_or_else(|| reader.error("content longer than any file"))?;
        extents.push(extent);
    }
    Ok(Content { size, extents })
}

pub(super) fn put_content(out: &mut Vec<u8>, content: &Content) {
    put_extents(out, &content.extents);
}

pub(super) fn read_content(reader: &mut WireReader<'_>) -> Result<Content, WireError> {
    read_extents(reader, usize::MAX)
}

/// Returns true if a list node ends after its `count`-th entry, which is `last`.
///
/// The content decides, so that a change in the middle of a long list leaves the other nodes
/// unchanged.
pub fn ends_list_node(count: usize, last: &Extent) -> bool {
    let by_content = match last {
        Extent::Chunk { id, .. } | Extent::List { id, .. } => id.as_bytes()[0] & 0x07 == 0,
        Extent::Hole { .. } | Extent::Literal(_) => false,
    };
    count >= LIST_ENTRIES_MAX || count >= LIST_ENTRIES_MIN && by_content
}

/// Encodes a list node.
pub fn encode_list_node(extents: &[Extent]) -> Vec<u8> {
    let mut out = Vec::with_capacity(extents.len() * 36 + 2);
    put_extents(&mut out, extents);
    out
}

/// Decodes the list node of an extent of this length and depth. A list of depth 1 contains no
/// lists; a list of depth n contains only lists of depth n − 1.
pub fn decode_list_node(bytes: &[u8], len: u64, depth: u8) -> Result<Vec<Extent>, WireError> {
    let mut reader = WireReader::new(bytes);
    let content = read_extents(&mut reader, LIST_ENTRIES_MAX)?;
    reader.end()?;
    if content.size != len {
        return Err(reader.error("a list that does not add up to its length"));
    }
    let fits = |extent: &Extent| match extent {
        Extent::List { depth: below, .. } => depth > 1 && *below == depth - 1,
        _ => depth == 1,
    };
    if !content.extents.iter().all(fits) {
        return Err(reader.error("a list whose shape does not match its depth"));
    }
    Ok(content.extents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_round_trip_and_hold_to_length_and_depth() {
        let extents = vec![
            Extent::Chunk {
                id: ChunkId::new([1; 32]),
                len: PlainLen::new(70_000),
            },
            Extent::Hole { len: 1 << 40 },
            Extent::Literal(b"end".to_vec()),
        ];
        let len = extents.iter().map(Extent::len).sum();
        let bytes = encode_list_node(&extents);
        assert_eq!(decode_list_node(&bytes, len, 1), Ok(extents));
        assert!(decode_list_node(&bytes, len + 1, 1).is_err());
        assert!(decode_list_node(&bytes, len, 2).is_err());

        let list = [Extent::List {
            id: ChunkId::new([1; 32]),
            len: 5,
            depth: 1,
        }];
        let bytes = encode_list_node(&list);
        assert!(decode_list_node(&bytes, 5, 2).is_ok());
        assert!(decode_list_node(&bytes, 5, 3).is_err());

        for bad in [
            Extent::Hole { len: 0 },
            Extent::List {
                id: ChunkId::new([1; 32]),
                len: 5,
                depth: 9,
            },
        ] {
            assert!(decode_list_node(&encode_list_node(&[bad]), 5, 1).is_err());
        }
    }

    #[test]
    fn nodes_end_by_content_within_bounds() {
        let cut = Extent::Chunk {
            id: ChunkId::new([0x30; 32]),
            len: PlainLen::new(1),
        };
        let plain = Extent::Chunk {
            id: ChunkId::new([0x31; 32]),
            len: PlainLen::new(1),
        };
        assert!(!ends_list_node(3, &cut) && ends_list_node(4, &cut));
        assert!(!ends_list_node(63, &plain) && ends_list_node(64, &plain));
    }
}
