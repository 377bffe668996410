//! What must be true of every cluster at all times, or at rest. By name, so that a failure says which.

use std::{collections::BTreeSet, time::Duration};

use kube::ResourceExt as _;
use landbridge::{
    api::{
        ForeignCluster, PeeringRequest, TunnelEndpoint,
        foreign_cluster::{DiscoveryType, IncomingPeering, TrustMode},
        labels,
    },
    kubeapi::store::Operation,
};

use crate::{
    disk::Write,
    world::{Cluster, SECRET, World},
};

/// The annotation that every word of a person carries.
pub(crate) const WORD: &str = "simulation/word";
/// How long the last messages may be on their way.
const SETTLE: Duration = Duration::from_secs(5);
/// How long nothing may be written at rest.
const REST: Duration = Duration::from_mins(10);

/// Everything that must hold at rest.
pub(crate) async fn hold(world: &mut World) {
    hold_for(world, REST).await;
}

/// Everything that must hold at rest, for so long.
pub(crate) async fn hold_for(world: &mut World, rest: Duration) {
    world.sleep(SETTLE).await;
    for cluster in &world.clusters {
        never_peers_with_oneself(cluster);
        one_object_per_cluster(cluster);
        no_two_tunnels_share_a_range(cluster);
        intent_is_a_persons(cluster);
        no_secret_is_in_an_object(world, cluster);
        nothing_is_half_deleted(cluster);
    }
    without_join_nothing_is_abroad(world);
    an_expired_stranger_is_gone(world);
    a_refused_peer_leaves_nothing_behind(world);
    nothing_is_written(world, rest).await;
}

pub(crate) fn never_peers_with_oneself(cluster: &Cluster) {
    assert!(cluster.all_of(cluster.id()).is_empty(), "found itself");
    assert!(cluster.node_of(cluster.id()).is_none(), "is its own node");
    assert!(
        cluster.tunnel_to(cluster.id()).is_none(),
        "has a tunnel to itself"
    );
}

pub(crate) fn one_object_per_cluster(cluster: &Cluster) {
    let mut ids = BTreeSet::new();
    for object in cluster.disk.objects::<ForeignCluster>() {
        let Some(identity) = &object.spec.cluster_identity else {
            continue;
        };
        assert!(
            ids.insert(identity.cluster_id.clone()),
            "two ForeignClusters of {}",
            identity.cluster_id
        );
    }
}

pub(crate) fn no_two_tunnels_share_a_range(cluster: &Cluster) {
    let mut ranges = BTreeSet::new();
    for tunnel in cluster.disk.objects::<TunnelEndpoint>() {
        let seen = tunnel.status.and_then(|status| status.remote_nat_pod_cidr);
        let range = match seen {
            Some(range) if range != "None" => range,
            _ => tunnel.spec.pod_cidr,
        };
        assert!(ranges.insert(range.clone()), "two tunnels share {range}");
    }
}

/// `spec.join` is written at creation, or when a find takes over what a visit made, and from then
/// on by people only.
pub(crate) fn intent_is_a_persons(cluster: &Cluster) {
    for write in cluster.disk.history(0) {
        let Write {
            key,
            operation,
            before: Some(before),
            after,
        } = write
        else {
            continue;
        };
        if operation != Operation::Modified
            || !key.starts_with("discovery.liqo.io/foreignclusters/")
        {
            continue;
        }
        let word = |object: &serde_json::Value| object["metadata"]["annotations"][WORD].clone();
        let is_flipped = before["spec"]["join"] != after["spec"]["join"];
        let is_said = word(&before) != word(&after);
        let is_taken_over = before["spec"]["discoveryType"]
            == DiscoveryType::IncomingPeering.as_str()
            && after["spec"]["discoveryType"] != before["spec"]["discoveryType"];
        assert!(
            !is_flipped || is_said || is_taken_over,
            "we flipped spec.join of {key}"
        );
    }
}

pub(crate) fn no_secret_is_in_an_object(world: &World, cluster: &Cluster) {
    let pems: Vec<String> = world.clusters.iter().map(Cluster::pem).collect();
    let bodies = pems.iter().flat_map(|pem| pem.lines());
    let secrets: Vec<&str> = bodies
        .filter(|line| line.len() > 20 && !line.starts_with('-'))
        .chain([SECRET, "PRIVATE KEY"])
        .collect();
    for write in cluster.disk.history(0) {
        let text = write.after.to_string();
        for secret in &secrets {
            assert!(!text.contains(secret), "a secret is in {}", write.key);
        }
    }
}

pub(crate) fn nothing_is_half_deleted(cluster: &Cluster) {
    for (key, object) in cluster.disk.everything() {
        let deleted = &object["metadata"]["deletionTimestamp"];
        assert!(deleted.is_null(), "{key} is being deleted and never gone");
    }
}

