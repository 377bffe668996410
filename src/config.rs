//! Settings: defaults, file, environment and flags, with the origin of each.
//!
//! The settings are node-local: ports, paths, interfaces. The policy of the cluster is the
//! `ClusterConfig` object, which `clusterConfig`, `cluster` and `trust.incoming` only fill in when it is
//! first made.

mod document;
mod keys;
mod layers;
mod load;
mod policy;
mod values;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use load::{Flag, Loaded, Origin, Sources};
pub use policy::Overruled;

use crate::api::ClusterConfigSpec;
pub use crate::engine::addresses::AuthUrl;

/// Indicates that the settings cannot be used. The text is one line, with the key and its place.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Indicates that a file could not be read.
    #[error("cannot read the settings in {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// Indicates a file that is not the YAML of one mapping.
    #[error("{place}: {message}")]
    Syntax {
        /// File and line.
        place: String,
        /// The reason.
        message: String,
    },
    /// Indicates a key that does not exist.
    #[error("{place}: unknown key {key}: did you mean {nearest}?")]
    UnknownKey {
        /// File and line, or the variable.
        place: String,
        /// The unknown key with its sections.
        key: String,
        /// The known key that is most like it.
        nearest: String,
    },
    /// Indicates a value that its key cannot have.
    #[error("{place}: {key}: {message}")]
    Value {
        /// Where the value was given.
        place: String,
        /// The key with its sections.
        key: String,
        /// What is wrong, and what would be right.
        message: String,
    },
}

/// The settings of one daemon, as the file spells them.
///
/// [`Config::default`] leaves `cluster.name` and `dataDir` empty; [`Sources::load`] fills them in
/// from the machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Config {
    /// This cluster.
    pub cluster: Cluster,
    /// Where state is kept: key, store, kubeconfig.
    pub data_dir: PathBuf,
    /// The endpoint that other clusters talk to.
    pub peer: Peer,
    /// The data plane.
    pub tunnel: Tunnel,
    /// The embedded API.
    pub api: Api,
    /// The dashboard.
    pub dashboard: Dashboard,
    /// Discovery on the LAN.
    pub lan: Lan,
    /// Discovery in DNS domains.
    pub dns: Dns,
    /// Who is accepted without a person.
    pub trust: Trust,
    /// A part of the spec of the ClusterConfig, for its first start.
    pub cluster_config: Map<String, Value>,
}

impl Config {
    /// Returns the spec that the ClusterConfig object is first made with: the defaults, what
    /// `cluster` and `trust.incoming` say, and `clusterConfig` over them.
    pub fn cluster_config_spec(&self) -> Result<ClusterConfigSpec, Error> {
        policy::spec(self)
    }
}

/// This cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cluster {
    /// The name that people see; the host name when empty.
    #[serde(deserialize_with = "values::cluster_name")]
    pub name: String,
    /// The range of the pods. Its first address is this machine's in the tunnel.
    #[serde(rename = "podCIDR", deserialize_with = "values::pod_range")]
    pub pod_cidr: Ipv4Net,
    /// The range of the services, which no peer may be seen under.
    #[serde(rename = "serviceCIDR", deserialize_with = "values::range")]
    pub service_cidr: Ipv4Net,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            name: String::new(),
            pod_cidr: Ipv4Net::new_assert(Ipv4Addr::new(10, 244, 0, 0), 16),
            service_cidr: Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 12),
        }
    }
}

/// The endpoint that other clusters talk to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Peer {
    /// The address and port to listen on; port 0 is any free one.
    #[serde(deserialize_with = "values::listen")]
    pub listen: SocketAddr,
    /// A URL to name to peers instead of our own addresses; empty for none.
    #[serde(deserialize_with = "values::url")]
    pub advertise: String,
}

impl Default for Peer {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 5870),
            advertise: String::new(),
        }
    }
}

/// The data plane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tunnel {
    /// What carries the packets.
    #[serde(deserialize_with = "values::tunnel_mode")]
    pub mode: TunnelMode,
    /// The UDP port; 0 is any free one.
    #[serde(deserialize_with = "values::port")]
    pub port: u16,
    /// The largest packet in the tunnel, in bytes; 0 takes what fits the paths to the peers.
    #[serde(deserialize_with = "values::mtu")]
    pub mtu: u16,
}

