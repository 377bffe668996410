//! Whoever floods a roster keeps nobody out.

use super::*;

#[test]
fn a_flood_from_one_address_leaves_room_for_a_real_peer() {
    let mut roster = roster();
    let mut appeared = Vec::new();
    for number in 100..5100_u64 {
        let mut fake = sighting(number);
        fake.endpoints = vec![address("10.0.0.66")];
        let now = at(i64::try_from(number).expect("small"));
        roster.handle_event(Event::Seen(fake), now);
        if number == 3000 {
            roster.handle_event(Event::Seen(sighting(1)), now);
        }
        roster.handle_timeout(now);
        appeared.extend(drain(&mut roster));
    }
    assert!(roster.len() <= 17, "{}", roster.len());
    assert!(roster.refused() > 4000);
    let real = Key::Cluster(id(1));
    assert!(appeared.iter().any(|change| candidate(change).key == real));
}

#[test]
fn a_flood_from_many_addresses_lets_a_known_cluster_and_a_newcomer_through() {
    let bounds = Bounds {
        candidates: 128,
        ..Bounds::default()
    };
    let mut roster = Roster::new(own(), "aaaa".to_owned(), bounds.clone());
    roster.set_known(BTreeSet::from([id(2)]));
    let mut told = Vec::new();
    for number in 0..12_000_u64 {
        let mut fake = sighting(number + 1000);
        let low = number % 40 + 3;
        fake.endpoints = vec![address(&format!("10.0.7.{low}"))];
        let now = at(i64::try_from(number).expect("small"));
        roster.handle_event(Event::Seen(fake), now);
        if number == 2000 {
            roster.handle_event(Event::Seen(sighting(1)), now);
            roster.handle_event(Event::Seen(sighting(2)), now);
        }
        roster.handle_timeout(now);
        for change in drain(&mut roster) {
            let candidate = candidate(&change).clone();
            let lie = candidate.endpoints[0].address;
            if !matches!(change, Change::Expired(_)) && candidate.key != Key::Cluster(id(1)) {
                roster.handle_proof(&candidate.key, lie, None, 0.5, now);
            }
            told.push((number, words(&[change])[0], candidate.key));
        }
        assert!(roster.len() <= bounds.candidates);
    }
    let first = |key: Key| told.iter().find(|row| row.2 == key).map(|row| row.0 - 2000);
    assert!(first(Key::Cluster(id(2))).is_some_and(|wait| wait < 100));
    assert!(first(Key::Cluster(id(1))).is_some_and(|wait| wait < 10_000));
}

#[test]
fn a_newcomer_does_not_wait_for_addresses_whose_failures_were_withdrawn() {
    let mut roster = roster();
    let real = Key::Cluster(id(1));
    let (mut now, mut arrival, mut waited) = (0, 0, None);
    // Sixty addresses with sixteen clusters each, of which one a second makes way for a new one.
    for number in 0..1560_u64 {
        now += if number < 960 { 1 } else { 17 };
        let mut fake = sighting(number + 1000);
        fake.endpoints = vec![address(&format!("10.0.7.{}", number % 60 + 3))];
        roster.handle_event(Event::Seen(fake), at(now));
        if number >= 960 {
            roster.handle_event(gone(number + 40), at(now));
        }
        if number == 1200 {
            roster.handle_event(Event::Seen(sighting(1)), at(now));
            arrival = now;
        }
        for change in wait(&mut roster, at(now)) {
            let candidate = candidate(&change);
            if candidate.key == real {
                waited.get_or_insert(now - arrival);
            } else if !matches!(change, Change::Expired(_)) {
                let lie = candidate.endpoints[0].address;
                roster.handle_proof(&candidate.key, lie, None, 0.5, at(now));
            }
        }
    }
    assert!(waited.is_some_and(|wait| wait <= 1000), "{waited:?} ms");
}

#[test]
fn of_many_places_those_that_are_named_first_are_told() {
    let mut roster = roster();
    let mut crowded = sighting(100);
    let low = (1..=8).map(|last| address(&format!("10.0.0.{last}")));
    crowded.endpoints.extend(low);
    let real = crowded.endpoints[0];
    roster.handle_event(Event::Seen(crowded), at(0));
    let changes = drain(&mut roster);
    let told = &candidate(&changes[0]).endpoints;
    assert_eq!((told.len(), told[0].address), (8, real));
}

#[test]
fn places_that_failed_make_way_for_those_that_were_not_tried() {
    let mut roster = roster();
    for (name, net) in [("a", 1), ("b", 2)] {
        let mut forged = sighting(1);
        forged.instance = name.to_owned();
        let low = (1..=8).map(|last| address(&format!("10.0.{net}.{last}")));
        forged.endpoints = low.collect();
        roster.handle_event(Event::Seen(forged), at(0));
    }
    let real = sighting(1).endpoints[0];
    let mut named = sighting(1);
    named.instance = "the real one".to_owned();
    roster.handle_event(Event::Seen(named), at(10));
    let changes = wait(&mut roster, at(1200));
    let told = &candidate(changes.last().expect("a change")).endpoints;
    assert!(told.iter().all(|place| place.address != real), "no room");
    for place in told {
        roster.handle_proof(&Key::Cluster(id(1)), place.address, None, 0.5, at(1300));
    }
    let changes = wait(&mut roster, at(4000));
    let told = &candidate(changes.last().expect("a change")).endpoints;
    assert_eq!(told[0].address, real);
}

#[test]
fn there_is_room_for_1024_strangers_and_a_proven_cluster_is_never_evicted() {
    let mut roster = roster();
    roster.handle_event(Event::Seen(sighting(1)), at(0));
    let proven = Key::Cluster(id(1));
    roster.handle_proof(&proven, address("10.0.0.2"), Some(&id(1)), 0.5, at(1));
    for number in 0..2000_u64 {
        let mut fake = sighting(number + 1000);
        let (net, host) = (number / 250 + 1, number % 250 + 1);
        fake.endpoints = vec![address(&format!("10.0.{net}.{host}"))];
        let now = at(2 + i64::try_from(number).expect("small"));
        roster.handle_event(Event::Seen(fake), now);
    }
    assert_eq!(roster.len(), 1024);
    assert_eq!(roster.advertisements(&id(1)).len(), 1);
    assert_eq!(
        roster.advertisements(&id(2999)).len(),
        1,
        "the last to come"
    );
    assert!(roster.advertisements(&id(1000)).is_empty(), "the first");
}
