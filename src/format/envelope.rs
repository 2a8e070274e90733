//! The envelope of packs, segments, snapshots and leases (docs/format.md, "Envelope").

use super::wire::{WireError, WireReader};
use crate::types::{FrameCodec, LeaseId, PackOffset, to_u64};

/// First bytes of every object with an envelope.
const MAGIC: [u8; 8] = *b"icecore\n";
/// Last bytes of every pack.
const TRAILER_MAGIC: [u8; 8] = *b"icepack\n";
const ENVELOPE_VERSION: u8 = 1;
/// Object keys are derived from the repository's keys. The other mode (a key wrapped to a public
/// key) is reserved.
const KEY_MODE_DERIVED: u8 = 0;

/// Bytes of the header that this version writes.
pub const HEADER_BYTES: usize = 61;
/// Maximal bytes of a header that is read; later versions may write longer headers.
const HEADER_BYTES_MAX: usize = 4096;
/// Bytes before a sealed body: codec (1) and plain length (8).
const BODY_PREFIX_BYTES: usize = 9;
/// Bytes of a pack's trailer.
pub const TRAILER_BYTES: usize = 24;

/// The kind of an object with an envelope. The numbers are part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ObjectKind {
    Pack = 1,
    Segment = 2,
    Snapshot = 3,
    Lease = 4,
}

impl ObjectKind {
    /// Returns the number in the format: the discriminant, which only a cast gives.
    const fn number(self) -> u8 {
        self as u8
    }
}

/// An envelope's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectHeader {
    pub kind: ObjectKind,
    /// Makes the object's key and name unique.
    pub random: [u8; 32],
    /// The writer's lease.
    pub writer: LeaseId,
}

/// Encodes a header: [`HEADER_BYTES`] bytes.
pub fn encode_header(header: &ObjectHeader) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES);
    out.extend_from_slice(&MAGIC);
    out.push(header.kind.number());
    out.push(ENVELOPE_VERSION);
    // The length field has two bytes.
    out.extend_from_slice(&to_u64(HEADER_BYTES).to_le_bytes()[..2]);
    out.push(KEY_MODE_DERIVED);
    out.extend_from_slice(&header.random);
    out.extend_from_slice(header.writer.as_bytes());
    out
}

/// Decodes the header at the start of `bytes`, which must be of this kind. Returns it and its
/// length.
pub fn decode_header(bytes: &[u8], kind: ObjectKind) -> Result<(ObjectHeader, usize), WireError> {
    let mut reader = WireReader::new(bytes);
    if reader.take(8)? != MAGIC {
        return Err(reader.error("not an icecore object"));
    }
    if reader.byte()? != kind.number() {
        return Err(reader.error("an object of another kind"));
    }
    if reader.byte()? != ENVELOPE_VERSION {
        return Err(reader.error("an object of an unsupported version"));
    }

    let len = usize::from(u16::from_le_bytes(reader.array()?));
    if !(HEADER_BYTES..=HEADER_BYTES_MAX).contains(&len) || len > bytes.len() {
        return Err(reader.error("a header of invalid length"));
    }
    if reader.byte()? != KEY_MODE_DERIVED {
        return Err(reader.error("an unknown key mode"));
    }

    let random = reader.array()?;
    let writer = LeaseId::new(reader.array()?);
    Ok((
        ObjectHeader {
            kind,
            random,
            writer,
        },
        len,
    ))
}

fn codec(reader: &mut WireReader<'_>) -> Result<FrameCodec, WireError> {
    match reader.byte()? {
        0 => Ok(FrameCodec::Plain),
        1 => Ok(FrameCodec::Zstd),
        _ => Err(reader.error("an unknown codec")),
    }
}

pub(super) fn read_codec(reader: &mut WireReader<'_>) -> Result<FrameCodec, WireError> {
    codec(reader)
}

/// A sealed part with the values needed to open it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedBody<'a> {
    pub codec: FrameCodec,
    pub plain_len: usize,
    /// Sealed bytes with the tag.
    pub sealed: &'a [u8],
}

