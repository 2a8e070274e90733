//! Runs one decoder on arbitrary bytes; `tests/fuzz/judge.rs` checks the result.
#![no_main]

#[path = "../../tests/fuzz/judge.rs"]
mod judge;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    judge::snapshot(bytes);
});
