//! Forgers: they keep nobody from hearing where and who a cluster is, end nothing, and take no room.

use super::*;
use crate::discovery::mdns::neighbours::asking::{DOUBTS_AT_ONCE, QUESTIONS_AT_ONCE};

const MILAN: &str = "11223344-4b5a-8697-8877-665544332211";

/// What a forger says of Rome: another port, and whatever addresses.
fn forged(addresses: &[&str]) -> Packet {
    let lie = Announcement {
        port: 1,
        ..announcement(ROME, "evil")
    };
    let forger = Responder::new(&lie).expect("an id is a label");
    forger.announcement(addresses.iter().map(|text| ip(text)), false)
}

/// Lets Rome speak, and returns who and where it is told to be then, the first eight places.
fn told_of_rome(table: &mut Neighbours) -> (Option<ClusterId>, Vec<String>) {
    let now = Instant::now();
    let packet = says(ROME, &["10.0.0.9", "fe80::9"]);
    table.hear(&packet, from(2, "10.0.0.9"), &links(), now);
    let events = drain(table);
    let last = *sightings(&events).last().expect("it is told");
    let places = last.endpoints.iter().take(8).map(ToString::to_string);
    (last.cluster_id.clone(), places.collect())
}

#[test]
fn a_cluster_is_told_where_it_is_however_many_placed_it_elsewhere_before() {
    for sources in [4, 16, 40] {
        let (mut table, now) = (neighbours(), Instant::now());
        for number in 0..sources {
            let address = format!("10.0.0.{}", 100 + number);
            table.hear(&forged(&[&address]), from(2, &address), &links(), now);
        }
        let (_, places) = told_of_rome(&mut table);
        assert_eq!(places[0], "10.0.0.9:5870", "{sources} sources: {places:?}");
    }
}

#[test]
fn who_names_addresses_of_others_gives_way_first() {
    let (mut table, now) = (neighbours(), Instant::now());
    let aside = says(ROME, &["10.0.0.8"]);
    table.hear(&aside, from(2, "10.0.0.8"), &links(), now);
    for number in 100..200 {
        let source = format!("10.0.0.{number}");
        let mut lie = forged(&["10.0.0.66"]);
        for record in &mut lie.answers {
            if let Data::Srv { target, .. } = &mut record.data {
                *target = Name::from_text("elsewhere.local").expect("a name");
            }
        }
        table.hear(&lie, from(2, &source), &links(), now);
    }
    let (_, places) = told_of_rome(&mut table);
    let both = ["10.0.0.8:5870", "10.0.0.9:5870"];
    assert_eq!(places[..2], both, "{places:?}");
}

#[test]
fn the_address_that_a_cluster_speaks_from_goes_before_those_that_are_only_named() {
    let (mut table, now) = (neighbours(), Instant::now());
    let others: Vec<String> = (10..40).map(|number| format!("10.0.0.{number}")).collect();
    let mut others: Vec<&str> = others.iter().map(String::as_str).collect();
    others.extend(["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.7"]);
    others.reverse();
    table.hear(&says(ROME, &others), from(2, "10.0.0.66"), &links(), now);
    let (_, places) = told_of_rome(&mut table);
    assert_eq!(places[0], "10.0.0.9:5870", "{places:?}");
}

#[test]
fn a_link_local_address_comes_last_and_is_not_left_out() {
    let (mut table, now) = (neighbours(), Instant::now());
    let addresses: Vec<String> = (10..20).map(|number| format!("10.0.0.{number}")).collect();
    let mut addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    addresses.push("fe80::9");
    let packet = says(ROME, &addresses);
    table.hear(&packet, from(2, "fe80::9"), &links(), now);
    let events = drain(&mut table);
    let places = &sightings(&events)[0].endpoints;
    assert_eq!(places.len(), 8);
    let last = places.last().map(ToString::to_string);
    assert_eq!(last.as_deref(), Some("[fe80::9%2]:5870"));
}

#[test]
fn who_describes_another_cluster_under_its_name_is_not_believed() {
    let milan = Record {
        cluster_id: MILAN.parse().ok(),
        ..Record::default()
    };
    for sources in [1, 4, 16] {
        let (mut table, now) = (neighbours(), Instant::now());
        for number in 0..sources {
            let mut lie = forged(&["10.0.0.66"]);
            for record in &mut lie.answers {
                if let Data::Txt(text) = &mut record.data {
                    *text = milan.encode();
                }
            }
            let source = format!("10.0.0.{}", 100 + number);
            table.hear(&lie, from(2, &source), &links(), now);
        }
        let (id, _) = told_of_rome(&mut table);
        assert_eq!(id, ROME.parse().ok(), "{sources} sources");
    }
}

