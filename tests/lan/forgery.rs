//! The daemon among forged packets: a flood hides nobody, and forged goodbyes end nothing.
//!
//! `LANDBRIDGE_LONG_TESTS=1` takes the full length: 60,000 packets and 60 seconds. How much of a core
//! a flood may take is asked of an optimised build: `LANDBRIDGE_PROGRAM=target/release/landbridge`.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use landbridge::discovery::mdns::wire::Packet;

use crate::{
    PATIENCE,
    lab::{self, Lab},
    multicast::{announcement, at_pace, listen, question, responses, say, socket},
    process::Process,
};

/// How long a real cluster may stay hidden in a flood.
const FOUND_WITHIN: Duration = Duration::from_secs(10);

/// A flood: so many packets, a thousand a second.
fn flood_packets() -> u64 {
    if is_long() { 60_000 } else { 12_000 }
}

fn is_long() -> bool {
    std::env::var_os("LANDBRIDGE_LONG_TESTS").is_some()
}

/// Forges clusters until the flood is over and the real one is found; returns how many.
fn pour(sockets: &[(Ipv4Addr, UdpSocket)], is_found: &AtomicBool) -> u64 {
    let mut packets = 0;
    while packets < flood_packets() || !is_found.load(Ordering::Relaxed) {
        at_pace(1000, Duration::from_millis(1), |number| {
            let number = packets + number;
            let turn = usize::try_from(number).expect("small") % sockets.len();
            let (address, socket) = &sockets[turn];
            let id = format!("{number:08x}-4b5a-8697-8877-665544332211");
            let text = format!("id={id}");
            say(socket, &announcement(&id, *address, &text, 120));
        });
        packets += 1000;
    }
    packets
}

/// From one address, or from sixty.
fn flood(sources: u8) {
    let Some(lab) = Lab::new(&["rome", "turin", "milan", "mallory"]) else {
        return;
    };
    // A first peer, so that what a peering takes is there before the flood.
    for machine in ["rome", "turin"] {
        lab.start(machine);
    }
    lab.until_peered_among(&["rome", "turin"]);
    let addresses: Vec<Ipv4Addr> = (0..sources)
        .map(|number| Ipv4Addr::new(10, 77, 0, 100 + number))
        .collect();
    for address in &addresses {
        lab.ip(
            Some("mallory"),
            &format!("address add {address}/24 dev eth0"),
        );
    }
    let sockets: Vec<_> = addresses
        .iter()
        .map(|address| (*address, socket(&lab, "mallory", *address)))
        .collect();
    let rome = Process(lab.process("rome"));
    let (before, busy, start) = (rome.resident(), rome.processor_time(), Instant::now());
    let is_found = Arc::new(AtomicBool::new(false));
    let flood = {
        let is_found = Arc::clone(&is_found);
        thread::spawn(move || pour(&sockets, &is_found))
    };
    thread::sleep(Duration::from_secs(2));
    lab.start("milan");
    let ready = Instant::now();
    lab.until(PATIENCE, "rome has found milan in the flood", || {
        lab.peer("rome", "milan")
            .filter(|object| lab::condition(object, "IdentityVerified"))
    });
    let found = ready.elapsed();
    is_found.store(true, Ordering::Relaxed);
    let packets = flood.join().expect("the flood ends by itself");
    let busy = rome.processor_time().saturating_sub(busy);
    let share = busy.as_secs_f64() / start.elapsed().as_secs_f64();
    let grown = rome.resident().saturating_sub(before) / 1024;
    lab::note(&format!(
        "{packets} packets from {sources} addresses: found within {found:.1?}, \
         {share:.2} of a core, {grown} MiB more"
    ));
    assert!(found < FOUND_WITHIN, "found within {found:.1?}");
    assert!(grown < 32, "{grown} MiB more");
    // Without optimisation the daemon takes much longer, how much depends on the machine.
    assert!(share < 0.5 || !lab::is_optimised(), "{share:.2} of a core");
    let peers = lab.peers("rome");
    assert_eq!(peers.len(), 2, "nothing is made of what is not proven");
}

#[test]
fn a_flood_of_forged_clusters_hides_nobody() {
    flood(1);
}

#[test]
fn a_flood_of_forged_clusters_from_many_addresses_hides_nobody() {
    flood(60);
}

