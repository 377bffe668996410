//! Where a peer is dialled: by what was known of it before anything is announced, and nearer.

use super::*;

const LAN: &str = "https://192.168.1.12:5870";
const NEXT: &str = "https://[fe80::9]:5870";
const FAR: &str = "https://203.0.113.9:5870";

/// A place as the status has it: its URL, who named it and the interface.
type Known = (&'static str, &'static str, Option<&'static str>);
/// How it is dialled: its URL, its address if that is known, and who named it.
type Dialled = (&'static str, Option<&'static str>, DiscoveryType);

fn known((url, source, interface): &Known) -> PeerEndpoint {
    PeerEndpoint {
        url: (*url).to_owned(),
        source: (*source).to_owned(),
        interface: interface.map(str::to_owned),
        ..PeerEndpoint::default()
    }
}

#[test]
fn what_was_known_before_is_dialled_as_it_was_found() {
    use DiscoveryType::{Lan, Manual, Wan};
    let table: [(DiscoveryType, &str, &[Known], &[Dialled]); 6] = [
        (
            Lan,
            NEXT,
            &[(NEXT, "LAN", Some("eth0"))],
            &[(NEXT, Some("[fe80::9%2]:5870"), Lan)],
        ),
        (
            Lan,
            LAN,
            &[(LAN, "LAN", Some("eth0")), (NEXT, "LAN", Some("wlan0"))],
            &[(LAN, None, Lan), (NEXT, Some("[fe80::9%3]:5870"), Lan)],
        ),
        (
            Lan,
            NEXT,
            &[(NEXT, "LAN", Some("gone0")), (NEXT, "LAN", None)],
            &[(NEXT, None, Lan)],
        ),
        (
            Lan,
            LAN,
            &[(LAN, "LAN", Some("eth0")), (FAR, "WAN", None)],
            &[(LAN, None, Lan), (FAR, None, Wan)],
        ),
        (
            Wan,
            FAR,
            &[(LAN, "LAN", Some("eth0")), (FAR, "WAN", None)],
            &[(FAR, None, Wan), (LAN, None, Lan)],
        ),
        (
            Manual,
            LAN,
            &[(LAN, "LAN", Some("eth0")), (FAR, "", None)],
            &[(LAN, None, Manual), (FAR, None, Manual)],
        ),
    ];
    for (found, url, endpoints, expected) in table {
        let mut model = Model::found();
        model.object.spec.discovery_type = found;
        model.object.spec.auth_url = url.to_owned();
        model.object.status = Some(ForeignClusterStatus {
            endpoints: endpoints.iter().map(known).collect(),
            ..ForeignClusterStatus::default()
        });
        model.facts.neighbour = None;
        model.facts.scopes = BTreeMap::from([("eth0".to_owned(), 2), ("wlan0".to_owned(), 3)]);
        let dials = View::new(&model.object, &model.facts, model.now).dials();
        let expected = expected.iter().map(|(url, address, source)| Dial {
            url: (*url).to_owned(),
            address: address.map(|text| text.parse().expect("the table holds addresses")),
            source: *source,
        });
        assert_eq!(dials, expected.collect::<Vec<_>>(), "{url} {endpoints:?}");
    }
}

#[test]
fn a_nearer_place_is_tried_once_while_the_one_in_use_stands() {
    let mut model = Model::peered();
    let near = "https://192.168.1.77:5870";
    let neighbour = model.facts.neighbour.as_mut().expect("it was found");
    neighbour.endpoints[0].source = "WAN".to_owned();
    neighbour.endpoints.push(PeerEndpoint {
        url: near.to_owned(),
        source: "LAN".to_owned(),
        ..PeerEndpoint::default()
    });
    let plan = model.plan();
    let [Step::Connect { dials, .. }] = &plan.steps[..] else {
        panic!("{:?}", plan.steps);
    };
    assert_eq!((dials.len(), dials[0].url.as_str()), (1, near));
    let stands = |kind: &str| {
        let mut conditions = plan.status.conditions.iter();
        conditions.any(|one| one.type_ == kind && one.status == "True")
    };
    assert!(stands(condition::OUTGOING_PEERED), "nothing is lost");
    let scores: Vec<Option<u8>> = plan.status.endpoints.iter().map(|one| one.score).collect();
    assert_eq!(scores, [Some(100), Some(80)]);
    let failure = Failure {
        reason: reason::PEER_SILENT.to_owned(),
        message: "no".to_owned(),
    };
    model.facts.link.failures.insert(near.to_owned(), failure);
    let plan = model.plan();
    assert!(plan.steps.is_empty(), "{:?}", plan.steps);
    assert_eq!(plan.status.endpoints[1].score, Some(30));
}