/// Encodes the prefix of the sealed bytes of a segment, a snapshot, a lease or a directory: 9
/// bytes.
pub fn encode_body_prefix(codec: FrameCodec, plain_len: usize) -> [u8; BODY_PREFIX_BYTES] {
    let mut out = [0; BODY_PREFIX_BYTES];
    out[0] = codec.number();
    out[1..].copy_from_slice(&to_u64(plain_len).to_le_bytes());
    out
}

/// Splits a body into prefix and sealed bytes. Refuses a plain length above `limit`.
pub fn decode_body(bytes: &[u8], limit: usize) -> Result<SealedBody<'_>, WireError> {
    let mut reader = WireReader::new(bytes);
    let codec = codec(&mut reader)?;
    let plain_len = usize::try_from(u64::from_le_bytes(reader.array()?))
        .ok()
        .filter(|&plain_len| plain_len <= limit)
        .ok_or_else(|| reader.error("too many plain bytes"))?;
    let left = reader.left();
    Ok(SealedBody {
        codec,
        plain_len,
        sealed: reader.take(left)?,
    })
}

/// The end of a pack, with the position of its directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackTrailer {
    pub directory_offset: PackOffset,
    /// Bytes of prefix, sealed directory and tag.
    pub directory_len: u64,
}

/// Encodes a trailer: [`TRAILER_BYTES`] bytes.
pub fn encode_trailer(trailer: PackTrailer) -> [u8; TRAILER_BYTES] {
    let mut out = [0; TRAILER_BYTES];
    out[..8].copy_from_slice(&trailer.directory_offset.get().to_le_bytes());
    out[8..16].copy_from_slice(&trailer.directory_len.to_le_bytes());
    out[16..].copy_from_slice(&TRAILER_MAGIC);
    out
}

/// Decodes the last [`TRAILER_BYTES`] bytes of a pack of `pack_size` bytes. The directory must end
/// where the trailer begins and have at most `directory_max` bytes.
pub fn decode_trailer(
    bytes: &[u8],
    pack_size: u64,
    directory_max: u64,
) -> Result<PackTrailer, WireError> {
    let mut reader = WireReader::new(bytes);
    let directory_offset = PackOffset::new(u64::from_le_bytes(reader.array()?));
    let directory_len = u64::from_le_bytes(reader.array()?);
    if reader.array()? != TRAILER_MAGIC {
        return Err(reader.error("the pack's end is missing"));
    }
    reader.end()?;
    let end = directory_offset
        .checked_skip(directory_len)
        .and_then(|sum| sum.checked_skip(to_u64(TRAILER_BYTES)));
    if end != Some(PackOffset::new(pack_size))
        || directory_offset < PackOffset::new(to_u64(HEADER_BYTES))
        || directory_len > directory_max
    {
        return Err(reader.error("a directory that does not match its pack"));
    }
    Ok(PackTrailer {
        directory_offset,
        directory_len,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_round_trip_and_every_fixed_byte_counts() {
        let header = ObjectHeader {
            kind: ObjectKind::Pack,
            random: [5; 32],
            writer: LeaseId::new([6; 16]),
        };
        let bytes = encode_header(&header);
        assert_eq!(bytes.len(), HEADER_BYTES);
        assert_eq!(
            decode_header(&bytes, ObjectKind::Pack),
            Ok((header, HEADER_BYTES))
        );
        assert!(decode_header(&bytes, ObjectKind::Lease).is_err());
        for at in 0..13 {
            let mut bad = bytes.clone();
            bad[at] ^= 0x40;
            assert!(decode_header(&bad, ObjectKind::Pack).is_err(), "byte {at}");
        }
        assert!(decode_header(&bytes[..60], ObjectKind::Pack).is_err());
    }

    #[test]
    fn a_trailer_must_fit_its_pack() {
        let trailer = PackTrailer {
            directory_offset: PackOffset::new(61),
            directory_len: 39,
        };
        let bytes = encode_trailer(trailer);
        assert_eq!(decode_trailer(&bytes, 124, 1000), Ok(trailer));
        assert!(decode_trailer(&bytes, 125, 1000).is_err());
        assert!(decode_trailer(&bytes, 124, 38).is_err());
        let wild = encode_trailer(PackTrailer {
            directory_offset: PackOffset::new(u64::MAX),
            directory_len: 2,
        });
        assert!(decode_trailer(&wild, 124, 1000).is_err());
    }
}
