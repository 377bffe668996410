//! Tables and properties of what a domain says.

use std::{collections::BTreeMap, str::FromStr};

use proptest::prelude::*;

use super::{zone::Style, *};
use crate::engine::sighting::{Event, Sighting};

fn id(text: &str) -> ClusterId {
    text.parse().expect("the test names an id")
}

fn service(priority: u16, weight: u16, target: &str, addresses: &[&str]) -> Service {
    Service {
        priority,
        weight,
        port: 443,
        target: target.to_owned(),
        addresses: Ok(addresses.iter().map(|ip| ip.parse().unwrap()).collect()),
        keys: BTreeSet::new(),
    }
}

fn entry(instance: &str, services: Vec<Service>) -> Entry {
    Entry {
        instance: instance.to_owned(),
        claim: Ok(Claim::default()),
        services: Ok(services),
    }
}

fn good(instance: &str) -> Entry {
    entry(instance, vec![service(0, 0, "host.example", &["10.0.0.1"])])
}

fn own() -> OwnNetworks {
    OwnNetworks {
        pod_cidr: "10.244.0.0/16".parse().ok(),
        addresses: vec!["10.9.9.9".parse().unwrap()],
        ..OwnNetworks::default()
    }
}

/// Decides with our own id `rome` and the networks of [`own`].
fn decide(entry: &Entry) -> Verdict {
    with_ground(|ground| verdict(entry, ground))
}

