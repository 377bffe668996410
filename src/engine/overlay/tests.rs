//! Tests of the plan and of the rendered rules.

use proptest::prelude::*;

use super::*;

#[test]
fn a_first_peer_brings_rules_before_packets() {
    let wanted = overlay(&[("b", 2, "10.245.0.0/16", None)]);
    let operations = plan(&wanted, &Observed::default());
    let source = Ipv4Addr::new(10, 244, 0, 1);
    assert_eq!(
        operations,
        [
            Operation::CreateInterface {
                port: 5871,
                mtu: 1420
            },
            Operation::AddAddress(source),
            Operation::ReplaceFilter(Ruleset::of(&wanted)),
            Operation::SetPeer(Link {
                cluster: id("b"),
                public_key: key(2),
                endpoint: Some("192.168.1.2:5871".parse().unwrap()),
                allowed: net("10.245.0.0/16"),
                presented: net("10.244.0.0/16"),
            }),
            Operation::AddRoute {
                range: net("10.245.0.0/16"),
                source
            },
        ]
    );
}

#[test]
fn the_last_peer_takes_everything_with_it() {
    let mut observed = obeyed(&overlay(&[("b", 2, "10.245.0.0/16", None)]));
    let none = overlay(&[]);
    assert_eq!(
        plan(&none, &observed),
        [
            Operation::RemoveRoute(net("10.245.0.0/16")),
            Operation::RemoveInterface,
            Operation::RemoveFilter,
        ]
    );
    obey(&none, &mut observed);
    assert_eq!(observed, Observed::default());
}

#[test]
fn what_others_delete_is_restored() {
    let wanted = overlay(&[("b", 2, "10.245.0.0/16", Some("10.72.0.0/16"))]);
    let whole = obeyed(&wanted);

    let mut without_route = whole.clone();
    without_route.routes.clear();
    assert_eq!(plan(&wanted, &without_route).len(), 1);

    let mut flushed = whole.clone();
    flushed.filter.as_mut().unwrap().rules = 0;
    assert!(matches!(
        plan(&wanted, &flushed)[..],
        [Operation::ReplaceFilter(_)]
    ));

    let mut without_link = whole;
    without_link.interface = None;
    let operations = plan(&wanted, &without_link);
    assert!(matches!(operations[0], Operation::CreateInterface { .. }));
    assert!(
        operations
            .iter()
            .any(|it| matches!(it, Operation::SetPeer(_)))
    );
}

#[test]
fn a_roamed_endpoint_stays_while_the_session_lives() {
    let mut wanted = overlay(&[("b", 2, "10.245.0.0/16", None)]);
    let mut observed = obeyed(&wanted);
    let roamed = "203.0.113.9:40000".parse().unwrap();
    let peer = observed.peers.get_mut(&key(2)).unwrap();
    peer.endpoint = Some(roamed);
    peer.handshake_age = HANDSHAKE_LIMIT.checked_sub(Duration::from_secs(1));
    assert_eq!(plan(&wanted, &observed), []);

    let other = [Operation::SetEndpoint(
        key(2),
        "192.168.2.2:5871".parse().unwrap(),
    )];
    wanted.peers.get_mut(&id("b")).unwrap().turn = 3;
    assert_eq!(plan(&wanted, &observed), []);
    wanted.peers.get_mut(&id("b")).unwrap().is_silent = true;
    assert_eq!(plan(&wanted, &observed), other);
    wanted.peers.get_mut(&id("b")).unwrap().is_silent = false;
    observed.peers.get_mut(&key(2)).unwrap().handshake_age = Some(HANDSHAKE_LIMIT);
    assert_eq!(plan(&wanted, &observed), other);
}

#[test]
fn a_new_key_replaces_the_old_one_before_it_gets_the_range() {
    let mut observed = obeyed(&overlay(&[("b", 2, "10.245.0.0/16", None)]));
    let wanted = overlay(&[("b", 3, "10.245.0.0/16", None)]);
    let operations = plan(&wanted, &observed);
    assert_eq!(operations[0], Operation::RemovePeer(key(2)));
    assert!(matches!(&operations[1], Operation::SetPeer(link) if link.public_key == key(3)));
    obey(&wanted, &mut observed);
    assert_eq!(plan(&wanted, &observed), []);
}

