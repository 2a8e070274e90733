//! Conversions between lengths in memory and in files.

const _: () = assert!(
    usize::BITS >= u32::BITS && usize::BITS <= u64::BITS,
    "these conversions lose nothing"
);

/// Converts a length or a count in memory. Every supported platform has at most 64 bits.
pub const fn to_u64(count: usize) -> u64 {
    count as u64
}

/// Converts a length or a count of 32 bits. Every supported platform has at least 32 bits.
pub const fn to_usize(count: u32) -> usize {
    count as usize
}

/// Returns the smaller one of a length and a limit in memory.
pub fn at_most(len: u64, limit: usize) -> usize {
    usize::try_from(len).map_or(limit, |len| len.min(limit))
}
