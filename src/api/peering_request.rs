//! `PeeringRequest`: the session between two clusters, kept in the cluster that offers.
//!
//! ```text
//! home (consumes)                      foreign (offers, stores the object)
//!   spec.session.network   ------->
//!                          <-------    status.session.network, status.session.offer
//!   spec.session.accepted  ------->
//! ```

use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::Condition};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{advertisement::Offer, foreign_cluster::ClusterIdentity};

/// What the home cluster says. The name of the object is the home cluster's id.
#[derive(CustomResource, Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "discovery.liqo.io",
    version = "v1alpha1",
    kind = "PeeringRequest",
    plural = "peeringrequests",
    shortname = "pr",
    category = "liqo",
    status = "PeeringRequestStatus",
    derive = "PartialEq",
    derive = "Default",
    printcolumn(
        name = "Cluster",
        type_ = "string",
        json_path = ".spec.clusterIdentity.clusterName"
    ),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".spec.session.accepted"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct PeeringRequestSpec {
    /// The identity of the home cluster, set from the session that created the object.
    pub cluster_identity: ClusterIdentity,
    /// The namespace of the home cluster.
    pub namespace: String,
    /// The URL of the home cluster's own peer endpoint, possibly empty.
    pub auth_url: String,
    /// Kept for readers of Liqo's objects; no credential is ever stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kube_config_ref: Option<ObjectReference>,
    /// The home cluster's half of the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<HomeSession>,
}

/// The home cluster's half of the session.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HomeSession {
    /// The version of the peering protocol.
    #[schemars(range(max = 4_294_967_295_u32))]
    pub protocol: u32,
    /// The home cluster's network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<SessionNetwork>,
    /// What the home cluster answers to the offer.
    #[serde(default)]
    pub accepted: Acceptance,
}

impl HomeSession {
    /// Returns what is merged into a session so that it says this. The range is named even where there
    /// is none, since what a merge does not name stays as it was.
    pub fn as_change(&self) -> Value {
        let mut change = json!(self);
        let fields = change.get_mut("network").and_then(Value::as_object_mut);
        if let Some((network, fields)) = self.network.as_ref().zip(fields) {
            fields.insert("podCIDRNAT".to_owned(), json!(network.pod_cidr_nat));
        }
        change
    }
}

/// An answer to an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Acceptance {
    /// No answer yet.
    #[default]
    #[serde(rename = "")]
    Undecided,
    /// The offer is taken.
    Accepted,
    /// The offer is turned down.
    Refused,
}

impl Acceptance {
    /// Returns the value as objects carry it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Undecided => "",
            Self::Accepted => "Accepted",
            Self::Refused => "Refused",
        }
    }
}

/// One side's network, as it tells it to the other.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionNetwork {
    /// The range of the pods, as the speaker itself uses it.
    #[serde(rename = "podCIDR")]
    pub pod_cidr: String,
    /// The range that stands for what is outside of the pods' range.
    #[serde(rename = "externalCIDR")]
    pub external_cidr: String,
    /// Where the speaker's tunnel may be reached, address:port, best first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<String>,
    /// The speaker's WireGuard public key, base64; empty when it can have no tunnel.
    pub public_key: String,
    /// The UDP port of the speaker's tunnel.
    pub port: u16,
    /// The largest packet that fits the speaker's tunnel, in bytes.
    pub mtu: u16,
    /// Under which range the speaker sees the listener's pods: a range, or "None" when unchanged.
    #[serde(rename = "podCIDRNAT", skip_serializing_if = "Option::is_none")]
    pub pod_cidr_nat: Option<String>,
}

/// What the foreign cluster says.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PeeringRequestStatus {
    /// Kept for readers of Liqo's objects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broadcaster_ref: Option<ObjectReference>,
    /// The home cluster's answer to the offer, mirrored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertisement_status: Option<String>,
    /// The foreign cluster's half of the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<ForeignSession>,
    /// Where the session stands.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// The foreign cluster's half of the session.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ForeignSession {
    /// What is offered; absent when nothing is, for the reason in `message`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offer: Option<Offer>,
    /// The foreign cluster's network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<SessionNetwork>,
    /// What the home cluster should show to people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}
