//! Whom a roster has asked, and whom it has asked again.

use super::*;

const HOME: &str = "10.0.0.2";
const ELSEWHERE: &str = "10.0.0.99";

/// A roster that knows cluster 1 at its place and has its proof, as of the first millisecond.
fn with_proof() -> Roster {
    let mut roster = roster();
    roster.handle_event(Event::Seen(sighting(1)), at(0));
    assert_eq!(words(&drain(&mut roster)), ["appeared"]);
    prove(&mut roster, HOME, Some(1), 0);
    roster
}

fn prove(roster: &mut Roster, place: &str, proof: Option<u64>, milliseconds: i64) {
    let key = Key::Cluster(id(1));
    let proof = proof.map(id);
    roster.handle_proof(&key, address(place), proof.as_ref(), 1.0, at(milliseconds));
}

fn moved(place: &str, port: u16) -> Event {
    let mut sighting = sighting(1);
    let mut place = address(place);
    place.set_port(port);
    sighting.endpoints = vec![place];
    Event::Seen(sighting)
}

#[test]
fn a_proven_cluster_that_moved_is_asked_again_until_it_answers_there() {
    let mut roster = with_proof();
    roster.handle_event(moved(ELSEWHERE, 5870), at(90_000));
    assert_eq!(words(&wait(&mut roster, at(90_100))), ["changed"]);
    prove(&mut roster, ELSEWHERE, None, 90_100);
    assert!(wait(&mut roster, at(91_099)).is_empty());
    assert_eq!(words(&wait(&mut roster, at(91_100))), ["changed"]);
    prove(&mut roster, ELSEWHERE, None, 91_100);
    assert!(wait(&mut roster, at(93_099)).is_empty());
    assert_eq!(words(&wait(&mut roster, at(93_100))), ["changed"]);
    prove(&mut roster, ELSEWHERE, Some(1), 93_100);
    assert!(wait(&mut roster, at(200_000)).is_empty());
}

#[test]
fn a_forgotten_cluster_that_is_down_is_asked_again_until_it_is_back() {
    let mut roster = with_proof();
    roster.handle_forgotten(&id(1), at(10_000));
    assert_eq!(words(&wait(&mut roster, at(10_000))), ["appeared"]);
    prove(&mut roster, HOME, None, 10_000);
    assert_eq!(words(&wait(&mut roster, at(11_000))), ["changed"]);
    prove(&mut roster, HOME, Some(1), 11_000);
    assert!(wait(&mut roster, at(100_000)).is_empty());
}
