//! The virtual node of a peer and its Lease.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Node, NodeCondition, NodeSpec, NodeStatus, Taint},
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{MicroTime, Time},
    },
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ObjectMeta, Patch, PostParams},
};
use serde_json::{Value, json};

use super::projection::projected;
use crate::{
    api::{ForeignCluster, labels},
    controllers::{
        Context, Error, enrolment::claimed_id, gone_is_fine, is_not_found, lease, managed,
    },
    engine::peering::{NodeWish, node_name, virtual_node_taint},
};

/// Creates the virtual node, or brings it to what is wished.
pub(super) async fn write(
    context: &Context,
    object: &ForeignCluster,
    wish: &NodeWish,
) -> Result<(), Error> {
    let api: Api<Node> = Api::all(context.client.clone());
    let present = api
        .get_opt(&wish.name)
        .await
        .map_err(Error::api("read a virtual node"))?;
    let node = wished(context, object, wish, present.as_ref());
    if present.is_none() {
        let created = api.create(&PostParams::default(), &node).await;
        created.map_err(Error::api("create a virtual node"))?;
        tracing::info!(node = %wish.name, "Virtual node created");
    } else {
        let patch = json!({
            "metadata": {
                "labels": label_change(present.as_ref(), node.metadata.labels.as_ref()),
                "annotations": node.metadata.annotations,
            },
            "spec": {"taints": node.spec.as_ref().and_then(|spec| spec.taints.as_ref())},
        });
        let patched = api
            .patch(&wish.name, &managed(), &Patch::Merge(patch))
            .await;
        gone_is_fine(patched).map_err(Error::api("write a virtual node"))?;
    }
    let patch =
        Patch::Merge(json!({ "status": status_change(present.as_ref(), wish, node.status) }));
    gone_is_fine(api.patch_status(&wish.name, &managed(), &patch).await)
        .map_err(Error::api("write the status of a virtual node"))
}

/// The labels as a merge patch, in which what the peer does not offer any more is null. Labels of
/// others stay.
fn label_change(present: Option<&Node>, wished: Option<&BTreeMap<String, String>>) -> Value {
    let offered = present.and_then(|node| node.annotations().get(labels::OFFERED_LABELS));
    let keys = offered.iter().flat_map(|keys| keys.split(','));
    let mut change: BTreeMap<&str, Option<&str>> = keys
        .filter(|key| !key.is_empty())
        .map(|key| (key, None))
        .collect();
    let wished = wished.into_iter().flatten();
    change.extend(wished.map(|(key, value)| (key.as_str(), Some(value.as_str()))));
    json!(change)
}

/// The new status as a merge patch, in which resources that are no longer offered are null.
fn status_change(present: Option<&Node>, wish: &NodeWish, status: Option<NodeStatus>) -> Value {
    let held = present.and_then(|node| node.status.as_ref()?.capacity.as_ref());
    let mut resources: BTreeMap<&str, Option<&Quantity>> = held
        .into_iter()
        .flatten()
        .map(|(resource, _)| (resource.as_str(), None))
        .collect();
    resources.extend(
        wish.capacity
            .iter()
            .map(|(resource, amount)| (resource.as_str(), Some(amount))),
    );
    json!({
        "capacity": resources,
        "allocatable": resources,
        "conditions": status.and_then(|status| status.conditions),
    })
}

fn wished(
    context: &Context,
    object: &ForeignCluster,
    wish: &NodeWish,
    present: Option<&Node>,
) -> Node {
    let mut metadata = projected(
        object,
        &wish.name,
        &[(labels::CLUSTER_ID, &wish.cluster_id)],
    );
    metadata
        .labels
        .get_or_insert_default()
        .extend(wish.labels.clone());
    let annotations = [
        (labels::NODE_CLUSTER_ID, &wish.cluster_id),
        (labels::OFFERED_LABELS, &wish.offered_labels),
    ];
    let annotations = annotations.map(|(key, value)| (key.to_owned(), value.clone()));
    metadata.annotations = Some(annotations.into());
    let now = context.now();
    Node {
        metadata,
        spec: Some(NodeSpec {
            provider_id: Some(format!("liqo://{}", wish.cluster_id)),
            taints: Some(taints(present)),
            ..NodeSpec::default()
        }),
        status: Some(NodeStatus {
            capacity: Some(wish.capacity.clone()),
            allocatable: Some(wish.capacity.clone()),
            conditions: Some(conditions(
                present,
                [
                    ready(present, wish.ready, now),
                    network_unavailable(present, !wish.network, now),
                ],
            )),
            ..NodeStatus::default()
        }),
    }
}

