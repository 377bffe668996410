//! What forged packets do to discovery on the LAN: nothing that lasts.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use landbridge::{
    discovery::mdns::wire::{Data, Name, Packet, Record},
    engine::{
        roster::{Bounds, Change, Roster},
        sighting::Event,
    },
};
use tokio_util::sync::CancellationToken;

use super::{Host, Lan, MILAN, ROME, announcement, has_address, in_namespaces};

#[path = "../../fuzz/src/packets.rs"]
mod packets;

/// The group and the port of multicast DNS.
const GROUP: (Ipv4Addr, u16) = (Ipv4Addr::new(224, 0, 0, 251), 5353);

/// Opens the socket of somebody who sends whatever they like to everybody on the LAN.
fn forger(address: [u8; 4], port: u16) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::from(address), port)).expect("the port is free");
    socket.connect(GROUP).expect("the LAN takes multicast");
    socket
}

/// What a cluster of this name says of itself, or takes back with a time to live of zero.
fn says(instance: &str, address: [u8; 4], ttl: u32) -> Packet {
    let service = Name::from_text("_liqo_auth._tcp.local").expect("a name");
    let full = Name::under(instance, &service).expect("a short label");
    let host = Name::from_text(&format!("{instance}.local")).expect("a name");
    let text = format!("id={instance}");
    let length = u8::try_from(text.len()).expect("it is short");
    let text = [&[length], text.as_bytes()].concat();
    let port = 5870;
    let target = host.clone();
    let answers = [
        (service, Data::Ptr(full.clone())),
        (full.clone(), Data::Srv { port, target }),
        (full, Data::Txt(text)),
        (host, Data::A(address.into())),
    ];
    let answers = answers.into_iter().map(|(name, data)| Record {
        flush: !matches!(data, Data::Ptr(_)),
        name,
        ttl,
        data,
    });
    Packet {
        is_response: true,
        answers: answers.collect(),
        ..Packet::default()
    }
}

#[test]
fn a_flood_of_forgeries_does_not_hide_a_real_neighbour() {
    let test = "forgery::a_flood_of_forgeries_does_not_hide_a_real_neighbour";
    in_namespaces(test, || {
        let lan = Lan::new(3);
        let rome = Host::start(&lan, 0, announcement(ROME, "rome"));
        let flood = CancellationToken::new();
        let _stop = flood.clone().drop_guard();
        let (socket, token) = (
            lan.inside(2, || forger([10, 77, 0, 3], 5353)),
            flood.clone(),
        );
        let forger = thread::spawn(move || {
            let sent = (0_u32..).take_while(|_| !token.is_cancelled());
            sent.inspect(|number| {
                let packet = says(&format!("forged-{number}"), [10, 77, 0, 3], 120);
                socket
                    .send(&packet.encode())
                    .expect("the LAN takes packets");
                thread::sleep(Duration::from_micros(500));
            })
            .count()
        });
        rome.sees(|sighting| sighting.instance.starts_with("forged-"));
        thread::sleep(Duration::from_secs(2));
        let _milan = Host::start(&lan, 1, announcement(MILAN, "milan"));
        let own_id = ROME.parse().expect("the test names a UUID");
        let mut roster = Roster::new(own_id, "boot000rome".to_owned(), Bounds::default());
        let mut forged = BTreeSet::new();
        rome.wait(|event| {
            if let Event::Seen(sighting) = &event {
                forged.insert(sighting.instance.clone());
            }
            roster.handle_event(event, jiff::Timestamp::now());
            roster.handle_timeout(jiff::Timestamp::now());
            std::iter::from_fn(|| roster.poll_change())
                .any(|change| matches!(change, Change::Appeared(it) if it.name.as_str() == "milan"))
                .then_some(())
        });
        flood.cancel();
        let sent = forger.join().expect("the forger ends by itself");
        assert!(sent > 1000, "{sent} packets are no flood");
        assert!(
            forged.len() < 200,
            "{} of {sent} were listened to",
            forged.len()
        );
        assert!(roster.len() <= 20, "{} candidates are held", roster.len());
    });
}

