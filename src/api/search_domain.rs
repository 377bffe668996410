//! `SearchDomain`: a DNS domain in which clusters are looked for.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which domain to look in.
#[derive(
    CustomResource, Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema,
)]
#[kube(
    group = "discovery.liqo.io",
    version = "v1alpha1",
    kind = "SearchDomain",
    plural = "searchdomains",
    shortname = "sd",
    category = "liqo",
    status = "SearchDomainStatus",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct SearchDomainSpec {
    /// The domain, for example `clusters.example.com`.
    pub domain: String,
    /// Whether to join the clusters that are found in it.
    pub autojoin: bool,
    /// Whether addresses of private networks are refused. They are normal in a company's own domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_only: Option<bool>,
    /// What lets clusters at hosts of this domain in. TLSA is a signed record with their key, WebPKI a
    /// certificate for the host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub trusted_by: Vec<TrustedBy>,
}

/// A way in which a domain lets its clusters in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TrustedBy {
    /// A TLSA record of its host that DNSSEC proves and that has its key.
    #[serde(rename = "TLSA")]
    Tlsa,
    /// A certificate for its host of an authority that this machine trusts.
    #[serde(rename = "WebPKI")]
    WebPki,
}

/// What was found. Written when something other than the time of the look has changed.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SearchDomainStatus {
    /// When the domain was looked at, as of the last change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_look: Option<Time>,
    /// When it was going to be looked at next, as of the last change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_look: Option<Time>,
    /// How many of its entries lead to a cluster's endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 4_294_967_295_u32))]
    pub found: Option<u32>,
    /// The entries that lead nowhere, the first ones only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedEntry>,
    /// Whether the answers are signed: Secure, Insecure, Bogus or Indeterminate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dnssec: Option<String>,
    /// The state in detail: Answered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend(
        "x-kubernetes-list-type" = "map",
        "x-kubernetes-list-map-keys" = ["type"]
    ))]
    pub conditions: Vec<Condition>,
}

/// An entry of a domain that leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct RefusedEntry {
    /// The name of the entry.
    pub instance: String,
    /// Why it leads nowhere.
    pub reason: String,
}
