//! The roster as tables and properties.

mod flood;
mod histories;
mod proofs;

use super::*;
use crate::api::identity::ClusterName;

const OWN: &str = "00000000-0000-8000-8000-000000000000";

fn id(number: u64) -> ClusterId {
    format!("{number:08x}-0000-8000-8000-000000000001")
        .parse()
        .expect("the text is a UUID")
}

fn own() -> ClusterId {
    OWN.parse().expect("the text is a UUID")
}

fn roster() -> Roster {
    Roster::new(own(), "aaaa".to_owned(), Bounds::default())
}

fn at(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(1_700_000_000_000 + milliseconds)
        .expect("tests stay within the range of a timestamp")
}

/// A sighting of cluster `number` at `10.0.0.number`.
fn sighting(number: u64) -> Sighting {
    Sighting {
        source: DiscoveryType::Lan,
        instance: id(number).to_string(),
        cluster_id: Some(id(number)),
        name: ClusterName::neutralise("rome"),
        boot: Some("bbbb".to_owned()),
        endpoints: vec![address(&format!("10.0.0.{}", number % 250 + 1))],
        interface: Some("eth0".to_owned()),
        search_domain: None,
        vouchers: Vec::new(),
        ttl: Duration::from_mins(2),
    }
}

fn address(ip: &str) -> SocketAddr {
    SocketAddr::new(ip.parse().expect("the test names an address"), 5870)
}

fn gone(number: u64) -> Event {
    Event::Gone {
        source: DiscoveryType::Lan,
        instance: id(number).to_string(),
    }
}

fn drain(roster: &mut Roster) -> Vec<Change> {
    std::iter::from_fn(|| roster.poll_change()).collect()
}

/// Lets time pass until `until`, stopping wherever the machine asks for it.
fn wait(roster: &mut Roster, until: Timestamp) -> Vec<Change> {
    let mut changes = drain(roster);
    while let Some(due) = roster.poll_timeout().filter(|due| *due <= until) {
        roster.handle_timeout(due);
        changes.extend(drain(roster));
    }
    roster.handle_timeout(until);
    changes.extend(drain(roster));
    changes
}

fn words(changes: &[Change]) -> Vec<&'static str> {
    changes
        .iter()
        .map(|change| match change {
            Change::Appeared(_) => "appeared",
            Change::Changed(_) => "changed",
            Change::Expired(_) => "expired",
            Change::Duplicate(_) => "duplicate",
        })
        .collect()
}

fn candidate(change: &Change) -> &Candidate {
    match change {
        Change::Appeared(candidate)
        | Change::Changed(candidate)
        | Change::Expired(candidate)
        | Change::Duplicate(candidate) => candidate,
    }
}

#[test]
fn the_first_packet_is_told_at_once_and_what_follows_is_collected() {
    let mut roster = roster();
    roster.handle_event(Event::Seen(sighting(1)), at(0));
    assert_eq!(words(&drain(&mut roster)), ["appeared"]);
    roster.handle_proof(
        &Key::Cluster(id(1)),
        address("10.0.0.2"),
        Some(&id(1)),
        0.5,
        at(5),
    );
    let mut both = sighting(1);
    for ip in ["2001:db8::1", "2001:db8::2"] {
        both.endpoints.push(address(ip));
        roster.handle_event(Event::Seen(both.clone()), at(40));
        assert_eq!(words(&drain(&mut roster)), [""; 0]);
    }
    let changes = wait(&mut roster, at(1000));
    assert_eq!(words(&changes), ["changed"]);
    assert_eq!(candidate(&changes[0]).endpoints.len(), 3);
}

