//! The Node of this machine and its heartbeat, where no kubelet keeps them.
//!
//! The Node is written when it differs from the machine; that it is alive is told by a Lease, as a
//! kubelet does (<https://kubernetes.io/docs/concepts/architecture/nodes/#node-heartbeats>).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Node, NodeCondition, NodeStatus, NodeSystemInfo},
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{OwnerReference, Time},
    },
};
use kube::{
    Api, Client, Resource as _,
    api::{DeleteParams, ListParams, ObjectMeta, Patch},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{
    Clock, Error, cluster_config::ensure_namespace, context::chance, creating, gone_is_fine,
    is_not_found, lease, managed,
};
use crate::{
    api::labels,
    engine::{backoff::Backoff, offer::parse_milli},
};

pub mod machine;

pub use machine::Machine;

/// The waits after a failure; a heartbeat still reaches its deadline with one of the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
/// How long one round may take.
const ROUND: Duration = Duration::from_secs(10);

/// The labels of every Node (<https://kubernetes.io/docs/reference/labels-annotations-taints/>).
const HOST_NAME: &str = "kubernetes.io/hostname";
const OPERATING_SYSTEM: &str = "kubernetes.io/os";
const ARCHITECTURE: &str = "kubernetes.io/arch";

/// What our Nodes are known by.
const VERSION_SUFFIX: &str = "-landbridge";
const READY_REASON: &str = "LandbridgeReady";

/// Tells what the machine has at present.
pub type ReadMachine = Arc<dyn Fn() -> Machine + Send + Sync>;

/// Keeps the Node and its Lease until the shutdown.
pub async fn run(client: Client, machine: ReadMachine, clock: Clock, shutdown: CancellationToken) {
    let mut backoff = Backoff::new(RETRY.0, RETRY.1);
    loop {
        let machine = (*machine)();
        let round = tokio::time::timeout(ROUND, keep(&client, &machine, (*clock)()));
        let pause = match round.await {
            Ok(Ok(())) => {
                backoff.reset();
                lease::RENEWAL
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "The node of this machine is not up to date");
                backoff.next(chance())
            }
            Err(_) => {
                tracing::warn!("The node of this machine is not up to date: no answer in time");
                backoff.next(chance())
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn keep(client: &Client, machine: &Machine, now: Timestamp) -> Result<(), Error> {
    let node = keep_node(client, machine, now).await?;
    remove_former(client, &node).await?;
    renew_lease(client, &node, now).await
}

/// Brings the Node up to date and returns it.
async fn keep_node(client: &Client, machine: &Machine, now: Timestamp) -> Result<Node, Error> {
    let nodes: Api<Node> = Api::all(client.clone());
    let wanted = node_of(machine, now);
    let name = machine.node_name();
    let found = nodes.get_opt(&name).await;
    let Some(mut node) = found.map_err(Error::api("read the node of this machine"))? else {
        let created = nodes.create(&creating(), &wanted).await;
        return created.map_err(Error::api("create the node of this machine"));
    };
    if !has_labels(&node, &wanted) {
        let patch = Patch::Merge(json!({ "metadata": { "labels": wanted.metadata.labels } }));
        node = nodes
            .patch(&name, &managed(), &patch)
            .await
            .map_err(Error::api("label the node of this machine"))?;
    }
    let status = wanted.status.unwrap_or_default();
    if !has_status(&node, &status) {
        let patch = Patch::Merge(json!({ "status": merged(&node, status) }));
        node = nodes
            .patch_status(&name, &managed(), &patch)
            .await
            .map_err(Error::api("update the node of this machine"))?;
    }
    Ok(node)
}

/// Removes what this machine was under a name that it had before: its resources would be offered
/// twice. This API is ours alone, so that no other machine writes such Nodes to it.
async fn remove_former(client: &Client, own: &Node) -> Result<(), Error> {
    let nodes: Api<Node> = Api::all(client.clone());
    let leases: Api<Lease> = Api::namespaced(client.clone(), labels::NODE_LEASE_NAMESPACE);
    let all = nodes.list(&ListParams::default()).await;
    let all = all.map_err(Error::api("list the nodes"))?;
    let former = all.items.iter().filter(|it| is_ours(it));
    for name in former.filter_map(|it| it.metadata.name.as_deref()) {
        if own.metadata.name.as_deref() == Some(name) {
            continue;
        }
        let parameters = DeleteParams::default();
        gone_is_fine(leases.delete(name, &parameters).await)
            .map_err(Error::api("delete the lease of a former node"))?;
        gone_is_fine(nodes.delete(name, &parameters).await)
            .map_err(Error::api("delete a former node"))?;
        tracing::info!(node = name, "The node of this machine has another name now");
    }
    Ok(())
}

/// Returns whether a Node is one that this file wrote.
fn is_ours(node: &Node) -> bool {
    node.status.as_ref().is_some_and(|status| {
        let version = status
            .node_info
            .as_ref()
            .map(|it| it.kubelet_version.as_str());
        version.is_some_and(|it| it.ends_with(VERSION_SUFFIX))
            && condition(status, "Ready")
                .is_some_and(|it| it.reason.as_deref() == Some(READY_REASON))
    })
}

async fn renew_lease(client: &Client, node: &Node, now: Timestamp) -> Result<(), Error> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), labels::NODE_LEASE_NAMESPACE);
    let lease = lease_of(node, now);
    let name = lease.metadata.name.clone().unwrap_or_default();
    let patch = Patch::Merge(json!({ "spec": lease.spec }));
    match leases.patch(&name, &managed(), &patch).await {
        Ok(_) => return Ok(()),
        Err(error) if is_not_found(&error) => {}
        Err(error) => return Err(Error::api("renew the lease of this machine")(error)),
    }
    ensure_namespace(client, labels::NODE_LEASE_NAMESPACE).await?;
    let created = leases.create(&creating(), &lease).await;
    created
        .map(|_| ())
        .map_err(Error::api("create the lease of this machine"))
}

fn named(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        ..ObjectMeta::default()
    }
}

