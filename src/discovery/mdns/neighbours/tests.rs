//! The table of neighbours: what packets and time make of it, and what forgeries do not.

mod chance;
mod forgery;

use super::*;
use crate::{
    discovery::{
        interfaces::Link,
        mdns::{responder::Responder, wire::kind},
        source::Announcement,
    },
    engine::sighting::Sighting,
};

const OWN: &str = "00000000-0000-8000-8000-000000000000";
const ROME: &str = "0f1e2d3c-4b5a-8697-8877-665544332211";
const TTL_OF_ROME: Duration = Duration::from_secs(90);

fn neighbours() -> Neighbours {
    Neighbours::new(OWN.parse().expect("a UUID"), "aaaa".to_owned())
}

fn links() -> Links {
    let link = |index, nets: &[&str]| Link {
        index,
        subnets: nets.iter().map(|net| net.parse().expect("nets")).collect(),
        said: Vec::new(),
    };
    [
        ("eth0".to_owned(), link(2, &["10.0.0.5/24", "fe80::5/64"])),
        ("wlan0".to_owned(), link(3, &["10.0.0.6/24"])),
    ]
    .into_iter()
    .collect()
}

fn announcement(id: &str, name: &str) -> Announcement {
    Announcement {
        cluster_id: id.parse().expect("an id"),
        name: ClusterName::neutralise(name),
        boot: "bbbb".to_owned(),
        port: 5870,
        ttl: TTL_OF_ROME,
        advertise: true,
        discover: true,
    }
}

fn responder(id: &str) -> Responder {
    Responder::new(&announcement(id, "rome")).expect("an id is a label")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("the test names an address")
}

fn from(interface: u32, source: &str) -> Origin {
    Origin {
        interface,
        source: ip(source),
    }
}

fn says(id: &str, addresses: &[&str]) -> Packet {
    responder(id).announcement(addresses.iter().map(|text| ip(text)), false)
}

fn drain(table: &mut Neighbours) -> Vec<Event> {
    std::iter::from_fn(|| table.poll_event()).collect()
}

fn sightings(events: &[Event]) -> Vec<&Sighting> {
    let seen = events.iter().filter_map(|event| match event {
        Event::Seen(sighting) => Some(sighting),
        Event::Gone { .. } => None,
    });
    seen.collect()
}

fn are_gone(events: &[Event], id: &str) -> bool {
    matches!(events, [Event::Gone { instance, .. }] if instance == id)
}

/// Lets time pass, stopping wherever the table asks for it.
fn wait(table: &mut Neighbours, links: &Links, until: Instant) -> Vec<Event> {
    let mut events = drain(table);
    while let Some(due) = table.next_timer().filter(|due| *due <= until) {
        table.handle_timeout(links, due);
        events.extend(drain(table));
    }
    events
}

fn after(start: Instant, milliseconds: u64) -> Instant {
    start + Duration::from_millis(milliseconds)
}

/// A table that knows Rome at 10.0.0.9, as of `now`.
fn with_rome(links: &Links, now: Instant) -> Neighbours {
    let mut table = neighbours();
    let packet = says(ROME, &["10.0.0.9"]);
    assert!(table.hear(&packet, from(2, "10.0.0.9"), links, now));
    assert_eq!(sightings(&drain(&mut table)).len(), 1);
    table
}

#[test]
fn what_is_announced_under_both_types_is_one_advertisement() {
    let (mut table, links, now) = (neighbours(), links(), Instant::now());
    let packet = says(ROME, &["10.0.0.9", "10.0.0.8", "fe80::9"]);
    assert!(table.hear(&packet, from(2, "10.0.0.9"), &links, now));
    let events = drain(&mut table);
    let seen = sightings(&events);
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].cluster_id, ROME.parse().ok());
    assert_eq!(seen[0].name.as_str(), "rome");
    assert_eq!(seen[0].ttl, TTL_OF_ROME);
    let endpoints: Vec<String> = seen[0].endpoints.iter().map(ToString::to_string).collect();
    assert_eq!(
        endpoints,
        ["10.0.0.9:5870", "10.0.0.8:5870", "[fe80::9%2]:5870"]
    );
    assert!(!table.hear(&packet, from(2, "10.0.0.9"), &links, now));
    assert_eq!(drain(&mut table), [], "it was said before");
    assert!(table.take_questions().is_empty(), "nothing is missing");
}

#[test]
fn addresses_that_are_not_next_to_us_are_left_out_until_they_are() {
    let (mut table, now) = (neighbours(), Instant::now());
    let packet = says(ROME, &["203.0.113.9"]);
    table.hear(&packet, from(2, "10.0.0.9"), &links(), now);
    assert_eq!(drain(&mut table), []);
    let wider = Link {
        index: 2,
        subnets: vec!["203.0.113.1/24".parse().expect("a net")],
        said: Vec::new(),
    };
    let wider: Links = [("eth0".to_owned(), wider)].into_iter().collect();
    table.links_changed(&wider, now);
    assert_eq!(sightings(&drain(&mut table)).len(), 1);
}