#[test]
fn a_link_local_address_alone_waits_for_a_better_one() {
    let mut roster = roster();
    let mut first = sighting(1);
    let link_local = address("fe80::1");
    first.endpoints = vec![link_local];
    roster.handle_event(Event::Seen(first.clone()), at(0));
    assert_eq!(words(&drain(&mut roster)), [""; 0]);
    first.endpoints = vec![address("10.0.0.2"), link_local];
    roster.handle_event(Event::Seen(first), at(20));
    let changes = drain(&mut roster);
    assert_eq!(words(&changes), ["appeared"]);
    let place = candidate(&changes[0]).endpoints[0].address;
    assert_eq!(place, address("10.0.0.2"));

    let mut alone = sighting(2);
    alone.endpoints = vec![address("fe80::2")];
    roster.handle_event(Event::Seen(alone), at(30));
    assert_eq!(words(&wait(&mut roster, at(1000))), ["appeared"]);
}

#[test]
fn a_thousand_clusters_that_a_domain_lists_do_not_wait_for_each_other() {
    let mut roster = roster();
    for number in 0..1000 {
        let listed = Sighting {
            source: DiscoveryType::Wan,
            search_domain: Some("example".to_owned()),
            ..sighting(number)
        };
        roster.handle_event(Event::Seen(listed), at(0));
        let lan = sighting(number + 1000);
        roster.handle_event(Event::Seen(lan), at(0));
    }
    let told = drain(&mut roster);
    let listed = |change: &&Change| !candidate(change).search_domains.is_empty();
    assert_eq!(told.iter().filter(listed).count(), 1000);
    let heard = told.len() - 1000;
    assert_eq!(heard, 20, "those on a LAN come at their pace");
}

#[test]
fn the_advertisements_of_a_cluster_on_a_lan_can_be_looked_up() {
    let mut roster = roster();
    roster.handle_event(Event::Seen(sighting(1)), at(0));
    let listed = Sighting {
        source: DiscoveryType::Wan,
        instance: "rome.example.com".to_owned(),
        ..sighting(1)
    };
    roster.handle_event(Event::Seen(listed), at(0));
    assert_eq!(roster.advertisements(&id(1)), [id(1).to_string()]);
    assert!(roster.advertisements(&id(2)).is_empty());
}

#[test]
fn a_repeated_sighting_is_no_news_and_keeps_the_candidate_alive() {
    let mut roster = roster();
    for second in [0, 100, 200, 300] {
        roster.handle_event(Event::Seen(sighting(1)), at(second * 1000));
    }
    assert_eq!(words(&wait(&mut roster, at(419_000))), ["appeared"]);
    assert_eq!(words(&wait(&mut roster, at(421_000))), ["expired"]);
    assert!(roster.is_empty());
    assert_eq!(roster.poll_timeout(), None);
}

#[test]
fn a_list_that_loses_a_cluster_for_a_second_is_no_news_and_a_lan_is_believed_at_once() {
    let mut roster = roster();
    let listed = Sighting {
        source: DiscoveryType::Wan,
        ..sighting(1)
    };
    let unlisted = Event::Gone {
        source: DiscoveryType::Wan,
        instance: id(1).to_string(),
    };
    roster.handle_event(Event::Seen(listed.clone()), at(0));
    assert_eq!(words(&wait(&mut roster, at(500))), ["appeared"]);
    roster.handle_event(unlisted.clone(), at(1000));
    roster.handle_event(Event::Seen(listed), at(1900));
    assert!(wait(&mut roster, at(60_000)).is_empty());
    roster.handle_event(unlisted, at(60_000));
    assert_eq!(words(&wait(&mut roster, at(61_000))), ["expired"]);
    roster.handle_event(Event::Seen(sighting(1)), at(62_000));
    assert_eq!(words(&drain(&mut roster)), ["appeared"]);
    roster.handle_event(gone(1), at(63_000));
    assert_eq!(words(&drain(&mut roster)), ["expired"]);
}

