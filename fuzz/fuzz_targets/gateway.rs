//! Fuzzes what `peers::gateway` says.
#![no_main]

#[path = "../src/peers.rs"]
mod peers;

libfuzzer_sys::fuzz_target!(|input: &[u8]| peers::gateway(input));
