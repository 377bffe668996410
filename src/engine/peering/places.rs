//! Where a peer may be dialled, and whether there is a better place than the one in use.

use super::{Dial, View};
use crate::api::foreign_cluster::DiscoveryType;

impl View<'_> {
    /// Where the peer may be dialled, best first: what discovery says, what the spec says, what
    /// was known before.
    pub(crate) fn dials(&self) -> Vec<Dial> {
        let mut dials: Vec<Dial> = Vec::new();
        let own_source = self.object.spec.discovery_type;
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
        add(&self.object.spec.auth_url, None, own_source);
        for endpoint in &self.status.endpoints {
            add(&endpoint.url, None, own_source);
        }
        dials
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