/// The taints, with ours among those of others: a merge patch replaces a list.
fn taints(present: Option<&Node>) -> Vec<Taint> {
    let held = present.and_then(|node| node.spec.as_ref()?.taints.as_ref());
    let others = held.into_iter().flatten();
    let others = others.filter(|it| it.key != labels::VIRTUAL_NODE_TAINT);
    others.cloned().chain([virtual_node_taint()]).collect()
}

/// The conditions, with ours among those of others.
fn conditions(present: Option<&Node>, ours: [NodeCondition; 2]) -> Vec<NodeCondition> {
    let held = present.and_then(|node| node.status.as_ref()?.conditions.as_ref());
    let is_ours = |it: &NodeCondition| ours.iter().any(|our| our.type_ == it.type_);
    let mut all: Vec<_> = held.into_iter().flatten().cloned().collect();
    all.retain(|it| !is_ours(it));
    all.extend(ours);
    all
}

fn ready(present: Option<&Node>, holds: bool, now: Timestamp) -> NodeCondition {
    let (reason, message) = if holds {
        ("PeerAnswers", "the peer answers on the session")
    } else {
        ("PeerSilent", "the peer does not answer on the session")
    };
    condition(present, "Ready", holds, (reason, message), now)
}

fn network_unavailable(present: Option<&Node>, holds: bool, now: Timestamp) -> NodeCondition {
    let (reason, message) = if holds {
        ("TunnelDown", "no echo comes back through the tunnel")
    } else {
        ("TunnelUp", "an echo comes back through the tunnel")
    };
    condition(present, "NetworkUnavailable", holds, (reason, message), now)
}

/// A condition that keeps its transition time while its truth is the same.
fn condition(
    present: Option<&Node>,
    kind: &str,
    holds: bool,
    (reason, message): (&str, &str),
    now: Timestamp,
) -> NodeCondition {
    let value = if holds { "True" } else { "False" };
    let conditions = present.and_then(|node| node.status.as_ref()?.conditions.as_ref());
    let same = conditions.and_then(|all| {
        all.iter()
            .find(|one| one.type_ == kind && one.status == value)
    });
    NodeCondition {
        type_: kind.to_owned(),
        status: value.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_heartbeat_time: None,
        last_transition_time: same
            .and_then(|one| one.last_transition_time.clone())
            .or(Some(Time(now))),
    }
}

/// Renews the Lease that says that the peer answers.
pub(super) async fn renew_lease(context: &Context, object: &ForeignCluster) -> Result<(), Error> {
    let Some(id) = claimed_id(object) else {
        return Ok(());
    };
    let name = node_name(id.as_str());
    let api: Api<Lease> = Api::namespaced(context.client.clone(), labels::NODE_LEASE_NAMESPACE);
    let now = context.now();
    let patch = Patch::Merge(json!({ "spec": { "renewTime": MicroTime(now) } }));
    match api.patch(&name, &managed(), &patch).await {
        Ok(_) => Ok(()),
        Err(error) if is_not_found(&error) => {
            let lease = Lease {
                metadata: ObjectMeta {
                    namespace: Some(labels::NODE_LEASE_NAMESPACE.to_owned()),
                    ..projected(object, &name, &[(labels::CLUSTER_ID, id.as_str())])
                },
                spec: Some(lease::renewed(Some(name.clone()), now)),
            };
            let created = api.create(&PostParams::default(), &lease).await;
            created
                .map(drop)
                .map_err(Error::api("create the Lease of a virtual node"))
        }
        Err(error) => Err(Error::api("renew the Lease of a virtual node")(error)),
    }
}

