//! Fuzzes what `peers::auth_url` says.
#![no_main]

#[path = "../src/peers.rs"]
mod peers;

libfuzzer_sys::fuzz_target!(|input: &[u8]| peers::auth_url(input));
