//! The ranges of our pods and services: which ones rule, and whether they are the true ones.

use std::collections::BTreeSet;

use ipnet::{IpNet, Ipv4Net};
use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client, ResourceExt as _, api::ListParams};
use nix::ifaddrs::InterfaceAddress;

use crate::{
    api::{ClusterConfigSpec, labels},
    config::{Config, Loaded, Overruled},
    discovery::interfaces::{InterfaceRules, is_bridge, subnet_of},
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
        let mend = mend("podCIDR");
        tracing::warn!(
            %node, %pods, %pod_cidr, %mend,
            "A node has pods outside of the podCIDR of the ClusterConfig: peers are told of a wrong range"
        );
    }
}

fn mend(field: &str) -> String {
    format!(
        "kubectl patch clusterconfig {} --type merge -p '{{\"spec\":{{\"liqonetConfig\":{{\"{field}\":\"RANGE\"}}}}}}', \
         and start landbridge again",
        labels::CLUSTER_CONFIG
    )
}

/// A network of this machine whose hosts would count as pods or services of ours.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Overlap {
    interface: String,
    network: IpNet,
    range: IpNet,
    field: &'static str,
}

impl Overlap {
    /// Finds all that there are.
    pub(super) fn find(rows: &[InterfaceAddress], rules: &InterfaceRules) -> BTreeSet<Self> {
        let found = rows.iter().filter_map(|row| {
            let interface = row.interface_name.as_str();
            let network = subnet_of(row.address.as_ref(), row.netmask.as_ref())?;
            let range = overlapped(rules, interface, network)?;
            let is_pods = rules.excluded.first() == Some(&range);
            // The pods of a node are behind a bridge.
            (!is_bridge(interface)).then(|| Self {
                interface: interface.to_owned(),
                network,
                range,
                field: if is_pods { "podCIDR" } else { "serviceCIDR" },
            })
        });
        found.collect()
    }

    /// Warns of it.
    pub(super) fn tell(&self) {
        let Self {
            interface,
            network,
            range,
            field,
        } = self;
        let mend = mend(field);
        tracing::warn!(
            %interface, %network, %range, %mend,
            "A network of this machine overlaps the {field}: who has an address in both is not found there, and counts as a pod or service of ours"
        );
    }
}

/// The range of ours that a network overlaps which may be a LAN.
fn overlapped(rules: &InterfaceRules, interface: &str, network: IpNet) -> Option<IpNet> {
    let may_be_lan = !rules.skips(interface) && network.prefix_len() < network.max_prefix_len();
    let mut ranges = rules.excluded.iter().filter(|_| may_be_lan);
    ranges
        .find(|range| range.contains(&network) || network.contains(*range))
        .copied()
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

    #[test]
    fn a_lan_in_a_range_of_ours_is_noticed() {
        let rules = InterfaceRules {
            excluded: vec![
                "10.244.0.0/16".parse().unwrap(),
                "10.96.0.0/12".parse().unwrap(),
            ],
            ..InterfaceRules::default()
        };
        for (interface, network, range) in [
            ("eth0", "10.244.7.1/24", Some("10.244.0.0/16")),
            ("eth0", "10.1.2.3/8", Some("10.244.0.0/16")),
            ("eth0", "10.100.0.5/16", Some("10.96.0.0/12")),
            ("eth0", "192.168.1.5/24", None),
            ("eth0", "fe80::1/64", None),
            ("eth0", "10.244.7.1/32", None),
            ("flannel.1", "10.244.7.0/24", None),
        ] {
            let found = overlapped(&rules, interface, network.parse().unwrap());
            let found = found.map(|range| range.to_string());
            assert_eq!(found.as_deref(), range, "{interface} {network}");
        }
    }
}