#[test]
fn a_goodbye_from_elsewhere_only_makes_us_ask_and_only_once_a_second() {
    let (links, start) = (links(), Instant::now());
    let mut table = with_rome(&links, start);
    let goodbye = responder(ROME).goodbye([ip("10.0.0.9")].into_iter());
    let packet = says(ROME, &["10.0.0.9"]);
    let mut asked = 0;
    for step in 0..600 {
        let now = after(start, step * 100);
        table.hear(&goodbye, from(2, "10.0.0.66"), &links, now);
        if !table.take_questions().is_empty() {
            asked += 1;
            table.hear(&packet, from(2, "10.0.0.9"), &links, now);
        }
        let events = wait(&mut table, &links, now);
        assert!(events.iter().all(|event| match event {
            Event::Seen(sighting) => !sighting.endpoints.is_empty(),
            Event::Gone { .. } => false,
        }));
    }
    assert_eq!(asked, 60);
    let now = after(start, 60_000);
    table.hear(&goodbye, from(2, "10.0.0.66"), &links, now);
    assert!(are_gone(
        &wait(&mut table, &links, after(start, 62_100)),
        ROME
    ));
}

#[test]
fn a_source_has_sixteen_newcomers_and_takes_no_room_from_others() {
    let (mut table, links, start) = (neighbours(), links(), Instant::now());
    for number in 0..10_000 {
        let id = format!("forged-{number}");
        let now = after(start, number);
        table.hear(
            &says(&id, &["10.0.0.66"]),
            from(2, "10.0.0.66"),
            &links,
            now,
        );
    }
    assert_eq!(table.rows.len(), LIMIT_OF_SOURCE);
    let events = drain(&mut table).len();
    assert!(events < 100, "{events} events");
    let now = after(start, 10_000);
    assert!(table.hear(&says(ROME, &["10.0.0.9"]), from(2, "10.0.0.9"), &links, now));
}

#[test]
fn those_who_come_and_go_leave_nothing_on_a_host_that_somebody_stays_on() {
    let (links, mut now) = (links(), Instant::now());
    let mut table = with_rome(&links, now);
    let host = table.hosts.keys().next().expect("Rome is there").clone();
    for number in 0..20 {
        let mut lie = says(&format!("forged-{number}"), &["10.0.0.66"]);
        for record in &mut lie.answers {
            if let Data::Srv { target, .. } = &mut record.data {
                *target = host.clone();
            }
        }
        table.hear(&lie, from(2, "10.0.0.66"), &links, now);
        now += TTL_OF_ROME / 2;
        let packet = says(ROME, &["10.0.0.9"]);
        table.hear(&packet, from(2, "10.0.0.9"), &links, now);
        now += TTL_OF_ROME / 2;
        wait(&mut table, &links, now);
    }
    assert_eq!(table.rows.len(), 1);
    assert_eq!(table.hosts[&host].rows.len(), 1);
}

#[test]
fn one_packet_makes_us_doubt_and_ask_about_few_at_a_time() {
    let (links, start) = (links(), Instant::now());
    let mut table = neighbours();
    let now = after(start, 5_000);
    let mut lie = Packet::default();
    for number in 0..200 {
        let id = format!("cluster-{number}");
        let address = format!("10.0.0.{}", 10 + number);
        table.hear(&says(&id, &[&address]), from(2, &address), &links, start);
        let goodbye = responder(&id).goodbye(std::iter::empty());
        lie.answers.extend(goodbye.answers);
    }
    drain(&mut table);
    table.hear(&lie, from(2, "10.0.0.9"), &links, now);
    let mut asked = BTreeSet::new();
    while table.has_questions() {
        let questions = table.take_questions();
        assert!((1..=QUESTIONS_AT_ONCE).contains(&questions.len()));
        asked.extend(questions);
    }
    assert!(!asked.is_empty());
    let events = wait(&mut table, &links, after(start, 9_000));
    assert!(
        (1..=DOUBTS_AT_ONCE).contains(&events.len()),
        "{}",
        events.len()
    );
}

#[test]
fn nobody_is_asked_about_again_and_again_because_it_is_said_to_end_soon() {
    let (links, start) = (links(), Instant::now());
    let mut table = neighbours();
    let mut packet = says(ROME, &["10.0.0.9"]);
    for record in &mut packet.answers {
        record.ttl = 1;
    }
    for round in 0..60 {
        let now = after(start, round * 900);
        wait(&mut table, &links, now);
        assert!(!table.has_questions(), "in round {round}");
        table.hear(&packet, from(2, "10.0.0.9"), &links, now);
    }
}

