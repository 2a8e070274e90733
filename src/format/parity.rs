//! The head of recovery data (docs/format.md, "Parity"): how a pack is divided into shards, and the
//! hashes that locate damage.

use super::wire::{WireError, WireReader};
use crate::types::{PackId, to_u64, to_usize};

/// First and last bytes of every parity object.
const MAGIC: [u8; 7] = *b"icepar\n";
const VERSION: u8 = 1;
/// Bytes of a head without its hashes.
const FIXED_BYTES: usize = 8 + 32 + 8 + 4 + 4 + 4 + CHECK_BYTES;
const CHECK_BYTES: usize = 32;
const HASH_BYTES: usize = 16;
/// Maximal number of data shards, and of parity shards, of a pack.
const SHARDS_MAX: u32 = 4096;
/// Bytes of the end: length of the head, and the magic with the version.
pub const PARITY_END_BYTES: usize = 16;
/// Maximal bytes of a head that is read.
pub const PARITY_HEAD_BYTES_MAX: usize = FIXED_BYTES + 2 * to_usize(SHARDS_MAX) * HASH_BYTES;
/// Number of leading bytes that determine a head's length.
pub const PARITY_HEAD_BYTES_LEAST: usize = FIXED_BYTES - CHECK_BYTES;

/// How a pack is divided into shards, and the hash of each shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParityHead {
    pub pack: PackId,
    /// Stored bytes of the pack.
    pub pack_size: u64,
    /// Bytes of a shard.
    pub shard: u32,
    /// The first 16 bytes of the BLAKE3 of each data shard, the last shard padded with zeros.
    pub data: Vec<[u8; HASH_BYTES]>,
    /// The same for each parity shard.
    pub parity: Vec<[u8; HASH_BYTES]>,
}

impl ParityHead {
    /// Returns the bytes of its encoding.
    pub fn encoded_len(&self) -> usize {
        FIXED_BYTES + HASH_BYTES * (self.data.len() + self.parity.len())
    }

    /// Returns the number of data shards.
    pub fn data_count(&self) -> u32 {
        shard_count(&self.data)
    }

    /// Returns the number of parity shards.
    pub fn parity_count(&self) -> u32 {
        shard_count(&self.parity)
    }
}

/// Returns the number of hashes. A number that does not fit is as illegal as the one returned for
/// it: both are above [`SHARDS_MAX`].
fn shard_count(hashes: &[[u8; HASH_BYTES]]) -> u32 {
    u32::try_from(hashes.len()).unwrap_or(u32::MAX)
}

/// Encodes a head.
pub fn encode_parity_head(head: &ParityHead) -> Vec<u8> {
    let mut out = Vec::with_capacity(head.encoded_len());
    out.extend_from_slice(&MAGIC);
    out.push(VERSION);
    out.extend_from_slice(head.pack.as_bytes());
    out.extend_from_slice(&head.pack_size.to_le_bytes());
    out.extend_from_slice(&head.shard.to_le_bytes());
    out.extend_from_slice(&head.data_count().to_le_bytes());
    out.extend_from_slice(&head.parity_count().to_le_bytes());
    for hash in head.data.iter().chain(&head.parity) {
        out.extend_from_slice(hash);
    }
    let check = blake3::hash(&out);
    out.extend_from_slice(check.as_bytes());
    out
}

/// Returns the length of the head that begins with these bytes, at least
/// [`PARITY_HEAD_BYTES_LEAST`].
pub fn parity_head_len(bytes: &[u8]) -> Result<usize, WireError> {
    let mut reader = WireReader::new(bytes);
    let (_, data, parity) = read_fixed(&mut reader)?;
    Ok(FIXED_BYTES + HASH_BYTES * to_usize(data + parity))
}

/// Reads the fields before the hashes; the hashes stay empty.
fn read_fixed(reader: &mut WireReader<'_>) -> Result<(ParityHead, u32, u32), WireError> {
    if reader.array()? != MAGIC {
        return Err(reader.error("not recovery data"));
    }
    if reader.byte()? != VERSION {
        return Err(reader.error("recovery data of an unsupported version"));
    }

    let pack = PackId::new(reader.array()?);
    let pack_size = u64::from_le_bytes(reader.array()?);
    let shard = u32::from_le_bytes(reader.array()?);
    let data = u32::from_le_bytes(reader.array()?);
    let parity = u32::from_le_bytes(reader.array()?);

    let fits = shard > 0
        && shard.is_multiple_of(64)
        && shard <= 1 << 20
        && (1..=SHARDS_MAX).contains(&data)
        && (1..=data).contains(&parity)
        && pack_size > 0
        && pack_size.div_ceil(u64::from(shard)) == u64::from(data);
    if !fits {
        return Err(reader.error("shards that do not add up to a pack"));
    }

    Ok((
        ParityHead {
            pack,
            pack_size,
            shard,
            data: Vec::new(),
            parity: Vec::new(),
        },
        data,
        parity,
    ))
}