/// `join: false` ends with no request abroad, and with no tunnel unless the peer wants one.
pub(crate) fn without_join_nothing_is_abroad(world: &World) {
    for (home, foreign) in world.pairs() {
        let joins = |at, of| {
            let object = world.view(at, of);
            object.is_some_and(|object| object.spec.join)
        };
        let (id, cluster) = (world.clusters[home].id(), &world.clusters[home]);
        if !joins(home, foreign) {
            let requests = world.clusters[foreign].disk.objects::<PeeringRequest>();
            let abroad = requests
                .iter()
                .any(|request| request.name_any() == id.as_str());
            assert!(!abroad, "a request without a join\n{}", world.describe());
            let peer = world.clusters[foreign].id();
            assert!(cluster.node_of(peer).is_none(), "a node without a join");
            if !joins(foreign, home) {
                assert!(
                    cluster.tunnel_to(peer).is_none(),
                    "a tunnel without a join\n{}",
                    world.describe()
                );
            }
        }
    }
}

/// A cluster that was found, never peered, and is not there any more, is forgotten, unless a person
/// has decided about it.
pub(crate) fn an_expired_stranger_is_gone(world: &World) {
    for (at, of) in world.pairs() {
        if world.clusters[of].runs() || !world.clusters[at].runs() {
            continue;
        }
        let Some(object) = world.view(at, of) else {
            continue;
        };
        let found = object.spec.discovery_type == DiscoveryType::Lan;
        let reached = |stage: &str| {
            let status = object.status.as_ref();
            status.is_some_and(|status| status.timeline.contains_key(stage))
        };
        let spec = &object.spec;
        let approved = spec.trust_mode == TrustMode::Trusted
            && !object.annotations().contains_key(labels::TRUSTED_BY);
        let left = !spec.join && reached("JoinRequested");
        let said = spec.incoming_peering_enabled != IncomingPeering::Auto;
        assert!(
            !found || said || approved || left || reached("Peered"),
            "an expired stranger stays\n{}",
            world.describe()
        );
    }
}

pub(crate) fn a_refused_peer_leaves_nothing_behind(world: &World) {
    for (at, of) in world.pairs() {
        let is_blocked = world
            .view(at, of)
            .is_some_and(|object| object.spec.incoming_peering_enabled == IncomingPeering::No);
        if is_blocked {
            nothing_is_there_of(world, at, of);
        }
    }
}

/// Nothing but the ForeignCluster stands there of another cluster.
pub(crate) fn nothing_is_there_of(world: &World, at: usize, of: usize) {
    let id = world.clusters[of].id();
    for key in world.clusters[at].disk.everything().keys() {
        let ours = key.contains(id.as_str()) && !key.contains("foreignclusters");
        assert!(!ours, "{key} is left behind\n{}", world.describe());
    }
}

/// A fleet at rest writes nothing but Leases.
pub(crate) async fn nothing_is_written_at_rest(world: &mut World) {
    nothing_is_written(world, REST).await;
}

async fn nothing_is_written(world: &mut World, rest: Duration) {
    let marks: Vec<usize> = world
        .clusters
        .iter()
        .map(|cluster| cluster.disk.writes())
        .collect();
    let dials = world.lan.dials();
    world.sleep(rest).await;
    for (cluster, mark) in world.clusters.iter().zip(marks) {
        let writes = cluster.disk.history(mark);
        let news: Vec<String> = writes
            .iter()
            .filter(|write| !is_heartbeat(write))
            .map(|write| {
                format!(
                    "{} {}: {}",
                    write.operation.as_str(),
                    write.key,
                    difference(write)
                )
            })
            .collect();
        assert!(
            news.is_empty(),
            "written at rest:\n{}\n{}",
            news.join("\n"),
            world.describe()
        );
    }
    // A peer that is not there is tried twice a minute from each side, and no oftener.
    let pairs = u64::try_from(world.pairs().len()).unwrap();
    let dials = world.lan.dials() - dials;
    assert!(dials <= pairs * 2 * 25 * 3, "dialled {dials} times at rest");
}

fn is_heartbeat(write: &Write) -> bool {
    let is_event = write.key.starts_with("events") || write.key.starts_with("/events");
    write.key.contains("/leases/") || (is_event && write.operation == Operation::Deleted)
}

fn difference(write: &Write) -> String {
    let Some(before) = &write.before else {
        return String::new();
    };
    let (before, after) = (
        before.as_object().unwrap(),
        write.after.as_object().unwrap(),
    );
    let changed = after.iter().filter(|(key, value)| {
        key.as_str() != "metadata" && before.get(key.as_str()) != Some(value)
    });
    changed
        .map(|(key, value)| {
            format!(
                "{key}: {} -> {value}",
                before.get(key).unwrap_or(&serde_json::Value::Null)
            )
        })
        .collect::<Vec<_>>()
        .join("; ")
}
