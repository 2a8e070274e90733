//! The interleavings of docs/protocol.md, each under its number, on a store with lagging and stale
//! listings and a jumping clock. docs/testing.md lists them with the tests of the same
//! interleavings without lag.

mod extras;
mod segments;
mod trees;
mod writers;

/// Seeds for each scenario; each seed gives other lags.
fn seeds() -> std::ops::Range<u64> {
    1..4
}
