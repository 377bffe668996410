//! What anybody on a LAN may do with multicast DNS: listen, and say whatever they like.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use landbridge::discovery::mdns::wire::{Data, Name, Packet, Question, Record, kind};
use socket2::{Domain, Socket, Type};

use crate::lab::Lab;

/// The group and the port of multicast DNS.
pub(crate) const GROUP: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(224, 0, 0, 251)), 5353);

/// Opens a socket on a machine that hears what is said to everybody, and speaks from `address`.
pub(crate) fn socket(lab: &Lab, machine: &str, address: Ipv4Addr) -> UdpSocket {
    lab.within(machine, move || {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("a socket");
        socket.set_reuse_address(true).expect("an option");
        socket.set_reuse_port(true).expect("an option");
        socket.set_multicast_if_v4(&address).expect("an address");
        socket
            .set_read_timeout(Some(Duration::from_millis(100)))
            .expect("an option");
        let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 5353));
        socket.bind(&everywhere.into()).expect("the port is shared");
        let group = Ipv4Addr::new(224, 0, 0, 251);
        socket.join_multicast_v4(&group, &address).expect("a group");
        socket.into()
    })
}

/// Returns what is heard from one machine for a while, as it came.
pub(crate) fn listen(socket: &UdpSocket, from: Ipv4Addr, how_long: Duration) -> Vec<Vec<u8>> {
    let end = Instant::now() + how_long;
    let mut heard = Vec::new();
    let mut buffer = vec![0; 9000];
    while Instant::now() < end {
        if let Ok((length, source)) = socket.recv_from(&mut buffer)
            && source.ip() == from
        {
            heard.push(buffer[..length].to_vec());
        }
    }
    heard
}

/// Returns what of it was said without a question, or as the answer to one.
pub(crate) fn responses(heard: &[Vec<u8>]) -> Vec<Packet> {
    let packets = heard
        .iter()
        .map(|data| Packet::decode(data).expect("it is well formed"));
    packets.filter(|packet| packet.is_response).collect()
}

/// Says something to everybody.
pub(crate) fn say(socket: &UdpSocket, packet: &Packet) {
    socket
        .send_to(&packet.encode(), GROUP)
        .expect("the LAN takes packets");
}

/// Asks for all clusters.
pub(crate) fn question(service: &str) -> Packet {
    Packet {
        questions: vec![Question {
            name: Name::from_text(service).expect("a name"),
            kind: kind::PTR,
            unicast: false,
        }],
        ..Packet::default()
    }
}

/// What an old Liqo would say of itself, or take back with a time to live of zero.
pub(crate) fn announcement(instance: &str, address: Ipv4Addr, text: &str, ttl: u32) -> Packet {
    let service = Name::from_text("_liqo_auth._tcp.local").expect("a name");
    let full = Name::under(instance, &service).expect("a short label");
    let host = Name::from_text(&format!("host-{instance}.local")).expect("a name");
    let mut data = text.as_bytes().to_vec();
    if !data.is_empty() {
        data.insert(0, u8::try_from(text.len()).expect("a short text"));
    }
    let (port, target) = (5870, host.clone());
    let answers = [
        (service, Data::Ptr(full.clone())),
        (full.clone(), Data::Srv { port, target }),
        (full, Data::Txt(data)),
        (host, Data::A(address)),
    ];
    Packet {
        is_response: true,
        answers: answers
            .into_iter()
            .map(|(name, data)| Record {
                flush: !matches!(data, Data::Ptr(_)),
                name,
                ttl,
                data,
            })
            .collect(),
        ..Packet::default()
    }
}

/// Does something at a pace, `times` times.
pub(crate) fn at_pace(times: u64, pause: Duration, mut deed: impl FnMut(u64)) {
    let start = Instant::now();
    for number in 0..times {
        let due = start + pause.mul_f64(u32::try_from(number).expect("not so many").into());
        thread::sleep(due.saturating_duration_since(Instant::now()));
        deed(number);
    }
}