/// Describes the machine as a Node.
fn node_of(machine: &Machine, now: Timestamp) -> Node {
    let name = machine.node_name();
    let labels = [
        (HOST_NAME, name.as_str()),
        (OPERATING_SYSTEM, std::env::consts::OS),
        (ARCHITECTURE, machine::architecture()),
    ];
    let labels: BTreeMap<String, String> = labels
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
    let resources = resources_of(machine);
    Node {
        metadata: ObjectMeta {
            labels: Some(labels),
            ..named(&name)
        },
        spec: None,
        status: Some(NodeStatus {
            capacity: Some(resources.clone()),
            allocatable: Some(resources),
            conditions: Some(vec![ready(now)]),
            node_info: Some(NodeSystemInfo {
                architecture: machine::architecture().to_owned(),
                operating_system: std::env::consts::OS.to_owned(),
                kubelet_version: format!("v{}{VERSION_SUFFIX}", env!("CARGO_PKG_VERSION")),
                ..NodeSystemInfo::default()
            }),
            ..NodeStatus::default()
        }),
    }
}

fn resources_of(machine: &Machine) -> BTreeMap<String, Quantity> {
    let kibibytes = |bytes: u64| Quantity(format!("{}Ki", bytes / 1024));
    let cpu = if machine.cpu_milli.is_multiple_of(1000) {
        format!("{}", machine.cpu_milli / 1000)
    } else {
        format!("{}m", machine.cpu_milli)
    };
    BTreeMap::from([
        ("cpu".to_owned(), Quantity(cpu)),
        ("memory".to_owned(), kibibytes(machine.memory_bytes)),
        (
            "ephemeral-storage".to_owned(),
            kibibytes(machine.storage_bytes),
        ),
    ])
}

fn ready(now: Timestamp) -> NodeCondition {
    NodeCondition {
        type_: "Ready".to_owned(),
        status: "True".to_owned(),
        reason: Some(READY_REASON.to_owned()),
        message: Some("landbridge runs on this machine".to_owned()),
        last_heartbeat_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

fn has_labels(node: &Node, wanted: &Node) -> bool {
    let present = node.metadata.labels.clone().unwrap_or_default();
    let wanted = wanted.metadata.labels.iter().flatten();
    wanted
        .into_iter()
        .all(|(key, value)| present.get(key) == Some(value))
}

/// Returns whether a Node says what is wanted. Others may add resources and conditions of their own.
fn has_status(node: &Node, wanted: &NodeStatus) -> bool {
    let Some(status) = &node.status else {
        return false;
    };
    has_resources(status.capacity.as_ref(), wanted.capacity.as_ref())
        && has_resources(status.allocatable.as_ref(), wanted.allocatable.as_ref())
        && status.node_info == wanted.node_info
        && condition(status, "Ready").is_some_and(|ready| ready.status == "True")
}

type Resources = BTreeMap<String, Quantity>;

fn has_resources(present: Option<&Resources>, wanted: Option<&Resources>) -> bool {
    let amount = |quantity: &Quantity| parse_milli(&quantity.0);
    wanted.into_iter().flatten().all(|(resource, quantity)| {
        let present = present.and_then(|present| present.get(resource));
        present.and_then(amount) == amount(quantity)
    })
}

fn condition<'a>(status: &'a NodeStatus, kind: &str) -> Option<&'a NodeCondition> {
    let mut conditions = status.conditions.iter().flatten();
    conditions.find(|condition| condition.type_ == kind)
}

/// Keeps the conditions of others, and since when ours is true.
fn merged(node: &Node, mut wanted: NodeStatus) -> NodeStatus {
    let present = node.status.as_ref();
    let others = present.and_then(|status| status.conditions.clone());
    let mut conditions: Vec<NodeCondition> = others
        .into_iter()
        .flatten()
        .filter(|condition| condition.type_ != "Ready")
        .collect();
    let since = present
        .and_then(|status| condition(status, "Ready"))
        .filter(|ready| ready.status == "True")
        .and_then(|ready| ready.last_transition_time.clone());
    for mut condition in wanted.conditions.take().into_iter().flatten() {
        condition.last_transition_time = since.clone().or(condition.last_transition_time);
        conditions.push(condition);
    }
    wanted.conditions = Some(conditions);
    wanted
}

fn lease_of(node: &Node, now: Timestamp) -> Lease {
    let name = node.metadata.name.clone().unwrap_or_default();
    Lease {
        metadata: ObjectMeta {
            namespace: Some(labels::NODE_LEASE_NAMESPACE.to_owned()),
            owner_references: node.metadata.uid.clone().map(|uid| {
                vec![OwnerReference {
                    api_version: Node::api_version(&()).into_owned(),
                    kind: Node::kind(&()).into_owned(),
                    name: name.clone(),
                    uid,
                    ..OwnerReference::default()
                }]
            }),
            ..named(&name)
        },
        spec: Some(lease::renewed(Some(name), now)),
    }
}

#[cfg(test)]
mod tests;
