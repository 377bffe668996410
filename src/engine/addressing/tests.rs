//! Which ranges are chosen, and when a range is in the way.

use proptest::prelude::*;

use super::*;

#[test]
fn a_new_range_keeps_clear_of_what_is_reached_while_there_is_another() {
    let mut ground = ground("10.244.0.0/16");
    let choose =
        |ground: &Ground, claim, previous| decide(ground, &id("b"), net(claim), previous).unwrap();
    let Remap::To(first) = choose(&ground, "10.244.0.0/16", None) else {
        panic!("our own range is not free");
    };
    // A resolver that happens to be there, and a claim with a route in it.
    let resolver = Ipv4Net::new(first.hosts().nth(52).unwrap(), 32).unwrap();
    ground.avoided = BTreeSet::from([resolver, net("10.50.1.2/32")]);
    let Remap::To(second) = choose(&ground, "10.244.0.0/16", None) else {
        panic!("our own range is not free");
    };
    assert!(!second.contains(&resolver));
    assert_ne!(choose(&ground, "10.50.0.0/16", None), Remap::Unchanged);
    for (claim, kept) in [
        ("10.244.0.0/16", Remap::To(first)),
        ("10.50.0.0/16", Remap::Unchanged),
    ] {
        assert_eq!(
            choose(&ground, claim, Some(kept)),
            kept,
            "it was there first"
        );
    }
    // A VPN that routes everything.
    ground.avoided = BTreeSet::from([net("0.0.0.0/1"), net("128.0.0.0/1")]);
    assert_eq!(choose(&ground, "10.244.0.0/16", None), Remap::To(first));
}

#[test]
fn a_free_claim_is_seen_as_it_is() {
    let ground = ground("10.244.0.0/16");
    assert_eq!(
        decide(&ground, &id("b"), net("10.245.0.0/16"), None),
        Ok(Remap::Unchanged)
    );
}

#[test]
fn whatever_overlaps_ours_is_remapped_to_the_same_size() {
    let mut ground = ground("10.244.0.0/16");
    ground.services = Some(net("10.96.0.0/12"));
    ground.networks.insert(net("192.168.1.0/24"));
    ground.reserved.insert(net("172.20.0.0/14"));
    ground
        .given
        .insert(id("c"), BTreeSet::from([net("10.7.0.0/16")]));
    for claim in [
        "10.244.0.0/16",
        "10.244.3.0/24",
        "10.240.0.0/12",
        "10.100.0.0/16",
        "192.168.0.0/16",
        "192.168.1.128/25",
        "172.21.0.0/16",
        "10.7.8.0/24",
        "10.0.0.0/9",
        "10.128.0.0/9",
    ] {
        let answer = decide(&ground, &id("b"), net(claim), None);
        match answer {
            Ok(Remap::To(range)) => {
                assert_eq!(range.prefix_len(), net(claim).prefix_len());
                let taken = ground.taken(None);
                assert!(!taken.iter().any(|used| overlap(used, &range)), "{range}");
            }
            // Both halves of 10/8 are in use here and no other pool is that large.
            Err(Refusal::Exhausted(_)) => assert_eq!(net(claim).prefix_len(), 9),
            other => panic!("{claim} {other:?}"),
        }
    }
}

#[test]
fn hostile_claims_are_refused() {
    for claim in [
        "",
        "0.0.0.0/0",
        "10.0.0.0/8",
        "10.0.0.0/7",
        "10.0.0.0/31",
        "10.1.2.3/32",
        "127.0.0.0/16",
        "169.254.0.0/16",
        "169.254.169.254/30",
        "224.0.0.0/16",
        "240.0.0.0/16",
        "255.255.255.0/24",
        "8.8.8.0/24",
        "172.0.0.0/9",
        "172.32.0.0/16",
        "192.0.0.0/16",
        "192.169.0.0/16",
        "100.0.0.0/9",
        "100.128.0.0/16",
        "fd00::/48",
        "::/0",
        "10.0.0.0",
        "10.0.0.0/33",
        "10.0.0.0/16; drop",
        "\u{661}0.0.0.0/16",
    ] {
        assert!(check_claim(claim).is_err(), "{claim}");
    }
    assert_eq!(check_claim("100.64.3.4/16"), Ok(net("100.64.0.0/16")));
    assert_eq!(check_claim("10.0.0.0/9"), Ok(net("10.0.0.0/9")));
    assert_eq!(check_claim("10.0.0.4/30"), Ok(net("10.0.0.4/30")));
}

