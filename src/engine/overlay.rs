//! The wanted tunnel against the one that is there: what has to be done, in order.
//!
//! There is one interface, and every peer is behind it. A packet carries on the wire the ranges
//! under which the two sides see each other; each side rewrites only its own range:
//!
//! ```text
//!  own pods 10.244.0.0/16                                     peer's pods 10.244.0.0/16
//!        | snat own -> presented                                     ^ dnat
//!        v                                                           |
//!  10.72.0.0/16 (presented) ========= WireGuard =========> 10.71.0.0/16 (remote)
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use ipnet::Ipv4Net;

use crate::api::identity::ClusterId;

pub mod filter;
pub mod health;
mod key;
mod obey;
pub mod wanted;

pub use filter::{FilterState, Ruleset};
pub use key::{KeyError, PublicKey};

/// The name of the interface.
pub const INTERFACE: &str = "landbridge0";
/// A session is dead when its last handshake is older (WireGuard paper, section 6.1:
/// Reject-After-Time).
pub const HANDSHAKE_LIMIT: Duration = Duration::from_mins(3);
/// The smallest MTU of a link that carries IPv6 (RFC 8200, section 5).
pub const SMALLEST_MTU: u16 = 1280;
/// What remains of Ethernet's 1500 bytes after an outer IPv6, UDP and WireGuard header.
pub const LARGEST_MTU: u16 = 1420;
/// Outer IPv6 (40), UDP (8), WireGuard data header and tag (32).
const OVERHEAD: u32 = 80;

/// Returns the tunnel's MTU for a path that carries packets of `path` bytes.
pub fn tunnel_mtu(path: u32) -> u16 {
    let inner = path
        .saturating_sub(OVERHEAD)
        .clamp(SMALLEST_MTU.into(), LARGEST_MTU.into());
    u16::try_from(inner).unwrap_or(SMALLEST_MTU)
}

/// Returns the address that a tunnel's owner has inside of its range: the first for a host.
pub fn first_host(range: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(range.network()).saturating_add(1))
}

/// The wanted state of the interface and all that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlay {
    /// The name of the interface.
    pub interface: String,
    /// The range of our own pods.
    pub local: Ipv4Net,
    /// The largest packet, in bytes.
    pub mtu: u16,
    /// The UDP port that peers send to.
    pub port: u16,
    /// The peers; without any there is no interface.
    pub peers: BTreeMap<ClusterId, Peer>,
}

impl Overlay {
    /// Returns the address of the interface.
    pub fn address(&self) -> Ipv4Addr {
        first_host(self.local)
    }
}

/// One wanted peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The peer's key.
    pub public_key: PublicKey,
    /// Where the peer may be reached, best first.
    pub endpoints: Vec<SocketAddr>,
    /// Which of the endpoints is tried while there is no handshake, counted round and round.
    pub turn: usize,
    /// Whether nothing comes through the session, young as it is.
    pub is_silent: bool,
    /// The range under which we see the peer.
    pub remote: Ipv4Net,
    /// The range under which the peer sees us; `None` when it is our own.
    pub local_nat: Option<Ipv4Net>,
}

impl Peer {
    /// Returns the range under which the peer sees us.
    pub fn presented(&self, local: Ipv4Net) -> Ipv4Net {
        self.local_nat.unwrap_or(local)
    }

    /// Returns the address of the peer's end of the tunnel, as we see it.
    pub fn target(&self) -> Ipv4Addr {
        first_host(self.remote)
    }

    /// Returns the endpoint to try now.
    pub fn endpoint(&self) -> Option<SocketAddr> {
        let index = self.turn.checked_rem(self.endpoints.len())?;
        self.endpoints.get(index).copied()
    }
}

