//! What is on the wire: everything that an old Liqo needs, what the switches say, and nothing when
//! they are off.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use hickory_proto::{
    op::Message,
    rr::{RData, Record, RecordType},
};
use landbridge::discovery::mdns::wire::{Data, Packet};
use serde_json::{Value, json};

use crate::{
    PATIENCE,
    lab::{self, Lab},
    multicast::{announcement, listen, question, responses, say, socket},
    policy::switch,
};

/// Reads packets with another program's parser.
fn read(packets: &[Vec<u8>]) -> Vec<Message> {
    packets
        .iter()
        .map(|packet| Message::from_vec(packet).expect("others can read it"))
        .collect()
}

/// Waits for a packet from a machine, asking for it now and then.
#[expect(clippy::panic, reason = "who is never heard fails the test")]
fn until_heard<T>(lab: &Lab, from: &str, what: &str, wanted: impl Fn(&Message) -> Option<T>) -> T {
    let ear = socket(lab, "ear", lab.address("ear"));
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        say(&ear, &question("_liqo_auth._tcp.local"));
        let heard = listen(&ear, lab.address(from), Duration::from_secs(2));
        if let Some(found) = read(&heard).iter().find_map(&wanted) {
            return found;
        }
    }
    panic!("never heard from {from}: {what}\n{}", lab.story());
}

fn of(message: &Message, kind: RecordType) -> Vec<&Record> {
    let records = message.answers.iter().chain(&message.additionals);
    records
        .filter(|record| record.record_type() == kind)
        .collect()
}

#[test]
fn an_old_liqo_finds_all_that_it_needs_in_one_packet() {
    let Some(lab) = Lab::new(&["rome", "ear"]) else {
        return;
    };
    lab.start("rome");
    let packet = until_heard(&lab, "rome", "an announcement", |message| {
        (!of(message, RecordType::SRV).is_empty()).then(|| message.clone())
    });
    let service = "_liqo_auth._tcp.local.";
    let pointers = of(&packet, RecordType::PTR);
    let instance = pointers
        .iter()
        .find(|record| record.name.to_ascii() == service)
        .and_then(|record| {
            let RData::PTR(name) = &record.data else {
                return None;
            };
            Some(name.0.clone())
        })
        .expect("a pointer under Liqo's type");
    let servers = of(&packet, RecordType::SRV);
    let server = servers
        .iter()
        .find(|record| record.name == instance)
        .and_then(|record| {
            let RData::SRV(server) = &record.data else {
                return None;
            };
            Some(server.clone())
        })
        .expect("a server of that instance");
    let texts = of(&packet, RecordType::TXT);
    assert!(texts.iter().any(|record| record.name == instance));
    let addresses = of(&packet, RecordType::A);
    let address = addresses.first().expect("an IPv4 address");
    // Byte for byte: Liqo compares the two as text.
    assert_eq!(address.name.to_ascii(), server.target.to_ascii());
    let RData::A(ip) = &address.data else {
        panic!("an A record holds an address");
    };
    assert_eq!(ip.0, lab.address("rome"));
    let ttls = packet.answers.iter().chain(&packet.additionals);
    assert!(ttls.into_iter().all(|record| record.ttl == 90), "{packet}");
    let place = SocketAddr::new(IpAddr::V4(ip.0), server.port);
    lab.within("ear", move || {
        TcpStream::connect_timeout(&place, Duration::from_millis(500)).expect("it answers");
    });
    let url = format!("https://{place}/ids");
    let ids = lab.output("ear", &["curl", "--silent", "--insecure", &url]);
    if lab::installed(&["curl"]) {
        let ids: Value = serde_json::from_str(&ids).expect("JSON");
        let id = ids["clusterId"].as_str().expect("an id");
        assert!(instance.to_ascii().starts_with(id));
        assert!(ids["clusterName"] == "rome" && ids["guestNamespace"] == "liqo");
    }
}

#[test]
fn an_old_liqo_that_says_nothing_of_itself_is_asked() {
    let Some(mut lab) = Lab::new(&["rome", "milan", "ear"]) else {
        return;
    };
    lab.set(
        "LANDBRIDGE_CLUSTER_CONFIG",
        "{discoveryConfig: {autojoin: false, enableAdvertisement: false}}",
    );
    lab.start_all_but(&["ear"]);
    let voice = socket(&lab, "ear", lab.address("ear"));
    let packet = announcement("liqo-of-old", lab.address("milan"), "", 120);
    let found = lab.until(PATIENCE, "rome knows who is there", || {
        say(&voice, &packet);
        lab.peer("rome", "milan")
    });
    let id = lab.status("milan")["clusterID"].clone();
    assert_eq!(found["spec"]["clusterIdentity"]["clusterID"], id);
    assert_eq!(found["spec"]["discoveryType"], "LAN");
}