fn with_ground<T>(work: impl FnOnce(&Ground<'_>) -> T) -> T {
    work(&Ground {
        own_id: &id("rome"),
        own: &own(),
        public_only: false,
        seed: 7,
    })
}

fn refused(entry: &Entry) -> String {
    let Verdict::Refused(why) = decide(entry) else {
        panic!("{} is not refused", entry.instance);
    };
    why
}

#[test]
fn an_entry_leads_to_its_endpoints_in_the_order_of_priority() {
    let found = decide(&entry(
        "milan.example",
        vec![
            service(20, 0, "far.example", &["2.3.4.1"]),
            service(10, 0, "near.example", &["2001:db8::1", "1.2.3.4"]),
        ],
    ));
    let endpoints = ["1.2.3.4:443", "[2001:db8::1]:443", "2.3.4.1:443"];
    let endpoints = endpoints.map(|text| SocketAddr::from_str(text).unwrap());
    assert_eq!(found, Verdict::Found(Claim::default(), endpoints.to_vec()));
}

#[test]
fn every_way_to_be_refused_has_its_reason() {
    let table: [(Vec<Service>, &str); 7] = [
        (vec![], "it has no SRV record"),
        (
            vec![service(0, 0, "", &[])],
            "its SRV record says that it is not here",
        ),
        (
            vec![service(0, 0, "nowhere.example", &[])],
            "its target nowhere.example has no address",
        ),
        (
            vec![service(0, 0, "host.example", &["127.0.0.1"])],
            "127.0.0.1:443: the address is loopback",
        ),
        (
            vec![service(0, 0, "host.example", &["169.254.169.254"])],
            "169.254.169.254:443: the address is a cloud's metadata service",
        ),
        (
            vec![service(0, 0, "host.example", &["10.244.0.1"])],
            "10.244.0.1:443: the address is in a range of this cluster's own pods or services",
        ),
        (
            vec![Service {
                port: 22,
                ..service(0, 0, "host.example", &["10.0.0.1"])
            }],
            "10.0.0.1:22: the port belongs to another service",
        ),
    ];
    for (services, why) in table {
        assert_eq!(refused(&entry("milan.example", services)), why);
    }
}

#[test]
fn one_good_target_is_enough() {
    let services = vec![
        service(0, 0, "bad.example", &["127.0.0.1"]),
        service(1, 0, "good.example", &["10.0.0.1"]),
    ];
    assert!(matches!(
        decide(&entry("milan.example", services)),
        Verdict::Found(_, endpoints) if endpoints.len() == 1
    ));
}

#[test]
fn our_own_entry_is_neither_found_nor_refused() {
    let claim = Claim {
        cluster_id: Some(id("rome")),
        ..Claim::default()
    };
    let named = Entry {
        claim: Ok(claim),
        ..good("rome.example")
    };
    assert_eq!(decide(&named), Verdict::Ourselves);
    let plain = entry(
        "rome.example",
        vec![service(0, 0, "host.example", &["10.9.9.9"])],
    );
    assert_eq!(decide(&plain), Verdict::Ourselves);
}

#[test]
fn private_addresses_are_normal_unless_the_search_domain_says_otherwise() {
    for (address, private) in [
        ("10.0.0.1", true),
        ("192.168.7.1", true),
        ("100.64.0.1", true),
        ("fd12::1", true),
        ("1.2.3.4", false),
        ("2001:4860::1", false),
    ] {
        let entry = entry(
            "milan.example",
            vec![service(0, 0, "host.example", &[address])],
        );
        assert!(
            matches!(decide(&entry), Verdict::Found(..)),
            "{address} is allowed"
        );
        let strict = with_ground(|ground| {
            let strict = Ground {
                public_only: true,
                ..*ground
            };
            verdict(&entry, &strict)
        });
        assert_eq!(matches!(strict, Verdict::Refused(_)), private, "{address}");
    }
}

#[test]
fn weights_decide_how_often_a_target_goes_first() {
    let services = [
        service(0, 0, "never.example", &[]),
        service(0, 10, "seldom.example", &[]),
        service(0, 90, "often.example", &[]),
        service(1, 100, "later.example", &[]),
    ];
    let mut first = BTreeMap::new();
    for seed in 0..10_000 {
        let order = in_order(&services, seed);
        assert_eq!(order.len(), 4);
        assert_eq!(order[3].target, "later.example");
        *first.entry(order[0].target.as_str()).or_insert(0) += 1;
    }
    assert!((8500..9300).contains(&first["often.example"]), "{first:?}");
    assert!((700..1400).contains(&first["seldom.example"]), "{first:?}");
    assert!(
        first.get("never.example").is_none_or(|times| *times < 200),
        "{first:?}"
    );
}

fn look(entries: Vec<Entry>) -> Look {
    Look {
        entries,
        ttl: Some(Duration::from_mins(1)),
        ..Look::default()
    }
}

fn take(book: &mut Book, look: &Look) -> Outcome {
    with_ground(|ground| book.handle_look(look, ground, 0.0))
}

fn seen(outcome: &Outcome) -> Vec<(&str, usize)> {
    let events = outcome.events.iter().map(|event| match event {
        Event::Seen(Sighting {
            instance,
            endpoints,
            ..
        }) => (instance.as_str(), endpoints.len()),
        Event::Gone { .. } => panic!("a book withdraws by an empty sighting"),
    });
    events.collect()
}

#[test]
fn what_is_not_listed_any_more_is_withdrawn() {
    let mut book = Book::new("example".to_owned());
    let first = take(&mut book, &look(vec![good("a.example"), good("b.example")]));
    assert_eq!(seen(&first), [("a.example", 1), ("b.example", 1)]);
    assert_eq!(first.report.found, 2);
    let second = take(&mut book, &look(vec![good("b.example")]));
    assert_eq!(seen(&second), [("b.example", 1), ("a.example", 0)]);
    assert_eq!(
        seen(&take(&mut book, &look(vec![good("b.example")]))).len(),
        1
    );
    assert_eq!(book.close().len(), 1);
    assert_eq!(book.close().len(), 0);
}

#[test]
fn a_name_server_that_does_not_answer_changes_nothing() {
    let mut book = Book::new("example".to_owned());
    take(&mut book, &look(vec![good("a.example"), good("b.example")]));
    let silent = Look {
        incomplete: Some(Problem::Passing("no answer".to_owned())),
        ..look(vec![])
    };
    assert!(take(&mut book, &silent).events.is_empty());
    let half = Entry {
        services: Err(Problem::Passing("SERVFAIL".to_owned())),
        ..good("a.example")
    };
    let outcome = take(&mut book, &look(vec![half, good("b.example")]));
    assert_eq!(seen(&outcome), [("b.example", 1)]);
    let wrong = Entry {
        services: Ok(vec![]),
        ..good("a.example")
    };
    let outcome = take(&mut book, &look(vec![wrong, good("b.example")]));
    assert_eq!(seen(&outcome), [("b.example", 1), ("a.example", 0)]);
    assert_eq!(outcome.report.refused.len(), 1);
}

#[test]
fn names_that_come_anew_with_each_incomplete_look_do_not_grow_the_book() {
    let mut book = Book::new("example".to_owned());
    for number in 0..3 {
        let entries = (0..INSTANCES).map(|index| good(&format!("{number}-{index}.example")));
        let half = Look {
            incomplete: Some(Problem::Passing("SERVFAIL".to_owned())),
            ..look(entries.collect())
        };
        take(&mut book, &half);
    }
    assert_eq!(book.close().len(), INSTANCES);
}

#[test]
fn the_time_to_live_drives_the_next_look_between_floor_and_ceiling() {
    let mut book = Book::new("example".to_owned());
    let mut wait = |ttl, chance| {
        let look = Look {
            ttl,
            ..look(vec![])
        };
        with_ground(|ground| book.handle_look(&look, ground, chance).wait)
    };
    assert_eq!(
        wait(Some(Duration::from_mins(1)), 0.0),
        Duration::from_mins(1)
    );
    assert_eq!(
        wait(Some(Duration::from_mins(1)), 1.0),
        Duration::from_secs(66)
    );
    assert_eq!(wait(Some(Duration::ZERO), 0.0), Duration::from_secs(5));
    assert_eq!(
        wait(Some(Duration::from_hours(24)), 1.0),
        Duration::from_mins(5)
    );
    assert!(wait(None, 0.0) > Duration::from_mins(4));
}

#[test]
fn failures_are_tried_again_less_and_less_often() {
    let mut book = Book::new("example".to_owned());
    let silent = Look {
        incomplete: Some(Problem::Passing("no answer".to_owned())),
        ttl: None,
        ..Look::default()
    };
    let waits: Vec<_> = (0..8)
        .map(|_| with_ground(|ground| book.handle_look(&silent, ground, 1.0).wait.as_secs()))
        .collect();
    assert_eq!(waits, [5, 10, 20, 40, 80, 160, 300, 300]);
}

#[test]
fn a_zone_lists_a_cluster_in_both_styles() {
    let listing = zone::Listing {
        cluster_id: id("rome"),
        name: ClusterName::neutralise("Rom \"e\" \u{e9}"),
        port: 5870,
        addresses: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        advertise: None,
        key: None,
    };
    let liqo = zone::render("example.com", &listing, Style::Liqo);
    assert!(liqo.ends_with(
        "\n@ PTR rome\nrome SRV 0 0 5870 rome.host\nrome.host A 10.0.0.1\nrome.host AAAA fd00::1\n"
    ));
    let rfc = zone::render("example.com", &listing, Style::Rfc6763);
    assert!(rfc.contains("\n_liqo_auth._tcp PTR rome._liqo_auth._tcp\n"));
    assert!(rfc.contains(
        "\nrome._landbridge._tcp TXT \"v=1\" \"id=rome\" \"name=Rom \\\"e\\\" \\195\\169\"\n"
    ));
    let named = zone::Listing {
        advertise: zone::url("https://gate.example.org").ok(),
        ..listing
    };
    let text = zone::render("example.com", &named, Style::Liqo);
    assert!(text.contains("rome SRV 0 0 443 gate.example.org.\n") && !text.contains(".host"));
}

#[test]
fn a_zone_has_the_key_of_what_it_lists() {
    let key = Fingerprint::from_spki(b"rome");
    let record = format!("TLSA 2 1 1 {}\n", key.digits());
    let listing = zone::Listing {
        cluster_id: id("rome"),
        name: ClusterName::default(),
        port: 5870,
        addresses: vec!["10.0.0.1".parse().unwrap()],
        advertise: None,
        key: Some(key),
    };
    for style in [Style::Liqo, Style::Rfc6763] {
        let text = zone::render("example.com", &listing, style);
        let last = format!("\n_5870._tcp.rome.host {record}");
        assert!(text.ends_with(&last), "{text}");
    }
    let at = |url: &str| {
        let advertise = zone::url(url).ok();
        let named = zone::Listing {
            advertise,
            ..listing.clone()
        };
        zone::render("example.com", &named, Style::Liqo)
    };
    let inside = at("https://gate.example.com");
    assert!(inside.ends_with(&format!("\n_443._tcp.gate.example.com. {record}")));
    let outside = at("https://gate.example.org:5870");
    let remark = "\n; in the zone of that name: _5870._tcp.gate.example.org. ";
    assert!(outside.ends_with(&format!("{remark}{record}")), "{outside}");
}

#[test]
fn a_domain_is_a_name() {
    assert_eq!(zone::domain("Example.COM."), Ok("example.com".to_owned()));
    for bad in ["", "10.0.0.1", "a b", "-a.example", "a..b", "x:1/2"] {
        assert!(zone::domain(bad).is_err(), "{bad}");
    }
}

fn services() -> impl Strategy<Value = Vec<Service>> {
    let addresses = prop_oneof![
        prop::collection::vec(any::<IpAddr>(), 0..12).prop_map(Ok),
        Just(Err(Problem::Passing("no answer".to_owned()))),
        Just(Err(Problem::Lasting("a loop".to_owned()))),
    ];
    let one = (
        0..3_u16,
        any::<u16>(),
        any::<u16>(),
        "[a-c]{0,2}",
        addresses,
    );
    let one = one.prop_map(|(priority, weight, port, target, addresses)| Service {
        priority,
        weight,
        port,
        target,
        addresses,
        keys: BTreeSet::new(),
    });
    prop::collection::vec(one, 0..40)
}

proptest! {
    #[test]
    fn the_order_does_not_depend_on_the_order_of_the_answer(
        services in services(), seed in any::<u64>(),
    ) {
        let mut turned = services.clone();
        turned.reverse();
        let key = |service: &&Service| (service.priority, service.port, service.target.clone());
        let one: Vec<_> = in_order(&services, seed).iter().map(key).collect();
        let other: Vec<_> = in_order(&turned, seed).iter().map(key).collect();
        prop_assert!(one.is_sorted_by_key(|(priority, ..)| *priority));
        prop_assert!(one.len() <= TARGETS);
        prop_assert_eq!(one, other);
    }

    #[test]
    fn whatever_is_found_may_be_dialled_and_is_bounded(services in services()) {
        if let Verdict::Found(_, endpoints) = decide(&entry("x.example", services)) {
            prop_assert!(!endpoints.is_empty() && endpoints.len() <= ENDPOINTS);
            for endpoint in endpoints {
                prop_assert!(judge(endpoint, DiscoveryType::Wan, &own()).is_ok());
            }
        }
    }

    #[test]
    fn a_broken_entry_never_spoils_the_others(services in services()) {
        let mut book = Book::new("example".to_owned());
        let entries = vec![good("a.example"), entry("x.example", services), good("z.example")];
        let outcome = take(&mut book, &look(entries));
        let names: Vec<_> = seen(&outcome).iter().map(|(name, _)| *name).collect();
        prop_assert!(names.contains(&"a.example") && names.contains(&"z.example"));
    }
}
