//! The steps about the network: who told whom what, and the tunnel that follows.
//!
//! Each side says in the session under which range it sees the other (`podCIDRNAT`), and rewrites
//! only its own range, so the wire carries ranges that are unique on both sides.

use std::{collections::BTreeMap, net::SocketAddr};

use ipnet::Ipv4Net;

use super::{Step, View};
use crate::{
    api::{
        NetworkConfigSpec, NetworkConfigStatus, TunnelEndpointSpec, TunnelEndpointStatus,
        foreign_cluster::DiscoveryType,
        identity::is_printable,
        labels::FINALIZER_TUNNEL,
        network_config::{BACKEND_WIREGUARD, UNCHANGED},
        peering_request::{HomeSession, SessionNetwork},
    },
    engine::{
        addresses::{OwnNetworks, judge, normalise},
        addressing::{self, Remap},
        overlay::wanted::{ENDPOINTS, MTU, PORT, PUBLIC_KEY, READY},
    },
};

/// What we tell the peer about our network, and how it sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalNetwork {
    /// What we tell.
    pub spec: NetworkConfigSpec,
    /// How the peer sees it.
    pub status: NetworkConfigStatus,
}

/// What the peer told us about its network, and how we see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteNetwork {
    /// What the peer told.
    pub spec: NetworkConfigSpec,
    /// How we see it.
    pub status: NetworkConfigStatus,
}

/// The tunnel that follows from both networks. The connection is not part of the wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelWish {
    /// The peer's side.
    pub spec: TunnelEndpointSpec,
    /// How both sides see each other.
    pub status: TunnelEndpointStatus,
}

/// Plans the NetworkConfigs and the TunnelEndpoint.
pub(super) fn steps(view: &View<'_>, steps: &mut Vec<Step>) {
    if !view.wants_network() {
        remove(view, steps);
        return;
    }
    let Some(told) = view.peer_network() else {
        if is_in_the_way(view) && is_to_be_removed(view) {
            steps.push(Step::RemoveTunnel);
        }
        return;
    };
    let (Some(local), Some(remote)) = (local_network(view, told), remote_network(view, told))
    else {
        // What was agreed on holds no more: the range is somebody else's, or nobody's.
        remove(view, steps);
        return;
    };
    let stands = view.facts.local_network.as_ref().is_some_and(|present| {
        present.spec == local.spec && present.status.as_ref() == Some(&local.status)
    });
    if !stands {
        steps.push(Step::WriteLocalNetwork(Box::new(local.clone())));
    }
    let stands = view.facts.remote_network.as_ref().is_some_and(|present| {
        present.spec == remote.spec && present.status.as_ref() == Some(&remote.status)
    });
    if !stands {
        steps.push(Step::WriteRemoteNetwork(Box::new(remote.clone())));
    }
    match tunnel(view, &local, &remote) {
        Some(wish) if !is_as_wished(view, &wish) => steps.push(Step::WriteTunnel(Box::new(wish))),
        None if is_to_be_removed(view) => steps.push(Step::RemoveTunnel),
        _ => {}
    }
}

fn remove(view: &View<'_>, steps: &mut Vec<Step>) {
    if is_to_be_removed(view) {
        steps.push(Step::RemoveTunnel);
    }
    if view.facts.local_network.is_some() || view.facts.remote_network.is_some() {
        steps.push(Step::RemoveNetworks);
    }
}

/// Whether the range of a peer that says nothing is needed here by now: this machine may be on
/// another network than when it was chosen. The peer hears of another one when it is back.
fn is_in_the_way(view: &View<'_>) -> bool {
    let remote = view.facts.remote_network.as_ref();
    remote.is_some_and(|present| {
        let seen = present
            .status
            .as_ref()
            .and_then(|it| it.pod_cidr_nat.as_ref());
        let claimed = present.spec.pod_cidr.parse::<Ipv4Net>();
        claimed.is_ok_and(|claimed| seen_as(view, claimed).ok().as_ref() != seen)
    })
}

/// Whether there is a TunnelEndpoint that somebody has to delete, or to let go of: where no tunnels
/// are made, nobody else does.
fn is_to_be_removed(view: &View<'_>) -> bool {
    let Some(tunnel) = &view.facts.tunnel else {
        return false;
    };
    let mut finalizers = tunnel.metadata.finalizers.iter().flatten();
    let is_ours = view.facts.own.tunnel.is_none();
    tunnel.metadata.deletion_timestamp.is_none()
        || (is_ours && finalizers.any(|one| one == FINALIZER_TUNNEL))
}

/// Our network as we say it in a session with the peer.
pub(super) fn spoken(view: &View<'_>) -> SessionNetwork {
    let seen = view
        .peer_network()
        .and_then(|told| told.pod_cidr.parse::<Ipv4Net>().ok())
        .and_then(|claimed| seen_as(view, claimed).ok());
    own_network(&view.facts.own, seen)
}

