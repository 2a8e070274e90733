//! Content-defined cutting: FastCDC (Xia et al., 2016 and 2020) with normalization level 1 and the
//! standard gear.

use fastcdc::v2020::{Normalization, cut, select_masks};

use crate::types::{ChunkSizes, to_usize};

/// Maximal bytes of a chunk of any profile: 2 MiB.
pub const CHUNK_BYTES_MAX: usize = 2 << 20;

/// Returns the length of the first chunk of `window`, at least 1 if the window is not empty.
///
/// The cut equals that of the whole source only if the window has at least `sizes.max()` bytes or
/// ends at the end of the source; the caller ensures this. The last chunk of a source may be
/// shorter than the minimum.
pub fn next_cut(window: &[u8], sizes: ChunkSizes) -> usize {
    let average = to_usize(sizes.average());
    let (strict, relaxed) = select_masks(average, Normalization::Level1);
    let (_, length) = cut(
        window,
        to_usize(sizes.min()),
        average,
        to_usize(sizes.max()),
        strict,
        relaxed,
        strict << 1,
        relaxed << 1,
    );
    length
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ChunkProfile;

    /// Returns the same bytes in every test of every version: xorshift64* from a fixed seed.
    fn noise(len: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut out = Vec::with_capacity(len + 8);
        while out.len() < len {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            out.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
        }
        out.truncate(len);
        out
    }

    fn cuts(bytes: &[u8], sizes: ChunkSizes) -> Vec<usize> {
        let mut out = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            at += next_cut(&bytes[at..], sizes);
            out.push(at);
        }
        out
    }

    /// The cutter has changed its cuts between releases without notice, and a repository would
    /// silently stop deduplicating. These are the cuts of format version 1.
    #[test]
    fn cuts_are_those_of_format_version_1() {
        let bytes = noise(1 << 20);
        let first = |sizes| cuts(&bytes, sizes).into_iter().take(6).collect::<Vec<_>>();
        assert_eq!(first(ChunkProfile::Tree.sizes_at(0)), GOLDEN_TREE);
        assert_eq!(first(ChunkProfile::Stream.sizes_at(0)), GOLDEN_STREAM);
        assert_eq!(first(ChunkProfile::Immutable.sizes_at(0)), GOLDEN_IMMUTABLE);
        let odd = ChunkSizes::new(3_000, 10_000, 50_002).expect("legal");
        assert_eq!(first(odd), GOLDEN_NO_POWER_OF_TWO);
        let odd = ChunkSizes::new(1_234, 6_000, 23_456).expect("legal");
        assert_eq!(first(odd), GOLDEN_ROUNDED_UP);
    }

    const GOLDEN_TREE: &[usize] = &[67822, 136221, 155757, 225045, 297458, 397639];
    const GOLDEN_STREAM: &[usize] = &[10590, 34833, 45976, 56339, 67822, 77657];
    const GOLDEN_IMMUTABLE: &[usize] = &[155757, 521366, 926070, 1048576];
    const GOLDEN_NO_POWER_OF_TWO: &[usize] = &[10590, 34833, 45976, 56339, 67822, 86273];
    const GOLDEN_ROUNDED_UP: &[usize] = &[10590, 17379, 34833, 45976, 56339, 63798];

    #[test]
    fn a_window_of_the_maximum_cuts_as_the_whole_does() {
        let bytes = noise(3 << 20);
        let sizes = ChunkProfile::Stream.sizes_at(0);
        let mut at = 0;
        for cut in cuts(&bytes, sizes) {
            let window = &bytes[at..bytes.len().min(at + sizes.max() as usize)];
            at += next_cut(window, sizes);
            assert_eq!(at, cut);
        }
    }

    #[test]
    fn chunks_keep_to_their_bounds() {
        for profile in ChunkProfile::ALL {
            let sizes = profile.sizes_at(0);
            for bytes in [noise(2 << 20), vec![0; 2 << 20]] {
                let mut last = 0;
                for cut in cuts(&bytes, sizes) {
                    let length = (cut - last) as u32;
                    assert!(length <= sizes.max());
                    assert!(length >= sizes.min() || cut == bytes.len());
                    last = cut;
                }
                assert_eq!(last, bytes.len());
            }
        }
    }
}
