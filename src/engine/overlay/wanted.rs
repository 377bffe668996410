//! From TunnelEndpoint objects to the wanted overlay: what a peer says is checked here.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use ipnet::Ipv4Net;

use super::{INTERFACE, LARGEST_MTU, Overlay, Peer, PublicKey, SMALLEST_MTU};
use crate::{
    api::{foreign_cluster::DiscoveryType, identity::ClusterId, tunnel_endpoint::TunnelEndpoint},
    engine::{
        addresses::{OwnNetworks, judge},
        addressing::{Refusal, Remap, check_claim, overlap},
    },
};

/// The phase of a TunnelEndpoint whose addresses are negotiated (Liqo's word).
pub const READY: &str = "Ready";
/// The key of a TunnelEndpoint's backend configuration that holds the peer's public key.
pub const PUBLIC_KEY: &str = "publicKey";
/// The key that holds the UDP port of the peer's tunnel.
pub const PORT: &str = "port";
/// The key that holds the peer's endpoints, address:port, best first, separated by commas.
pub const ENDPOINTS: &str = "endpoints";
/// The key that holds the largest packet that the peer's tunnel carries.
pub const MTU: &str = "mtu";
/// How many endpoints of one peer are tried.
const ENDPOINT_LIMIT: usize = 8;

/// Our own end of the tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    /// The range of our pods.
    pub range: Ipv4Net,
    /// Our own key.
    pub public_key: PublicKey,
    /// The UDP port that we listen on.
    pub port: u16,
    /// The largest packet that our side carries, in bytes.
    pub mtu: u16,
}

/// Indicates why a TunnelEndpoint gives no tunnel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Indicates an id that cannot be one.
    #[error(transparent)]
    Identity(#[from] crate::api::identity::IdentityError),
    /// Indicates a missing or malformed public key.
    #[error("spec.backend_config.publicKey: {0}")]
    Key(#[from] super::KeyError),
    /// Indicates a key that somebody else has.
    #[error("the public key belongs to {0} already")]
    KeyTaken(String),
    /// Indicates a range that a tunnel cannot have.
    #[error("{field}: {refusal}")]
    Range {
        /// The field that holds it.
        field: &'static str,
        /// What is wrong with it.
        refusal: Refusal,
    },
    /// Indicates ranges that must be of one size and are not.
    #[error("{field}: range {range} must have the prefix length of {other}")]
    Size {
        /// The field that holds it.
        field: &'static str,
        /// The range.
        range: Ipv4Net,
        /// What it stands for.
        other: Ipv4Net,
    },
    /// Indicates a range that has an owner.
    #[error("range {range} overlaps {other}, which belongs to {owner}; the first owner keeps it")]
    RangeTaken {
        /// The range.
        range: Ipv4Net,
        /// What it overlaps.
        other: Ipv4Net,
        /// Whose that is.
        owner: String,
    },
    /// Indicates a second object for a cluster.
    #[error("cluster {0} has another TunnelEndpoint already")]
    Duplicate(ClusterId),
}

/// What the objects amount to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// The wanted overlay.
    pub overlay: Overlay,
    /// The object behind each peer, by name.
    pub objects: BTreeMap<ClusterId, String>,
    /// The objects that give no tunnel, by name, and why.
    pub rejected: BTreeMap<String, Rejection>,
}

/// Builds the wanted overlay from those objects that are negotiated and not being deleted.
///
/// Among objects that claim the same, the oldest wins.
pub fn admit<'a>(
    local: &Local,
    objects: impl IntoIterator<Item = &'a TunnelEndpoint>,
) -> Admission {
    let mut admission = Admission {
        overlay: Overlay {
            interface: INTERFACE.to_owned(),
            local: local.range,
            mtu: local.mtu.clamp(SMALLEST_MTU, LARGEST_MTU),
            port: local.port,
            peers: BTreeMap::new(),
        },
        objects: BTreeMap::new(),
        rejected: BTreeMap::new(),
    };
    let mut wanted: Vec<_> = objects.into_iter().filter(|it| is_wanted(it)).collect();
    wanted.sort_by_key(|it| {
        let created = it.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (created, it.metadata.name.clone())
    });
    for object in wanted {
        let name = object.metadata.name.clone().unwrap_or_default();
        match read(local, object).and_then(|read| claim(&mut admission, local, read)) {
            Ok(cluster) => {
                admission.objects.insert(cluster, name);
            }
            Err(rejection) => {
                admission.rejected.insert(name, rejection);
            }
        }
    }
    drop_loops(&mut admission.overlay);
    admission
}

fn is_wanted(object: &TunnelEndpoint) -> bool {
    let phase = object.status.as_ref().and_then(|it| it.phase.as_deref());
    phase == Some(READY) && object.metadata.deletion_timestamp.is_none()
}

struct Read {
    cluster: ClusterId,
    peer: Peer,
    mtu: u16,
}

