//! Frames' compression: one zstd frame, or the plain bytes where zstd cannot shrink them.

use std::fmt;
use std::io;

use crate::types::Codec;

/// Longest plain frame that is written or opened: 4 MiB.
pub const FRAME_PLAIN_BYTES_MAX: usize = 4 << 20;

/// Why bytes could not be compressed or opened.
#[derive(Debug)]
pub enum CodecError {
    /// zstd refused.
    Zstd(io::Error),
    /// The opened length is not the one stated.
    Length { expected: usize, found: usize },
    /// The stated length is above what the caller may take.
    TooLong { limit: usize, stated: usize },
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zstd(_) => f.write_str("zstd could not open it"),
            Self::Length { expected, found } => {
                write!(f, "it opens to {found} bytes instead of {expected}")
            }
            Self::TooLong { limit, stated } => {
                write!(f, "it states {stated} plain bytes, at most {limit} are legal")
            }
        }
    }
}

impl std::error::Error for CodecError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Zstd(source) => Some(source),
            _ => None,
        }
    }
}

/// A zstd compressor, kept by its thread: setting one up costs more than a small frame.
pub struct Compressor {
    inner: zstd::bulk::Compressor<'static>,
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Compressor")
    }
}

impl Compressor {
    /// Makes a compressor of a zstd level (1–22; higher is smaller and slower).
    pub fn new(level: i32) -> Result<Self, CodecError> {
        Ok(Self { inner: zstd::bulk::Compressor::new(level).map_err(CodecError::Zstd)? })
    }

    /// Compresses `plain` into `out`, replacing what it held, and tells how. `extra` bytes of capacity stay free
    /// behind the result, for the seal's tag.
    pub fn compress(&mut self, plain: &[u8], out: &mut Vec<u8>, extra: usize) -> Result<Codec, CodecError> {
        out.clear();
        out.reserve(zstd::zstd_safe::compress_bound(plain.len()) + extra);
        self.inner.compress_to_buffer(plain, out).map_err(CodecError::Zstd)?;
        if out.len() < plain.len() {
            return Ok(Codec::Zstd);
        }
        out.clear();
        out.extend_from_slice(plain);
        Ok(Codec::Plain)
    }
}

/// A zstd decompressor, kept by its thread.
pub struct Opener {
    inner: zstd::bulk::Decompressor<'static>,
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opener")
    }
}

impl Opener {
    /// Makes a decompressor.
    pub fn new() -> Result<Self, CodecError> {
        Ok(Self { inner: zstd::bulk::Decompressor::new().map_err(CodecError::Zstd)? })
    }

    /// Opens `packed` to exactly `plain_len` bytes, at most `limit`; takes no more memory than that.
    pub fn open(
        &mut self,
        codec: Codec,
        packed: Vec<u8>,
        plain_len: usize,
        limit: usize,
    ) -> Result<Vec<u8>, CodecError> {
        if plain_len > limit {
            return Err(CodecError::TooLong { limit, stated: plain_len });
        }
        let plain = match codec {
            Codec::Plain => packed,
            Codec::Zstd => {
                let mut plain = Vec::with_capacity(plain_len);
                self.inner.decompress_to_buffer(&packed, &mut plain).map_err(CodecError::Zstd)?;
                plain
            }
        };
        if plain.len() != plain_len {
            return Err(CodecError::Length { expected: plain_len, found: plain.len() });
        }
        Ok(plain)
    }
}

/// Compresses a small object (a directory, a segment, a snapshot) at zstd's default level.
pub fn shrink_bytes(plain: &[u8]) -> Result<(Codec, Vec<u8>), CodecError> {
    let mut out = Vec::new();
    let codec = Compressor::new(zstd::DEFAULT_COMPRESSION_LEVEL)?.compress(plain, &mut out, 16)?;
    Ok((codec, out))
}

/// Opens what [`shrink_bytes`] made.
pub fn open_bytes(
    codec: Codec,
    packed: Vec<u8>,
    plain_len: usize,
    limit: usize,
) -> Result<Vec<u8>, CodecError> {
    Opener::new()?.open(codec, packed, plain_len, limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_round_trip_and_what_does_not_shrink_stays_plain() {
        let text = b"ice core ".repeat(10_000);
        let (codec, packed) = shrink_bytes(&text).expect("compresses");
        assert_eq!(codec, Codec::Zstd);
        assert_eq!(open_bytes(codec, packed, text.len(), text.len()).expect("opens"), text);
        let (codec, packed) = shrink_bytes(b"ab").expect("compresses");
        assert_eq!((codec, packed.as_slice()), (Codec::Plain, b"ab".as_slice()));
    }

    #[test]
    fn a_frame_must_open_to_its_stated_length() {
        let (codec, packed) = shrink_bytes(&[7; 5_000]).expect("compresses");
        for stated in [0, 4_999, 5_001] {
            assert!(open_bytes(codec, packed.clone(), stated, 1 << 20).is_err(), "{stated}");
        }
        let over = open_bytes(codec, packed, 5_000, 4_999);
        assert!(matches!(over, Err(CodecError::TooLong { .. })));
    }
}
