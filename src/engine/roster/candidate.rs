//! What a roster tells of a cluster that is said to be out there.

use std::{net::SocketAddr, time::Duration};

use jiff::Timestamp;

use crate::{
    api::{
        foreign_cluster::DiscoveryType,
        identity::{ClusterId, ClusterName},
    },
    engine::sighting::Voucher,
};

/// What a candidate is known by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// The id that its advertisements claim, or that it has proven.
    Cluster(ClusterId),
    /// The advertisement itself, as long as no id is known.
    Instance {
        /// The kind of source that it comes from.
        source: DiscoveryType,
        /// The name of the advertisement.
        instance: String,
    },
}

/// A place where a candidate is said to be reachable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The address and port of its peer endpoint.
    pub address: SocketAddr,
    /// The kind of source that named it.
    pub source: DiscoveryType,
    /// The interface that it was heard on.
    pub interface: Option<String>,
    /// When it was first named.
    pub first_seen: Timestamp,
}

/// A cluster that is said to be out there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// What it is known by.
    pub key: Key,
    /// The id that it claims or has proven; see `proven`.
    pub cluster_id: Option<ClusterId>,
    /// The name that it claims.
    pub name: ClusterName,
    /// The run of the program that advertises.
    pub boot: Option<String>,
    /// Where it is said to be, the most promising first. Never empty.
    pub endpoints: Vec<Endpoint>,
    /// The names of its advertisements, for a source that can be asked to look again.
    pub instances: Vec<String>,
    /// The SearchDomains that it was found through.
    pub search_domains: Vec<String>,
    /// What these say of its hosts and keys, in order.
    pub vouchers: Vec<Voucher>,
    /// The longest time to live among its advertisements.
    pub ttl: Duration,
    /// Whether one of its endpoints has proven the id.
    pub proven: bool,
}

/// What the machine reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A candidate was not there before. It is to be proven.
    Appeared(Candidate),
    /// A candidate says something else than before, or it is time to try an unproven one again.
    Changed(Candidate),
    /// Nothing is left of a candidate, or it goes on under an id; it is told as it was last.
    Expired(Candidate),
    /// Somebody uses our own id in another run of the program: a clone, or a forgery. Only a
    /// handshake with one of its endpoints can tell which.
    Duplicate(Candidate),
}