fn read(local: &Local, object: &TunnelEndpoint) -> Result<Read, Rejection> {
    let (spec, status) = (&object.spec, object.status.clone().unwrap_or_default());
    let backend = |key: &str| spec.backend_config.get(key).map_or("", String::as_str);
    let claimed = range("spec.podCIDR", check_claim(&spec.pod_cidr))?;
    let remote = seen_as(
        "status.remoteNATPodCIDR",
        status.remote_nat_pod_cidr.as_deref(),
        claimed,
    )?;
    let presented = seen_as(
        "status.localNATPodCIDR",
        status.local_nat_pod_cidr.as_deref(),
        local.range,
    )?;
    let mut endpoints: Vec<SocketAddr> = Vec::new();
    let fallback = format!("{}:{}", spec.endpoint_ip, backend(PORT));
    for text in backend(ENDPOINTS).split(',').chain([fallback.as_str()]) {
        if let Ok(endpoint) = text.trim().parse()
            && is_usable(endpoint, local)
            && !endpoints.contains(&endpoint)
            && endpoints.len() < ENDPOINT_LIMIT
        {
            endpoints.push(endpoint);
        }
    }
    Ok(Read {
        cluster: spec.cluster_id.parse()?,
        peer: Peer {
            public_key: backend(PUBLIC_KEY).parse()?,
            endpoints,
            turn: 0,
            is_silent: false,
            remote,
            local_nat: (presented != local.range).then_some(presented),
        },
        // A peer without an opinion says 0 or nothing.
        mtu: backend(MTU)
            .parse()
            .ok()
            .filter(|mtu| *mtu > 0)
            .unwrap_or(LARGEST_MTU),
    })
}

fn range(field: &'static str, checked: Result<Ipv4Net, Refusal>) -> Result<Ipv4Net, Rejection> {
    checked.map_err(|refusal| Rejection::Range { field, refusal })
}

fn seen_as(field: &'static str, text: Option<&str>, other: Ipv4Net) -> Result<Ipv4Net, Rejection> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(other);
    };
    let remap = Remap::parse(text).map_err(|refusal| Rejection::Range { field, refusal })?;
    let range = remap.apply(other);
    if range.prefix_len() == other.prefix_len() {
        Ok(range)
    } else {
        Err(Rejection::Size {
            field,
            range,
            other,
        })
    }
}

fn claim(admission: &mut Admission, local: &Local, read: Read) -> Result<ClusterId, Rejection> {
    let Read { cluster, peer, mtu } = read;
    let overlay = &mut admission.overlay;
    let taken = |other: Ipv4Net, owner: &str| Rejection::RangeTaken {
        range: peer.remote,
        other,
        owner: owner.to_owned(),
    };
    if peer.public_key == local.public_key {
        return Err(Rejection::KeyTaken("this cluster".to_owned()));
    }
    if overlap(&peer.remote, &local.range) {
        return Err(taken(local.range, "this cluster"));
    }
    if overlay.peers.contains_key(&cluster) {
        return Err(Rejection::Duplicate(cluster));
    }
    for (owner, other) in &overlay.peers {
        if other.public_key == peer.public_key {
            return Err(Rejection::KeyTaken(owner.to_string()));
        }
        if overlap(&other.remote, &peer.remote) {
            return Err(taken(other.remote, owner.as_str()));
        }
    }
    overlay.mtu = overlay.mtu.min(mtu.max(SMALLEST_MTU));
    overlay.peers.insert(cluster.clone(), peer);
    Ok(cluster)
}

/// Judges what stands in the object by the policy for all dials.
fn is_usable(endpoint: SocketAddr, local: &Local) -> bool {
    let own = OwnNetworks {
        pod_cidr: Some(local.range.into()),
        ..OwnNetworks::default()
    };
    judge(endpoint, DiscoveryType::Wan, &own).is_ok()
}

