//! The ranges of our pods and services: which ones rule, and whether they are the true ones.

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client, ResourceExt as _, api::ListParams};

use crate::{
    api::{ClusterConfigSpec, labels},
    config::{Config, Loaded, Overruled},
    engine::addressing::check_range,
};

/// How many nodes are looked at: if the range is wrong, it is so for the first of them.
const NODES: u32 = 100;

/// The ranges of the policy object, which rule once it exists; the settings stand in for a text
/// that the schema's pattern let through.
pub(super) fn ranges(config: &Config, spec: &ClusterConfigSpec) -> (Ipv4Net, Ipv4Net) {
    let range = |text: &str, fallback: Ipv4Net| {
        text.parse::<Ipv4Net>()
            .map_or(fallback, |range| range.trunc())
    };
    (
        range(&spec.liqonet_config.pod_cidr, config.cluster.pod_cidr),
        range(
            &spec.liqonet_config.service_cidr,
            config.cluster.service_cidr,
        ),
    )
}

/// Warns of settings that were for the first start, and that the ClusterConfig has otherwise now,
/// of what no peer accepts, and of a range that is not that of the nodes.
pub(super) async fn warn_of_policy(
    settings: &Loaded,
    spec: &ClusterConfigSpec,
    pod_cidr: Ipv4Net,
    client: &Client,
) {
    if let Err(refusal) = check_range(pod_cidr) {
        tracing::warn!(%refusal, "No peer accepts the podCIDR of the ClusterConfig");
    }
    for Overruled { key, origin, mend } in settings.overruled(spec) {
        tracing::warn!(%origin, %mend, "{key} has no effect: the ClusterConfig says otherwise");
    }
    warn_of_nodes(client, pod_cidr).await;
}

async fn warn_of_nodes(client: &Client, pod_cidr: Ipv4Net) {
    let nodes = Api::<Node>::all(client.clone());
    let found = match nodes.list(&ListParams::default().limit(NODES)).await {
        Ok(nodes) => outside(&nodes.items, pod_cidr),
        Err(error) => {
            tracing::debug!(%error, "The ranges of the nodes cannot be read");
            return;
        }
    };
    if let Some((node, pods)) = found {
        let mend = format!(
            "kubectl patch clusterconfig {} --type merge -p '{{\"spec\":{{\"liqonetConfig\":{{\"podCIDR\":\"RANGE\"}}}}}}', \
             and start landbridge again",
            labels::CLUSTER_CONFIG
        );
        tracing::warn!(
            %node, %pods, %pod_cidr, %mend,
            "A node has pods outside of the podCIDR of the ClusterConfig: peers are told of a wrong range"
        );
    }
}

/// The first node whose pods are elsewhere, and where.
fn outside(nodes: &[Node], pod_cidr: Ipv4Net) -> Option<(String, Ipv4Net)> {
    nodes.iter().find_map(|node| {
        let spec = node.spec.as_ref()?;
        let range: Ipv4Net = spec.pod_cidr.as_ref()?.parse().ok()?;
        let foreign = node
            .labels()
            .get(labels::VIRTUAL_NODE_TYPE)
            .map(String::as_str)
            == Some(labels::VIRTUAL_NODE);
        (!foreign && !pod_cidr.contains(&range)).then(|| (node.name_any(), range))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(name: &str, range: &str, labels: &serde_json::Value) -> Node {
        let node =
            json!({"metadata": {"name": name, "labels": labels}, "spec": {"podCIDR": range}});
        serde_json::from_value(node).unwrap()
    }

    #[test]
    fn a_node_whose_pods_are_elsewhere_is_noticed() {
        let nodes = [
            node(
                "liqo-1",
                "10.9.0.0/24",
                &json!({labels::VIRTUAL_NODE_TYPE: labels::VIRTUAL_NODE}),
            ),
            node("n1", "10.244.0.0/24", &json!({})),
            node("n2", "fd00::/64", &json!({})),
            node("n3", "10.42.1.0/24", &json!({})),
        ];
        let pod_cidr = "10.244.0.0/16".parse().unwrap();
        assert_eq!(outside(&nodes[..3], pod_cidr), None);
        let found = outside(&nodes, pod_cidr).unwrap();
        assert_eq!(found, ("n3".to_owned(), "10.42.1.0/24".parse().unwrap()));
    }
}