/// Our network, with the word on how we see the listener's pods.
pub fn own_network(own: &super::Own, pod_cidr_nat: Option<String>) -> SessionNetwork {
    let tunnel = own.tunnel.as_ref();
    SessionNetwork {
        pod_cidr: own.pod_cidr.to_string(),
        external_cidr: own.external_cidr.to_string(),
        endpoints: Vec::new(),
        public_key: tunnel
            .map(|tunnel| tunnel.public_key.clone())
            .unwrap_or_default(),
        port: tunnel.map_or(0, |tunnel| tunnel.port),
        mtu: tunnel.map_or(0, |tunnel| tunnel.mtu),
        pod_cidr_nat,
    }
}

/// Whether two words on the session say the same. The endpoints do not count: the gateway adds
/// the address that it saw.
pub fn says_the_same(told: &HomeSession, say: &HomeSession) -> bool {
    let without_endpoints = |session: &HomeSession| {
        let mut session = session.clone();
        if let Some(network) = &mut session.network {
            network.endpoints.clear();
        }
        session
    };
    without_endpoints(told) == without_endpoints(say)
}

/// Under which range we see the peer's pods, in Liqo's words, or why there is none. The peer itself
/// is never inside, since the way to it would lead through its own tunnel.
fn seen_as(view: &View<'_>, claimed: Ipv4Net) -> Result<String, String> {
    let facts = view.facts;
    let peer = view
        .cluster_id
        .as_ref()
        .ok_or("the peer has no identity yet")?;
    let mut ground = facts.ground.clone();
    let inside = endpoints(view, view.peer_network()).into_iter();
    let inside = inside.filter_map(|endpoint| addressing::place(endpoint.ip()));
    ground.networks.extend(inside);
    // An answer is about one claim: another one is looked at as if it were the first.
    let previous = facts
        .remote_network
        .as_ref()
        .filter(|present| present.spec.pod_cidr.parse() == Ok(claimed))
        .and_then(|present| Remap::parse(present.status.as_ref()?.pod_cidr_nat.as_deref()?).ok());
    let decision = addressing::decide(&ground, peer, claimed, previous);
    decision
        .map(|seen| seen.to_string())
        .map_err(|refusal| refusal.to_string())
}

/// Why the peer's range cannot be served, if it cannot.
pub(super) fn conflict(view: &View<'_>) -> Option<String> {
    let told = view.peer_network()?;
    match told.pod_cidr.parse::<Ipv4Net>() {
        Ok(claimed) => seen_as(view, claimed).err(),
        Err(_) => Some(format!(
            "the peer's podCIDR {:?} is not an IPv4 range",
            bounded(&told.pod_cidr)
        )),
    }
}

/// A peer's word, short and plain enough to be shown.
fn bounded(text: &str) -> String {
    let printable = text.chars().filter(|character| is_printable(*character));
    printable.take(64).collect()
}

fn local_network(view: &View<'_>, told: &SessionNetwork) -> Option<LocalNetwork> {
    let own = own_network(&view.facts.own, None);
    let seen = told
        .pod_cidr_nat
        .as_deref()
        .filter(|seen| *seen == UNCHANGED || seen.parse::<Ipv4Net>().is_ok());
    Some(LocalNetwork {
        spec: config(view.cluster_id.as_ref()?.as_str(), &own, String::new()),
        status: NetworkConfigStatus {
            processed: seen.is_some(),
            pod_cidr_nat: seen.map(str::to_owned),
            external_cidr_nat: seen.map(|_| UNCHANGED.to_owned()),
        },
    })
}

fn remote_network(view: &View<'_>, told: &SessionNetwork) -> Option<RemoteNetwork> {
    let claimed = told.pod_cidr.parse::<Ipv4Net>().ok()?;
    let seen = seen_as(view, claimed).ok()?;
    let endpoints = endpoints(view, Some(told));
    let texts: Vec<String> = endpoints.iter().map(ToString::to_string).collect();
    let mut spec = config(view.facts.own.cluster_id.as_str(), told, texts.join(","));
    let first = endpoints.first().map(|first| first.ip().to_string());
    spec.endpoint_ip = first.unwrap_or_default();
    Some(RemoteNetwork {
        spec,
        status: NetworkConfigStatus {
            processed: true,
            pod_cidr_nat: Some(seen),
            external_cidr_nat: Some(UNCHANGED.to_owned()),
        },
    })
}

fn config(destination: &str, network: &SessionNetwork, endpoints: String) -> NetworkConfigSpec {
    let mut backend_config = BTreeMap::from([
        (PUBLIC_KEY.to_owned(), bounded(&network.public_key)),
        (PORT.to_owned(), network.port.to_string()),
        (MTU.to_owned(), network.mtu.to_string()),
    ]);
    if !endpoints.is_empty() {
        backend_config.insert(ENDPOINTS.to_owned(), endpoints);
    }
    NetworkConfigSpec {
        cluster_id: destination.to_owned(),
        pod_cidr: bounded(&network.pod_cidr),
        external_cidr: bounded(&network.external_cidr),
        endpoint_ip: String::new(),
        backend_type: BACKEND_WIREGUARD.to_owned(),
        backend_config,
    }
}

