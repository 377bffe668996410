//! What is known about one peer, read from the objects and the connection.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
};

use ipnet::Ipv4Net;
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{ConfigMap, Node},
};
use kube::{Api, ResourceExt as _, api::ListParams, runtime::reflector::Store};
use nix::net::if_::if_nametoindex;
use tokio::time::Instant;

use super::{advertisement_name, local_network_name, remote_network_name, tunnel_name};
use crate::{
    api::{
        Advertisement, ClusterId, ForeignCluster, NetworkConfig, PeeringRequest, TunnelEndpoint,
        labels, peering_request::Acceptance,
    },
    controllers::{
        Context, Error,
        enrolment::{claimed_id, precedence, standing},
    },
    engine::{
        addressing::{self, Ground, Remap},
        peering::{Facts, Own, network, node_name},
    },
};

/// The ConfigMap that remembers which withdrawals are owed to peers that cannot be reached.
pub(super) const TOMBSTONES: &str = "landbridge-tombstones";

/// Gathers what a plan for `object` needs.
pub(super) async fn facts(context: &Context, object: &ForeignCluster) -> Result<Facts, Error> {
    let id = claimed_id(object);
    let mut facts = Facts {
        own: Own {
            cluster_name: context.own_name(),
            auth_url: context.auth_url(),
            ..context.own.clone()
        },
        config: context.policy(),
        started: context.started(),
        neighbour: id.as_ref().and_then(|id| context.neighbours.get(id)),
        scopes: scopes(object),
        link: context.links.facts(&object.name_any()),
        visited: id.as_ref().and_then(|id| context.neighbours.visited(id)),
        present: id.as_ref().and_then(|id| context.neighbours.present(id)),
        visitor_code: id.as_ref().and_then(|id| context.approvals.code(id)),
        codes_withheld: id
            .as_ref()
            .is_some_and(|id| context.approvals.are_withheld(id, Instant::now())),
        twin: context.suspicions.twin(),
        misuse: id
            .as_ref()
            .and_then(|id| context.suspicions.misuse(id, context.now())),
        request: None,
        advertisement: None,
        accepted_elsewhere: 0,
        local_network: None,
        remote_network: None,
        tunnel: None,
        node: None,
        lease_renewed: None,
        ground: ground(context),
        tombstone: false,
        rival: None,
    };
    if let Some(id) = &id {
        facts.rival = rival(context, object, id).await?;
    }
    // What stands for the cluster belongs to the object that does.
    if let Some(id) = id.filter(|_| facts.rival.is_none()) {
        read_objects(context, &id, &mut facts).await?;
        read_others(context, &id, &mut facts).await?;
    }
    Ok(facts)
}

/// The object that stands for the cluster of another one in its stead, if there is one.
async fn rival(
    context: &Context,
    object: &ForeignCluster,
    id: &ClusterId,
) -> Result<Option<String>, Error> {
    let preceding = |others: Vec<Arc<ForeignCluster>>| {
        let others = others.into_iter();
        standing(others.filter(|other| other.uid() != object.uid()), id)
            .filter(|other| precedence(other) < precedence(object))
    };
    let seen = context.seen.get().map(Store::state).unwrap_or_default();
    let Some(seen) = preceding(seen) else {
        return Ok(None);
    };
    // It may be gone by now.
    let present = Api::<ForeignCluster>::all(context.client.clone())
        .get_opt(&seen.name_any())
        .await
        .map_err(Error::api("read a ForeignCluster"))?;
    let present = present.map(Arc::new).into_iter().collect();
    Ok(preceding(present).map(|other| other.name_any()))
}

/// The numbers that the system gives the interfaces of an object's places at present.
fn scopes(object: &ForeignCluster) -> BTreeMap<String, u32> {
    let places = object.status.iter().flat_map(|status| &status.endpoints);
    let names = places.filter_map(|endpoint| endpoint.interface.clone());
    names
        .filter_map(|name| Some((name.clone(), if_nametoindex(name.as_str()).ok()?)))
        .collect()
}

fn ground(context: &Context) -> Ground {
    let config = context.policy().liqonet_config;
    let ranges = |texts: &[String]| -> BTreeSet<Ipv4Net> {
        texts.iter().filter_map(|text| text.parse().ok()).collect()
    };
    let around = context.surroundings.borrow().clone();
    let peers = context.links.addresses().into_iter();
    Ground {
        services: Some(context.service_cidr),
        external: Some(context.own.external_cidr),
        networks: around.networks,
        avoided: around
            .avoided
            .into_iter()
            .chain(peers.filter_map(addressing::place))
            .collect(),
        reserved: ranges(&config.reserved_subnets),
        additional_pools: ranges(&config.additional_pools),
        ..Ground::new(context.own.cluster_id.clone(), context.own.pod_cidr)
    }
}