#[test]
fn forged_goodbyes_end_nothing() {
    let Some(lab) = Lab::new(&["rome", "milan", "mallory"]) else {
        return;
    };
    lab.start_all_but(&["mallory"]);
    lab.until_peered_among(&["rome", "milan"]);
    let own = socket(&lab, "mallory", lab.address("mallory"));
    let address = lab.address("milan");
    let goodbye = goodbye_of(&own, address);
    lab.ip(Some("mallory"), "address add 10.77.0.2/32 dev eth0");
    let stolen = socket(&lab, "mallory", address);
    let rome = SocketAddr::from((lab.address("rome"), 5353));
    let place = format!("https://{address}:5870");
    let times = if is_long() { 600 } else { 100 };
    at_pace(times, Duration::from_millis(100), |number| {
        // The one hears milan object, and the other milan does not hear.
        say(&stolen, &goodbye);
        own.send_to(&goodbye.encode(), rome)
            .expect("rome takes packets");
        if number % 5 == 0 {
            let object = lab.peer("rome", "milan").expect("the object stays");
            assert_eq!(object["status"]["phase"], "Peered", "{}", lab.story());
            let endpoints = object["status"]["endpoints"].as_array();
            let mut endpoints = endpoints.into_iter().flatten();
            assert!(
                endpoints.any(|one| one["url"] == place.as_str()),
                "{object}"
            );
        }
    });
}

/// Listens to how a cluster announces itself, and takes that back.
fn goodbye_of(socket: &UdpSocket, address: Ipv4Addr) -> Packet {
    say(socket, &question("_landbridge._tcp.local"));
    let heard = responses(&listen(socket, address, Duration::from_secs(3)));
    let mut packet = heard.into_iter().next().expect("it answers");
    for record in packet.answers.iter_mut().chain(&mut packet.additionals) {
        record.ttl = 0;
    }
    packet
}

#[test]
fn a_peer_that_falls_silent_is_missed() {
    let Some(lab) = Lab::new(&["rome", "milan"]) else {
        return;
    };
    lab.start_all();
    lab.until_peered();
    let start = Instant::now();
    lab.ip(Some("milan"), "link set eth0 down");
    lab.until(PATIENCE, "rome knows no place of milan's", || {
        let object = lab.peer("rome", "milan")?;
        let endpoints = object["status"]["endpoints"].as_array();
        endpoints.is_none_or(Vec::is_empty).then_some(())
    });
    let endpoint = start.elapsed();
    lab.until(PATIENCE, "rome says so", || {
        let object = lab.peer("rome", "milan")?;
        (object["status"]["phase"] == "Degraded").then_some(())
    });
    let state = start.elapsed();
    lab.ip(Some("milan"), "link set eth0 up");
    let back = Instant::now();
    lab.until_peered();
    lab::note(&format!(
        "silent death: endpoint gone after {endpoint:.1?}, state after {state:.1?}; back after {:.1?}",
        back.elapsed()
    ));
}

#[test]
fn the_rule_that_is_shipped_drops_what_no_neighbour_can_have_sent() {
    let Some(lab) = Lab::new(&["rome", "milan", "mallory"]) else {
        return;
    };
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/nftables/mdns.nft");
    for options in [&["-c", "-f", file][..], &["-f", file], &["-f", file]] {
        let loaded = lab.run("rome", &[&["nft"], options].concat());
        assert!(loaded.status.success(), "{options:?}: {loaded:?}");
    }
    let address = lab.address("mallory");
    let far = socket(&lab, "mallory", address);
    far.set_multicast_ttl_v4(254).expect("an option");
    let odd = lab.within("mallory", move || {
        UdpSocket::bind((address, 0)).expect("a free port")
    });
    odd.set_multicast_ttl_v4(255).expect("an option");
    lab.start_all_but(&["mallory"]);
    let packet = announcement("forged", address, "", 120);
    for voice in [&far, &odd] {
        say(voice, &packet);
    }
    lab.until(PATIENCE, "rome has found milan nevertheless", || {
        lab.peer("rome", "milan")
    });
    let table = ["nft", "list", "table", "inet", "landbridge_mdns"];
    let dropped = lab.until(PATIENCE, "both are dropped", || {
        let rules = lab.output("rome", &table);
        let counts = rules
            .lines()
            .filter(|line| line.contains("counter packets"));
        let hit = counts.filter(|line| !line.contains("packets 0 "));
        (hit.count() >= 2).then_some(rules)
    });
    assert!(dropped.contains("ip ttl != 255"), "{dropped}");
}
