//! The nouns: every object, label and wire message, nothing but data.

#![expect(
    clippy::duplicated_attributes,
    reason = "each printed column has a type of its own"
)]

pub mod advertisement;
pub mod cluster_config;
pub mod foreign_cluster;
pub mod identity;
pub mod labels;
pub mod network_config;
pub mod peering_request;
pub mod search_domain;
pub mod token;
pub mod tunnel_endpoint;
pub mod wire;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;

pub use advertisement::{Advertisement, AdvertisementSpec, AdvertisementStatus};
pub use cluster_config::{ClusterConfig, ClusterConfigSpec};
pub use foreign_cluster::{ForeignCluster, ForeignClusterSpec, ForeignClusterStatus};
pub use identity::{ClusterId, ClusterName, Fingerprint};
pub use network_config::{NetworkConfig, NetworkConfigSpec, NetworkConfigStatus};
pub use peering_request::{PeeringRequest, PeeringRequestSpec, PeeringRequestStatus};
pub use search_domain::{SearchDomain, SearchDomainSpec, SearchDomainStatus};
pub use tunnel_endpoint::{TunnelEndpoint, TunnelEndpointSpec, TunnelEndpointStatus};

/// Returns the definitions of all our kinds, as they are served and as they stand in `deploy/crds`.
///
/// Liqo 0.2 has no status subresource on ForeignCluster, PeeringRequest and SearchDomain, and its
/// documents patch `status` through the main resource, so these three have none here either.
pub fn crds() -> Vec<CustomResourceDefinition> {
    let mut all = vec![
        without_status_subresource(ForeignCluster::crd()),
        without_status_subresource(SearchDomain::crd()),
        without_status_subresource(PeeringRequest::crd()),
        Advertisement::crd(),
        NetworkConfig::crd(),
        TunnelEndpoint::crd(),
        ClusterConfig::crd(),
    ];
    for crd in &mut all {
        let ours = [
            (labels::MANAGED_BY, labels::MANAGER),
            (labels::VERSION, env!("CARGO_PKG_VERSION")),
        ];
        let ours = ours.map(|(key, value)| (key.to_owned(), value.to_owned()));
        crd.metadata.labels = Some(ours.into());
    }
    all
}

fn without_status_subresource(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        version.subresources = None;
    }
    crd
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn only_the_kinds_with_a_status_subresource_in_liqo_have_one() {
        let with: Vec<String> = crds()
            .into_iter()
            .filter(|crd| {
                crd.spec
                    .versions
                    .iter()
                    .any(|version| version.subresources.is_some())
            })
            .map(|crd| crd.spec.names.kind)
            .collect();
        assert_eq!(
            with,
            [
                "Advertisement",
                "NetworkConfig",
                "TunnelEndpoint",
                "ClusterConfig"
            ]
        );
    }

    /// The bounds of a server are those of the schema, and a number beyond what its type can be would
    /// keep a whole list from being read.
    #[test]
    fn no_number_is_allowed_that_cannot_be_read() {
        fn check(schema: &Value, path: &str) {
            let fields = schema.as_object().into_iter().flatten();
            for (name, below) in fields {
                check(below, &format!("{path}.{name}"));
            }
            let most: f64 = match schema.get("format").and_then(Value::as_str) {
                Some("int32") => i32::MAX.into(),
                Some("uint32") => u32::MAX.into(),
                Some("uint16") => u16::MAX.into(),
                Some("uint8") => u8::MAX.into(),
                _ => return,
            };
            let bound = |keyword: &str| schema.get(keyword).and_then(Value::as_f64);
            assert!(
                bound("maximum").is_some_and(|bound| bound <= most),
                "{path}"
            );
            assert!(bound("minimum").is_some_and(|bound| bound >= 0.0), "{path}");
        }
        for crd in crds() {
            check(
                &serde_json::to_value(&crd.spec).unwrap(),
                &crd.spec.names.kind,
            );
        }
    }

    #[test]
    fn every_kind_is_cluster_scoped_and_in_the_category_liqo() {
        for crd in crds() {
            assert_eq!(crd.spec.scope, "Cluster", "{}", crd.spec.names.kind);
            assert_eq!(crd.spec.names.categories, Some(vec!["liqo".to_owned()]));
        }
    }
}
