//! Gives arbitrary bytes, as a script of whole operations with mishaps, to the machine of
//! tests/model: what was committed reads back as its model says, nothing panics, and once all is
//! quiet verify finds nothing.
#![no_main]
#![allow(dead_code, reason = "the tests use more of these modules")]

#[path = "../../tests/model/cut.rs"]
mod cut;
#[path = "../../tests/model/deeds.rs"]
mod deeds;
#[path = "../../tests/model/machine.rs"]
mod machine;
#[path = "../../tests/model/script.rs"]
mod script;
#[path = "../../tests/model/tree.rs"]
mod tree;
#[path = "../../tests/model/world.rs"]
mod world;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // A step takes some milliseconds.
    machine::play(&bytes[..bytes.len().min(1 + 4 * 60)]);
});
