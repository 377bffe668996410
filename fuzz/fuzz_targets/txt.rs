//! A TXT record: what is read is within the bounds, and is written and read back the same.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../src/packets.rs"]
mod packets;

fuzz_target!(|input: &[u8]| packets::txt(input));