#[test]
fn the_switches_act_on_the_wire_and_off_is_silent() {
    let Some(lab) = Lab::new(&["rome", "ear"]) else {
        return;
    };
    lab.start("rome");
    switch(&lab, "rome", &json!({"ttl": 45, "clusterName": "roma"}));
    until_heard(&lab, "rome", "the new name and time", |message| {
        let texts = of(message, RecordType::TXT);
        let told = texts
            .iter()
            .any(|record| record.ttl == 45 && record.data.to_string().contains("name=roma"));
        told.then_some(())
    });
    let ear = socket(&lab, "ear", lab.address("ear"));
    let rome = lab.address("rome");
    switch(
        &lab,
        "rome",
        &json!({"enableAdvertisement": false, "enableDiscovery": false}),
    );
    let end = Instant::now() + PATIENCE;
    let is_goodbye = |message: &Message| message.answers.iter().all(|record| record.ttl == 0);
    while !read(&listen(&ear, rome, Duration::from_secs(1)))
        .iter()
        .any(|message| !message.answers.is_empty() && is_goodbye(message))
    {
        assert!(Instant::now() < end, "no goodbye\n{}", lab.story());
    }
    listen(&ear, rome, Duration::from_millis(500));
    for service in ["_liqo_auth._tcp.local", "_landbridge._tcp.local"] {
        say(&ear, &question(service));
    }
    lab.ip(Some("rome"), "address add 10.77.0.77/24 dev eth0");
    for own in [rome, Ipv4Addr::new(10, 77, 0, 77)] {
        let heard = listen(&ear, own, Duration::from_secs(3));
        assert_eq!(heard, Vec::<Vec<u8>>::new(), "off is silent");
    }
    switch(&lab, "rome", &json!({"enableDiscovery": true}));
    let heard = read(&listen(&ear, rome, Duration::from_secs(2)));
    assert!(heard.iter().any(|message| !message.queries.is_empty()));
    assert!(heard.iter().all(|message| message.answers.is_empty()));
    switch(&lab, "rome", &json!({"enableAdvertisement": true}));
    until_heard(&lab, "rome", "it is back", |message| {
        (!of(message, RecordType::SRV).is_empty()).then_some(())
    });
}

/// The addresses that a machine has on an interface.
fn addresses_on(lab: &Lab, machine: &str, interface: &str) -> BTreeSet<IpAddr> {
    let words = ["ip", "-o", "address", "show", "dev", interface];
    let shown = lab.output(machine, &words);
    let addresses = shown.lines().filter_map(|line| {
        let (address, _) = line.split_whitespace().nth(3)?.split_once('/')?;
        address.parse().ok()
    });
    addresses.collect()
}

/// The addresses that packets name.
fn addresses_in(packets: &[Packet]) -> BTreeSet<IpAddr> {
    let records = packets.iter().flat_map(Packet::records);
    let addresses = records.filter_map(|record| match record.data {
        Data::A(v4) => Some(IpAddr::V4(v4)),
        Data::Aaaa(v6) => Some(IpAddr::V6(v6)),
        Data::Ptr(_) | Data::Srv { .. } | Data::Txt(_) => None,
    });
    addresses.collect()
}

#[test]
fn each_lan_hears_of_its_own_addresses_and_a_denied_one_of_nothing() {
    let Some(lab) = Lab::new(&["rome", "ear"]) else {
        return;
    };
    lab.second_lan(&["rome", "ear"]);
    lab.start("rome");
    let hear = |net, how_long| ask(&lab, net, how_long);
    for (net, interface) in [(77, "eth0"), (78, "eth1")] {
        let own = addresses_on(&lab, "rome", interface);
        lab.until(PATIENCE, &format!("all of {interface} is told"), || {
            let told = addresses_in(&responses(&hear(net, Duration::from_secs(2))));
            assert!(told.is_subset(&own), "{told:?} on {interface}");
            (told == own).then_some(())
        });
    }
    lab.terminate("rome");
    lab.spawn("rome", &[("LANDBRIDGE_LAN_INTERFACES_DENY", "eth1")]);
    lab.until(PATIENCE, "heard on eth0", || {
        let told = responses(&hear(77, Duration::from_secs(2)));
        told.iter()
            .any(|packet| packet.records().any(|record| record.ttl > 0))
            .then_some(())
    });
    let heard = hear(78, Duration::from_secs(4));
    assert_eq!(heard, Vec::<Vec<u8>>::new(), "eth1 is denied");
}