async fn read_objects(context: &Context, id: &ClusterId, facts: &mut Facts) -> Result<(), Error> {
    let client = || context.client.clone();
    let id = id.as_str();
    facts.request = Api::<PeeringRequest>::all(client())
        .get_opt(id)
        .await
        .map_err(Error::api("read a PeeringRequest"))?;
    facts.advertisement = Api::<Advertisement>::all(client())
        .get_opt(&advertisement_name(id))
        .await
        .map_err(Error::api("read an Advertisement"))?;
    let networks = Api::<NetworkConfig>::all(client());
    let read = Error::api("read a NetworkConfig");
    facts.local_network = networks
        .get_opt(&local_network_name(id))
        .await
        .map_err(read)?;
    let read = Error::api("read a NetworkConfig");
    facts.remote_network = networks
        .get_opt(&remote_network_name(id))
        .await
        .map_err(read)?;
    facts.tunnel = Api::<TunnelEndpoint>::all(client())
        .get_opt(&tunnel_name(id))
        .await
        .map_err(Error::api("read a TunnelEndpoint"))?;
    facts.node = Api::<Node>::all(client())
        .get_opt(&node_name(id))
        .await
        .map_err(Error::api("read a virtual node"))?;
    if facts.node.is_some() {
        let lease = Api::<Lease>::namespaced(client(), labels::NODE_LEASE_NAMESPACE)
            .get_opt(&node_name(id))
            .await
            .map_err(Error::api("read the Lease of a virtual node"))?;
        let renewed = lease
            .and_then(|lease| lease.spec)
            .and_then(|spec| spec.renew_time);
        facts.lease_renewed = renewed.map(|time| time.0);
    }
    let tombstones = Api::<ConfigMap>::namespaced(client(), labels::NAMESPACE)
        .get_opt(TOMBSTONES)
        .await
        .map_err(Error::api("read the tombstones"))?;
    let owed = tombstones.and_then(|map| map.data).unwrap_or_default();
    facts.tombstone = owed.contains_key(id);
    Ok(())
}

/// Reads what other peers hold: accepted offers and ranges. Only asked while it can matter.
async fn read_others(context: &Context, id: &ClusterId, facts: &mut Facts) -> Result<(), Error> {
    let accepted = |one: &Advertisement| {
        one.status
            .as_ref()
            .is_some_and(|status| status.advertisement_status == Acceptance::Accepted)
    };
    if facts.link.session.is_some() && !facts.advertisement.as_ref().is_some_and(accepted) {
        let all = Api::<Advertisement>::all(context.client.clone())
            .list(&ListParams::default())
            .await
            .map_err(Error::api("list Advertisements"))?;
        let others = all
            .items
            .iter()
            .filter(|one| one.spec.cluster_id != id.as_str());
        facts.accepted_elsewhere = others.filter(|one| accepted(one)).count();
    }
    if facts.link.session.is_some() || facts.request.is_some() {
        let remote = ListParams::default().labels(&format!("{}=remote", labels::NETWORK_SIDE));
        let all = Api::<NetworkConfig>::all(context.client.clone())
            .list(&remote)
            .await
            .map_err(Error::api("list NetworkConfigs"))?;
        facts.ground.given = all
            .items
            .iter()
            .filter_map(given)
            .collect::<BTreeMap<_, _>>();
        let peers = all.items.iter().flat_map(|it| network::places(&it.spec));
        let peers = peers.filter_map(|it| addressing::place(it.ip()));
        facts.ground.avoided.extend(peers);
        let known = facts.remote_network.as_ref().map(|it| &it.spec.pod_cidr);
        let mut told = facts.answered().into_iter().chain(facts.asked());
        if told.any(|told| Some(&told.pod_cidr) != known) {
            let nodes = Api::<Node>::all(context.client.clone())
                .list(&ListParams::default())
                .await
                .map_err(Error::api("list Nodes"))?;
            facts
                .ground
                .avoided
                .extend(nodes.items.iter().flat_map(places));
        }
    }
    Ok(())
}

/// Where a node and its pods are.
fn places(node: &Node) -> Vec<Ipv4Net> {
    let addresses = node
        .status
        .iter()
        .flat_map(|it| it.addresses.iter().flatten());
    let pods = node
        .spec
        .iter()
        .flat_map(|it| it.pod_cidrs.iter().flatten());
    addresses
        .filter_map(|it| it.address.parse::<Ipv4Addr>().ok())
        .map(Ipv4Net::from)
        .chain(pods.filter_map(|it| it.parse().ok()))
        .collect()
}

/// The range under which the peer of a remote NetworkConfig is seen, and whose it is.
fn given(config: &NetworkConfig) -> Option<(ClusterId, BTreeSet<Ipv4Net>)> {
    let owner = config.labels().get(labels::CLUSTER_ID)?.parse().ok()?;
    let seen = Remap::parse(config.status.as_ref()?.pod_cidr_nat.as_deref()?).ok()?;
    let range = seen.apply(config.spec.pod_cidr.parse().ok()?);
    Some((owner, BTreeSet::from([range])))
}
