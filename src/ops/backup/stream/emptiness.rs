//! Detects streams that have bytes but no content.
//!
//! If a dump in front of a compressor fails, the compressor still writes its output for empty
//! input, and the shell reports only the exit code of the compressor. An archiver that finds
//! nothing writes an archive without members.

use crate::types::{to_u64, to_usize};

/// The inspected part of a stream: all of it if it is short.
#[derive(Debug)]
pub(super) struct StreamSample<'a> {
    /// Its last bytes, or all of them if it is no longer than that.
    pub tail: &'a [u8],
    pub size: u64,
    /// All its bytes are zero.
    pub is_zeros: bool,
}

/// The sizes of an empty tar archive: two blocks of zeros, padded to a record of up to 128 blocks.
const TAR_BYTES: std::ops::RangeInclusive<u64> = 1024..=64 * 1024;

/// Returns the file type if a stream is an empty file of that type. `None` if it has content, or if
/// that cannot be decided.
pub(super) fn empty_file(sample: &StreamSample<'_>) -> Option<&'static str> {
    if sample.is_zeros && TAR_BYTES.contains(&sample.size) && sample.size.is_multiple_of(512) {
        return Some("tar archive");
    }
    let bytes = sample.tail;
    if to_u64(bytes.len()) != sample.size {
        return None;
    }
    match bytes {
        // The last 8 bytes are the checksum and the length of the input.
        [0x1f, 0x8b, 8, .., 0, 0, 0, 0, 0, 0, 0, 0] if bytes.len() >= 20 => Some("gzip file"),
        [
            b'B',
            b'Z',
            b'h',
            b'1'..=b'9',
            0x17,
            0x72,
            0x45,
            0x38,
            0x50,
            0x90,
            ..,
        ] => Some("bzip2 file"),
        // A header, an index without records, a footer.
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] if bytes.len() == 32 => Some("xz file"),
        [b'P', b'K', 5, 6, ..] if bytes.len() == 22 => Some("zip archive"),
        [4, 0x22, 0x4d, 0x18, flags, ..] if is_empty_lz4(*flags, bytes) => Some("lz4 file"),
        _ if is_empty_zstd(bytes) => Some("zstd file"),
        _ => None,
    }
}

/// <https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md>: the end mark follows the header
/// directly.
fn is_empty_lz4(flags: u8, bytes: &[u8]) -> bool {
    let size_bytes = if flags & 8 != 0 { 8 } else { 0 };
    let dictionary_bytes = if flags & 1 != 0 { 4 } else { 0 };
    let header = 4 + 2 + size_bytes + dictionary_bytes + 1;
    bytes.get(header..header + 4) == Some(&[0; 4])
}

/// RFC 8878, section 3.1: skippable frames, then a frame whose first block is the last one, raw and
/// empty.
fn is_empty_zstd(mut bytes: &[u8]) -> bool {
    while let [0x50..=0x5f, 0x2a, 0x4d, 0x18, a, b, c, d, rest @ ..] = bytes {
        let len = to_usize(u32::from_le_bytes([*a, *b, *c, *d]));
        let Some(next) = rest.get(len..) else {
            return false;
        };
        bytes = next;
    }
    let [0x28, 0xb5, 0x2f, 0xfd, descriptor, rest @ ..] = bytes else {
        return false;
    };

    let is_single_segment = descriptor & 0x20 != 0;
    let window_bytes = usize::from(!is_single_segment);
    let dictionary_bytes = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let size_bytes = match descriptor >> 6 {
        0 => usize::from(is_single_segment),
        1 => 2,
        2 => 4,
        _ => 8,
    };

    let header = window_bytes + dictionary_bytes + size_bytes;
    rest.get(header..header + 3) == Some(&[1, 0, 0])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_empty(bytes: &[u8]) -> bool {
        let is_zeros = bytes.iter().all(|&byte| byte == 0);
        empty_file(&StreamSample {
            tail: bytes,
            size: to_u64(bytes.len()),
            is_zeros,
        })
        .is_some()
    }

    fn hex(text: &str) -> Vec<u8> {
        crate::types::hex::decode(text).expect("hex")
    }

    /// The output of the programs for empty input.
    #[test]
    fn the_output_of_compressors_for_no_input_is_empty() {
        for (program, written) in [
            ("gzip", "1f8b080000000000000303000000000000000000"),
            (
                "gzip with a name",
                "1f8b080881df0c6b0203612e73716c0003000000000000000000",
            ),
            ("bzip2", "425a683917724538509000000000"),
            (
                "xz",
                "fd377a585a000004e6d6b446000000001cdf44211fb6f37d010000000004595a",
            ),
            ("zstd", "28b52ffd240001000099e9d851"),
            ("zstd without a checksum", "28b52ffd2000010000"),
            ("zstd of a stream", "28b52ffd0458010000"),
            (
                "pzstd",
                "502a4d18040000000d00000028b52ffd040001000099e9d851",
            ),
            ("lz4", "04224d186440a700000000055dcc02"),
            ("zip", "504b0506000000000000000000000000000000000000"),
        ] {
            assert!(is_empty(&hex(written)), "{program}");
        }
        for size in [1024, 10_240, 65_536] {
            assert!(is_empty(&vec![0; size]), "tar of {size}");
        }
    }

    #[test]
    fn a_stream_with_content_is_not_empty() {
        let zstd = |level| zstd::bulk::compress(b"x", level).expect("compressed");
        for (what, bytes) in [
            ("a text", b"one line\n".to_vec()),
            (
                "gzip of x",
                hex("1f8b0800000000000003ab0000 83169cdc8c01000000"
                    .replace(' ', "")
                    .as_str()),
            ),
            (
                "xz of x",
                hex("fd377a585a000004e6d6b4460200210116000000742fe5a3"),
            ),
            ("bzip2 of x", hex("425a6839314159265359")),
            ("zstd of x", zstd(1)),
            ("zstd of x, level 19", zstd(19)),
            ("lz4 of x", hex("04224d186440a7010000807800000000")),
            ("a disk of zeros", vec![0; 1 << 20]),
            ("a few zeros", vec![0; 100]),
            ("zeros and more", [vec![0; 1024], vec![1; 512]].concat()),
            ("a magic alone", hex("28b52ffd")),
            ("half a skipped frame", hex("502a4d18ffffffff00")),
        ] {
            assert!(!is_empty(&bytes), "{what}");
        }
    }

    /// The tail alone does not show whether a long stream is empty.
    #[test]
    fn a_long_stream_that_ends_like_an_empty_file_is_not_empty() {
        let tail = hex("1f8b080000000000000303000000000000000000");
        assert_eq!(
            empty_file(&StreamSample {
                tail: &tail,
                size: 5000,
                is_zeros: false
            }),
            None
        );
    }
}