#[test]
fn what_comes_from_another_port_or_through_a_router_is_not_acted_upon() {
    let test = "forgery::what_comes_from_another_port_or_through_a_router_is_not_acted_upon";
    in_namespaces(test, || {
        let lan = Lan::new(2);
        // The second host is on two networks, and routes for the one that we are not on.
        lan.ip(1, "addr add 10.99.0.2/32 dev lo");
        lan.ip(0, "route add 10.99.0.0/24 via 10.77.0.2");
        let rome = Host::start(&lan, 0, announcement(ROME, "rome"));
        rome.reaches(|health| matches!(health, landbridge::discovery::Health::Working { .. }));
        let to_us = SocketAddr::from(([10, 77, 0, 1], 5353));
        lan.inside(1, || {
            let wrong_port = forger([10, 77, 0, 2], 0);
            let routed = UdpSocket::bind(("10.99.0.2", 5353)).expect("the port is free");
            for number in 0..20 {
                let packet = says(&format!("port-{number}"), [10, 77, 0, 2], 120).encode();
                wrong_port.send(&packet).expect("the LAN takes packets");
                let packet = says(&format!("routed-{number}"), [10, 77, 0, 2], 120).encode();
                routed.send_to(&packet, to_us).expect("there is a route");
            }
            let query = landbridge_query();
            routed.send_to(&query, to_us).expect("there is a route");
            routed
                .set_read_timeout(Some(Duration::from_secs(2)))
                .expect("a socket");
            let answer = routed.recv_from(&mut [0; 9000]);
            assert!(answer.is_err(), "who asks through a router is not answered");
        });
        // What comes after it is heard, and nothing before it was.
        let socket = lan.inside(1, || forger([10, 77, 0, 2], 5353));
        let packet = says(MILAN, [10, 77, 0, 2], 120).encode();
        socket.send(&packet).expect("the LAN takes packets");
        let first = rome.sees(|_| true);
        assert_eq!(first.instance, MILAN);
    });
}

/// A question for everybody, as an ordinary resolver asks it.
fn landbridge_query() -> Vec<u8> {
    let name = Name::from_text("_landbridge._tcp.local").expect("a name");
    let question = landbridge::discovery::mdns::wire::Question {
        name,
        kind: landbridge::discovery::mdns::wire::kind::PTR,
        unicast: false,
    };
    let query = Packet {
        questions: vec![question],
        ..Packet::default()
    };
    query.encode()
}

#[test]
fn forged_goodbyes_and_addresses_take_nothing_away() {
    let test = "forgery::forged_goodbyes_and_addresses_take_nothing_away";
    in_namespaces(test, || {
        let lan = Lan::new(3);
        let rome = Host::start(&lan, 0, announcement(ROME, "rome"));
        let _milan = Host::start(&lan, 1, announcement(MILAN, "milan"));
        rome.sees(|sighting| has_address(sighting, 2));
        // One forger speaks from its own address, one from Milan's.
        lan.ip(2, "addr add 10.77.0.2/32 dev eth0");
        let own = lan.inside(2, || forger([10, 77, 0, 3], 5353));
        let stolen = lan.inside(2, || forger([10, 77, 0, 2], 5353));
        let end = Instant::now() + Duration::from_secs(8);
        while Instant::now() < end {
            for socket in [&own, &stolen] {
                let goodbye = says(MILAN, [10, 77, 0, 2], 0).encode();
                socket.send(&goodbye).expect("the LAN takes packets");
            }
            for address in [[10, 77, 0, 2], [10, 77, 0, 3]] {
                let lie = says(MILAN, address, 120).encode();
                own.send(&lie).expect("the LAN takes packets");
            }
            thread::sleep(Duration::from_millis(100));
            while let Ok(event) = rome.events.try_recv() {
                match event {
                    Event::Gone { instance, .. } => panic!("{instance} is gone"),
                    Event::Seen(sighting) => {
                        assert!(has_address(&sighting, 2), "{sighting:?}");
                        assert_eq!(sighting.boot.as_deref(), Some("boot00milan"));
                    }
                }
            }
        }
    });
}

#[test]
fn who_names_us_in_a_later_packet_is_not_answered() {
    let test = "forgery::who_names_us_in_a_later_packet_is_not_answered";
    in_namespaces(test, || {
        let lan = Lan::new(2);
        let rome = Host::start(&lan, 0, announcement(ROME, "rome"));
        rome.reaches(|health| matches!(health, landbridge::discovery::Health::Working { .. }));
        // Between the third and the fourth repetition of its announcement it says nothing unasked.
        thread::sleep(Duration::from_secs(12));
        lan.inside(1, || {
            let asker = forger([10, 77, 0, 2], 5353);
            let ear = ear([10, 77, 0, 2]);
            let mut question = Packet::decode(&landbridge_query()).expect("it is well formed");
            question.is_truncated = true;
            let mut known = says(ROME, [10, 77, 0, 1], 120);
            known.is_response = false;
            for record in &mut known.answers {
                let service = Name::from_text("_landbridge._tcp.local").expect("a name");
                if let Data::Ptr(instance) = &mut record.data {
                    *instance = Name::under(ROME, &service).expect("a short label");
                    record.name = service;
                }
            }
            for packet in [&question, &known] {
                asker.send(&packet.encode()).expect("the LAN takes packets");
            }
            assert!(!is_answered(&ear), "it is known");
            asker
                .send(&question.encode())
                .expect("the LAN takes packets");
            assert!(is_answered(&ear), "the rest never came");
        });
    });
}

