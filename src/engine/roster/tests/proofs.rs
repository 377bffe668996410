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

#[test]
fn a_proven_cluster_that_is_said_to_move_on_and_on_is_told_ever_more_rarely() {
    let mut roster = with_proof();
    let mut told = Vec::new();
    for step in 0..6000 {
        let now = 1000 + i64::from(step) * 20;
        roster.handle_event(moved(ELSEWHERE, step), at(now));
        told.extend(wait(&mut roster, at(now)));
    }
    assert!(
        (5..12).contains(&told.len()),
        "{} times in 2 min",
        told.len()
    );
    // The last word is told all the same, and whoever is quiet for a while is heard at once again.
    roster.handle_event(moved(HOME, 5870), at(121_000));
    let changes = wait(&mut roster, at(151_000));
    let last = candidate(changes.last().expect("a change"));
    assert_eq!(last.endpoints[0].address, address(HOME));
    for time in [240_000, 340_000] {
        let event = moved(ELSEWHERE, u16::try_from(time / 1000).expect("small"));
        roster.handle_event(event, at(time));
        assert_eq!(words(&wait(&mut roster, at(time + 100))), ["changed"]);
    }
}

/// A roster in which an advertisement without an id has proven to be cluster 1.
fn with_silent(silent: &Sighting) -> Roster {
    let mut roster = roster();
    roster.handle_event(Event::Seen(silent.clone()), at(0));
    let key = candidate(&drain(&mut roster)[0]).key.clone();
    roster.handle_proof(&key, address(HOME), Some(&id(1)), 0.5, at(1));
    assert_eq!(words(&wait(&mut roster, at(100))), ["expired", "appeared"]);
    roster
}

#[test]
fn an_advertisement_without_an_id_at_which_another_cluster_answers_is_asked_anew() {
    let silent = Sighting {
        cluster_id: None,
        ..sighting(1)
    };
    let mut roster = with_silent(&silent);
    roster.handle_forgotten(&id(1), at(1000));
    assert_eq!(words(&drain(&mut roster)), ["appeared"]);
    prove(&mut roster, HOME, Some(2), 1000);
    assert_eq!(words(&drain(&mut roster)), ["expired"]);
    roster.handle_event(Event::Seen(silent), at(2000));
    let changes = wait(&mut roster, at(3000));
    assert_eq!(words(&changes), ["appeared"]);
    let key = candidate(&changes[0]).key.clone();
    assert!(matches!(key, Key::Instance { .. }));
    roster.handle_proof(&key, address(HOME), Some(&id(2)), 0.5, at(3000));
    let changes = wait(&mut roster, at(4000));
    assert_eq!(candidate(&changes[1]).key, Key::Cluster(id(2)));
}

#[test]
fn an_advertisement_that_names_an_id_stays_with_it_whoever_answers() {
    let mut roster = with_proof();
    prove(&mut roster, HOME, Some(2), 1000);
    assert_eq!(words(&wait(&mut roster, at(2000))), ["changed"]);
    let silent = Sighting {
        cluster_id: None,
        ..sighting(1)
    };
    let mut roster = with_silent(&silent);
    prove(&mut roster, HOME, None, 1000);
    assert_eq!(words(&wait(&mut roster, at(2000))), ["changed"], "silence");
}