#[test]
fn an_interface_that_goes_away_is_taken_back() {
    let (mut table, links, now) = (neighbours(), links(), Instant::now());
    let packet = says(ROME, &["10.0.0.9"]);
    for interface in [2, 3] {
        table.hear(&packet, from(interface, "10.0.0.9"), &links, now);
    }
    assert_eq!(sightings(&drain(&mut table)).len(), 2);
    let left: Links = links
        .iter()
        .filter(|(name, _)| *name == "eth0")
        .map(|(name, link)| (name.to_owned(), link.clone()))
        .collect();
    table.links_changed(&left, now);
    let events = drain(&mut table);
    let seen = sightings(&events);
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].interface.as_deref(), Some("wlan0"));
    assert!(seen[0].endpoints.is_empty());
}

#[test]
fn we_are_not_our_own_neighbour_and_a_clone_is() {
    let (mut table, links, now) = (neighbours(), links(), Instant::now());
    let mut silent = says(OWN, &["10.0.0.9"]);
    for record in &mut silent.answers {
        if let Data::Txt(text) = &mut record.data {
            *text = vec![0];
        }
    }
    table.hear(&silent, from(2, "10.0.0.9"), &links, now);
    assert_eq!(drain(&mut table), []);
    let packet = says(OWN, &["10.0.0.9"]);
    table.hear(&packet, from(2, "10.0.0.9"), &links, now);
    let events = drain(&mut table);
    assert_eq!(sightings(&events)[0].boot.as_deref(), Some("bbbb"));
}

#[test]
fn it_holds_for_as_long_as_its_owner_says_and_is_asked_for_before() {
    let (links, start) = (links(), Instant::now());
    let mut table = with_rome(&links, start);
    let events = wait(&mut table, &links, after(start, 71_000));
    assert_eq!(sightings(&events).len(), 1, "repeated after 40 s");
    assert!(table.take_questions().is_empty());
    wait(&mut table, &links, after(start, 75_000));
    let asked: BTreeSet<u16> = table.take_questions().iter().map(|one| one.kind).collect();
    assert_eq!(asked, BTreeSet::from([kind::A, kind::AAAA, kind::SRV]));
    // An answer makes it hold as long again.
    let packet = says(ROME, &["10.0.0.9"]);
    table.hear(&packet, from(2, "10.0.0.9"), &links, after(start, 80_000));
    let events = wait(&mut table, &links, after(start, 169_000));
    assert!(
        !events
            .iter()
            .any(|event| matches!(event, Event::Gone { .. }))
    );
    assert!(are_gone(
        &wait(&mut table, &links, after(start, 170_100)),
        ROME
    ));
    assert_eq!((table.rows.len(), table.hosts.len()), (0, 0));
    assert_eq!(table.next_timer(), None);
}

#[test]
fn a_goodbye_of_its_owner_counts_after_a_second_unless_it_comes_back() {
    let (links, start) = (links(), Instant::now());
    let mut table = with_rome(&links, start);
    let goodbye = responder(ROME).goodbye([ip("10.0.0.9")].into_iter());
    table.hear(&goodbye, from(2, "10.0.0.9"), &links, after(start, 1_000));
    assert!(
        table.take_questions().is_empty(),
        "its owner need not be asked"
    );
    let packet = says(ROME, &["10.0.0.9"]);
    table.hear(&packet, from(2, "10.0.0.9"), &links, after(start, 1_900));
    assert_eq!(wait(&mut table, &links, after(start, 9_000)), []);
    table.hear(&goodbye, from(2, "10.0.0.9"), &links, after(start, 10_000));
    assert_eq!(wait(&mut table, &links, after(start, 10_900)), []);
    assert!(are_gone(
        &wait(&mut table, &links, after(start, 11_100)),
        ROME
    ));
}

#[test]
fn a_new_address_replaces_the_old_one_and_a_forged_one_does_not() {
    let (links, start) = (links(), Instant::now());
    let mut table = with_rome(&links, start);
    let moved = says(ROME, &["10.0.0.99"]);
    table.hear(&moved, from(2, "10.0.0.99"), &links, after(start, 5_000));
    let events = drain(&mut table);
    assert_eq!(sightings(&events)[0].endpoints.len(), 2);
    assert!(
        !table.take_questions().is_empty(),
        "is the old one still there?"
    );
    let events = wait(&mut table, &links, after(start, 7_100));
    let endpoints = &sightings(&events)[0].endpoints;
    assert_eq!(endpoints.len(), 1);
    assert_eq!(endpoints[0].ip(), ip("10.0.0.99"));

    let mut table = with_rome(&links, start);
    table.hear(&moved, from(2, "10.0.0.66"), &links, after(start, 5_000));
    drain(&mut table);
    let packet = says(ROME, &["10.0.0.9"]);
    table.hear(&packet, from(2, "10.0.0.9"), &links, after(start, 5_100));
    wait(&mut table, &links, after(start, 9_000));
    let told = &table.rows[ROME].known_answers(after(start, 9_000));
    assert_eq!(told.len(), 2, "both types stand");
    let addresses = table.hosts.values().flat_map(Host::addresses);
    assert!(
        addresses
            .into_iter()
            .any(|(_, address)| address == ip("10.0.0.9"))
    );
}