#[test]
fn whoever_starts_asks_for_answers_to_all_and_to_itself() {
    let test = "forgery::whoever_starts_asks_for_answers_to_all_and_to_itself";
    in_namespaces(test, || {
        let lan = Lan::new(2);
        let ear = lan.inside(1, || ear([10, 77, 0, 2]));
        let _rome = Host::start(&lan, 0, announcement(ROME, "rome"));
        let mut wanted = BTreeSet::new();
        let mut buffer = [0; 9000];
        while wanted.len() < 2 {
            let length = ear.recv(&mut buffer).expect("it asks both ways");
            let packet = Packet::decode(&buffer[..length]).expect("it is well formed");
            wanted.extend(packet.questions.iter().map(|question| question.unicast));
        }
        // Who has just spoken to all answers the one alone, without the second that RFC 6762 asks for.
        let asker = lan.inside(1, || UdpSocket::bind("10.77.0.2:5353"));
        let asker = asker.expect("the port is free");
        let mut question = Packet::decode(&landbridge_query()).expect("it is well formed");
        for question in &mut question.questions {
            question.unicast = true;
        }
        asker
            .send_to(&question.encode(), GROUP)
            .expect("the LAN takes packets");
        asker
            .set_read_timeout(Some(Duration::from_secs(3)))
            .expect("a socket");
        let length = asker.recv(&mut buffer).expect("it is answered alone");
        let packet = Packet::decode(&buffer[..length]).expect("it is well formed");
        assert!(packet.is_response && !packet.answers.is_empty());
    });
}

/// Opens the socket of somebody who hears what everybody on the LAN is told.
fn ear(address: [u8; 4]) -> UdpSocket {
    let socket = UdpSocket::bind(GROUP).expect("the group's port is free");
    socket
        .join_multicast_v4(&GROUP.0, &address.into())
        .expect("the LAN has multicast");
    socket
        .set_read_timeout(Some(Duration::from_secs(3)))
        .expect("a socket");
    socket
}

/// Waits for an answer, for as long as the socket has patience.
fn is_answered(ear: &UdpSocket) -> bool {
    let mut buffer = [0; 9000];
    while let Ok(length) = ear.recv(&mut buffer) {
        let packet = Packet::decode(&buffer[..length]).expect("it is well formed");
        if packet.is_response && !packet.answers.is_empty() {
            return true;
        }
    }
    false
}

#[test]
fn malformed_packets_are_survived() {
    in_namespaces("forgery::malformed_packets_are_survived", || {
        let lan = Lan::new(3);
        let rome = Host::start(&lan, 0, announcement(ROME, "rome"));
        rome.reaches(|health| matches!(health, landbridge::discovery::Health::Working { .. }));
        let mut packets = corpus("mdns");
        packets.push(vec![0xff; 8_972]);
        let socket = lan.inside(2, || forger([10, 77, 0, 3], 5353));
        for packet in &packets {
            // Longer ones than the interface takes are sent in fragments.
            socket.send(packet).expect("the LAN takes packets");
            thread::sleep(Duration::from_millis(10));
        }
        let _milan = Host::start(&lan, 1, announcement(MILAN, "milan"));
        rome.sees(|sighting| has_address(sighting, 2));
    });
}

#[test]
fn what_fuzzers_should_find_is_replayed() {
    for input in corpus("mdns") {
        packets::mdns(&input);
    }
    for input in corpus("txt") {
        packets::txt(&input);
    }
}

/// The inputs that are kept for a fuzz target.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let files = std::fs::read_dir(folder).expect("the corpus");
    let inputs: Vec<Vec<u8>> = files
        .map(|file| std::fs::read(file.expect("a file").path()).expect("an input"))
        .collect();
    assert!(inputs.len() >= 10, "the corpus of {target} is there");
    inputs
}
