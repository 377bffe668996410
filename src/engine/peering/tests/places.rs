//! Where a peer is dialled by what was known of it before anything is announced.

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