#[test]
fn what_is_doubted_is_gone_after_two_seconds_without_an_answer() {
    let (links, start) = (links(), Instant::now());
    let mut table = with_rome(&links, start);
    table.verify(ROME, after(start, 1_000));
    assert!(!table.take_questions().is_empty());
    assert_eq!(wait(&mut table, &links, after(start, 2_500)), []);
    assert!(!table.take_questions().is_empty(), "asked once more");
    assert!(are_gone(
        &wait(&mut table, &links, after(start, 3_100)),
        ROME
    ));

    let mut table = with_rome(&links, start);
    table.verify(ROME, after(start, 1_000));
    let packet = says(ROME, &["10.0.0.9"]);
    table.hear(&packet, from(2, "10.0.0.9"), &links, after(start, 1_100));
    assert_eq!(wait(&mut table, &links, after(start, 10_000)), []);
    table.verify("nobody", start);
}

#[test]
fn of_two_interfaces_only_the_one_that_answers_is_left_after_a_doubt() {
    let (links, start) = (links(), Instant::now());
    let mut table = with_rome(&links, start);
    let wireless = says(ROME, &["10.0.0.10"]);
    table.hear(&wireless, from(3, "10.0.0.10"), &links, start);
    drain(&mut table);
    table.verify(ROME, after(start, 1_000));
    table.hear(&wireless, from(3, "10.0.0.10"), &links, after(start, 1_100));
    let events = wait(&mut table, &links, after(start, 3_500));
    let gone = sightings(&events);
    assert_eq!(gone.len(), 1, "{events:?}");
    assert_eq!(gone[0].interface.as_deref(), Some("eth0"));
    assert!(gone[0].endpoints.is_empty());
}

#[test]
fn what_is_missing_is_asked_for_and_forgotten_when_nobody_answers() {
    let (mut table, links, start) = (neighbours(), links(), Instant::now());
    let mut pointer = says(ROME, &[]);
    pointer.answers.truncate(1);
    table.hear(&pointer, from(2, "10.0.0.9"), &links, start);
    let mut asked = 0;
    while let Some(due) = table.next_timer() {
        table.handle_timeout(&links, due);
        asked += usize::from(!table.take_questions().is_empty());
        assert!(due <= start + INCOMPLETE_AT_MOST);
    }
    assert_eq!((asked, table.rows.len()), (3, 0));

    table.hear(&pointer, from(2, "10.0.0.9"), &links, start);
    table.handle_timeout(&links, start);
    let mut rest = says(ROME, &["10.0.0.9"]);
    rest.answers
        .retain(|record| !matches!(record.data, Data::Ptr(_)));
    table.hear(&rest, from(2, "10.0.0.9"), &links, after(start, 50));
    assert_eq!(sightings(&drain(&mut table)).len(), 1);
}

const INCOMPLETE_AT_MOST: Duration = Duration::from_secs(10);

/// What Rome says without the record that describes it.
fn undescribed() -> Packet {
    let mut packet = says(ROME, &["10.0.0.9"]);
    packet
        .answers
        .retain(|record| !matches!(record.data, Data::Txt(_)));
    packet
}

#[test]
fn without_a_description_it_is_told_when_asking_was_in_vain() {
    let (mut table, links, start) = (neighbours(), links(), Instant::now());
    table.hear(&undescribed(), from(2, "10.0.0.9"), &links, start);
    assert_eq!(drain(&mut table), []);
    let events = wait(&mut table, &links, after(start, 4_000));
    assert_eq!(sightings(&events)[0].cluster_id, None);
}

#[test]
fn an_instance_name_that_could_deceive_is_ignored() {
    let service = Name::from_text("_liqo_auth._tcp.local").expect("a name");
    for (label, expected) in [
        (&b"rome"[..], Some("rome")),
        (b"Rome 2.0", Some("Rome 2.0")),
        ("ro\u{202e}me".as_bytes(), None),
        (b"ro\xffme", None),
        (b"ro\x1bme", None),
    ] {
        let labels = [label, b"_LIQO_auth", b"_tcp", b"local"];
        let name = Name::from_labels(labels).expect("a name");
        assert_eq!(instance_of(&name, &service).as_deref(), expected);
    }
    assert_eq!(instance_of(&service, &service), None);
}

#[test]
fn an_advertisement_without_a_description_is_told_and_stays() {
    let (mut table, links, start) = (neighbours(), links(), Instant::now());
    let packet = undescribed();
    table.hear(&packet, from(2, "10.0.0.9"), &links, start);
    let events = wait(&mut table, &links, after(start, 5_000));
    assert_eq!(sightings(&events).len(), 1);
    for second in 5..300 {
        let now = after(start, second * 1_000);
        let asked = !table.take_questions().is_empty();
        if asked || second % 30 == 0 {
            table.hear(&packet, from(2, "10.0.0.9"), &links, now);
        }
        let events = wait(&mut table, &links, now);
        let seen = sightings(&events);
        assert_eq!(seen.len(), events.len(), "it is not gone");
        assert!(seen.iter().all(|one| !one.endpoints.is_empty()));
    }
}