/// Deletes the virtual node and its Lease.
pub(super) async fn remove(context: &Context, object: &ForeignCluster) -> Result<(), Error> {
    let Some(id) = claimed_id(object) else {
        return Ok(());
    };
    let name = node_name(id.as_str());
    let leases: Api<Lease> = Api::namespaced(context.client.clone(), labels::NODE_LEASE_NAMESPACE);
    gone_is_fine(leases.delete(&name, &DeleteParams::default()).await)
        .map_err(Error::api("delete the Lease of a virtual node"))?;
    let nodes: Api<Node> = Api::all(context.client.clone());
    gone_is_fine(nodes.delete(&name, &DeleteParams::default()).await)
        .map_err(Error::api("delete a virtual node"))?;
    tracing::info!(node = %name, cluster = %object.name_any(), "Virtual node removed");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::enrolment::context;

    fn wish(labels: &[(&str, &str)]) -> NodeWish {
        let labels = labels.iter();
        let labels: BTreeMap<_, _> = labels
            .map(|&(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        NodeWish {
            name: "liqo-milan".to_owned(),
            cluster_id: "milan".to_owned(),
            offered_labels: labels.keys().cloned().collect::<Vec<_>>().join(","),
            labels,
            capacity: BTreeMap::new(),
            ready: true,
            network: true,
        }
    }

    #[tokio::test]
    async fn a_label_that_is_not_offered_any_more_is_taken_off() {
        let (context, object) = (context().await, ForeignCluster::default());
        let offered = wish(&[("gpu", "true"), ("zone", "a")]);
        write(&context, &object, &offered).await.unwrap();
        let api: Api<Node> = Api::all(context.client.clone());
        let persons = json!({"metadata": {"labels": {"rack": "7"}}});
        let parameters = kube::api::PatchParams::default();
        api.patch("liqo-milan", &parameters, &Patch::Merge(persons))
            .await
            .unwrap();
        write(&context, &object, &wish(&[("zone", "b")]))
            .await
            .unwrap();
        let node = api.get("liqo-milan").await.unwrap();
        let label = |key: &str| node.labels().get(key).map(String::as_str);
        assert_eq!(label("gpu"), None);
        assert_eq!(label("zone"), Some("b"));
        assert_eq!(label("rack"), Some("7"), "a person's own");
    }

    #[tokio::test]
    async fn taints_and_conditions_of_others_stay() {
        let (context, object) = (context().await, ForeignCluster::default());
        write(&context, &object, &wish(&[])).await.unwrap();
        let api: Api<Node> = Api::all(context.client.clone());
        let parameters = kube::api::PatchParams::default();
        let taints = json!([
            {"key": "maintenance", "value": "true", "effect": "NoSchedule"},
            {"key": labels::VIRTUAL_NODE_TAINT, "value": "true", "effect": "NoSchedule"},
        ]);
        let persons = Patch::Merge(json!({ "spec": { "taints": taints } }));
        let node = api.patch("liqo-milan", &parameters, &persons);
        let node = node.await.unwrap();
        let mut conditions = json!(node.status.unwrap().conditions);
        let others = json!({"type": "DiskPressure", "status": "False"});
        conditions.as_array_mut().unwrap().insert(0, others);
        let patch = Patch::Merge(json!({ "status": { "conditions": conditions } }));
        let patched = api.patch_status("liqo-milan", &parameters, &patch);
        patched.await.unwrap();
        let silent = NodeWish {
            ready: false,
            ..wish(&[])
        };
        write(&context, &object, &silent).await.unwrap();
        let node = api.get("liqo-milan").await.unwrap();
        let taints = node.spec.unwrap().taints.unwrap();
        let shown = taints
            .iter()
            .map(|it| (it.key.as_str(), it.effect.as_str()));
        let expected = [
            ("maintenance", "NoSchedule"),
            (labels::VIRTUAL_NODE_TAINT, "NoExecute"),
        ];
        assert_eq!(shown.collect::<Vec<_>>(), expected);
        let conditions = node.status.unwrap().conditions.unwrap();
        let mut shown = conditions
            .iter()
            .map(|it| (it.type_.as_str(), it.status.as_str()));
        assert!(shown.any(|it| it == ("DiskPressure", "False")));
        assert!(shown.any(|it| it == ("Ready", "False")));
        assert_eq!(conditions.len(), 3);
    }
}
