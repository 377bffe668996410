//! What a packet or an answer becomes once it is read: somebody says that a cluster is somewhere.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use crate::api::{
    foreign_cluster::DiscoveryType,
    identity::{ClusterId, ClusterName, Fingerprint},
};

/// More advertisements than a LAN has clusters: from then on they are looked at together.
pub const CROWD: usize = 64;
/// How far apart looks at a crowd are, so that a flood costs the same however fast it is.
pub const CROWD_PAUSE: Duration = Duration::from_millis(100);

/// One claim, by one source on one interface, that a cluster is reachable. Nothing in it is proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// The kind of source that it comes from.
    pub source: DiscoveryType,
    /// The name of the advertisement within its source, such as a DNS-SD instance.
    pub instance: String,
    /// The id that the advertisement claims; none when it says nothing (Liqo's empty TXT).
    pub cluster_id: Option<ClusterId>,
    /// The name that the advertisement claims, possibly empty.
    pub name: ClusterName,
    /// The run of the program that advertises, to tell a clone from ourselves.
    pub boot: Option<String>,
    /// Where the peer endpoint is said to be; link-local IPv6 with its scope. An empty list takes
    /// back what was said for the same source, instance and interface.
    pub endpoints: Vec<SocketAddr>,
    /// The interface that it was heard on, when the source knows one.
    pub interface: Option<String>,
    /// The SearchDomain that it was found through, for what was found in DNS.
    pub search_domain: Option<String>,
    /// The hosts that the SearchDomain names, and whose they are if it says so.
    pub vouchers: Vec<Voucher>,
    /// For how long it holds unless it is repeated.
    pub ttl: Duration,
}

/// A host at which a SearchDomain lists a cluster, with the keys that its records vouch for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Voucher {
    /// The SearchDomain.
    pub search_domain: String,
    /// The host: the target of an SRV record.
    pub host: String,
    /// The keys in its TLSA records, where DNSSEC proves these and the SRV record. Everything else is
    /// a claim.
    pub keys: BTreeSet<Fingerprint>,
}

/// What a source of discovery reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An advertisement was seen, again or for the first time.
    Seen(Sighting),
    /// An advertisement was withdrawn or has expired, on every interface.
    Gone {
        /// The kind of source that reports it.
        source: DiscoveryType,
        /// The name of the advertisement within its source.
        instance: String,
    },
}
