//! `TunnelEndpoint`: the tunnel to one peer, and how it does.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The peer's side of a tunnel.
#[derive(
    CustomResource, Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema,
)]
#[kube(
    group = "net.liqo.io",
    version = "v1alpha1",
    kind = "TunnelEndpoint",
    plural = "tunnelendpoints",
    shortname = "tep",
    category = "liqo",
    status = "TunnelEndpointStatus",
    derive = "PartialEq",
    derive = "Default",
    printcolumn(name = "Endpoint IP", type_ = "string", json_path = ".spec.endpointIP"),
    printcolumn(
        name = "Backend type",
        type_ = "string",
        json_path = ".spec.backendType"
    ),
    printcolumn(
        name = "Connection status",
        type_ = "string",
        json_path = ".status.connection.status"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct TunnelEndpointSpec {
    /// The id of the peer.
    #[serde(rename = "clusterID")]
    pub cluster_id: String,
    /// The range of the peer's pods, as the peer itself uses it.
    #[serde(rename = "podCIDR")]
    pub pod_cidr: String,
    /// The peer's external range.
    #[serde(rename = "externalCIDR")]
    pub external_cidr: String,
    /// The address of the peer's tunnel.
    #[serde(rename = "endpointIP")]
    pub endpoint_ip: String,
    /// The tunnel's backend: wireguard.
    pub backend_type: String,
    /// What the backend needs: publicKey, port.
    #[serde(rename = "backend_config")]
    pub backend_config: BTreeMap<String, String>,
}

/// How both sides see each other, and how the tunnel does.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TunnelEndpointStatus {
    /// `Ready` once everything is negotiated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// The range of our own pods.
    #[serde(rename = "localPodCIDR", skip_serializing_if = "Option::is_none")]
    pub local_pod_cidr: Option<String>,
    /// Under which range the peer sees our pods; "None" when unchanged.
    #[serde(rename = "localNATPodCIDR", skip_serializing_if = "Option::is_none")]
    pub local_nat_pod_cidr: Option<String>,
    /// Under which range we see the peer's pods; "None" when unchanged.
    #[serde(rename = "remoteNATPodCIDR", skip_serializing_if = "Option::is_none")]
    pub remote_nat_pod_cidr: Option<String>,
    /// Our external range.
    #[serde(rename = "localExternalCIDR", skip_serializing_if = "Option::is_none")]
    pub local_external_cidr: Option<String>,
    /// Under which range the peer sees our external range.
    #[serde(
        rename = "localNATExternalCIDR",
        skip_serializing_if = "Option::is_none"
    )]
    pub local_nat_external_cidr: Option<String>,
    /// Under which range we see the peer's external range.
    #[serde(
        rename = "remoteNATExternalCIDR",
        skip_serializing_if = "Option::is_none"
    )]
    pub remote_nat_external_cidr: Option<String>,
    /// The outer address of the peer.
    #[serde(
        rename = "remoteTunnelPublicIP",
        skip_serializing_if = "Option::is_none"
    )]
    pub remote_tunnel_public_ip: Option<String>,
    /// Our own outer address.
    #[serde(
        rename = "localTunnelPublicIP",
        skip_serializing_if = "Option::is_none"
    )]
    pub local_tunnel_public_ip: Option<String>,
    /// The index of the tunnel's interface.
    #[serde(rename = "tunnelIFaceIndex", skip_serializing_if = "Option::is_none")]
    pub tunnel_interface_index: Option<i64>,
    /// The name of the tunnel's interface.
    #[serde(rename = "tunnelIFaceName", skip_serializing_if = "Option::is_none")]
    pub tunnel_interface_name: Option<String>,
    /// How the connection does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection: Option<Connection>,
}

/// Packets pass (Liqo's word).
pub const CONNECTED: &str = "connected";
/// The tunnel is made and nothing came back through it yet (Liqo's word).
pub const CONNECTING: &str = "connecting";
/// The tunnel cannot be made (Liqo's word).
pub const ERROR: &str = "error";

/// How the connection through a tunnel does.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    /// connected, connecting or error (Liqo's words).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Why, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_message: Option<String>,
    /// The round-trip time of an echo through the tunnel, for people, as in `0.4 ms`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<String>,
    /// What the tunnel was told: port, endpointIP, allowedIPs, publicKey.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub peer_configuration: BTreeMap<String, String>,
}