impl Default for Tunnel {
    fn default() -> Self {
        Self {
            mode: TunnelMode::Auto,
            port: 5871,
            mtu: 0,
        }
    }
}

/// What carries the packets of the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TunnelMode {
    /// The best that the machine can do.
    #[default]
    Auto,
    /// WireGuard in this program.
    Userspace,
    /// No tunnel.
    Off,
}

/// The embedded API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Api {
    /// The loopback address and port to listen on; port 0 is any free one.
    #[serde(deserialize_with = "values::listen_on_loopback")]
    pub listen: SocketAddr,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5872),
        }
    }
}

/// The dashboard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dashboard {
    /// The address and port to listen on; port 0 is any free one.
    #[serde(deserialize_with = "values::listen")]
    pub listen: SocketAddr,
}

impl Default for Dashboard {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5873),
        }
    }
}

/// Discovery on the LAN.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Lan {
    /// Whether to announce this cluster and to look for others.
    #[serde(deserialize_with = "values::switch")]
    pub enabled: bool,
    /// Which interfaces belong to the LAN.
    pub interfaces: Interfaces,
}

impl Default for Lan {
    fn default() -> Self {
        Self {
            enabled: true,
            interfaces: Interfaces::default(),
        }
    }
}

/// Which interfaces belong to the LAN.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Interfaces {
    /// Only these, by name; all that can multicast when empty.
    #[serde(deserialize_with = "values::names")]
    pub allow: Vec<String>,
    /// Not these, by name.
    #[serde(deserialize_with = "values::names")]
    pub deny: Vec<String>,
}

/// Discovery in DNS domains.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Dns {
    /// The name servers to ask; the machine's when empty.
    #[serde(deserialize_with = "values::names")]
    pub servers: Vec<String>,
    /// The file with the keys of signed zones that nobody above vouches for; empty for none.
    pub trust_anchors_file: PathBuf,
    /// Where to publish this cluster.
    pub publish: Publish,
}

/// Where to publish this cluster in DNS.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Publish {
    /// The zone; nothing is published when empty.
    pub zone: String,
    /// The name server that takes the updates; empty leaves the zone to the cluster's ExternalDNS.
    pub server: String,
    /// The file with the key that signs the updates.
    pub tsig_key_file: PathBuf,
    /// How the zone lists its clusters.
    #[serde(deserialize_with = "values::style")]
    pub style: ZoneStyle,
}

/// How a zone lists its clusters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ZoneStyle {
    /// As DNS service discovery asks (RFC 6763).
    #[default]
    Rfc6763,
    /// As Liqo 0.2 documents it.
    Liqo,
}

/// Who is accepted without a person.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Trust {
    /// The file with the secret that all machines of one owner share; empty for none.
    pub fleet_secret_file: PathBuf,
    /// What a cluster has to show.
    #[serde(deserialize_with = "values::incoming")]
    pub incoming: Incoming,
    /// Our certificate, for clusters that found us by a name in a domain.
    pub web_pki: WebPkiFiles,
    /// The file with the authorities that are believed; the machine's when empty.
    pub web_pki_roots_file: PathBuf,
}

/// A certificate of the Web PKI for the name of our peer endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct WebPkiFiles {
    /// The file with the chain; empty for none.
    pub certificate_file: PathBuf,
    /// The file with its key.
    pub key_file: PathBuf,
}

/// What a cluster has to show to be accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Incoming {
    /// The fleet secret, a token, or a person decides.
    #[default]
    Ask,
    /// The fleet secret or a token; nobody waits for a person.
    Token,
    /// Nothing: everybody is accepted (Liqo's `allowEmptyToken`).
    Open,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_file_lists_every_key_with_its_default() {
        let text = include_str!("../config/landbridge.yaml");
        let document = document::parse("config/landbridge.yaml", text).expect("valid YAML");
        let defaults = serde_json::to_value(Config::default()).expect("settings are JSON");
        assert_eq!(document.value, defaults);
    }

    #[test]
    fn every_key_of_the_shipped_file_says_why() {
        for line in include_str!("../config/landbridge.yaml").lines() {
            let key = line.trim_start();
            if !key.is_empty() && !key.starts_with('#') {
                assert!(line.contains(" # "), "no reason: {line}");
            }
        }
    }
}
