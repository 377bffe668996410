//! Liqo's fields of the status: endpoints, both directions, and the objects of the network.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource;

use super::{View, verdict::shown};
use crate::api::foreign_cluster::{
    DiscoveryType, Incoming, Network, Outgoing, PeerEndpoint, ResourceLink,
};

pub(super) fn endpoints(view: &View<'_>) -> Vec<PeerEndpoint> {
    let known = match &view.facts.neighbour {
        Some(neighbour) => neighbour.endpoints.clone(),
        None => view.status.endpoints.clone(),
    };
    let error = |url: &str| {
        view.facts
            .link
            .failures
            .get(url)
            .map(|failure| shown(&failure.message))
    };
    let mut endpoints: Vec<PeerEndpoint> = known
        .into_iter()
        .map(|endpoint| PeerEndpoint {
            last_error: error(&endpoint.url),
            ..endpoint
        })
        .collect();
    let url = &view.object.spec.auth_url;
    let listed = endpoints.iter().any(|endpoint| endpoint.url == *url);
    if !listed && !url.is_empty() && !view.is_discovered() {
        endpoints.push(PeerEndpoint {
            url: url.clone(),
            source: view.object.spec.discovery_type.as_str().to_owned(),
            last_error: error(url),
            ..PeerEndpoint::default()
        });
    }
    for endpoint in &mut endpoints {
        endpoint.score = Some(score(view, endpoint));
    }
    endpoints
}

/// How good a place is; see [`PeerEndpoint::score`].
fn score(view: &View<'_>, endpoint: &PeerEndpoint) -> u8 {
    if view
        .connected
        .is_some_and(|connected| connected.url == endpoint.url)
    {
        return 100;
    }
    let nearness = match DiscoveryType::parse(&endpoint.source) {
        Some(DiscoveryType::Lan) => 80,
        Some(DiscoveryType::Manual) => 70,
        Some(DiscoveryType::Wan) => 60,
        Some(DiscoveryType::IncomingPeering) | None => 50,
    };
    if endpoint.last_error.is_some() {
        nearness - 50
    } else {
        nearness
    }
}

pub(super) fn outgoing(view: &View<'_>) -> Option<Outgoing> {
    let stands = view.facts.link.session.is_some();
    let remembered = view
        .status
        .outgoing
        .as_ref()
        .and_then(|one| one.remote_peering_request_name.clone())
        .filter(|_| !view.facts.link.withdrawn);
    // Before it is asked for: the answer may be lost.
    let follows = view.may_consume() && view.is_accepted_there();
    let name = if stands || follows {
        Some(view.facts.own.cluster_id.to_string())
    } else {
        remembered
    };
    let advertisement = view.facts.advertisement.as_ref();
    let answer = advertisement.and_then(|one| one.status.as_ref());
    if name.is_none() && advertisement.is_none() && view.status.outgoing.is_none() {
        return None;
    }
    Some(Outgoing {
        joined: view.consumes() && view.facts.node.is_some(),
        remote_peering_request_name: name,
        advertisement: advertisement.map(reference),
        available_identity: view.is_accepted_there().then_some(true),
        identity_ref: None,
        advertisement_status: answer.map(|one| one.advertisement_status.as_str().to_owned()),
    })
}

pub(super) fn incoming(view: &View<'_>) -> Option<Incoming> {
    let request = view.facts.request.as_ref();
    if request.is_none() && view.status.incoming.is_none() {
        return None;
    }
    let accepted = request
        .and_then(|one| one.spec.session.as_ref())
        .map(|session| session.accepted);
    Some(Incoming {
        joined: view.serves(),
        peering_request: request.map(reference),
        available_identity: request.map(|_| view.admitted.is_accepted()),
        identity_ref: None,
        advertisement_status: accepted.map(|one| one.as_str().to_owned()),
    })
}

pub(super) fn network_links(view: &View<'_>) -> Option<Network> {
    let facts = view.facts;
    let link = |reference: Option<ObjectReference>| ResourceLink {
        available: reference.is_some(),
        reference,
    };
    let nothing =
        facts.local_network.is_none() && facts.remote_network.is_none() && facts.tunnel.is_none();
    if nothing && view.status.network.is_none() {
        return None;
    }
    let latency = facts
        .tunnel
        .as_ref()
        .and_then(|one| one.status.as_ref()?.connection.as_ref()?.latency.clone());
    Some(Network {
        local_network_config: link(facts.local_network.as_ref().map(reference)),
        remote_network_config: link(facts.remote_network.as_ref().map(reference)),
        tunnel_endpoint: link(facts.tunnel.as_ref().map(reference)),
        rtt: latency.filter(|_| view.is_tunnel_connected()),
    })
}

/// A reference to one of our objects.
fn reference<K>(object: &K) -> ObjectReference
where
    K: Resource<DynamicType = ()>,
{
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        name: object.meta().name.clone(),
        uid: object.meta().uid.clone(),
        ..ObjectReference::default()
    }
}
