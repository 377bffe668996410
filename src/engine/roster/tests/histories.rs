//! Whatever happens to a roster, what it tells makes sense.

use proptest::prelude::*;

use super::*;

/// What a proptest does to the machine.
#[derive(Debug, Clone)]
enum Step {
    See {
        number: u64,
        ip: u8,
        named: bool,
    },
    Leave {
        number: u64,
    },
    Prove {
        number: u64,
        ip: u8,
        as_number: Option<u64>,
    },
    Pass {
        milliseconds: i64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u64..40, 1_u8..6, any::<bool>())
            .prop_map(|(number, ip, named)| Step::See { number, ip, named }),
        1 => (0_u64..40).prop_map(|number| Step::Leave { number }),
        2 => (0_u64..40, 1_u8..6, prop::option::of(0_u64..40))
            .prop_map(|(number, ip, as_number)| Step::Prove { number, ip, as_number }),
        2 => (-5_000_i64..20_000).prop_map(|milliseconds| Step::Pass { milliseconds }),
    ]
}

fn small() -> Bounds {
    Bounds {
        candidates: 12,
        candidates_per_address: 4,
        new_per_second: 3,
        ..Bounds::default()
    }
}

/// Runs the steps, then an hour of silence, and returns everything that was told.
fn run(steps: &[Step]) -> Vec<Change> {
    let mut roster = Roster::new(own(), "aaaa".to_owned(), small());
    let (mut told, now) = act(&mut roster, steps);
    told.extend(wait(&mut roster, at(now + 3_600_000)));
    assert!(roster.is_empty(), "silence ends everything");
    assert_eq!(roster.poll_timeout(), None);
    told
}

/// Runs the steps, and returns what was told until when.
fn act(roster: &mut Roster, steps: &[Step]) -> (Vec<Change>, i64) {
    let mut now = 0;
    let mut told = Vec::new();
    for step in steps {
        match step {
            Step::See { number, ip, named } => {
                let mut sighting = sighting(*number);
                sighting.endpoints = vec![address(&format!("10.0.0.{ip}"))];
                if !named {
                    sighting.cluster_id = None;
                }
                roster.handle_event(Event::Seen(sighting), at(now));
            }
            Step::Leave { number } => roster.handle_event(gone(*number), at(now)),
            Step::Prove {
                number,
                ip,
                as_number,
            } => {
                let endpoint = address(&format!("10.0.0.{ip}"));
                let proof = as_number.map(id);
                let keys = [
                    Key::Cluster(id(*number)),
                    Key::Instance {
                        source: DiscoveryType::Lan,
                        instance: id(*number).to_string(),
                    },
                ];
                for key in keys {
                    roster.handle_proof(&key, endpoint, proof.as_ref(), 0.5, at(now));
                }
            }
            Step::Pass { milliseconds } => now += milliseconds,
        }
        told.extend(wait(roster, at(now)));
        assert!(roster.len() <= small().candidates);
    }
    (told, now)
}

proptest! {
    #[test]
    fn whatever_happens_every_candidate_appears_once_and_expires(
        steps in prop::collection::vec(step(), 0..120),
    ) {
        let told = run(&steps);
        let mut present: BTreeSet<Key> = BTreeSet::new();
        for change in &told {
            let key = candidate(change).key.clone();
            prop_assert!(!candidate(change).endpoints.is_empty());
            match change {
                Change::Appeared(_) => {
                    prop_assert!(present.insert(key.clone()), "{key:?} appeared twice");
                }
                Change::Changed(_) => prop_assert!(present.contains(&key)),
                Change::Expired(_) => prop_assert!(present.remove(&key)),
                Change::Duplicate(_) => prop_assert!(false, "nobody used our id"),
            }
        }
        prop_assert!(present.is_empty(), "{present:?} never expired");
    }

    #[test]
    fn whoever_is_there_and_has_not_answered_is_asked_again(
        steps in prop::collection::vec(step(), 0..60),
        was_proven in any::<bool>(),
        is_forgotten in any::<bool>(),
    ) {
        let mut roster = Roster::new(own(), "aaaa".to_owned(), small());
        roster.set_known(BTreeSet::from([id(0)]));
        let (_, now) = act(&mut roster, &steps);
        let mut told = |place: &str, proof: Option<ClusterId>, now: i64| {
            let mut sighting = sighting(0);
            sighting.endpoints = vec![address(place)];
            roster.handle_event(Event::Seen(sighting), at(now));
            if is_forgotten {
                roster.handle_forgotten(&id(0), at(now));
            }
            // It may wait for half a minute when it has changed again and again.
            wait(&mut roster, at(now + 31_000));
            let key = Key::Cluster(id(0));
            roster.handle_proof(&key, address(place), proof.as_ref(), 0.5, at(now + 31_000));
            wait(&mut roster, at(now + 93_000))
        };
        told("10.0.0.9", was_proven.then(|| id(0)), now);
        let told = told("10.0.0.10", None, now + 93_000);
        let key = Key::Cluster(id(0));
        prop_assert!(told.iter().any(|change| candidate(change).key == key));
    }

    #[test]
    fn the_same_events_tell_the_same_story(steps in prop::collection::vec(step(), 0..60)) {
        prop_assert_eq!(run(&steps), run(&steps));
    }
}
