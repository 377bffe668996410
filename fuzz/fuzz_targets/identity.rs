//! Fuzzes what `peers::identity` says.
#![no_main]

#[path = "../src/peers.rs"]
mod peers;

libfuzzer_sys::fuzz_target!(|input: &[u8]| peers::identity(input));