#[test]
fn the_first_owner_keeps_and_a_peer_does_not_conflict_with_itself() {
    let mut ground = ground("10.244.0.0/16");
    ground
        .given
        .insert(id("b"), BTreeSet::from([net("10.7.0.0/16")]));
    assert_eq!(
        decide(&ground, &id("b"), net("10.7.0.0/16"), None),
        Ok(Remap::Unchanged)
    );
    assert!(matches!(
        decide(&ground, &id("c"), net("10.7.0.0/16"), None),
        Ok(Remap::To(_))
    ));
}

#[test]
fn both_sides_of_the_default_range_choose_without_speaking() {
    let (a, b) = (id("a"), id("b"));
    let pods = net("10.244.0.0/16");
    let seen_from_a = decide(&Ground::new(a.clone(), pods), &b, pods, None);
    let seen_from_b = decide(&Ground::new(b, pods), &a, pods, None);
    assert!(matches!(seen_from_a, Ok(Remap::To(_))));
    assert_ne!(seen_from_a, seen_from_b);
}

#[test]
fn a_full_pool_is_refused_and_an_additional_one_helps() {
    let mut ground = ground("10.244.0.0/16");
    ground.reserved.extend(POOLS);
    let claim = net("10.1.2.0/28");
    assert_eq!(
        decide(&ground, &id("b"), claim, None),
        Err(Refusal::Exhausted(claim))
    );
    ground.additional_pools.insert(net("100.64.0.0/24"));
    assert!(matches!(
        decide(&ground, &id("b"), claim, None),
        Ok(Remap::To(range)) if net("100.64.0.0/24").contains(&range)
    ));
}

#[test]
fn a_nat_field_reads_back() {
    for remap in [Remap::Unchanged, Remap::To(net("10.7.0.0/16"))] {
        assert_eq!(Remap::parse(&remap.to_string()), Ok(remap));
    }
    assert!(Remap::parse("none").is_err());
}

proptest! {
    #[test]
    fn an_answer_is_free_stable_and_of_the_same_size(
        pods in private_range(), claim in private_range(), services in private_range(),
        networks in prop::collection::btree_set(private_range(), 0..6),
        given in prop::collection::btree_set(private_range(), 0..6),
        peer in "[a-z]{1,8}",
    ) {
        let mut ground = Ground::new(id("own"), pods);
        ground.services = Some(services);
        ground.networks = networks;
        ground.given.insert(id("0ther"), given);
        let peer = id(&peer);
        let answer = decide(&ground, &peer, claim, None);
        prop_assert_eq!(&answer, &decide(&ground, &peer, claim, None));
        if let Ok(remap) = answer {
            let range = remap.apply(claim.trunc());
            prop_assert_eq!(range.prefix_len(), claim.prefix_len());
            prop_assert!(check_range(range).is_ok());
            prop_assert!(!ground.taken(Some(&peer)).iter().any(|used| overlap(used, &range)));
            prop_assert_eq!(decide(&ground, &peer, claim, Some(remap)), Ok(remap));
            ground.given.insert(peer.clone(), BTreeSet::from([range]));
            prop_assert_eq!(decide(&ground, &peer, claim, Some(remap)), Ok(remap));
        }
    }

    #[test]
    fn no_two_peers_are_seen_under_overlapping_ranges(
        claims in prop::collection::vec(private_range(), 1..12),
    ) {
        let mut ground = Ground::new(id("own"), net("10.244.0.0/16"));
        for (number, claim) in claims.into_iter().enumerate() {
            let peer = id(&format!("peer-{number}"));
            if let Ok(remap) = decide(&ground, &peer, claim, None) {
                ground.given.insert(peer, BTreeSet::from([remap.apply(claim.trunc())]));
            }
        }
        let all = ground.taken(None);
        for (index, one) in all.iter().enumerate() {
            for other in all.iter().skip(index + 1) {
                prop_assert!(!overlap(one, other), "{} {}", one, other);
            }
        }
    }

    #[test]
    fn any_text_is_answered(text in ".{0,40}") {
        let _ = check_claim(&text);
        let _ = Remap::parse(&text);
    }
}

fn private_range() -> impl Strategy<Value = Ipv4Net> {
    (any::<u32>(), 0..4_usize, 9_u8..=30).prop_map(|(bits, space, prefix)| {
        let pool = [POOLS[0], POOLS[1], POOLS[2], SHARED_SPACE][space];
        let prefix = prefix.max(pool.prefix_len().max(SHORTEST_PREFIX));
        let address = u32::from(pool.network()) | (bits & u32::from(pool.hostmask()));
        Ipv4Net::new(Ipv4Addr::from(address), prefix)
            .unwrap()
            .trunc()
    })
}

fn ground(pods: &str) -> Ground {
    Ground::new(id("a"), net(pods))
}

fn id(text: &str) -> ClusterId {
    text.parse().unwrap()
}

fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}
