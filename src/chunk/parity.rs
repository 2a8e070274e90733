//! Recovery data: an object is divided into shards of one size, and parity shards are added from
//! which lost shards can be computed.
//!
//! The code is Reed-Solomon over GF(2^16) as computed by the crate `reed-solomon-simd`. It works on
//! each 64-byte column of the shards separately, so shards are processed one slice at a time.
//! Memory is [`SLICE_BYTES`] for all shards together, and twice that for recovery, regardless of
//! the object's size.

use std::collections::BTreeMap;
use std::fmt;

use reed_solomon_simd::{ReedSolomonDecoder, ReedSolomonEncoder};

use crate::types::{at_most, to_u64, to_usize};

/// Minimal size of a shard: the sector of a disk. It is doubled until an object has at most
/// [`DATA_SHARDS_MAX`] shards.
const SHARD_BYTES_MIN: u64 = 4 << 10;
/// Maximal number of data shards of an object.
const DATA_SHARDS_MAX: u64 = 4096;
/// The code works in columns of this many bytes.
const COLUMN_BYTES: usize = 64;
/// Maximal bytes of the slices of all data shards together: 16 MiB.
const SLICE_BYTES: usize = 16 << 20;
/// Bytes of a shard's hash. This protects against accidents; the object's name verifies the whole.
pub const SHARD_HASH_BYTES: usize = 16;

/// A shard's hash: the first bytes of its BLAKE3.
pub type ShardHash = [u8; SHARD_HASH_BYTES];

/// Fills a buffer from an object's bytes at an offset.
pub type ReadAt<'r, E> = dyn FnMut(u64, &mut [u8]) -> Result<(), E> + 'r;

/// The division of an object into shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParityShape {
    /// Bytes of the object, at least 1.
    pub size: u64,
    /// Bytes of a shard: a multiple of 64. The last data shard is padded with zeros.
    pub shard: u32,
    pub data: u32,
    pub parity: u32,
}

/// Reason why a computation failed.
#[derive(Debug)]
pub enum ParityError<E> {
    /// Reading a shard failed.
    Read(E),
    /// More shards are damaged than there are intact parity shards.
    TooFew { damaged: usize, whole: usize },
    /// The code does not support the shape.
    Code(reed_solomon_simd::Error),
}

impl<E: fmt::Display> fmt::Display for ParityError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(err) => err.fmt(f),
            Self::TooFew { damaged, whole } => {
                write!(
                    f,
                    "{damaged} shards are damaged, recovery data is intact for {whole}"
                )
            }
            Self::Code(err) => err.fmt(f),
        }
    }
}

impl<E> From<reed_solomon_simd::Error> for ParityError<E> {
    fn from(err: reed_solomon_simd::Error) -> Self {
        Self::Code(err)
    }
}

impl ParityShape {
    /// Returns the shape of an object of `size` bytes (at least 1) with `percent` (1–100) of
    /// recovery data: at least one parity shard, at most as many as there are data shards. Returns
    /// `None` for an object of more than 8 TiB, whose shards would be too long.
    pub fn new(size: u64, percent: u8) -> Option<Self> {
        let mut shard = SHARD_BYTES_MIN;
        if size < shard {
            shard = size.next_multiple_of(to_u64(COLUMN_BYTES));
        }
        while size.div_ceil(shard) > DATA_SHARDS_MAX {
            shard *= 2;
        }
        let data = size.div_ceil(shard);
        let parity = (data * u64::from(percent)).div_ceil(100).clamp(1, data);
        Some(Self {
            size,
            shard: u32::try_from(shard).ok()?,
            data: u32::try_from(data).ok()?,
            parity: u32::try_from(parity).ok()?,
        })
    }

    /// Returns true if the numbers are consistent and within the limits of a reader.
    pub fn is_legal(&self) -> bool {
        let shard = u64::from(self.shard);
        self.size > 0
            && shard > 0
            && self.shard <= 1 << 20
            && to_usize(self.shard).is_multiple_of(COLUMN_BYTES)
            && self.size.div_ceil(shard) == u64::from(self.data)
            && u64::from(self.data) <= DATA_SHARDS_MAX
            && (1..=self.data).contains(&self.parity)
    }

    /// Returns the bytes of data shard `n` in the object: the last one may be shorter than a shard.
    pub fn data_len(&self, n: u32) -> usize {
        let start = u64::from(n) * u64::from(self.shard);
        at_most(self.size.saturating_sub(start), to_usize(self.shard))
    }

    /// Returns the bytes of all parity shards.
    pub fn parity_bytes(&self) -> u64 {
        u64::from(self.parity) * u64::from(self.shard)
    }

