//! `Advertisement`: what a peer offers, as we received it.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{ContainerImage, LimitRangeSpec, ResourceQuotaSpec},
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::Time},
};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::peering_request::Acceptance;

/// What a peer offers.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "sharing.liqo.io",
    version = "v1alpha1",
    kind = "Advertisement",
    plural = "advertisements",
    shortname = "adv",
    category = "liqo",
    status = "AdvertisementStatus",
    derive = "PartialEq",
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.advertisementStatus"
    ),
    printcolumn(name = "Expiration", type_ = "string", json_path = ".spec.timeToLive"),
    printcolumn(name = "VkCreated", type_ = "boolean", json_path = ".status.vkCreated"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct AdvertisementSpec {
    /// The id of the offering cluster (Liqo spells this key so).
    pub cluster_id: String,
    /// The offer itself.
    #[serde(flatten)]
    pub offer: Offer,
    /// Resources of the offering cluster's own virtual nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub neighbors: Option<BTreeMap<String, BTreeMap<String, Quantity>>>,
    /// Free-form properties.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub properties: Option<BTreeMap<String, String>>,
    /// Kept for readers of Liqo's objects; always the empty reference.
    pub kube_config_ref: SecretReference,
}

/// The part of an offer that crosses the session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Offer {
    /// What is offered: `hard` is the capacity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_quota: Option<ResourceQuotaSpec>,
    /// Labels for the virtual node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Images that the offering cluster already has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<Vec<ContainerImage>>,
    /// What a unit costs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prices: Option<BTreeMap<String, Quantity>>,
    /// Limits for a single pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_range: Option<LimitRangeSpec>,
    /// When the offer was made.
    pub timestamp: Time,
    /// Until when it holds.
    pub time_to_live: Time,
}

/// A reference to a Secret (Kubernetes convention).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct SecretReference {
    /// The name of the Secret.
    #[serde(default)]
    pub name: String,
    /// The namespace of the Secret.
    #[serde(default)]
    pub namespace: String,
}

/// What became of an offer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AdvertisementStatus {
    /// Our answer. Written by a person when the acceptPolicy is Manual.
    pub advertisement_status: Acceptance,
    /// Whether the virtual node exists.
    pub vk_created: bool,
    /// Kept for readers of Liqo's objects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vk_reference: Option<SecretReference>,
    /// The virtual node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vnode_reference: Option<NodeReference>,
}

/// A reference to a Node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct NodeReference {
    /// The name of the Node.
    pub name: String,
}
