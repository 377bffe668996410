//! A peer that claims addresses of somebody else: of ours, of another peer, of the world.

use std::{collections::BTreeSet, time::Duration};

use ipnet::Ipv4Net;
use landbridge::{
    api::identity::ClusterId,
    engine::addressing::{Ground, Refusal, Remap, check_claim, decide},
};

use crate::lab::Lab;

/// How long anything may take. It is a bound for broken runs, not a measure.
const PATIENCE: Duration = Duration::from_secs(40);

/// What becomes of a claim.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Refused,
    Remapped,
    Kept,
}
use Fate::{Kept, Refused, Remapped};

/// Claims against a cluster whose pods are 10.244.0.0/16 and services 10.96.0.0/12, on the network
/// 192.168.1.0/24, that keeps 172.20.0.0/14 for other things and sees another peer at 10.7.0.0/16.
const CLAIMS: [(&str, Fate); 40] = [
    ("0.0.0.0/0", Refused),
    ("0.0.0.0/8", Refused),
    ("::/0", Refused),
    ("fd00::/8", Refused),
    ("128.0.0.0/1", Refused),
    ("8.8.8.0/24", Refused),
    ("1.1.1.1/32", Refused),
    ("127.0.0.0/8", Refused),
    ("127.0.0.1/32", Refused),
    ("169.254.0.0/16", Refused),
    ("169.254.169.254/32", Refused),
    ("224.0.0.0/4", Refused),
    ("239.1.0.0/16", Refused),
    ("240.0.0.0/4", Refused),
    ("255.255.255.255/32", Refused),
    ("192.0.2.0/24", Refused),
    ("198.18.0.0/15", Refused),
    ("10.0.0.0/8", Refused),
    ("172.16.0.0/8", Refused),
    ("172.32.0.0/16", Refused),
    ("192.169.0.0/16", Refused),
    ("100.128.0.0/16", Refused),
    ("10.1.2.3/31", Refused),
    ("10.1.2.3/32", Refused),
    ("10.1.2.3", Refused),
    ("10.1.2.0/33", Refused),
    ("10.1.2.0/-1", Refused),
    ("", Refused),
    ("10.1.0.0/16; drop table", Refused),
    ("10.244.0.0/16", Remapped),
    ("10.244.7.0/24", Remapped),
    ("10.240.0.0/12", Remapped),
    ("10.96.0.0/12", Remapped),
    ("10.100.1.0/24", Remapped),
    ("192.168.1.0/24", Remapped),
    ("192.168.0.0/16", Remapped),
    ("172.21.0.0/16", Remapped),
    ("10.7.0.0/16", Remapped),
    ("10.7.255.0/30", Remapped),
    ("10.245.0.0/16", Kept),
];

#[test]
fn of_all_claims_only_a_free_private_range_is_kept() {
    let own = ClusterId::from_spki(b"own");
    let peer = ClusterId::from_spki(b"peer");
    let mut ground = Ground::new(own, net("10.244.0.0/16"));
    ground.services = Some(net("10.96.0.0/12"));
    ground.networks.insert(net("192.168.1.0/24"));
    ground.reserved.insert(net("172.20.0.0/14"));
    let first = ClusterId::from_spki(b"first");
    let given = BTreeSet::from([net("10.7.0.0/16")]);
    ground.given.insert(first, given.clone());
    for (claim, expected) in CLAIMS {
        let decided = check_claim(claim).and_then(|range| decide(&ground, &peer, range, None));
        let fate = match decided {
            Ok(Remap::Unchanged) => Kept,
            Ok(Remap::To(range)) => {
                let taken = [
                    "10.244.0.0/16",
                    "10.96.0.0/12",
                    "192.168.1.0/24",
                    "172.20.0.0/14",
                    "10.7.0.0/16",
                ];
                let overlaps =
                    |used: &str| net(used).contains(&range) || range.contains(&net(used));
                assert!(!taken.into_iter().any(overlaps), "{claim} -> {range}");
                Remapped
            }
            Err(Refusal::Exhausted(range)) => panic!("{range}"),
            Err(_) => Refused,
        };
        assert_eq!(fate, expected, "{claim}");
    }
    assert_eq!(ground.given.values().next(), Some(&given));
}

/// Turin says that its pods have the very range under which milan sees rome.
#[test]
fn the_range_of_a_peer_cannot_be_taken_by_another() {
    let Some(mut lab) = Lab::new(&["rome", "milan", "turin"]) else {
        return;
    };
    lab.start("rome");
    lab.start("milan");
    lab.until_peered_with("milan", "rome");
    let rome = lab.tunnel_address("milan", "rome");
    let route = || {
        let routes = lab.output("milan", &["ip", "route", "get", &rome.to_string()]);
        routes.lines().next().unwrap_or_default().to_owned()
    };
    let (before, keys) = (route(), allowed(&lab, "rome"));
    let range = keys.split(' ').next().unwrap_or_default().to_owned();
    assert!(net(&range).contains(&rome), "{keys}");
    lab.set("LANDBRIDGE_CLUSTER_POD_CIDR", &range);
    lab.start("turin");
    let turin = lab.until(PATIENCE, "milan sees turin somewhere", || {
        lab.tunnel_address_now("milan", "turin")
    });
    assert!(
        !net(&range).contains(&turin),
        "{turin} is in rome's {range}"
    );
    lab.until(PATIENCE, "milan reaches turin", || {
        lab.ping("milan", turin).then_some(())
    });
    assert!(lab.ping("milan", rome), "{}", lab.story());
    let route = || {
        let routes = lab.output("milan", &["ip", "route", "get", &rome.to_string()]);
        routes.lines().next().unwrap_or_default().to_owned()
    };
    assert_eq!(route(), before);
    assert_eq!(
        allowed(&lab, "rome"),
        keys,
        "what rome may use is as it was"
    );
    assert_ne!(allowed(&lab, "turin"), keys);
}

/// The range under which milan sees a peer, and the peer's key.
fn allowed(lab: &Lab, peer: &str) -> String {
    let object = lab.peer("milan", peer).unwrap();
    let id = object["spec"]["clusterIdentity"]["clusterID"].clone();
    let tunnels = lab.list("milan", "/apis/net.liqo.io/v1alpha1/tunnelendpoints");
    let tunnel = tunnels.iter().find(|one| one["spec"]["clusterID"] == id);
    let tunnel = tunnel.unwrap_or_else(|| panic!("{peer} has no tunnel"));
    let seen = match tunnel["status"]["remoteNATPodCIDR"].as_str() {
        None | Some("" | "None") => tunnel["spec"]["podCIDR"].as_str(),
        seen => seen,
    };
    let key = tunnel["spec"]["backend_config"]["publicKey"].as_str();
    format!("{} {}", seen.unwrap_or_default(), key.unwrap_or_default())
}

fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}
