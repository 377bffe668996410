//! Through the tunnel and at its port: a peer that lies about its source or its target, and a machine
//! that repeats what it heard.

#![expect(
    clippy::async_yields_async,
    reason = "what was spawned on another machine is awaited there"
)]

use std::{
    collections::BTreeMap,
    io::Read as _,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use landbridge::{
    engine::overlay::{Link, Operation, Overlay},
    tunnel::Driver as _,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, UdpSocket};

use crate::pair::{OUTER, POD, Pair, SEEN_AS, net, pod_of, settle};

/// How long anything may take. It is a bound for broken runs, not a measure.
const PATIENCE: Duration = Duration::from_secs(20);
/// Addresses of the machine behind the tunnel that nobody offered: of its LAN, of the metadata
/// service, of its services, of another peer, of the world.
const CLOSED: [&str; 10] = [
    "10.98.0.1",
    "10.99.0.1",
    "169.254.169.254",
    "10.96.0.1",
    "10.97.0.1",
    "10.73.0.1",
    "172.20.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "8.8.8.8",
];
/// The two machines on the network between them, over IPv6.
const OUTER_V6: [&str; 2] = ["fd00:9::1", "fd00:9::2"];
/// All kinds of frames, as packet(7) wants it.
const EVERY_PROTOCOL: u16 = 0x0003_u16.to_be();

/// A machine on the way repeats every packet that it has seen, from an address of its own: answers
/// to the peer must not go there.
#[test]
fn replayed_packets_from_another_address_move_no_peer() {
    let Some(pair) = Pair::up("replay", true) else {
        return;
    };
    pair.connect();
    let capture = pair.sides[1].run(async { capture() });
    // The first side begins anew, so that its initiation is one that the other has taken.
    let (driver, wanted) = (Arc::clone(&pair.sides[0].driver), pair.overlay(0));
    pair.sides[0].run(async move {
        let nobody = Overlay {
            peers: BTreeMap::new(),
            ..wanted.clone()
        };
        for overlay in [nobody, wanted] {
            while !settle(&driver, &overlay).await {}
        }
    });
    assert!(pair.echo(0).is_ok());
    assert_eq!(pair.transfer(0), pod_of(0));
    let recorded = recorded(&capture);
    let kinds: Vec<u8> = recorded.iter().map(|packet| packet[0]).collect();
    // The first byte of a WireGuard message is its type: an initiation or its response, and data.
    assert!(kinds.contains(&1), "{kinds:?}");
    let data: Vec<_> = recorded.iter().filter(|packet| packet[0] == 4).collect();
    assert!(data.len() > 100, "{} packets", data.len());

    pair.sh(0, "ip address add 192.0.2.66/24 dev outer");
    let port = pair.sides[1].driver.port();
    pair.sides[0].run(async move {
        let socket = UdpSocket::bind(("192.0.2.66", 5555)).await.unwrap();
        for packet in recorded.iter().chain(&recorded) {
            let _ = socket.send_to(packet, (OUTER[1], port)).await;
        }
        // Whatever comes back is more than a replay is worth.
        let mut buffer = [0; 2048];
        let answer = tokio::time::timeout(Duration::from_secs(2), socket.recv(&mut buffer));
        let answer = answer
            .await
            .ok()
            .map(|length| buffer[..length.unwrap()].to_vec());
        assert_eq!(answer, None, "a replay was answered");
    });
    for side in [1, 0] {
        assert!(pair.echo(side).is_ok(), "the tunnel goes on");
    }
    let driver = Arc::clone(&pair.sides[1].driver);
    let endpoint = pair.sides[1].run(async move {
        let observed = driver.observe().await.unwrap();
        observed.peers.values().next().unwrap().endpoint
    });
    assert_eq!(endpoint.unwrap().ip().to_string(), OUTER[0]);
    pair.close_and_check();
}

/// A peer whose own rules are gone sends from addresses that were not agreed on.
#[test]
fn forged_sources_inside_the_tunnel_are_dropped() {
    let Some(pair) = Pair::connected("source") else {
        return;
    };
    pair.sh(0, "nft delete table inet landbridge");
    let forged = [
        "10.71.1.99",
        "10.244.1.11",
        "10.244.0.1",
        "10.99.0.1",
        "192.0.2.200",
        "192.168.1.1",
        "172.16.0.1",
        "8.8.8.8",
        "169.254.169.254",
        "10.73.0.1",
    ];
    let honest = "10.72.1.10";
    for address in forged.iter().chain([&honest]) {
        pair.sh(0, &format!("ip address add {address}/32 dev lo"));
    }
    let before = received(&pair);
    let heard = pair.sides[1].run(async {
        let socket = UdpSocket::bind((POD, 7001)).await.unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 64];
            let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
            (buffer[..length].to_vec(), from)
        })
    });
    pair.sides[0].run(async move {
        let target = SocketAddr::from((pod_of(1), 7001));
        for source in forged {
            let socket = UdpSocket::bind((source, 0)).await.unwrap();
            for _ in 0..10 {
                socket.send_to(b"forged", target).await.unwrap();
            }
        }
        // Sent last: when it is there, the others would have been.
        let socket = UdpSocket::bind((honest, 0)).await.unwrap();
        socket.send_to(b"honest", target).await.unwrap();
    });
    let heard = async { tokio::time::timeout(PATIENCE, heard).await.unwrap() };
    let (said, from) = pair.sides[1].run(heard).unwrap();
    assert_eq!(
        (said.as_slice(), from.ip().to_string()),
        (b"honest".as_slice(), honest.to_owned())
    );
    // The echoes of the driver itself go on meanwhile; a hundred forged ones did not come in.
    let let_in = received(&pair) - before;
    assert!((1..50).contains(&let_in), "{let_in}");
    pair.close_and_check();
}