    /// Iterates over the slices of a shard, as ranges of its bytes. Each slice is processed at
    /// once.
    fn slices(&self) -> impl Iterator<Item = std::ops::Range<usize>> + use<> {
        let shard = to_usize(self.shard);
        let step = (SLICE_BYTES / to_usize(self.data) / COLUMN_BYTES).max(1) * COLUMN_BYTES;
        (0..shard)
            .step_by(step)
            .map(move |start| start..(start + step).min(shard))
    }
}

/// Returns the hash of a shard.
pub fn shard_hash(shard: &[u8]) -> ShardHash {
    let mut out = [0; SHARD_HASH_BYTES];
    out.copy_from_slice(&blake3::hash(shard).as_bytes()[..SHARD_HASH_BYTES]);
    out
}

/// Reads a whole data shard, padded with zeros.
pub fn read_data_shard<E>(
    shape: &ParityShape,
    n: u32,
    buf: &mut Vec<u8>,
    read: &mut ReadAt<'_, E>,
) -> Result<(), E> {
    buf.clear();
    buf.resize(to_usize(shape.shard), 0);
    read(
        u64::from(n) * u64::from(shape.shard),
        &mut buf[..shape.data_len(n)],
    )
}

/// Computes all parity shards, one after the other. `read` fills a buffer with the object's bytes
/// at an offset.
pub fn encode<E>(shape: &ParityShape, read: &mut ReadAt<'_, E>) -> Result<Vec<u8>, ParityError<E>> {
    let shard = to_usize(shape.shard);
    let data_count = to_usize(shape.data);
    let parity_count = to_usize(shape.parity);
    // Only where `usize` has 32 bits are there shapes whose parity shards do not fit in memory.
    let bytes = usize::try_from(shape.parity_bytes()).map_err(|_| {
        reed_solomon_simd::Error::UnsupportedShardCount {
            original_count: data_count,
            recovery_count: parity_count,
        }
    })?;
    let mut out = vec![0; bytes];
    let mut buf = Vec::new();
    for slice in shape.slices() {
        let mut encoder = ReedSolomonEncoder::new(data_count, parity_count, slice.len())?;
        for n in 0..shape.data {
            read_slice(shape, n, &slice, &mut buf, read).map_err(ParityError::Read)?;
            encoder.add_original_shard(&buf)?;
        }
        let encoded = encoder.encode()?;
        for (n, bytes) in encoded.recovery_iter().enumerate() {
            out[n * shard + slice.start..n * shard + slice.end].copy_from_slice(bytes);
        }
    }
    Ok(out)
}

/// Computes the data shards that `data_is_whole` marks as damaged from intact shards. Returns them
/// padded, by number. `read_parity` fills a buffer with the parity shards' bytes at an offset.
pub fn recover<E>(
    shape: &ParityShape,
    data_is_whole: &[bool],
    parity_is_whole: &[bool],
    read: &mut ReadAt<'_, E>,
    read_parity: &mut ReadAt<'_, E>,
) -> Result<BTreeMap<u32, Vec<u8>>, ParityError<E>> {
    let shard = to_usize(shape.shard);
    let data_count = to_usize(shape.data);
    let parity_count = to_usize(shape.parity);
    let is_marked = |marks: &[bool], n: u32| marks.get(to_usize(n)).is_some_and(|whole| *whole);
    let missing = |n: &u32| !is_marked(data_is_whole, *n);

    let mut out: BTreeMap<u32, Vec<u8>> = (0..shape.data)
        .filter(missing)
        .map(|n| (n, vec![0; shard]))
        .collect();

    let whole: Vec<u32> = (0..shape.parity)
        .filter(|n| is_marked(parity_is_whole, *n))
        .collect();

    if out.len() > whole.len() {
        return Err(ParityError::TooFew {
            damaged: out.len(),
            whole: whole.len(),
        });
    }

    if out.is_empty() {
        return Ok(out);
    }

    let mut buf = Vec::new();
    for slice in shape.slices() {
        let mut decoder = ReedSolomonDecoder::new(data_count, parity_count, slice.len())?;
        for n in (0..shape.data).filter(|n| !missing(n)) {
            read_slice(shape, n, &slice, &mut buf, read).map_err(ParityError::Read)?;
            decoder.add_original_shard(to_usize(n), &buf)?;
        }
        // Only as many parity shards as needed.
        for &n in whole.iter().take(out.len()) {
            buf.clear();
            buf.resize(slice.len(), 0);
            let at = u64::from(n) * u64::from(shape.shard) + to_u64(slice.start);
            read_parity(at, &mut buf).map_err(ParityError::Read)?;
            decoder.add_recovery_shard(to_usize(n), &buf)?;
        }

        let decoded = decoder.decode()?;
        for (n, bytes) in decoded.restored_original_iter() {
            let number = u32::try_from(n).ok();
            if let Some(held) = number.and_then(|number| out.get_mut(&number)) {
                held[slice.clone()].copy_from_slice(bytes);
            }
        }
    }

    Ok(out)
}