/// Where the peer's tunnel may be reached: the address at which its peer endpoint answered, then
/// what it names itself, as far as it may be dialled.
fn endpoints(view: &View<'_>, told: Option<&SessionNetwork>) -> Vec<SocketAddr> {
    /// More are not tried.
    const LIMIT: usize = 8;
    let connected = view.connected.and_then(|connected| connected.address);
    let answered = connected.zip(told).map(|(address, told)| {
        // A link-local address is none without its interface.
        let mut endpoint = normalise(address);
        endpoint.set_port(told.port);
        endpoint
    });
    let kept = view.facts.remote_network.iter();
    let kept = kept
        .filter(|_| answered.is_none())
        .flat_map(|present| places(&present.spec));
    let named = told.into_iter().flat_map(|told| &told.endpoints);
    let named = named.filter_map(|text| text.parse().ok());
    let mut endpoints: Vec<SocketAddr> = Vec::new();
    for endpoint in answered.into_iter().chain(named).chain(kept) {
        if is_dialable(view, endpoint) && !endpoints.contains(&endpoint) && endpoints.len() < LIMIT
        {
            endpoints.push(endpoint);
        }
    }
    endpoints
}

/// Where the tunnel of the peer of a NetworkConfig may be reached.
pub fn places(network: &NetworkConfigSpec) -> impl Iterator<Item = SocketAddr> {
    let list = network.backend_config.get(ENDPOINTS).into_iter();
    list.flat_map(|list| list.split(','))
        .filter_map(|text| text.parse().ok())
}

/// Judges a peer's word by the policy for all dials. It may name places far away, as a domain may.
fn is_dialable(view: &View<'_>, address: SocketAddr) -> bool {
    let ground = &view.facts.ground;
    let own = OwnNetworks {
        pod_cidr: Some(ground.pods.into()),
        service_cidr: ground.services.map(Into::into),
        ..OwnNetworks::default()
    };
    judge(address, DiscoveryType::Wan, &own).is_ok()
}

fn tunnel(view: &View<'_>, local: &LocalNetwork, remote: &RemoteNetwork) -> Option<TunnelWish> {
    let own = view.facts.own.tunnel.as_ref()?;
    let key = remote.spec.backend_config.get(PUBLIC_KEY)?;
    if key.is_empty() || *key == own.public_key {
        return None;
    }
    let agreed = local.status.processed;
    Some(TunnelWish {
        spec: TunnelEndpointSpec {
            cluster_id: view.cluster_id.as_ref()?.to_string(),
            pod_cidr: remote.spec.pod_cidr.clone(),
            external_cidr: remote.spec.external_cidr.clone(),
            endpoint_ip: remote.spec.endpoint_ip.clone(),
            backend_type: BACKEND_WIREGUARD.to_owned(),
            backend_config: remote.spec.backend_config.clone(),
        },
        status: TunnelEndpointStatus {
            phase: agreed.then(|| READY.to_owned()),
            local_pod_cidr: Some(local.spec.pod_cidr.clone()),
            local_nat_pod_cidr: local.status.pod_cidr_nat.clone(),
            remote_nat_pod_cidr: remote.status.pod_cidr_nat.clone(),
            local_external_cidr: Some(local.spec.external_cidr.clone()),
            local_nat_external_cidr: local.status.external_cidr_nat.clone(),
            remote_nat_external_cidr: remote.status.external_cidr_nat.clone(),
            // Empty rather than absent: what a merge does not name stays as it was.
            remote_tunnel_public_ip: Some(remote.spec.endpoint_ip.clone()),
            ..TunnelEndpointStatus::default()
        },
    })
}

/// Whether the TunnelEndpoint is as wished, leaving aside what the tunnel itself reports and what
/// the wish leaves open.
fn is_as_wished(view: &View<'_>, wish: &TunnelWish) -> bool {
    let Some(present) = &view.facts.tunnel else {
        return false;
    };
    let status = present.status.clone().unwrap_or_default();
    let wished = wish.status.clone();
    let reported = TunnelEndpointStatus {
        phase: wished.phase.or_else(|| status.phase.clone()),
        local_nat_pod_cidr: wished
            .local_nat_pod_cidr
            .or_else(|| status.local_nat_pod_cidr.clone()),
        local_nat_external_cidr: wished
            .local_nat_external_cidr
            .or_else(|| status.local_nat_external_cidr.clone()),
        local_tunnel_public_ip: status.local_tunnel_public_ip.clone(),
        tunnel_interface_index: status.tunnel_interface_index,
        tunnel_interface_name: status.tunnel_interface_name.clone(),
        connection: status.connection.clone(),
        ..wish.status.clone()
    };
    present.spec == wish.spec && status == reported
}
