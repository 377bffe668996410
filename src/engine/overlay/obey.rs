//! What is there after an operation: the model of a driver that does what it is told.

use std::collections::BTreeSet;

use super::{Link, Observed, ObservedInterface, ObservedPeer, Operation};

impl Observed {
    /// Changes the state as an obedient driver would; the in-memory driver is made of this.
    pub fn obey(&mut self, operation: &Operation) {
        match operation {
            Operation::CreateInterface { port, mtu } => {
                self.peers.clear();
                self.routes.clear();
                self.interface = Some(ObservedInterface {
                    index: 1,
                    up: true,
                    mtu: (*mtu).into(),
                    port: *port,
                    addresses: BTreeSet::new(),
                });
            }
            Operation::RemoveInterface => {
                self.peers.clear();
                self.routes.clear();
                self.interface = None;
            }
            Operation::ReplaceFilter(ruleset) => self.filter = Some(ruleset.state.clone()),
            Operation::RemoveFilter => self.filter = None,
            Operation::AddRoute { range, source } => {
                self.routes.insert(*range, Some(*source));
            }
            Operation::RemoveRoute(range) => {
                self.routes.remove(range);
            }
            Operation::RemovePeer(key) => {
                self.peers.remove(key);
            }
            Operation::SetEndpoint(key, endpoint) => {
                if let Some(peer) = self.peers.get_mut(key) {
                    peer.endpoint = Some(*endpoint);
                }
            }
            Operation::SetPeer(link) => self.obey_link(link),
            Operation::BringUp
            | Operation::SetMtu(_)
            | Operation::AddAddress(_)
            | Operation::RemoveAddress(_) => self.obey_interface(operation),
        }
    }

    fn obey_link(&mut self, link: &Link) {
        // A range belongs to the last one that it was given to, as in WireGuard.
        for peer in self.peers.values_mut() {
            peer.allowed.remove(&link.allowed);
        }
        let known = self.peers.remove(&link.public_key);
        let peer = ObservedPeer {
            allowed: BTreeSet::from([link.allowed]),
            presented: link.presented,
            endpoint: link
                .endpoint
                .or_else(|| known.as_ref().and_then(|peer| peer.endpoint)),
            handshake_age: known.as_ref().and_then(|peer| peer.handshake_age),
            received: known.as_ref().map_or(0, |peer| peer.received),
            sent: known.as_ref().map_or(0, |peer| peer.sent),
        };
        self.peers.insert(link.public_key.clone(), peer);
    }

    fn obey_interface(&mut self, operation: &Operation) {
        let Some(interface) = &mut self.interface else {
            return;
        };
        if let Operation::SetMtu(mtu) = operation {
            interface.mtu = (*mtu).into();
        } else if let Operation::AddAddress(address) = operation {
            interface.addresses.insert((*address).into());
        } else if let Operation::RemoveAddress(address) = operation {
            interface.addresses.remove(address);
        } else {
            interface.up = true;
        }
    }
}