/// Reads a slice of a data shard, with zeros after the object's end.
fn read_slice<E>(
    shape: &ParityShape,
    n: u32,
    slice: &std::ops::Range<usize>,
    buf: &mut Vec<u8>,
    read: &mut ReadAt<'_, E>,
) -> Result<(), E> {
    buf.clear();
    buf.resize(slice.len(), 0);
    let there = shape
        .data_len(n)
        .saturating_sub(slice.start)
        .min(slice.len());
    if there == 0 {
        return Ok(());
    }
    read(
        u64::from(n) * u64::from(shape.shard) + to_u64(slice.start),
        &mut buf[..there],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new()
            .update(b"noise")
            .finalize_xof()
            .fill(&mut bytes);
        bytes
    }

    type Nothing = std::convert::Infallible;

    fn reader(bytes: &[u8]) -> impl FnMut(u64, &mut [u8]) -> Result<(), Nothing> + '_ {
        |at, buf| {
            buf.copy_from_slice(&bytes[at as usize..at as usize + buf.len()]);
            Ok(())
        }
    }

    #[test]
    fn shapes_follow_size_and_percentage() {
        let shape = |size, percent| {
            let shape = ParityShape::new(size, percent).expect("short enough");
            assert!(shape.is_legal(), "{shape:?}");
            (shape.shard, shape.data, shape.parity)
        };
        assert_eq!(shape(1, 1), (64, 1, 1));
        assert_eq!(shape(100, 100), (128, 1, 1));
        assert_eq!(shape(4096, 5), (4096, 1, 1));
        assert_eq!(shape(5000, 5), (4096, 2, 1));
        assert_eq!(shape(1 << 20, 10), (4096, 256, 26));
        assert_eq!(shape(16 << 20, 10), (4096, 4096, 410));
        assert_eq!(shape((64 << 20) + 1, 5), (32768, 2049, 103));
        assert_eq!(shape(64 << 20, 100), (16384, 4096, 4096));
        assert!(ParityShape::new(1 << 43, 5).is_some());
        assert_eq!(ParityShape::new((1 << 43) + 1, 5), None);
    }

    /// With some shards lost, as many can be recovered as there are parity shards, and not one
    /// more, for any size.
    #[test]
    fn as_many_shards_come_back_as_were_added() {
        for (size, percent) in [
            (1, 100),
            (63, 5),
            (4095, 5),
            (4097, 5),
            (100_000, 10),
            (300_001, 50),
            (90_000, 100),
        ] {
            let bytes = noise(size);
            let shape = ParityShape::new(size as u64, percent).expect("short enough");
            let parity = encode(&shape, &mut reader(&bytes)).expect("encoded");
            let count = shape.parity as usize;

            for first in [0, shape.data as usize - count.min(shape.data as usize)] {
                let mut hit = bytes.clone();
                let mut whole = vec![true; shape.data as usize];
                for n in first..first + count {
                    whole[n] = false;
                    let start = n * shape.shard as usize;
                    hit[start..start + shape.data_len(n as u32)].fill(0x55);
                }

                let all = vec![true; count];

                let found = recover(
                    &shape,
                    &whole,
                    &all,
                    &mut reader(&hit),
                    &mut reader(&parity),
                );
                for (n, shard) in found.expect("recovered") {
                    let start = n as usize * shape.shard as usize;
                    let len = shape.data_len(n);
                    assert_eq!(
                        shard[..len],
                        bytes[start..start + len],
                        "{size} bytes, shard {n}"
                    );
                }

                let mut fewer = all.clone();
                fewer[0] = false;
                let err = recover(
                    &shape,
                    &whole,
                    &fewer,
                    &mut reader(&hit),
                    &mut reader(&parity),
                );
                assert!(
                    matches!(err, Err(ParityError::TooFew { .. })),
                    "{size} bytes"
                );
            }
        }
    }

    /// Slices bound the memory and must not change the bytes: the format does not mention slices.
    #[test]
    fn slices_give_the_same_as_whole_shards() {
        let shape = ParityShape {
            size: 40_000,
            shard: 4096,
            data: 10,
            parity: 3,
        };
        let bytes = noise(40_000);
        let mut padded = bytes.clone();
        padded.resize(40_960, 0);
        let whole = reed_solomon_simd::encode(10, 3, padded.chunks(4096)).expect("encoded");
        assert_eq!(
            encode(&shape, &mut reader(&bytes)).expect("encoded"),
            whole.concat()
        );
        let mut sliced = Vec::new();
        for start in (0..4096).step_by(64) {
            let columns = padded.chunks(4096).map(|shard| &shard[start..start + 64]);
            sliced.push(reed_solomon_simd::encode(10, 3, columns).expect("encoded"));
        }
        for n in 0..3 {
            let joined: Vec<u8> = sliced
                .iter()
                .flat_map(|columns| columns[n].clone())
                .collect();
            assert_eq!(joined, whole[n]);
        }
    }
}
