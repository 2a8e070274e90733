//! Conversions between lengths in memory and in files.

/// Converts a length or a count in memory. Every supported platform has at most 64 bits.
pub const fn to_u64(count: usize) -> u64 {
    count as u64
}

/// Returns the smaller one of a length and a limit in memory.
pub fn at_most(len: u64, limit: usize) -> usize {
    usize::try_from(len).map_or(limit, |len| len.min(limit))
}