#[test]
fn there_is_a_limit_in_all_and_those_who_are_known_are_never_turned_away() {
    let (mut table, links, now) = (neighbours(), links(), Instant::now());
    table.set_known(BTreeSet::from([ROME.parse().expect("an id")]));
    for number in 0..4_000_u32 {
        let source = IpAddr::from((0x0a00_0100 + number / 15).to_be_bytes());
        let packet = says(&format!("forged-{number}"), &["10.0.0.66"]);
        let origin = Origin {
            interface: 2,
            source,
        };
        table.hear(&packet, origin, &links, now);
        if number == 2_000 {
            assert!(table.hear(&says(ROME, &["10.0.0.9"]), from(2, "10.0.1.9"), &links, now));
        }
    }
    assert_eq!(table.rows.len(), LIMIT);
    assert!(table.rows.contains_key(ROME));
    assert!(table.hosts.len() <= LIMIT);
}

/// A packet of one address record of the host that Rome is on.
fn address_of_rome(address: &str, ttl: u32, flush: bool) -> Packet {
    let mut packet = says(ROME, &[address]);
    let mut records: Vec<wire::Record> = packet.records().cloned().collect();
    records.retain(|record| matches!(record.data, Data::A(_)));
    for record in &mut records {
        (record.ttl, record.flush) = (ttl, flush);
    }
    packet.answers = records;
    packet.additionals = Vec::new();
    packet
}

/// Runs a forger against Rome, who answers whatever is asked: it is told as what and where it is,
/// whatever else is told of it.
fn stands_against(forger: impl Fn(u64) -> Vec<Packet>, seconds: u64) {
    let (links, start) = (links(), Instant::now());
    let mut table = with_rome(&links, start);
    for step in 0..seconds * 10 {
        let now = after(start, step * 100);
        for packet in forger(step) {
            table.hear(&packet, from(2, "10.0.0.66"), &links, now);
        }
        let mut events = wait(&mut table, &links, now);
        if !table.take_questions().is_empty() {
            let packet = says(ROME, &["10.0.0.9"]);
            table.hear(&packet, from(2, "10.0.0.9"), &links, now);
            events.extend(drain(&mut table));
        }
        for event in events {
            let Event::Seen(sighting) = event else {
                panic!("gone after {step} steps");
            };
            let places = sighting.endpoints.iter().map(ToString::to_string);
            let places: Vec<String> = places.collect();
            let there = places.iter().any(|place| place == "10.0.0.9:5870");
            assert!(there, "after {step} steps: {places:?}");
            assert_eq!(sighting.name.as_str(), "rome", "after {step} steps");
        }
    }
}

#[test]
fn an_address_that_a_forger_named_before_is_not_its_own_to_take_back() {
    let claim = || address_of_rome("10.0.0.9", 120, false);
    let lie = || address_of_rome("10.0.0.66", 120, true);
    let goodbye = || address_of_rome("10.0.0.9", 0, false);
    for step in [1, 11, 15] {
        for last in [lie(), goodbye()] {
            let forger = |now| match now {
                0 => vec![claim()],
                now if now == step => vec![last.clone()],
                _ => Vec::new(),
            };
            stands_against(forger, 60);
        }
    }
}

#[test]
fn whoever_has_answered_a_doubt_is_not_doubted_again_without_a_question() {
    let goodbye = responder(ROME).goodbye([ip("10.0.0.9")].into_iter());
    let address = address_of_rome("10.0.0.9", 0, false);
    for packet in [goodbye, address] {
        for steps in [vec![10, 15], vec![10, 15, 19], vec![10, 11, 25]] {
            let is_due = |now| steps.contains(&now);
            let forger = |now| is_due(now).then(|| packet.clone()).into_iter().collect();
            stands_against(forger, 30);
        }
    }
}

#[test]
fn a_question_that_is_lost_in_a_doubt_is_asked_once_more() {
    let (links, start) = (links(), Instant::now());
    let mut table = with_rome(&links, start);
    let goodbye = responder(ROME).goodbye([ip("10.0.0.9")].into_iter());
    let doubted = after(start, 5_000);
    table.hear(&goodbye, from(2, "10.0.0.66"), &links, doubted);
    assert!(!table.take_questions().is_empty(), "this one is lost");
    assert_eq!(wait(&mut table, &links, after(start, 6_500)), []);
    assert!(!table.take_questions().is_empty(), "asked once more");
    let answer = says(ROME, &["10.0.0.9"]);
    table.hear(&answer, from(2, "10.0.0.9"), &links, after(start, 6_600));
    assert_eq!(wait(&mut table, &links, after(start, 20_000)), []);
}

#[test]
fn whoever_keeps_talking_of_a_cluster_does_not_keep_us_from_asking_it() {
    for pause in [5, 300] {
        for ttl in [1, 120] {
            stands_against(
                |now| {
                    let mut packet = forged(&[]);
                    packet
                        .answers
                        .retain(|record| matches!(record.data, Data::Srv { .. }));
                    for record in &mut packet.answers {
                        record.ttl = ttl;
                    }
                    let is_due = now > 0 && now % pause == 0;
                    is_due.then_some(packet).into_iter().collect()
                },
                200,
            );
        }
    }
}
