//! What a fuzzer does with the bytes that arrive from a LAN. Used by the programs in `fuzz_targets`
//! and, with the inputs kept in `corpus`, by `cargo test`.
#![allow(dead_code, clippy::allow_attributes, reason = "each program uses one")]

use landbridge::discovery::{mdns::wire::Packet, record::Record};

/// A packet of multicast DNS.
pub(crate) fn mdns(input: &[u8]) {
    if let Ok(packet) = Packet::decode(input) {
        let again = Packet::decode(&packet.encode());
        assert_eq!(again.as_ref(), Ok(&packet));
    }
}

/// The data of a TXT record.
pub(crate) fn txt(input: &[u8]) {
    if let Ok(record) = Record::decode(input) {
        let data = record.encode();
        assert!(data.len() <= 400, "{} bytes", data.len());
        assert_eq!(Record::decode(&data), Ok(record));
    }
}
