//! `ForeignCluster`: a cluster that we know of, and what we want from it.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::ObjectReference,
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is wanted from a cluster. Written by the user, or by policy when discovery creates the object.
#[derive(
    CustomResource, Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema,
)]
#[kube(
    group = "discovery.liqo.io",
    version = "v1alpha1",
    kind = "ForeignCluster",
    plural = "foreignclusters",
    shortname = "fc",
    category = "liqo",
    status = "ForeignClusterStatus",
    derive = "PartialEq",
    derive = "Default",
    printcolumn(
        name = "Outgoing joined",
        type_ = "string",
        json_path = ".status.outgoing.joined"
    ),
    printcolumn(
        name = "Incoming joined",
        type_ = "string",
        json_path = ".status.incoming.joined"
    ),
    printcolumn(
        name = "Authentication status",
        type_ = "string",
        json_path = ".status.authStatus"
    ),
    printcolumn(name = "Found by", type_ = "string", json_path = ".spec.discoveryType"),
    printcolumn(name = "Join", type_ = "boolean", json_path = ".spec.join"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.phase"),
    printcolumn(
        name = "Tunnel",
        type_ = "string",
        json_path = ".status.network.rtt",
        priority = 1
    ),
    printcolumn(
        name = "Code",
        type_ = "string",
        json_path = ".status.approvalCode",
        priority = 1
    ),
    printcolumn(
        name = "Cluster ID",
        type_ = "string",
        json_path = ".spec.clusterIdentity.clusterID",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(oldSelf.clusterIdentity) || oldSelf.clusterIdentity.clusterID == '' || \
             (has(self.clusterIdentity) && \
             self.clusterIdentity.clusterID == oldSelf.clusterIdentity.clusterID)",
    "message": "clusterIdentity.clusterID stays as it is: delete the object and make another one",
}]))]
#[serde(rename_all = "camelCase")]
pub struct ForeignClusterSpec {
    /// The identity of the cluster; filled in from its peer endpoint when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_identity: Option<ClusterIdentity>,
    /// The namespace that the remote cluster keeps for its guests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Whether to peer with the cluster and consume what it offers.
    #[serde(default)]
    pub join: bool,
    /// How the cluster was found.
    #[serde(default)]
    pub discovery_type: DiscoveryType,
    /// The URL of the cluster's peer endpoint, https://host:port.
    pub auth_url: String,
    /// Whether the identity behind the cluster id is accepted here. Trusted pins it.
    #[serde(default)]
    pub trust_mode: TrustMode,
    /// Whether the cluster may consume what we offer: Auto when it is trusted, Yes, or No to block it.
    #[serde(default)]
    pub incoming_peering_enabled: IncomingPeering,
}

impl ForeignClusterSpec {
    /// Whether somebody said no to the cluster: what it asks is refused, and nothing is asked of it.
    pub fn is_denied(&self) -> bool {
        self.incoming_peering_enabled == IncomingPeering::No
    }
}

/// The identity of a cluster as objects carry it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct ClusterIdentity {
    /// The cluster id.
    #[serde(rename = "clusterID")]
    pub cluster_id: String,
    /// The cluster name, for people.
    #[serde(rename = "clusterName", skip_serializing_if = "Option::is_none")]
    pub cluster_name: Option<String>,
}

/// How a cluster was found.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema,
)]
pub enum DiscoveryType {
    /// By multicast DNS on a LAN.
    #[serde(rename = "LAN")]
    Lan,
    /// In a DNS domain.
    #[serde(rename = "WAN")]
    Wan,
    /// A person wrote the object.
    #[default]
    Manual,
    /// The cluster came to us.
    IncomingPeering,
}

impl DiscoveryType {
    /// Returns the value as objects carry it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lan => "LAN",
            Self::Wan => "WAN",
            Self::Manual => "Manual",
            Self::IncomingPeering => "IncomingPeering",
        }
    }

    /// Reads the value as objects carry it.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Lan, Self::Wan, Self::Manual, Self::IncomingPeering]
            .into_iter()
            .find(|kind| kind.as_str() == text)
    }
}

/// Whether the identity behind a cluster id is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum TrustMode {
    /// Nothing was proven yet.
    #[default]
    Unknown,
    /// The identity is accepted: by a secret, a token, or a person.
    Trusted,
    /// The cluster holds the key behind its id and nobody has approved it.
    Untrusted,
}

/// Whether a cluster may consume what we offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum IncomingPeering {
    /// When it is trusted.
    #[default]
    Auto,
    /// Yes, a person said so.
    Yes,
    /// Never: the cluster is blocked.
    No,
}

