//! The interleavings of PROTOCOL section 4, each under its number, on a store whose listings lag
//! and are stale and whose clock jumps. docs/testing.md lists them with those that show the same
//! without lags.

mod extras;
mod segments;
mod trees;
mod writers;

/// Each is run with some seeds: other lags.
fn seeds() -> std::ops::Range<u64> {
    1..4
}