/// What a tenant of a compromised peer reaches: pods, and nothing else of the machine, its LAN, its
/// cluster or other peers.
#[test]
fn a_tenant_reaches_the_offered_range_and_nothing_else() {
    let Some(pair) = Pair::connected("tenant") else {
        return;
    };
    for address in CLOSED {
        pair.sh(1, &format!("ip address add {address}/32 dev lo"));
        let route = format!("ip route add {address}/32 dev landbridge0 metric 1");
        pair.sh(0, &route);
    }
    pair.sh(0, "ip address add 10.72.0.9/32 dev lo");
    // The attacker tells its own tunnel that everything is behind the peer, which it reaches over
    // IPv6: a tunnel sends nothing to where it leads itself.
    for (side, address) in OUTER_V6.iter().enumerate() {
        pair.sh(side, "sysctl -qw net.ipv6.conf.outer.disable_ipv6=0");
        let add = format!("ip address add {address}/64 dev outer nodad");
        pair.sh(side, &add);
    }
    let (attacker, key) = (
        Arc::clone(&pair.sides[0].driver),
        pair.sides[1].driver.public_key(),
    );
    let endpoint = SocketAddr::new(OUTER_V6[1].parse().unwrap(), pair.sides[1].driver.port());
    let accepted = pair.sides[1].run(async { tokio::spawn(targets_until_the_pod()) });
    pair.sides[0].run(async move {
        let link = Link {
            cluster: "victim".parse().unwrap(),
            public_key: key,
            endpoint: Some(endpoint),
            allowed: net("0.0.0.0/0"),
            presented: net(SEEN_AS[0]),
        };
        attacker.carry_out(Operation::SetPeer(link)).await.unwrap();
        for target in CLOSED {
            let target: Ipv4Addr = target.parse().unwrap();
            assert!(!connects(target).await, "{target} is reached");
        }
        assert!(connects(pod_of(1)).await, "what was offered is reached");
    });
    let accepted = async { tokio::time::timeout(PATIENCE, accepted).await.unwrap() };
    let seen = pair.sides[1].run(accepted).unwrap();
    assert_eq!(seen, [POD.to_string()]);
    pair.close_and_check();
}

/// Accepts on all addresses, and lists those that were reached, up to the pod.
async fn targets_until_the_pod() -> Vec<String> {
    let listener = TcpListener::bind("0.0.0.0:7002").await.unwrap();
    let mut seen = Vec::new();
    while seen.last() != Some(&POD.to_string()) {
        let (stream, _) = listener.accept().await.unwrap();
        seen.push(stream.local_addr().unwrap().ip().to_string());
    }
    seen
}

async fn connects(target: Ipv4Addr) -> bool {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("10.72.0.9:0".parse().unwrap()).unwrap();
    let connecting = socket.connect(SocketAddr::from((target, 7002)));
    let patience = if target == pod_of(1) {
        PATIENCE
    } else {
        Duration::from_millis(400)
    };
    tokio::time::timeout(patience, connecting)
        .await
        .is_ok_and(|connected| connected.is_ok())
}

/// How many packets have come out of the tunnel on the second side.
fn received(pair: &Pair) -> u64 {
    let output = pair.exec(1, "cat /sys/class/net/landbridge0/statistics/rx_packets");
    String::from_utf8_lossy(&output.stdout)
        .trim()
        .parse()
        .unwrap()
}

/// Opens a socket that sees every packet of this namespace.
fn capture() -> Socket {
    let protocol = Protocol::from(i32::from(EVERY_PROTOCOL));
    let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol)).unwrap();
    socket.set_recv_buffer_size(64 << 20).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

/// Returns the UDP payloads that the first side sent to the second one.
fn recorded(mut capture: &Socket) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    let mut buffer = vec![0; 70_000];
    let deadline = Instant::now() + Duration::from_millis(500);
    while Instant::now() < deadline {
        let Ok(length) = capture.read(&mut buffer) else {
            thread::sleep(Duration::from_millis(10));
            continue;
        };
        // RFC 791, section 3.1: the source stands at byte 12, UDP is protocol 17.
        let packet = &buffer[..length];
        if packet.len() > 32 && packet[9] == 17 && packet[12..16] == [192, 0, 2, 1] {
            packets.push(packet[28..].to_vec());
        }
    }
    packets
}
