//! A packet of multicast DNS: what is read is written and read back the same.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../src/packets.rs"]
mod packets;

fuzz_target!(|input: &[u8]| packets::mdns(input));