/// What we observed of a cluster.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ForeignClusterStatus {
    /// Where the authorisation at the remote cluster stands. Pending asks again.
    #[serde(default)]
    pub auth_status: AuthStatus,
    /// The time to live of the last advertisement, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 4_294_967_295_u32))]
    pub ttl: Option<u32>,
    /// The peering in which we consume what the cluster offers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outgoing: Option<Outgoing>,
    /// The peering in which the cluster consumes what we offer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incoming: Option<Incoming>,
    /// The objects and the state of the tunnel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// The state in one word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// The state in detail: Discovered, EndpointReachable, IdentityVerified, Trusted,
    /// OutgoingPeered, IncomingPeered, NetworkReady, Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend(
        "x-kubernetes-list-type" = "map",
        "x-kubernetes-list-map-keys" = ["type"]
    ))]
    pub conditions: Vec<Condition>,
    /// Where the cluster's peer endpoint may be reached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<PeerEndpoint>,
    /// The fingerprint of the cluster's identity key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// The six digits that both sides show while a person has to approve.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approval_code: Option<String>,
    /// When an endpoint of the cluster last answered after not answering.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Time>,
    /// When each stage was first reached.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub timeline: BTreeMap<String, Time>,
}

/// Where the authorisation at the remote cluster stands (Liqo's values).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum AuthStatus {
    /// No decision yet.
    #[default]
    Pending,
    /// We may peer.
    Accepted,
    /// We may not.
    Refused,
    /// No token was given and one is needed.
    EmptyRefused,
}

/// The peering in which we consume what a cluster offers.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Outgoing {
    /// Whether the peering stands.
    pub joined: bool,
    /// The name of our PeeringRequest in the remote cluster.
    #[serde(
        rename = "remote-peering-request-name",
        skip_serializing_if = "Option::is_none"
    )]
    pub remote_peering_request_name: Option<String>,
    /// The Advertisement with the cluster's offer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertisement: Option<ObjectReference>,
    /// Whether the cluster accepted our identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available_identity: Option<bool>,
    /// Kept for readers of Liqo's objects; no credential is ever stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity_ref: Option<ObjectReference>,
    /// What we answered to the offer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertisement_status: Option<String>,
}

/// The peering in which a cluster consumes what we offer.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Incoming {
    /// Whether the peering stands.
    pub joined: bool,
    /// The PeeringRequest that the cluster made here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peering_request: Option<ObjectReference>,
    /// Whether we accepted the cluster's identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available_identity: Option<bool>,
    /// Kept for readers of Liqo's objects; no credential is ever stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity_ref: Option<ObjectReference>,
    /// What the cluster answered to our offer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertisement_status: Option<String>,
}

/// The objects and the state of the tunnel to a cluster.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Network {
    /// What we tell the cluster about our network.
    pub local_network_config: ResourceLink,
    /// What the cluster told us about its network.
    pub remote_network_config: ResourceLink,
    /// The tunnel that follows from both.
    pub tunnel_endpoint: ResourceLink,
    /// The round-trip time through the tunnel, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtt: Option<String>,
}

/// Whether an object exists, and which it is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct ResourceLink {
    /// Whether it exists.
    pub available: bool,
    /// Which object it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<ObjectReference>,
}

/// The state of a ForeignCluster in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Known and reachable; nothing is asked of it.
    Discovered,
    /// No endpoint answers, or none with the right key.
    Unreachable,
    /// A person has to decide, here or there.
    Waiting,
    /// The cluster refused us, or we blocked it.
    Refused,
    /// On the way to a peering.
    Joining,
    /// Everything that was asked for works.
    Peered,
    /// Peered, and something does not work just now.
    Degraded,
    /// The peering is being taken down.
    Leaving,
}

impl Phase {
    /// Returns the value as objects carry it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Discovered => "Discovered",
            Self::Unreachable => "Unreachable",
            Self::Waiting => "Waiting",
            Self::Refused => "Refused",
            Self::Joining => "Joining",
            Self::Peered => "Peered",
            Self::Degraded => "Degraded",
            Self::Leaving => "Leaving",
        }
    }
}

/// A place where a cluster's peer endpoint may be reached.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PeerEndpoint {
    /// The URL, https://address:port.
    pub url: String,
    /// Who named it: LAN, WAN, Manual or IncomingPeering.
    pub source: String,
    /// The interface that it was heard on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// When it was first named in its present form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Time>,
    /// How good it is: 100 is the one in use, a LAN goes before a domain, and what failed goes last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<u8>,
    /// Why it did not answer the last time, if it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}
