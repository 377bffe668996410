//! `SearchDomain`: a DNS domain in which clusters are looked for.

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
pub struct SearchDomainSpec {
    /// The domain, for example `clusters.example.com`.
    pub domain: String,
    /// Whether to join the clusters that are found in it.
    pub autojoin: bool,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct SearchDomainStatus {}
