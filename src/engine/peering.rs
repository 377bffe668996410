//! One peer: what to do next, and what to say about it.
//!
//! [`plan`] is total and idempotent: once its steps have succeeded, the next plan has none.
//!
//! ```text
//! connect -> identify -> open session -> accept offer -> node
//!    |           |             |
//!  key proven  trusted here  networks exchanged -> tunnel endpoint
//!              and there
//! ```

mod contact;
pub mod happening;
pub mod network;
mod node;
mod places;
mod record;
pub mod status;
#[cfg(test)]
mod tests;
mod verdict;
mod view;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use ipnet::Ipv4Net;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;

use crate::api::{
    Advertisement, ClusterConfigSpec, ClusterId, ClusterName, Fingerprint, ForeignCluster,
    ForeignClusterStatus, NetworkConfig, PeeringRequest, TunnelEndpoint,
    advertisement::Offer,
    foreign_cluster::{DiscoveryType, PeerEndpoint, TrustMode},
    peering_request::{Acceptance, HomeSession, PeeringRequestSpec, SessionNetwork},
    wire::Decision,
};
use crate::engine::{addressing::Ground, policy::Evidence};

pub use network::{LocalNetwork, RemoteNetwork, TunnelWish};
pub use node::{NodeWish, node_name, virtual_node_taint};
pub(crate) use view::View;

/// A session that is silent for longer does not answer (a heartbeat comes every 2 s).
pub const SILENCE: SignedDuration = SignedDuration::from_secs(15);
/// The same for a peer that is not announced any more: that and silence together are enough.
pub const SILENCE_OF_THE_LOST: SignedDuration = SignedDuration::from_secs(6);
/// How long an expired find stays before it is forgotten.
pub const GRACE: SignedDuration = SignedDuration::from_secs(10);
/// How long an object stays that a visit made and nothing followed from.
pub const IDLE_VISIT: SignedDuration = SignedDuration::from_mins(10);
/// How long after our start a peer that was known before may take to announce itself again: the
/// time to live of an address record (RFC 6762, section 10).
pub const REAPPEARANCE: SignedDuration = SignedDuration::from_secs(120);
/// How long a deletion waits for a peer that cannot be reached.
pub const WITHDRAWAL_DEADLINE: SignedDuration = SignedDuration::from_secs(60);
/// The longest wait before a new try to reach a peer.
pub const LONGEST_RETRY: SignedDuration = SignedDuration::from_secs(30);
/// The longest wait before a peer that has not accepted us is asked again.
pub const LONGEST_REFUSAL: SignedDuration = SignedDuration::from_mins(5);
/// How often the Lease of a virtual node is renewed (Kubernetes convention).
pub const LEASE_RENEWAL: SignedDuration = SignedDuration::from_secs(10);
/// Everything is looked at again after this time at the latest.
pub const RESYNC: SignedDuration = SignedDuration::from_mins(5);

/// What is known about one peer besides its ForeignCluster.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Who we are.
    pub own: Own,
    /// The policy of this cluster.
    pub config: ClusterConfigSpec,
    /// When this daemon started.
    pub started: Timestamp,
    /// What discovery says about the peer, if it said anything since the start.
    pub neighbour: Option<Neighbour>,
    /// The numbers of the interfaces that the peer was heard on, which are the scopes of its
    /// link-local addresses (RFC 4007, section 6).
    pub scopes: BTreeMap<String, u32>,
    /// The connection to the peer.
    pub link: Link,
    /// When the peer came to us, if it did since the start.
    pub visited: Option<Timestamp>,
    /// When it was at our door last, if it was since the start: it came, or watched its request there.
    pub present: Option<Timestamp>,
    /// The approval code of the session in which the peer came to us.
    pub visitor_code: Option<String>,
    /// Whether codes were exchanged with the peer so often that there is no new one now.
    pub codes_withheld: bool,
    /// Where another machine holds our identity, if one does.
    pub twin: Option<String>,
    /// Who used the peer's id without its key, and until when that is told.
    pub misuse: Option<(String, Timestamp)>,
    /// What the peer asked of us.
    pub request: Option<PeeringRequest>,
    /// What the peer offers, as it stands here.
    pub advertisement: Option<Advertisement>,
    /// How many offers of other peers are accepted.
    pub accepted_elsewhere: usize,
    /// What we tell the peer about our network, as it stands here.
    pub local_network: Option<NetworkConfig>,
    /// What the peer told us about its network, as it stands here.
    pub remote_network: Option<NetworkConfig>,
    /// The tunnel to the peer, as it stands here.
    pub tunnel: Option<TunnelEndpoint>,
    /// The virtual node, as it stands here.
    pub node: Option<Node>,
    /// When the Lease of the virtual node was last renewed.
    pub lease_renewed: Option<Timestamp>,
    /// Which address ranges are in use, and by whom.
    pub ground: Ground,
    /// Whether a withdrawal at the peer is still owed from an earlier object.
    pub tombstone: bool,
    /// The object that stands for the same cluster in the stead of this one, if there is one.
    pub rival: Option<String>,
}