#[test]
fn who_listens_on_one_address_announces_that_one_alone() {
    let Some(lab) = Lab::new(&["rome", "ear"]) else {
        return;
    };
    lab.second_lan(&["rome", "ear"]);
    let own = lab.address("rome");
    let place = format!("{own}:5870");
    lab.spawn("rome", &[("LANDBRIDGE_PEER_LISTEN", &place)]);
    let told = lab.until(PATIENCE, "heard on eth0", || {
        let told = addresses_in(&responses(&ask(&lab, 77, Duration::from_secs(2))));
        (!told.is_empty()).then_some(told)
    });
    assert_eq!(told, [IpAddr::V4(own)].into());
    let heard = ask(&lab, 78, Duration::from_secs(4));
    assert_eq!(heard, Vec::<Vec<u8>>::new(), "nobody listens on eth1");
}

#[test]
fn who_listens_in_ipv4_alone_announces_no_address_of_ipv6() {
    let Some(lab) = Lab::new(&["rome", "ear"]) else {
        return;
    };
    lab.ip(Some("rome"), "address add fd77::1/64 dev eth0 nodad");
    lab.spawn("rome", &[("LANDBRIDGE_PEER_LISTEN", "0.0.0.0:5870")]);
    let told = lab.until(PATIENCE, "heard on eth0", || {
        let told = addresses_in(&responses(&ask(&lab, 77, Duration::from_secs(2))));
        (!told.is_empty()).then_some(told)
    });
    assert_eq!(told, [IpAddr::V4(lab.address("rome"))].into());
    assert_eq!(lab.status("rome")["lanEndpoints"], "10.77.0.1:5870");
}

#[test]
fn who_listens_on_one_address_of_ipv6_finds_others_and_is_found_there() {
    let Some(lab) = Lab::new(&["rome", "milan"]) else {
        return;
    };
    for (machine, host) in [("rome", 1), ("milan", 2)] {
        let address = lab.address(machine);
        lab.ip(Some(machine), &format!("address del {address}/24 dev eth0"));
        lab.ip(
            Some(machine),
            &format!("address add fd77::{host}/64 dev eth0 nodad"),
        );
    }
    let place = "[fd77::1]:5870";
    lab.spawn("rome", &[("LANDBRIDGE_PEER_LISTEN", place)]);
    lab.until(PATIENCE, "rome is ready", || {
        lab.try_request("rome", "GET", "/readyz", &Value::Null).ok()
    });
    lab.start("milan");
    for (here, there) in lab.pairs() {
        lab.until(PATIENCE, &format!("{here} has found {there}"), || {
            lab.peer(here, there)
        });
    }
    let url = format!("https://{place}");
    lab.until(PATIENCE, "milan reaches rome there", || {
        let found = lab.peer("milan", "rome")?;
        (found["spec"]["authUrl"] == url.as_str()).then_some(())
    });
    std::thread::sleep(Duration::from_secs(8));
    let told = lab.landbridge("rome", &["status"]);
    assert!(!told.contains("LanDiscovery is"), "{told}");
}

/// Asks rome who is there on one of its LANs, and returns what it says.
fn ask(lab: &Lab, net: u8, how_long: Duration) -> Vec<Vec<u8>> {
    let [ear, rome] = [2, 1].map(|host| Ipv4Addr::new(10, net, 0, host));
    let ear = socket(lab, "ear", ear);
    for service in ["_liqo_auth._tcp.local", "_landbridge._tcp.local"] {
        say(&ear, &question(service));
    }
    listen(&ear, rome, how_long)
}

#[test]
fn whoever_is_new_is_answered_at_once() {
    let Some(lab) = Lab::new(&["rome", "ear"]) else {
        return;
    };
    lab.start("rome");
    let (ear, rome) = (socket(&lab, "ear", lab.address("ear")), lab.address("rome"));
    let answers = |seconds| responses(&listen(&ear, rome, Duration::from_secs(seconds)));
    answers(12);
    lab.until(PATIENCE, "rome is at rest", || {
        answers(3).is_empty().then_some(())
    });
    // Nobody asks, so that what comes is the answer to the announcement.
    say(&ear, &announcement("newcomer", lab.address("ear"), "", 120));
    let told = answers(3);
    let is_whole = |packet: &Packet| {
        packet
            .records()
            .any(|record| matches!(record.data, Data::Srv { .. }))
    };
    assert!(told.iter().any(is_whole), "{told:?}\n{}", lab.story());
}
