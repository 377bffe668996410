//! Real echoes: ICMP over a raw socket, since `ping` may be missing.

use std::{
    io::{self, Read as _},
    net::{Ipv4Addr, SocketAddrV4},
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, Socket, Type};

/// How long an echo may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// The type of an echo request (RFC 792, page 14).
const REQUEST: u8 = 8;
/// The type of an echo reply (RFC 792, page 14).
const REPLY: u8 = 0;
/// Marks our echoes among others'.
const IDENTIFIER: [u8; 2] = *b"lb";

/// Sends echoes to an address and returns how long each answer took.
pub(super) fn ping(address: Ipv4Addr, count: u16) -> io::Result<Vec<Duration>> {
    let mut socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
    socket.connect(&SocketAddrV4::new(address, 0).into())?;
    let mut times = Vec::new();
    for number in 0..count {
        let start = Instant::now();
        socket.send(&request(number))?;
        if let Some(time) = wait(&mut socket, number, start)? {
            times.push(time);
        }
    }
    Ok(times)
}

/// Waits for the answer to one echo; anything else that arrives is passed over.
fn wait(socket: &mut Socket, number: u16, start: Instant) -> io::Result<Option<Duration>> {
    let mut buffer = [0_u8; 1500];
    loop {
        let left = PATIENCE.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left))?;
        match socket.read(&mut buffer) {
            Ok(length)
                if buffer
                    .get(..length)
                    .is_some_and(|packet| answers(packet, number)) =>
            {
                return Ok(Some(start.elapsed()));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

/// Builds an echo request (RFC 792, page 14): type, code, checksum, identifier, number.
fn request(number: u16) -> [u8; 8] {
    let [id_high, id_low] = IDENTIFIER;
    let [high, low] = number.to_be_bytes();
    let sum = checksum([[REQUEST, 0], [0, 0], IDENTIFIER, [high, low]]);
    let [sum_high, sum_low] = sum.to_be_bytes();
    [REQUEST, 0, sum_high, sum_low, id_high, id_low, high, low]
}

/// Computes the internet checksum (RFC 1071, section 1).
fn checksum(words: [[u8; 2]; 4]) -> u16 {
    let mut sum: u32 = words
        .iter()
        .map(|word| u32::from(u16::from_be_bytes(*word)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("the loop leaves 16 bits")
}

/// Tells whether an IPv4 packet is the reply to our echo with a number.
fn answers(packet: &[u8], number: u16) -> bool {
    // The length of the header is in words of four bytes (RFC 791, section 3.1).
    let header = packet
        .first()
        .map_or(0, |first| usize::from(first & 0x0f) * 4);
    let [high, low] = number.to_be_bytes();
    let [id_high, id_low] = IDENTIFIER;
    let Some([kind, _, _, _, rest @ ..]) = packet.get(header..) else {
        return false;
    };
    *kind == REPLY && rest.starts_with(&[id_high, id_low, high, low])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_sums_to_nothing() {
        for number in [0, 1, 258, u16::MAX] {
            let bytes = request(number);
            let words =
                [[0, 1], [2, 3], [4, 5], [6, 7]].map(|pair| pair.map(|at: usize| bytes[at]));
            assert_eq!(checksum(words), 0, "{number}");
        }
    }

    #[test]
    fn only_the_reply_to_our_own_echo_counts() {
        let packet = |kind: u8, number: u16| {
            let mut bytes = vec![0x45];
            bytes.resize(20, 0);
            bytes.extend(request(number));
            bytes[20] = kind;
            bytes
        };
        assert!(answers(&packet(REPLY, 3), 3));
        assert!(!answers(&packet(REPLY, 4), 3));
        assert!(!answers(&packet(REQUEST, 3), 3));
        assert!(!answers(&[], 3));
        assert!(!answers(&[0x45, 0], 3));
    }
}
