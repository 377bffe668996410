//! Where a peer may be dialled, and whether there is a better place than the one in use.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use super::{Dial, View};
use crate::{
    api::foreign_cluster::{DiscoveryType, PeerEndpoint},
    engine::addresses::{AuthUrl, Host},
};

impl View<'_> {
    /// Where the peer may be dialled, best first: what discovery says, what the spec says, what
    /// was known before.
    pub(crate) fn dials(&self) -> Vec<Dial> {
        let mut dials: Vec<Dial> = Vec::new();
        let own_source = self.object.spec.discovery_type;
        let source_of =
            |endpoint: &PeerEndpoint| DiscoveryType::parse(&endpoint.source).unwrap_or(own_source);
        let mut add = |url: &str, address, source| {
            if !url.is_empty() && dials.iter().all(|known| known.url != url) {
                dials.push(Dial {
                    url: url.to_owned(),
                    address,
                    source,
                });
            }
        };
        if let Some(neighbour) = &self.facts.neighbour {
            for endpoint in &neighbour.endpoints {
                let address = neighbour.addresses.get(&endpoint.url).copied();
                let source = DiscoveryType::parse(&endpoint.source).unwrap_or(neighbour.source);
                add(&endpoint.url, address, source);
            }
        }
        let url = &self.object.spec.auth_url;
        let described = |endpoint: &&PeerEndpoint| endpoint.url == *url;
        // A person's word counts as such, whoever else names the place.
        let found = self.is_discovered().then_some(&self.status.endpoints);
        for endpoint in found.into_iter().flatten().filter(described) {
            add(url, self.link_local(endpoint), source_of(endpoint));
        }
        add(url, None, own_source);
        for endpoint in &self.status.endpoints {
            add(
                &endpoint.url,
                self.link_local(endpoint),
                source_of(endpoint),
            );
        }
        dials
    }

    /// The address of a place that is link-local, with the scope, which its URL does not carry.
    fn link_local(&self, endpoint: &PeerEndpoint) -> Option<SocketAddr> {
        let url: AuthUrl = endpoint.url.parse().ok()?;
        let Host::Address(IpAddr::V6(ip)) = *url.host() else {
            return None;
        };
        let scope = *self.facts.scopes.get(endpoint.interface.as_ref()?)?;
        let address = SocketAddrV6::new(ip, url.port(), 0, scope);
        ip.is_unicast_link_local().then_some(address.into())
    }

    /// Where on our LAN the peer is said to be and has not failed, while we reach it from further away.
    pub(crate) fn nearer(&self) -> Vec<Dial> {
        let Some(connected) = self.connected else {
            return Vec::new();
        };
        let mut dials = self.dials();
        let present = dials.iter().find(|dial| dial.url == connected.url);
        let present = present.map_or(self.object.spec.discovery_type, |dial| dial.source);
        let is_far = matches!(present, DiscoveryType::Wan | DiscoveryType::IncomingPeering);
        dials.retain(|dial| {
            let failed = self.facts.link.failures.contains_key(&dial.url);
            is_far && dial.source == DiscoveryType::Lan && !failed
        });
        dials
    }

    /// Whether the connection is to a place that the peer has left.
    pub(crate) fn has_moved(&self) -> bool {
        let (Some(connected), Some(neighbour)) = (self.connected, &self.facts.neighbour) else {
            return false;
        };
        !neighbour.endpoints.is_empty()
            && neighbour
                .endpoints
                .iter()
                .all(|endpoint| endpoint.url != connected.url)
            && connected.url != self.object.spec.auth_url
    }
}
