//! The zone file of a running daemon, made of its description of itself.

use std::net::SocketAddr;

use super::Description;
pub use crate::engine::domain::zone::{Style, ZoneError, domain};
use crate::{
    api::{ClusterId, ClusterName},
    engine::domain::zone::{Listing, render, url},
};

/// Writes the zone of a domain that lists the daemon with this description.
///
/// # Errors
///
/// When the daemon has no address that others could reach.
pub fn of(domain: &str, description: &Description, style: Style) -> Result<String, ZoneError> {
    let endpoints = description.lan_endpoints.split_whitespace();
    let endpoints: Vec<SocketAddr> = endpoints.filter_map(|it| it.parse().ok()).collect();
    let advertise = match endpoints.as_slice() {
        [] => Some(url(&description.peer_endpoint)?),
        _ => None,
    };
    let id = description.cluster_id.parse::<ClusterId>();
    let listing = Listing {
        cluster_id: id.map_err(|error| ZoneError::Identity(error.to_string()))?,
        name: ClusterName::neutralise(&description.cluster_name),
        port: endpoints.first().map_or(0, SocketAddr::port),
        addresses: endpoints.iter().map(SocketAddr::ip).collect(),
        advertise,
        key: description.fingerprint.parse().ok(),
    };
    Ok(render(domain, &listing, style))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_listed_with_all_its_addresses() {
        let described = |endpoint: &str, lan: &str| {
            let id = "1f0f9d3a-5b8c-5d5e-9a51-4f1a2b3c4d5e";
            let said = Description {
                cluster_id: id.to_owned(),
                peer_endpoint: endpoint.to_owned(),
                lan_endpoints: lan.to_owned(),
                ..Description::default()
            };
            of("example.com", &said, Style::Rfc6763)
        };
        let zone = described("", "[2001:db8::5]:5870 10.1.2.3:5870").unwrap();
        for record in ["AAAA 2001:db8::5", "A 10.1.2.3", "SRV 0 0 5870 "] {
            assert!(zone.contains(record), "{zone}");
        }
        let zone = described("https://rome.example.com:443", "").unwrap();
        assert!(zone.contains("SRV 0 0 443 rome.example.com."), "{zone}");
        assert!(described("", "").is_err());
    }
}
