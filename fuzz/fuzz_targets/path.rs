//! Fuzzes what `deeds::path` says.
#![no_main]

#[path = "../src/deeds.rs"]
mod deeds;

libfuzzer_sys::fuzz_target!(|input: &[u8]| deeds::path(input));