#[test]
fn a_forgotten_cluster_appears_anew_while_it_is_there() {
    let mut roster = roster();
    roster.handle_event(Event::Seen(sighting(1)), at(0));
    assert_eq!(words(&wait(&mut roster, at(1_000))), ["appeared"]);
    roster.handle_forgotten(&id(1), at(1_000));
    assert_eq!(words(&wait(&mut roster, at(3_000))), ["appeared"]);
    roster.handle_event(gone(1), at(3_000));
    assert_eq!(words(&wait(&mut roster, at(10_000))), ["expired"]);
    roster.handle_forgotten(&id(1), at(10_000));
    assert_eq!(words(&wait(&mut roster, at(20_000))), [""; 0]);
}

#[test]
fn two_interfaces_are_two_hints_of_which_one_can_be_taken_back() {
    let mut roster = roster();
    let mut wireless = sighting(1);
    wireless.interface = Some("wlan0".to_owned());
    wireless.endpoints = vec![address("192.168.7.1")];
    roster.handle_event(Event::Seen(sighting(1)), at(0));
    roster.handle_event(Event::Seen(wireless.clone()), at(10));
    let changes = wait(&mut roster, at(1000));
    assert_eq!(words(&changes), ["appeared", "changed"]);
    assert_eq!(candidate(&changes[1]).endpoints.len(), 2);
    wireless.endpoints.clear();
    roster.handle_event(Event::Seen(wireless), at(1000));
    let changes = wait(&mut roster, at(4000));
    assert_eq!(words(&changes), ["changed"]);
    let endpoints = &candidate(&changes[0]).endpoints;
    assert_eq!(endpoints.len(), 1);
    assert_eq!(endpoints[0].interface.as_deref(), Some("eth0"));
    assert_eq!(endpoints[0].first_seen, at(0));
}

#[test]
fn our_own_records_are_not_a_candidate_and_a_clone_is_told_as_one() {
    let mut roster = roster();
    let mut mine = sighting(1);
    mine.cluster_id = Some(own());
    mine.boot = Some("aaaa".to_owned());
    roster.handle_event(Event::Seen(mine.clone()), at(0));
    assert!(wait(&mut roster, at(1000)).is_empty());
    mine.boot = None;
    roster.handle_event(Event::Seen(mine.clone()), at(1000));
    assert!(wait(&mut roster, at(2000)).is_empty());
    mine.boot = Some("bbbb".to_owned());
    roster.handle_event(Event::Seen(mine.clone()), at(2000));
    roster.handle_event(Event::Seen(mine), at(2100));
    let changes = wait(&mut roster, at(3000));
    assert_eq!(words(&changes), ["duplicate"]);
    assert_eq!(
        candidate(&changes[0]).endpoints[0].address,
        address("10.0.0.2")
    );
    assert!(roster.is_empty());
}

#[test]
fn an_advertisement_without_an_id_goes_on_under_the_id_that_it_proves() {
    let mut roster = roster();
    let mut silent = sighting(1);
    silent.cluster_id = None;
    roster.handle_event(Event::Seen(silent.clone()), at(0));
    let changes = wait(&mut roster, at(500));
    let key = candidate(&changes[0]).key.clone();
    assert!(matches!(key, Key::Instance { .. }));
    roster.handle_proof(&key, address("10.0.0.2"), Some(&id(9)), 0.5, at(600));
    let changes = wait(&mut roster, at(1000));
    assert_eq!(words(&changes), ["expired", "appeared"]);
    assert_eq!(candidate(&changes[1]).key, Key::Cluster(id(9)));
    assert!(candidate(&changes[1]).proven);
    roster.handle_event(Event::Seen(silent), at(1000));
    assert!(wait(&mut roster, at(5000)).is_empty());
    assert_eq!(roster.len(), 1);
}

#[test]
fn an_advertisement_without_an_id_that_proves_to_be_us_is_dropped() {
    let mut roster = roster();
    let mut silent = sighting(1);
    silent.cluster_id = None;
    roster.handle_event(Event::Seen(silent), at(0));
    let changes = wait(&mut roster, at(500));
    let key = candidate(&changes[0]).key.clone();
    roster.handle_proof(&key, address("10.0.0.2"), Some(&own()), 0.5, at(600));
    assert_eq!(words(&drain(&mut roster)), ["expired"]);
}