/// Decodes a head that fills `bytes`.
pub fn decode_parity_head(bytes: &[u8]) -> Result<ParityHead, WireError> {
    let mut reader = WireReader::new(bytes);
    let (head, data, parity) = read_fixed(&mut reader)?;
    if bytes.len() != FIXED_BYTES + HASH_BYTES * to_usize(data + parity) {
        return Err(reader.error("a head whose length does not match"));
    }
    let mut hashes = Vec::with_capacity(to_usize(data + parity));
    for _ in 0..data + parity {
        hashes.push(reader.array()?);
    }
    if blake3::hash(&bytes[..bytes.len() - CHECK_BYTES])
        != blake3::Hash::from_bytes(reader.array()?)
    {
        return Err(reader.error("a head that does not match its checksum"));
    }
    reader.end()?;
    let parity = hashes.split_off(to_usize(data));
    Ok(ParityHead {
        data: hashes,
        parity,
        ..head
    })
}

/// Encodes the end of a parity object, which follows its second head.
pub fn encode_parity_end(head_len: usize) -> [u8; PARITY_END_BYTES] {
    let mut out = [0; PARITY_END_BYTES];
    out[..8].copy_from_slice(&to_u64(head_len).to_le_bytes());
    out[8..15].copy_from_slice(&MAGIC);
    out[15] = VERSION;
    out
}

/// Returns the length of the second head from the object's end, [`PARITY_END_BYTES`] bytes.
pub fn decode_parity_end(bytes: &[u8]) -> Result<usize, WireError> {
    let mut reader = WireReader::new(bytes);
    let len = u64::from_le_bytes(reader.array()?);
    if reader.array()? != MAGIC || reader.byte()? != VERSION {
        return Err(reader.error("recovery data without its end"));
    }
    reader.end()?;
    usize::try_from(len)
        .ok()
        .filter(|len| (FIXED_BYTES..=PARITY_HEAD_BYTES_MAX).contains(len))
        .ok_or_else(|| reader.error("a head of invalid length"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> ParityHead {
        let data = (0..5).map(|n| [n; 16]).collect();
        ParityHead {
            pack: PackId::new([7; 32]),
            pack_size: 17_000,
            shard: 4096,
            data,
            parity: vec![[9; 16]],
        }
    }

    #[test]
    fn heads_round_trip_and_every_byte_counts() {
        let bytes = encode_parity_head(&sample());
        assert_eq!(bytes.len(), sample().encoded_len());
        assert_eq!(decode_parity_head(&bytes), Ok(sample()));
        assert_eq!(
            parity_head_len(&bytes[..PARITY_HEAD_BYTES_LEAST]),
            Ok(bytes.len())
        );
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x40;
            assert!(decode_parity_head(&bad).is_err(), "byte {at}");
        }
        assert!(decode_parity_head(&bytes[..bytes.len() - 1]).is_err());
    }

    #[test]
    fn impossible_shapes_are_refused() {
        for (size, shard) in [
            (0, 4096),
            (20_481, 4096),
            (16_384, 4096),
            (17_000, 4095),
            (17_000, 0),
        ] {
            let bad = ParityHead {
                pack_size: size,
                shard,
                ..sample()
            };
            assert!(
                decode_parity_head(&encode_parity_head(&bad)).is_err(),
                "{size} in {shard}"
            );
        }
        let bad = ParityHead {
            parity: vec![[9; 16]; 6],
            ..sample()
        };
        assert!(decode_parity_head(&encode_parity_head(&bad)).is_err());
    }

    #[test]
    fn an_end_holds_the_length_of_the_head() {
        assert_eq!(decode_parity_end(&encode_parity_end(500)), Ok(500));
        assert!(decode_parity_end(&encode_parity_end(PARITY_HEAD_BYTES_MAX + 1)).is_err());
        assert!(decode_parity_end(&[0; 16]).is_err());
    }
}