impl Facts {
    /// What the peer says of its network in our session with it.
    pub fn answered(&self) -> Option<&SessionNetwork> {
        let session = self.link.session.as_ref()?;
        let status = session.request.status.as_ref()?;
        status.session.as_ref()?.network.as_ref()
    }

    /// What it says of it in its session with us.
    pub fn asked(&self) -> Option<&SessionNetwork> {
        let request = self.request.as_ref()?;
        request.spec.session.as_ref()?.network.as_ref()
    }
}

/// Who we are.
#[derive(Debug, Clone)]
pub struct Own {
    /// Our id.
    pub cluster_id: ClusterId,
    /// The fingerprint of our key.
    pub fingerprint: Fingerprint,
    /// Our name.
    pub cluster_name: ClusterName,
    /// The URL of our peer endpoint as others should use it, possibly empty.
    pub auth_url: String,
    /// The range of our pods.
    pub pod_cidr: Ipv4Net,
    /// The range that stands for what is outside of our pods' range.
    pub external_cidr: Ipv4Net,
    /// Our end of the tunnels, unless they are switched off.
    pub tunnel: Option<OwnTunnel>,
}

/// Our end of the tunnels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnTunnel {
    /// Our WireGuard public key, base64.
    pub public_key: String,
    /// Our UDP port.
    pub port: u16,
    /// The largest packet, in bytes.
    pub mtu: u16,
}

/// What discovery says about a peer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Neighbour {
    /// Where it may be reached, best first; empty once its advertisement is gone.
    pub endpoints: Vec<PeerEndpoint>,
    /// The same as socket addresses, with scope.
    pub addresses: BTreeMap<String, SocketAddr>,
    /// The time to live of its advertisement, in seconds.
    pub ttl: u32,
    /// When its advertisement went away or expired.
    pub expired: Option<Timestamp>,
    /// How it was found.
    pub source: DiscoveryType,
}

/// The connection to a peer.
#[derive(Debug, Clone, Default)]
pub struct Link {
    /// The connection, with the key proven.
    pub connected: Option<Connected>,
    /// Why each URL did not answer the last time.
    pub failures: BTreeMap<String, Failure>,
    /// Before this time nothing is tried again.
    pub retry_at: Option<Timestamp>,
    /// What the peer answered to our identity.
    pub answer: Option<Answer>,
    /// Our PeeringRequest in the peer's cluster.
    pub session: Option<Session>,
    /// Whether it is known that we have no PeeringRequest in the peer's cluster.
    pub withdrawn: bool,
}

/// A connection whose other end has proven its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connected {
    /// The URL that was dialled.
    pub url: String,
    /// The address that answered, where there is one.
    pub address: Option<SocketAddr>,
    /// Who it is.
    pub cluster_id: ClusterId,
    /// What it calls itself.
    pub cluster_name: ClusterName,
    /// The fingerprint of its key.
    pub fingerprint: Fingerprint,
}

/// Why an URL did not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The reason of the condition.
    pub reason: String,
    /// The reason for people.
    pub message: String,
}

/// What a peer answered to our identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its decision.
    pub decision: Decision,
    /// Its words.
    pub message: String,
    /// As what we introduced ourselves.
    pub introduced: ClusterName,
    /// What it has shown besides its key.
    pub evidence: Option<Evidence>,
    /// The approval code of the connection, while a person has to decide at the peer.
    pub code: Option<String>,
    /// When to ask again, if the decision is not final.
    pub ask_again: Timestamp,
    /// Whether the decision stands in the object's status already.
    pub recorded: bool,
}

/// Our PeeringRequest in a peer's cluster.
#[derive(Debug, Clone)]
pub struct Session {
    /// The object as it was last seen.
    pub request: PeeringRequest,
    /// When the peer was last heard on the session.
    pub heard: Timestamp,
}

/// Where to dial: an URL, and its address where discovery already knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dial {
    /// The URL, https://host:port.
    pub url: String,
    /// Its address, with scope.
    pub address: Option<SocketAddr>,
    /// Who named it, which decides what may be dialled.
    pub source: DiscoveryType,
}

