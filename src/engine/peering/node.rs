//! The steps about the peer's offer: its Advertisement and its virtual node.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Node, Taint},
    apimachinery::pkg::api::resource::Quantity,
};

use super::{LEASE_RENEWAL, Step, View, after};
use crate::{
    api::{
        advertisement::Offer,
        labels::{
            NODE_CLUSTER_ID, OFFERED_LABELS, VIRTUAL_NODE, VIRTUAL_NODE_TAINT, VIRTUAL_NODE_TYPE,
        },
        peering_request::{Acceptance, ForeignSession},
    },
    engine::offer,
};

/// What the virtual node of a peer should look like.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeWish {
    /// The name, `liqo-<clusterID>`.
    pub name: String,
    /// The id of the peer.
    pub cluster_id: String,
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// The keys of those that come from the peer, with commas between them.
    pub offered_labels: String,
    /// What the peer offers.
    pub capacity: BTreeMap<String, Quantity>,
    /// Whether the peer is heard on the session.
    pub ready: bool,
    /// Whether the tunnel to the peer works.
    pub network: bool,
}

/// The name of the virtual node of a peer (Liqo's).
pub fn node_name(cluster_id: &str) -> String {
    format!("liqo-{cluster_id}")
}

/// What keeps the pods of this cluster off virtual nodes (Liqo's).
pub fn virtual_node_taint() -> Taint {
    Taint {
        key: VIRTUAL_NODE_TAINT.to_owned(),
        value: Some("true".to_owned()),
        effect: "NoExecute".to_owned(),
        time_added: None,
    }
}

/// Plans the Advertisement and the virtual node.
pub(super) fn steps(view: &View<'_>, steps: &mut Vec<Step>) {
    offer_steps(view, steps);
    if !view.consumes() {
        if view.facts.node.is_some() {
            steps.push(Step::RemoveNode);
        }
        return;
    }
    let Some(wish) = wish(view) else {
        return;
    };
    if view
        .facts
        .node
        .as_ref()
        .is_none_or(|node| !is_as_wished(node, &wish))
    {
        steps.push(Step::WriteNode(Box::new(wish)));
    }
    let due = view
        .facts
        .lease_renewed
        .is_none_or(|renewed| view.has_come(after(renewed, LEASE_RENEWAL), LEASE_RENEWAL));
    if due && view.session().is_some() {
        steps.push(Step::RenewLease);
    }
}

fn offer_steps(view: &View<'_>, steps: &mut Vec<Step>) {
    let present = view.facts.advertisement.as_ref();
    if !view.may_consume() {
        if present.is_some() {
            steps.push(Step::RemoveAdvertisement);
        }
        return;
    }
    let Some(foreign) = foreign_session(view) else {
        return;
    };
    let Some(offered) = &foreign.offer else {
        if present.is_some() {
            steps.push(Step::RemoveAdvertisement);
        }
        return;
    };
    let status = present.and_then(|one| one.status.as_ref());
    let answered = status.map_or(Acceptance::Undecided, |it| it.advertisement_status);
    // A defect was refused by us: what comes after it is a person's to answer.
    let had_defect = present.is_some_and(|one| offer::bounds::defect(&one.spec.offer).is_some());
    let decided = if had_defect {
        Acceptance::Undecided
    } else {
        answered
    };
    let answer = offer::accept(
        &view.facts.config.advertisement_config.ingoing_config,
        view.facts.accepted_elsewhere,
        decided,
        offered,
    );
    // A person who answers writes the answer alone.
    let is_told = status.is_some_and(|it| it.vk_created == (answer == Acceptance::Accepted));
    let is_same = present.is_some_and(|one| one.spec.offer == *offered);
    if !is_same || answered != answer || !is_told {
        steps.push(Step::WriteAdvertisement(Box::new(offered.clone()), answer));
    }
}

/// What the peer says on the session, if it is heard and has said anything.
pub(super) fn foreign_session<'a>(view: &View<'a>) -> Option<&'a ForeignSession> {
    view.session()?.request.status.as_ref()?.session.as_ref()
}

fn wish(view: &View<'_>) -> Option<NodeWish> {
    let cluster_id = view.cluster_id.as_ref()?.to_string();
    let advertised: &Offer = &view.facts.advertisement.as_ref()?.spec.offer;
    let capacity = advertised.resource_quota.as_ref()?.hard.clone()?;
    let name = node_name(&cluster_id);
    let mut labels = offer::bounds::node_labels(advertised);
    let offered: Vec<&str> = labels.keys().map(String::as_str).collect();
    let offered_labels = offered.join(",");
    labels.extend(
        [
            (VIRTUAL_NODE_TYPE, VIRTUAL_NODE),
            ("type", VIRTUAL_NODE),
            ("kubernetes.io/role", "agent"),
            ("kubernetes.io/hostname", name.as_str()),
            (
                "alpha.service-controller.kubernetes.io/exclude-balancer",
                "true",
            ),
            ("beta.kubernetes.io/os", "linux"),
            ("kubernetes.io/os", "linux"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned())),
    );
    Some(NodeWish {
        name,
        cluster_id,
        labels,
        offered_labels,
        capacity,
        ready: view.session().is_some(),
        network: view.is_tunnel_connected(),
    })
}

/// Whether amounts are the same, however they are written: an API server has a way of its own.
fn are_same(present: &BTreeMap<String, Quantity>, wished: &BTreeMap<String, Quantity>) -> bool {
    let is_same = |(one, other): (&Quantity, &Quantity)| {
        let amounts = [one, other].map(|it| offer::parse_milli(&it.0));
        one == other || (amounts[0].is_some() && amounts[0] == amounts[1])
    };
    present.keys().eq(wished.keys()) && present.values().zip(wished.values()).all(is_same)
}

fn is_as_wished(node: &Node, wish: &NodeWish) -> bool {
    let metadata = &node.metadata;
    let holds = |kind: &str, expected: bool| {
        let conditions = node
            .status
            .iter()
            .filter_map(|status| status.conditions.as_ref());
        // The node controller of a cluster says Unknown of a node that is silent, and that is one.
        let values: &[&str] = if expected {
            &["True"]
        } else {
            &["False", "Unknown"]
        };
        conditions
            .flatten()
            .any(|one| one.type_ == kind && values.contains(&one.status.as_str()))
    };
    let labelled = wish
        .labels
        .iter()
        .all(|(key, value)| metadata.labels.as_ref().and_then(|all| all.get(key)) == Some(value));
    let annotation = |key: &str| {
        let annotations = metadata.annotations.as_ref();
        annotations
            .and_then(|all| all.get(key))
            .map_or("", String::as_str)
    };
    let annotated = annotation(NODE_CLUSTER_ID) == wish.cluster_id
        && annotation(OFFERED_LABELS) == wish.offered_labels;
    let tainted = node
        .spec
        .iter()
        .filter_map(|spec| spec.taints.as_ref())
        .flatten()
        .any(|taint| {
            let (time_added, ours) = (taint.time_added.clone(), virtual_node_taint());
            *taint == Taint { time_added, ..ours }
        });
    let capacity = node.status.iter().find_map(|it| it.capacity.as_ref());
    let sized = capacity.is_some_and(|it| are_same(it, &wish.capacity));
    labelled
        && annotated
        && tainted
        && sized
        && holds("Ready", wish.ready)
        && holds("NetworkUnavailable", !wish.network)
}