/// What is there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observed {
    /// The interface, when it exists and packets can pass.
    pub interface: Option<ObservedInterface>,
    /// The peers that the interface knows.
    pub peers: BTreeMap<PublicKey, ObservedPeer>,
    /// Our routes, with their preferred source address.
    pub routes: BTreeMap<Ipv4Net, Option<Ipv4Addr>>,
    /// Our table of packet rules.
    pub filter: Option<FilterState>,
}

impl Observed {
    /// Returns the peers and routes that nobody wants.
    pub fn leftovers(
        &self,
        wanted: &Overlay,
    ) -> (
        impl Iterator<Item = &PublicKey>,
        impl Iterator<Item = &Ipv4Net>,
    ) {
        let keys: BTreeSet<_> = wanted.peers.values().map(|it| &it.public_key).collect();
        let ranges: BTreeSet<_> = wanted.peers.values().map(|it| it.remote).collect();
        (
            self.peers.keys().filter(move |key| !keys.contains(key)),
            self.routes.keys().filter(move |it| !ranges.contains(*it)),
        )
    }
}

/// The interface that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedInterface {
    /// The number that the kernel gave it.
    pub index: u32,
    /// Whether it is up.
    pub up: bool,
    /// Its MTU.
    pub mtu: u32,
    /// The UDP port that it listens on.
    pub port: u16,
    /// Its IPv4 addresses.
    pub addresses: BTreeSet<Ipv4Net>,
}

/// A peer that is there, and how it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedPeer {
    /// The ranges that it may send from and that are sent to it.
    pub allowed: BTreeSet<Ipv4Net>,
    /// The range under which it sees us.
    pub presented: Ipv4Net,
    /// Where packets to it go now.
    pub endpoint: Option<SocketAddr>,
    /// How long ago the last handshake was.
    pub handshake_age: Option<Duration>,
    /// Bytes that came from it.
    pub received: u64,
    /// Bytes that went to it.
    pub sent: u64,
}

impl ObservedPeer {
    /// Returns whether there is a living session.
    pub fn is_fresh(&self) -> bool {
        self.handshake_age.is_some_and(|age| age < HANDSHAKE_LIMIT)
    }
}

/// One step from the tunnel that is there to the wanted one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Makes the interface anew, up, without address and peers; what was there before goes.
    CreateInterface {
        /// The UDP port to listen on.
        port: u16,
        /// The largest packet, in bytes.
        mtu: u16,
    },
    /// Sets the interface up.
    BringUp,
    /// Sets the largest packet.
    SetMtu(u16),
    /// Gives the interface its address.
    AddAddress(Ipv4Addr),
    /// Takes an address from the interface.
    RemoveAddress(Ipv4Net),
    /// Puts our table of packet rules in place of the one that is there, at once.
    ReplaceFilter(Ruleset),
    /// Forgets a peer.
    RemovePeer(PublicKey),
    /// Makes a peer known, or gives it another range.
    SetPeer(Link),
    /// Tries another endpoint of a peer.
    SetEndpoint(PublicKey, SocketAddr),
    /// Sends a range through the interface.
    AddRoute {
        /// The range under which a peer is seen.
        range: Ipv4Net,
        /// Our address for packets that start here.
        source: Ipv4Addr,
    },
    /// Sends a range through the interface no more.
    RemoveRoute(Ipv4Net),
    /// Removes the interface.
    RemoveInterface,
    /// Removes our table of packet rules.
    RemoveFilter,
}

/// What the interface is told about a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The cluster, for logs.
    pub cluster: ClusterId,
    /// The peer's key.
    pub public_key: PublicKey,
    /// Where to send to, unless the interface has a living session already.
    pub endpoint: Option<SocketAddr>,
    /// The range that the peer may send from.
    pub allowed: Ipv4Net,
    /// The range under which the peer sees us.
    pub presented: Ipv4Net,
}

