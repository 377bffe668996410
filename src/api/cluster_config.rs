//! `ClusterConfig`: the policy of this cluster, live.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Liqo's pattern of an IPv4 range, to the letter.
const CIDR_PATTERN: &str = r"^([0-9]{1,3}.){3}[0-9]{1,3}(/([0-9]|[1-2][0-9]|3[0-2]))$";

/// The policy of this cluster.
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "config.liqo.io",
    version = "v1alpha1",
    kind = "ClusterConfig",
    plural = "clusterconfigs",
    shortname = "cc",
    category = "liqo",
    status = "ClusterConfigStatus",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterConfigSpec {
    /// Liqo's coordinates of the Kubernetes API; kept, not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_server_config: Option<ApiServerConfig>,
    /// What is offered and what is accepted.
    pub advertisement_config: AdvertisementConfig,
    /// How clusters are found.
    pub discovery_config: DiscoveryConfig,
    /// Who is let in.
    pub auth_config: AuthConfig,
    /// Which address ranges are in use.
    pub liqonet_config: LiqonetConfig,
    /// Liqo's list of replicated resources; kept, not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dispatcher_config: Option<DispatcherConfig>,
    /// Liqo's agent; kept, not used.
    pub agent_config: AgentConfig,
}

/// What a ClusterConfig reports.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct ClusterConfigStatus {
    /// How this cluster itself does: LanDiscovery, IdentityUnique.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend(
        "x-kubernetes-list-type" = "map",
        "x-kubernetes-list-map-keys" = ["type"]
    ))]
    pub conditions: Vec<Condition>,
}

/// Coordinates of the Kubernetes API.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiServerConfig {
    /// The address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// Whether its certificate is signed by a public authority.
    #[serde(rename = "trustedCA", skip_serializing_if = "Option::is_none")]
    pub trusted_ca: Option<bool>,
}

/// What is offered and what is accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AdvertisementConfig {
    /// What we offer.
    pub outgoing_config: OutgoingConfig,
    /// What we accept (Liqo spells this key so).
    pub ingoing_config: IngoingConfig,
    /// After how many silent tries Liqo takes a peer for gone; kept, not used.
    #[serde(default = "default_keepalive_threshold")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub keepalive_threshold: i32,
    /// Liqo's seconds between two tries; kept, not used.
    #[serde(default = "default_keepalive_retry_time")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub keepalive_retry_time: i32,
    /// Which labels of our nodes go into the offer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_policies: Option<Vec<LabelPolicy>>,
}

fn default_keepalive_threshold() -> i32 {
    3
}

fn default_keepalive_retry_time() -> i32 {
    20
}

/// What we offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutgoingConfig {
    /// How much of what is free is offered, in per cent.
    #[schemars(range(min = 0, max = 100))]
    pub resource_sharing_percentage: i32,
    /// Whether anything is offered at all.
    pub enable_broadcaster: bool,
}

/// What we accept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IngoingConfig {
    /// How many offers are accepted.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub max_acceptable_advertisement: i32,
    /// Who decides.
    pub accept_policy: AcceptPolicy,
}

/// Who decides about an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AcceptPolicy {
    /// Offers are accepted up to the maximum.
    AutoAcceptMax,
    /// A person decides about each.
    Manual,
}

/// How a label of our nodes goes into the offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LabelPolicy {
    /// The key of the label.
    pub key: String,
    /// How the nodes' values are put together.
    #[serde(default)]
    pub policy: LabelPolicyKind,
}

/// How the nodes' values of a label are put together (Liqo's values).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum LabelPolicyKind {
    /// True when any node has it, else false.
    #[default]
    LabelPolicyAnyTrue,
    /// True when all nodes have it, else false.
    LabelPolicyAllTrue,
    /// True when any node has it, else absent.
    LabelPolicyAnyTrueNoLabelIfFalse,
    /// True when all nodes have it, else absent.
    LabelPolicyAllTrueNoLabelIfFalse,
}