/// One thing to do. A new step breaks every place that has to know it.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Add our finalizer to the ForeignCluster.
    AddFinalizer,
    /// Dial the peer until one of the places proves the key; `expect` is the id to find there.
    Connect {
        /// Where to dial, best first.
        dials: Vec<Dial>,
        /// The id that must be proven, when it is known.
        expect: Option<ClusterId>,
    },
    /// Give up the connection.
    Disconnect,
    /// Write the proven identity into an object that a person wrote without one.
    FillIdentity(ClusterId, ClusterName),
    /// Write `spec.trustMode`, and by what the peer was let in if it was.
    SetTrust(TrustMode, Option<Evidence>),
    /// Take away the note that policy wanted the join: whoever joins the peer again is a person.
    ForgetPolicy,
    /// Take away the SearchDomains with which the object would go.
    Disown,
    /// Ask to be accepted.
    Identify,
    /// Create or find our PeeringRequest in the peer's cluster, and watch it.
    OpenSession(Box<PeeringRequestSpec>),
    /// Write our half of the session.
    Tell(ClusterName, Box<HomeSession>),
    /// Delete our PeeringRequest in the peer's cluster.
    CloseSession,
    /// Remember that a withdrawal is owed to a peer that cannot be reached.
    Entomb,
    /// Forget an owed withdrawal that was made.
    Exhume,
    /// Delete the peer's PeeringRequest here.
    DismissRequest,
    /// Write the Advertisement and our answer to it.
    WriteAdvertisement(Box<Offer>, Acceptance),
    /// Delete the Advertisement.
    RemoveAdvertisement,
    /// Write what we tell the peer about our network.
    WriteLocalNetwork(Box<LocalNetwork>),
    /// Write what the peer told us about its network.
    WriteRemoteNetwork(Box<RemoteNetwork>),
    /// Write the TunnelEndpoint.
    WriteTunnel(Box<TunnelWish>),
    /// Delete the TunnelEndpoint.
    RemoveTunnel,
    /// Delete both NetworkConfigs.
    RemoveNetworks,
    /// Write the virtual node.
    WriteNode(Box<NodeWish>),
    /// Renew the Lease of the virtual node.
    RenewLease,
    /// Delete the virtual node and its Lease.
    RemoveNode,
    /// Remove our finalizer, so that the deletion ends.
    RemoveFinalizer,
    /// Delete the ForeignCluster of a peer that is gone.
    Forget,
}

/// What to do, what to say, and when to look again.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What to do, in this order.
    pub steps: Vec<Step>,
    /// What to say.
    pub status: ForeignClusterStatus,
    /// When to look again, at the latest.
    pub check_again: Timestamp,
}

/// Plans what follows from an object and the facts about its peer.
pub fn plan(object: &ForeignCluster, facts: &Facts, now: Timestamp) -> Plan {
    let view = View::new(object, facts, now);
    let mut steps = Vec::new();
    contact::steps(&view, &mut steps);
    node::steps(&view, &mut steps);
    network::steps(&view, &mut steps);
    contact::farewell(&view, &mut steps);
    Plan {
        status: status::derive(&view),
        check_again: check_again(&view),
        steps,
    }
}

/// The moment so long after another one. One that an object tells may be the last that there is.
fn after(moment: Timestamp, time: SignedDuration) -> Timestamp {
    moment.checked_add(time).unwrap_or(Timestamp::MAX)
}

/// The earliest moment at which time alone changes the plan.
fn check_again(view: &View<'_>) -> Timestamp {
    let mut moments = BTreeSet::from([view.now + RESYNC]);
    if view.needs_contact() && view.connected.is_none() {
        moments.extend(view.facts.link.retry_at);
    }
    moments.extend(view.asks_again());
    if let Some(session) = &view.facts.link.session {
        moments.insert(session.heard + view.patience());
    }
    if view.facts.node.is_some() && view.session().is_some() {
        let renewed = view.facts.lease_renewed.unwrap_or(view.now);
        moments.insert(after(renewed, LEASE_RENEWAL));
    }
    if let Some(expired) = view.expired {
        moments.insert(expired + GRACE);
    } else if view.facts.neighbour.is_none() {
        moments.insert(view.end_of_absence());
    }
    if let Some((_, until)) = &view.facts.misuse {
        moments.insert(*until);
    }
    moments.extend(view.end_of_visit());
    moments.extend(view.silent_from());
    if let Some(deadline) = view.withdrawal_deadline() {
        moments.insert(deadline);
    }
    // A moment that has passed has had its effect already.
    let soonest = moments.into_iter().find(|moment| *moment > view.now);
    soonest.unwrap_or(view.now + RESYNC)
}
