//! `NetworkConfig`: one side's network as it was told to the other.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The value of a NAT field when a range is seen unchanged.
pub const UNCHANGED: &str = "None";
/// The one backend type that is served (Liqo's word).
pub const BACKEND_WIREGUARD: &str = "wireguard";

/// One side's network.
#[derive(
    CustomResource, Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema,
)]
#[kube(
    group = "net.liqo.io",
    version = "v1alpha1",
    kind = "NetworkConfig",
    plural = "networkconfigs",
    shortname = "netcfg",
    category = "liqo",
    status = "NetworkConfigStatus",
    derive = "PartialEq",
    derive = "Default"
)]
#[serde(rename_all = "camelCase")]
pub struct NetworkConfigSpec {
    /// The id of the cluster that is told (the destination).
    #[serde(rename = "clusterID")]
    pub cluster_id: String,
    /// The range of the pods.
    #[serde(rename = "podCIDR")]
    pub pod_cidr: String,
    /// The range that stands for what is outside of the pods' range.
    #[serde(rename = "externalCIDR")]
    pub external_cidr: String,
    /// The address of the tunnel's endpoint.
    #[serde(rename = "endpointIP")]
    pub endpoint_ip: String,
    /// The tunnel's backend: wireguard.
    pub backend_type: String,
    /// What the backend needs: publicKey, port.
    #[serde(rename = "backend_config")]
    pub backend_config: BTreeMap<String, String>,
}

/// How the told cluster sees the network.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkConfigStatus {
    /// Whether the told cluster has decided.
    #[serde(default)]
    pub processed: bool,
    /// Under which range the told cluster sees the pods; "None" when unchanged.
    #[serde(rename = "podCIDRNAT", skip_serializing_if = "Option::is_none")]
    pub pod_cidr_nat: Option<String>,
    /// Under which range the told cluster sees the external range; "None" when unchanged.
    #[serde(rename = "externalCIDRNAT", skip_serializing_if = "Option::is_none")]
    pub external_cidr_nat: Option<String>,
}