/// How clusters are found.
#[expect(clippy::struct_excessive_bools, reason = "these are Liqo's switches")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiscoveryConfig {
    /// The name of this cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_name: Option<String>,
    /// Liqo's legacy instance name; kept, not used.
    pub name: String,
    /// Liqo's legacy service; kept, not used.
    pub service: String,
    /// Liqo's DNS-SD service type; kept, not used.
    #[serde(default = "default_auth_service")]
    pub auth_service: String,
    /// Liqo's domain of the announcement; kept, not used.
    pub domain: String,
    /// Liqo's legacy port; kept, not used.
    #[schemars(range(min = 1, max = 65355))]
    pub port: i32,
    /// The time to live of our announcement, in seconds.
    #[schemars(range(min = 30, max = 2_147_483_647))]
    pub ttl: u32,
    /// Whether to look for clusters.
    pub enable_discovery: bool,
    /// Whether to announce this cluster.
    pub enable_advertisement: bool,
    /// Whether to join clusters that are found and trusted.
    pub autojoin: bool,
    /// Whether to ask clusters that are found and not trusted to join.
    pub autojoin_untrusted: bool,
    /// The address that Liqo announces instead of its own; kept, not used (peer.advertise is).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_service_address: Option<String>,
    /// The port that Liqo announces instead of its own; kept, not used (peer.advertise is).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_service_port: Option<String>,
}

fn default_auth_service() -> String {
    "_liqo_auth._tcp".to_owned()
}

/// Who is let in.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuthConfig {
    /// Whether a cluster is accepted unseen.
    #[serde(default)]
    pub allow_empty_token: bool,
    /// Whether a cluster that is not trusted has to show a token, instead of waiting for a person.
    #[serde(default)]
    pub require_token: bool,
}

/// Which address ranges are in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LiqonetConfig {
    /// Ranges that no peer may be seen under.
    #[schemars(inner(regex(pattern = CIDR_PATTERN)))]
    pub reserved_subnets: Vec<String>,
    /// The range of our pods.
    #[serde(rename = "podCIDR")]
    #[schemars(regex(pattern = CIDR_PATTERN))]
    pub pod_cidr: String,
    /// The range of our services.
    #[serde(rename = "serviceCIDR")]
    #[schemars(regex(pattern = CIDR_PATTERN))]
    pub service_cidr: String,
    /// Liqo's switch for GKE; kept, not used.
    #[serde(rename = "GKEProvider", default)]
    pub gke_provider: bool,
    /// More ranges out of which peers may be remapped.
    #[schemars(inner(regex(pattern = CIDR_PATTERN)))]
    pub additional_pools: Vec<String>,
}

/// Liqo's list of replicated resources.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DispatcherConfig {
    /// The resources.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources_to_replicate: Option<Vec<ReplicatedResource>>,
}

/// A resource that Liqo replicated.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct ReplicatedResource {
    /// Its API group.
    pub group: String,
    /// Its API version.
    pub version: String,
    /// Its plural name.
    pub resource: String,
}

/// Liqo's agent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentConfig {
    /// Where Liqo's dashboard was.
    pub dashboard_config: DashboardConfig,
}

/// Where Liqo's dashboard was.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DashboardConfig {
    /// Its namespace.
    pub namespace: String,
    /// Its `app` label.
    pub app_label: String,
}

impl Default for ClusterConfigSpec {
    /// The values of Liqo's chart.
    fn default() -> Self {
        Self {
            api_server_config: None,
            advertisement_config: AdvertisementConfig {
                outgoing_config: OutgoingConfig {
                    resource_sharing_percentage: 30,
                    enable_broadcaster: true,
                },
                ingoing_config: IngoingConfig {
                    max_acceptable_advertisement: 1_000_000,
                    accept_policy: AcceptPolicy::AutoAcceptMax,
                },
                keepalive_threshold: default_keepalive_threshold(),
                keepalive_retry_time: default_keepalive_retry_time(),
                label_policies: None,
            },
            discovery_config: DiscoveryConfig {
                cluster_name: None,
                name: "MyLiqo".to_owned(),
                service: "_liqo_api._tcp".to_owned(),
                auth_service: default_auth_service(),
                domain: "local.".to_owned(),
                port: 6443,
                ttl: 90,
                enable_discovery: true,
                enable_advertisement: true,
                autojoin: true,
                autojoin_untrusted: true,
                auth_service_address: None,
                auth_service_port: None,
            },
            auth_config: AuthConfig::default(),
            liqonet_config: LiqonetConfig {
                reserved_subnets: Vec::new(),
                pod_cidr: "10.244.0.0/16".to_owned(),
                service_cidr: "10.96.0.0/12".to_owned(),
                gke_provider: false,
                additional_pools: Vec::new(),
            },
            dispatcher_config: None,
            agent_config: AgentConfig {
                dashboard_config: DashboardConfig {
                    namespace: super::labels::NAMESPACE.to_owned(),
                    app_label: "liqo-dashboard".to_owned(),
                },
            },
        }
    }
}
