//! Gives arbitrary bytes to one decoder; `tests/fuzz/judge.rs` says what must hold.
#![no_main]

#[path = "../../tests/fuzz/judge.rs"]
mod judge;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    judge::compose(bytes);
});
