//! The zone file of a running daemon, made of its description of itself.

use std::collections::BTreeMap;

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
pub fn of(
    domain: &str,
    description: &BTreeMap<String, String>,
    style: Style,
) -> Result<String, ZoneError> {
    let text = |key: &str| description.get(key).map_or("", String::as_str);
    let listing = Listing {
        cluster_id: text("clusterID")
            .parse::<ClusterId>()
            .map_err(|error| ZoneError::Identity(error.to_string()))?,
        name: ClusterName::neutralise(text("clusterName")),
        port: 0,
        addresses: Vec::new(),
        advertise: Some(url(text("peerEndpoint"))?),
        key: text("fingerprint").parse().ok(),
    };
    Ok(render(domain, &listing, style))
}
