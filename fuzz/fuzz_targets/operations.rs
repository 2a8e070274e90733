//! Runs arbitrary bytes as a script of whole operations and mishaps on the machine of tests/model.
//! The committed data must read back as the model predicts, nothing may panic, and verify must be
//! clean at the end.
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
    // A step takes a few milliseconds.
    machine::play(&bytes[..bytes.len().min(1 + 4 * 60)]);
});