#[test]
fn a_failed_proof_is_tried_again_with_growing_waits_until_one_succeeds() {
    let mut roster = roster();
    let key = Key::Cluster(id(1));
    roster.handle_event(Event::Seen(sighting(1)), at(0));
    assert_eq!(words(&wait(&mut roster, at(100))), ["appeared"]);
    roster.handle_proof(&key, address("10.0.0.2"), None, 1.0, at(100));
    assert!(wait(&mut roster, at(1099)).is_empty());
    assert_eq!(words(&wait(&mut roster, at(1100))), ["changed"]);
    // Another key than the claimed one is a failure too.
    roster.handle_proof(&key, address("10.0.0.2"), Some(&id(2)), 1.0, at(1100));
    assert!(wait(&mut roster, at(3099)).is_empty());
    assert_eq!(words(&wait(&mut roster, at(3100))), ["changed"]);
    roster.handle_proof(&key, address("10.0.0.2"), Some(&id(1)), 1.0, at(3100));
    assert!(wait(&mut roster, at(100_000)).is_empty());
}

#[test]
fn an_endpoint_that_proved_the_id_comes_before_a_forged_one() {
    let mut roster = roster();
    let mut forged = sighting(1);
    forged.instance = "a forgery".to_owned();
    forged.endpoints = vec![address("10.0.0.66")];
    roster.handle_event(Event::Seen(forged), at(0));
    roster.handle_event(Event::Seen(sighting(1)), at(10));
    wait(&mut roster, at(2500));
    let key = Key::Cluster(id(1));
    roster.handle_proof(&key, address("10.0.0.66"), Some(&id(7)), 0.5, at(2600));
    roster.handle_proof(&key, address("10.0.0.2"), Some(&id(1)), 0.5, at(2600));
    let mut renamed = sighting(1);
    renamed.name = ClusterName::neutralise("milan");
    roster.handle_event(Event::Seen(renamed), at(2700));
    let changes = wait(&mut roster, at(7000));
    assert_eq!(words(&changes), ["changed"]);
    let candidate = candidate(&changes[0]);
    assert_eq!(candidate.name.as_str(), "milan");
    assert_eq!(candidate.endpoints[0].address, address("10.0.0.2"));
}

#[test]
fn a_lan_goes_before_a_domain_and_the_domain_is_remembered() {
    let mut roster = roster();
    let listed = Sighting {
        source: DiscoveryType::Wan,
        instance: "rome.example.com".to_owned(),
        endpoints: vec![address("192.0.2.1")],
        interface: None,
        search_domain: Some("example".to_owned()),
        ..sighting(1)
    };
    roster.handle_event(Event::Seen(listed.clone()), at(0));
    let changes = wait(&mut roster, at(500));
    let first = candidate(&changes[0]);
    assert_eq!(first.search_domains, ["example"]);
    let key = first.key.clone();
    roster.handle_proof(&key, listed.endpoints[0], Some(&id(1)), 0.5, at(600));
    roster.handle_event(Event::Seen(sighting(1)), at(700));
    let changes = wait(&mut roster, at(3000));
    let both = candidate(changes.last().expect("a change"));
    let sources: Vec<_> = both.endpoints.iter().map(|one| one.source).collect();
    assert_eq!(sources, [DiscoveryType::Lan, DiscoveryType::Wan]);
    assert_eq!(both.search_domains, ["example"]);

    let gone = Sighting {
        endpoints: Vec::new(),
        ..listed
    };
    roster.handle_event(Event::Seen(gone), at(3100));
    let changes = wait(&mut roster, at(6000));
    let left = candidate(changes.last().expect("a change"));
    assert!(left.search_domains.is_empty() && left.endpoints.len() == 1);
}