/// Returns what has to be done, in order; nothing when all is as wanted.
///
/// Who is put out goes first, whatever fails after that, and the rules are in place before a packet
/// may pass.
pub fn plan(wanted: &Overlay, observed: &Observed) -> Vec<Operation> {
    if wanted.peers.is_empty() {
        return plan_removal(observed);
    }
    let mut operations = Vec::new();
    let nothing = Observed::default();
    let observed = match &observed.interface {
        Some(interface) if interface.port == wanted.port => {
            plan_farewells(wanted, observed, &mut operations);
            plan_interface(wanted, interface, &mut operations);
            observed
        }
        _ => {
            operations.push(Operation::CreateInterface {
                port: wanted.port,
                mtu: wanted.mtu,
            });
            operations.push(Operation::AddAddress(wanted.address()));
            // Peers and routes go with the interface that they belonged to.
            &Observed {
                filter: observed.filter.clone(),
                ..nothing
            }
        }
    };
    let ruleset = Ruleset::of(wanted);
    if observed.filter.as_ref() != Some(&ruleset.state) {
        operations.push(Operation::ReplaceFilter(ruleset));
    }
    plan_peers(wanted, observed, &mut operations);
    plan_routes(wanted, observed, &mut operations);
    operations
}

fn plan_removal(observed: &Observed) -> Vec<Operation> {
    let routes = observed.routes.keys().copied();
    let mut operations: Vec<_> = routes.map(Operation::RemoveRoute).collect();
    if observed.interface.is_some() {
        operations.push(Operation::RemoveInterface);
    }
    if observed.filter.is_some() {
        operations.push(Operation::RemoveFilter);
    }
    operations
}

fn plan_interface(
    wanted: &Overlay,
    interface: &ObservedInterface,
    operations: &mut Vec<Operation>,
) {
    if interface.mtu != u32::from(wanted.mtu) {
        operations.push(Operation::SetMtu(wanted.mtu));
    }
    if !interface.up {
        operations.push(Operation::BringUp);
    }
    let address = Ipv4Net::from(wanted.address());
    if !interface.addresses.contains(&address) {
        operations.push(Operation::AddAddress(wanted.address()));
    }
    let others = interface.addresses.iter().filter(|have| **have != address);
    operations.extend(others.copied().map(Operation::RemoveAddress));
}

fn plan_farewells(wanted: &Overlay, observed: &Observed, operations: &mut Vec<Operation>) {
    let (peers, routes) = observed.leftovers(wanted);
    operations.extend(peers.cloned().map(Operation::RemovePeer));
    operations.extend(routes.copied().map(Operation::RemoveRoute));
}

fn plan_peers(wanted: &Overlay, observed: &Observed, operations: &mut Vec<Operation>) {
    for (cluster, peer) in &wanted.peers {
        let presented = peer.presented(wanted.local);
        let link = || Link {
            cluster: cluster.clone(),
            public_key: peer.public_key.clone(),
            endpoint: peer.endpoint(),
            allowed: peer.remote,
            presented,
        };
        match observed.peers.get(&peer.public_key) {
            None => operations.push(Operation::SetPeer(link())),
            Some(have) => {
                if have.allowed != BTreeSet::from([peer.remote]) || have.presented != presented {
                    operations.push(Operation::SetPeer(Link {
                        endpoint: None,
                        ..link()
                    }));
                }
                // A living session shows where the peer is better than what it said once.
                if let Some(endpoint) = peer.endpoint()
                    && (peer.is_silent || !have.is_fresh())
                    && have.endpoint != Some(endpoint)
                {
                    let key = peer.public_key.clone();
                    operations.push(Operation::SetEndpoint(key, endpoint));
                }
            }
        }
    }
}

fn plan_routes(wanted: &Overlay, observed: &Observed, operations: &mut Vec<Operation>) {
    let source = wanted.address();
    let ranges: BTreeSet<_> = wanted.peers.values().map(|peer| peer.remote).collect();
    for range in ranges {
        if observed.routes.get(&range) != Some(&Some(source)) {
            operations.push(Operation::AddRoute { range, source });
        }
    }
}

#[cfg(test)]
mod tests;
