//! Fuzzes what `domain::answers` says.
#![no_main]

#[path = "../src/domain.rs"]
mod domain;

libfuzzer_sys::fuzz_target!(|input: &[u8]| domain::answers(input));