/// Drops endpoints inside of the tunnel, since a tunnel through itself is a loop.
fn drop_loops(overlay: &mut Overlay) {
    let mut inside: BTreeSet<Ipv4Net> = overlay.peers.values().map(|it| it.remote).collect();
    inside.insert(overlay.local);
    for peer in overlay.peers.values_mut() {
        peer.endpoints.retain(|endpoint| {
            let IpAddr::V4(address) = endpoint.ip().to_canonical() else {
                return true;
            };
            !inside.iter().any(|range| range.contains(&address))
        });
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::api::tunnel_endpoint::{TunnelEndpointSpec, TunnelEndpointStatus};

    #[test]
    fn a_negotiated_endpoint_becomes_a_peer() {
        let mut object = endpoint("b", 2);
        object.status = Some(ready(Some("10.72.0.0/16"), Some("10.71.0.0/16")));
        let admission = admit(&local(), [&object]);
        assert_eq!(admission.rejected, BTreeMap::new());
        let peer = &admission.overlay.peers[&"b".parse().unwrap()];
        assert_eq!(peer.remote, net("10.71.0.0/16"));
        assert_eq!(peer.local_nat, Some(net("10.72.0.0/16")));
        assert_eq!(
            peer.endpoints,
            [
                "192.168.7.2:5871".parse().unwrap(),
                "[fd00::2]:5871".parse().unwrap()
            ]
        );
        assert_eq!(admission.overlay.mtu, 1380);
        assert_eq!(admission.objects[&"b".parse().unwrap()], "b");
    }

    #[test]
    fn what_is_not_negotiated_or_is_going_away_is_not_wanted() {
        let mut fresh = endpoint("b", 2);
        fresh.status = None;
        let mut going = endpoint("c", 3);
        going.spec.pod_cidr = "10.9.0.0/16".to_owned();
        going.metadata.deletion_timestamp = Some(time(5));
        let admission = admit(&local(), [&fresh, &going]);
        assert!(admission.overlay.peers.is_empty() && admission.rejected.is_empty());
    }

    #[test]
    fn the_older_object_keeps_the_range_whatever_the_order() {
        let (mut old, mut new) = (endpoint("z", 2), endpoint("b", 3));
        old.metadata.creation_timestamp = Some(time(1));
        new.metadata.creation_timestamp = Some(time(2));
        for objects in [[&old, &new], [&new, &old]] {
            let admission = admit(&local(), objects);
            assert_eq!(admission.objects.values().collect::<Vec<_>>(), ["z"]);
            assert!(matches!(
                admission.rejected["b"],
                Rejection::RangeTaken { .. }
            ));
        }
    }

    #[test]
    fn a_peer_cannot_have_our_range_our_key_or_anothers_key() {
        let mut ours = endpoint("b", 2);
        ours.spec.pod_cidr = "10.244.7.0/24".to_owned();
        let clone = endpoint("c", 1);
        let (d, mut e) = (endpoint("d", 4), endpoint("e", 4));
        e.spec.pod_cidr = "10.10.0.0/16".to_owned();
        let admission = admit(&local(), [&ours, &clone, &d, &e]);
        assert!(matches!(
            admission.rejected["b"],
            Rejection::RangeTaken { .. }
        ));
        assert!(matches!(admission.rejected["c"], Rejection::KeyTaken(_)));
        assert!(matches!(admission.rejected["e"], Rejection::KeyTaken(_)));
        assert_eq!(admission.rejected.len(), 3);
    }

    #[test]
    fn a_size_that_does_not_match_is_refused() {
        let mut object = endpoint("b", 2);
        object.status = Some(ready(Some("10.72.0.0/24"), None));
        assert!(matches!(
            admit(&local(), [&object]).rejected["b"],
            Rejection::Size { .. }
        ));
    }

    #[test]
    fn endpoints_that_loop_or_lead_nowhere_are_dropped() {
        let mut object = endpoint("b", 2);
        object.spec.endpoint_ip = "10.245.0.1".to_owned();
        object.spec.backend_config.insert(
            ENDPOINTS.to_owned(),
            "127.0.0.1:1, 0.0.0.0:1,224.0.0.1:1,10.244.0.9:1,[::ffff:127.0.0.1]:1,1.2.3.4:0,169.254.169.254:80,x,192.168.7.2:1"
                .to_owned(),
        );
        let admission = admit(&local(), [&object]);
        let peer = &admission.overlay.peers[&"b".parse().unwrap()];
        assert_eq!(peer.endpoints, ["192.168.7.2:1".parse().unwrap()]);
    }

    fn local() -> Local {
        Local {
            range: net("10.244.0.0/16"),
            public_key: PublicKey::new([1; 32]),
            port: 5871,
            mtu: 1420,
        }
    }

    fn endpoint(cluster: &str, key: u8) -> TunnelEndpoint {
        let mut object = TunnelEndpoint::new(
            cluster,
            TunnelEndpointSpec {
                cluster_id: cluster.to_owned(),
                pod_cidr: "10.245.0.0/16".to_owned(),
                endpoint_ip: "192.168.7.2".to_owned(),
                backend_config: BTreeMap::from([
                    (PUBLIC_KEY.to_owned(), PublicKey::new([key; 32]).to_string()),
                    (PORT.to_owned(), "5871".to_owned()),
                    (
                        ENDPOINTS.to_owned(),
                        "192.168.7.2:5871,[fd00::2]:5871".to_owned(),
                    ),
                    (MTU.to_owned(), "1380".to_owned()),
                ]),
                ..TunnelEndpointSpec::default()
            },
        );
        object.status = Some(ready(None, None));
        object
    }

    fn ready(local_nat: Option<&str>, remote_nat: Option<&str>) -> TunnelEndpointStatus {
        TunnelEndpointStatus {
            phase: Some(READY.to_owned()),
            local_nat_pod_cidr: Some(local_nat.unwrap_or("None").to_owned()),
            remote_nat_pod_cidr: Some(remote_nat.unwrap_or("None").to_owned()),
            ..TunnelEndpointStatus::default()
        }
    }

    fn time(seconds: i64) -> Time {
        Time(jiff::Timestamp::from_second(seconds).unwrap())
    }

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }
}