#[test]
fn the_rules_of_two_peers_that_see_us_differently() {
    let wanted = overlay(&[
        ("b", 2, "10.71.0.0/16", Some("10.72.0.0/16")),
        ("c", 3, "10.80.0.0/16", None),
    ]);
    let ruleset = Ruleset::of(&wanted);
    assert_eq!(ruleset.text, include_str!("golden.nft"));
    assert_eq!(ruleset.state.rules, 10);
    assert!(FilterState::is_mark(&ruleset.state.mark));
}

#[test]
fn the_mtu_leaves_room_for_the_outer_headers() {
    for (path, inner) in [
        (1500, 1420),
        (1492, 1412),
        (1460, 1380),
        (1450, 1370),
        (9000, 1420),
        (1300, 1280),
        (0, 1280),
        (u32::MAX, 1420),
    ] {
        assert_eq!(tunnel_mtu(path), inner);
    }
}

proptest! {
    #[test]
    fn a_plan_that_was_carried_out_leaves_nothing_to_do(
        first in overlays(), second in overlays(), missing in 0..5_u8,
    ) {
        let mut observed = obeyed(&first);
        match missing {
            0 => observed.obey(&Operation::RemoveInterface),
            1 => observed.filter = None,
            2 => observed.routes.clear(),
            3 => observed.peers.clear(),
            _ => {}
        }
        obey(&second, &mut observed);
        prop_assert_eq!(plan(&second, &observed), []);
        for peer in second.peers.values() {
            prop_assert!(observed.peers[&peer.public_key].allowed.contains(&peer.remote));
            prop_assert!(observed.routes.contains_key(&peer.remote));
        }
        prop_assert_eq!(observed.peers.len(), second.peers.len());
        prop_assert_eq!(observed.routes.len(), second.peers.len());
        prop_assert_eq!(observed.interface.is_some(), !second.peers.is_empty());
    }
}

fn overlays() -> impl Strategy<Value = Overlay> {
    let peer = (0..4_u8, 0..3_u8, any::<bool>(), 0..3_usize);
    (
        prop::collection::btree_map(0..4_u8, peer, 0..4),
        prop::sample::select(vec![5871_u16, 5900]),
        prop::sample::select(vec![1280_u16, 1420]),
    )
        .prop_map(|(peers, port, mtu)| {
            let mut overlay = overlay(&[]);
            (overlay.port, overlay.mtu) = (port, mtu);
            for (number, (key_offset, range_offset, nat, turn)) in peers {
                // Keys and ranges wander between clusters from one overlay to the next, and no two
                // clusters of one overlay have the same.
                let peer = Peer {
                    public_key: key(1 + number + 4 * key_offset),
                    endpoints: endpoints(),
                    turn,
                    is_silent: false,
                    remote: Ipv4Net::new(
                        Ipv4Addr::new(10, 100 + (number + range_offset) % 4, number, 0),
                        24,
                    )
                    .unwrap(),
                    local_nat: nat.then(|| net("10.72.0.0/16")),
                };
                overlay.peers.insert(id(&format!("c{number}")), peer);
            }
            overlay
        })
}

fn obeyed(overlay: &Overlay) -> Observed {
    let mut observed = Observed::default();
    obey(overlay, &mut observed);
    observed
}

fn obey(overlay: &Overlay, observed: &mut Observed) {
    for operation in plan(overlay, observed) {
        observed.obey(&operation);
    }
}

fn overlay(peers: &[(&str, u8, &str, Option<&str>)]) -> Overlay {
    Overlay {
        interface: INTERFACE.to_owned(),
        local: net("10.244.0.0/16"),
        mtu: 1420,
        port: 5871,
        peers: peers
            .iter()
            .map(|(cluster, number, remote, nat)| {
                let peer = Peer {
                    public_key: key(*number),
                    endpoints: endpoints(),
                    turn: 0,
                    is_silent: false,
                    remote: net(remote),
                    local_nat: nat.map(net),
                };
                (id(cluster), peer)
            })
            .collect(),
    }
}

fn endpoints() -> Vec<SocketAddr> {
    ["192.168.1.2:5871", "192.168.2.2:5871"]
        .map(|text| text.parse().unwrap())
        .to_vec()
}

fn key(number: u8) -> PublicKey {
    PublicKey::new([number; 32])
}

fn id(text: &str) -> ClusterId {
    text.parse().unwrap()
}

fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}
