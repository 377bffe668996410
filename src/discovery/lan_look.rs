//! One look at the LAN, for a person: needs no daemon, announces nothing and ends by itself.
//!
//! It asks through mdns-sd and shares no code with the source that the daemon runs, so it also shows
//! what an implementation of somebody else makes of our announcements.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use futures::{StreamExt as _, stream::select_all};
use mdns_sd::{
    IfKind, IfPredicate, InterfaceId, ResolvedService, ScopedIp, ServiceDaemon, ServiceEvent,
};
use tokio::sync::mpsc;

use crate::{
    api::{foreign_cluster::DiscoveryType, identity::ClusterName},
    discovery::{
        interfaces::{InterfaceRules, Links, socket_address},
        record::Record,
    },
    engine::{domain::SERVICE_TYPES, sighting::Sighting},
};

/// How many events of the library are taken. A person reads no more, and a flood ends there.
const LIMIT: usize = 4096;
/// The time to live of SRV and addresses (RFC 6762, section 10); the library keeps the real one.
const TTL: Duration = Duration::from_mins(2);

/// Indicates why there was no look.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// Indicates that the interfaces of this machine could not be listed.
    #[error("cannot list the network interfaces: {0}")]
    Interfaces(io::Error),
    /// Indicates that no interface can be asked.
    #[error(
        "no interface of this machine belongs to a LAN: bring one up, or allow it with lan.interfaces.allow"
    )]
    NoInterface,
    /// Indicates that the library could not do its work.
    #[error("multicast DNS does not work here: {0}")]
    Mdns(#[from] mdns_sd::Error),
}

/// Looks for so long at who is announced on the LAN, and tells each advertisement and interface that
/// is heard; the library may tell one more than once. Nothing in them is proven.
///
/// # Errors
///
/// When no interface can be asked, or port 5353 cannot be had.
pub async fn look(
    rules: &InterfaceRules,
    within: Duration,
    sightings: mpsc::Sender<Sighting>,
) -> Result<(), LookError> {
    let links = Links::read(rules).map_err(LookError::Interfaces)?;
    if links.is_empty() {
        return Err(LookError::NoInterface);
    }
    let library = Library(ServiceDaemon::new()?);
    let predicate = {
        let rules = rules.clone();
        IfPredicate::new(move |interface| !rules.allows(&interface.name, interface.ip()))
    };
    library.0.disable_interface(IfKind::Predicate(predicate))?;
    let mut subscriptions = Vec::new();
    for service_type in SERVICE_TYPES.map(|text| format!("{text}.local.")) {
        let events = library.0.browse(&service_type)?.into_stream();
        subscriptions.push(events.map(move |event| (service_type.clone(), event)));
    }
    let mut events = select_all(subscriptions).take(LIMIT);
    let listen = async {
        while let Some((service_type, event)) = events.next().await {
            if let ServiceEvent::ServiceResolved(service) = event {
                for sighting in heard(&service_type, &service, &links) {
                    // Whoever does not listen any more wants no more.
                    let _ = sightings.send(sighting).await;
                }
            }
        }
    };
    // The end of the time is the end of the look.
    let _ = tokio::time::timeout(within, listen).await;
    Ok(())
}

/// The library's thread does not end when its last user goes.
struct Library(ServiceDaemon);

impl Drop for Library {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown() {
            tracing::debug!(%error, "The mDNS library could not be told to end");
        }
    }
}

/// Describes an advertisement once for each interface that it is heard on.
fn heard(service_type: &str, service: &ResolvedService, links: &Links) -> Vec<Sighting> {
    let pairs = service.txt_properties.iter();
    let pairs = pairs.map(|property| (property.key().as_bytes(), property.val()));
    let (Some(instance), Ok(record)) = (
        instance_of(&service.fullname, service_type),
        Record::from_pairs(pairs),
    ) else {
        return Vec::new();
    };
    let mut endpoints: BTreeMap<String, Vec<SocketAddr>> = BTreeMap::new();
    for (interface, index, address) in service.addresses.iter().flat_map(heard_on) {
        if links.reaches(&interface, address) {
            let endpoint = socket_address(address, service.port, index);
            endpoints.entry(interface).or_default().push(endpoint);
        }
    }
    let each = endpoints
        .into_iter()
        .map(|(interface, endpoints)| Sighting {
            source: DiscoveryType::Lan,
            instance: instance.to_owned(),
            cluster_id: record.cluster_id.clone(),
            name: record.name.clone(),
            boot: record.boot.clone(),
            endpoints,
            interface: Some(interface),
            search_domain: None,
            vouchers: Vec::new(),
            ttl: TTL,
        });
    each.collect()
}

/// Returns the interfaces that an address was heard on, with the address.
fn heard_on(address: &ScopedIp) -> Vec<(String, u32, IpAddr)> {
    let on = |interface: &InterfaceId, ip: IpAddr| (interface.name.clone(), interface.index, ip);
    match address {
        ScopedIp::V4(v4) => v4
            .interface_ids()
            .iter()
            .map(|interface| on(interface, IpAddr::V4(*v4.addr())))
            .collect(),
        ScopedIp::V6(v6) => vec![on(v6.scope_id(), IpAddr::V6(*v6.addr()))],
        _ => Vec::new(),
    }
}

/// Takes the service type off a full name; none when nothing that can be printed is left.
fn instance_of<'a>(full_name: &'a str, service_type: &str) -> Option<&'a str> {
    let length = full_name.len().checked_sub(service_type.len())?;
    let (start, end) = full_name.split_at_checked(length)?;
    let instance = start.strip_suffix('.')?;
    let printable = !instance.is_empty() && ClusterName::neutralise(instance).as_str() == instance;
    (end.eq_ignore_ascii_case(service_type) && printable).then_some(instance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_what_stands_before_its_type() {
        for (full_name, expected) in [
            ("rome._landbridge._tcp.local.", Some("rome")),
            ("Rome 2._LANDBRIDGE._tcp.local.", Some("Rome 2")),
            ("._landbridge._tcp.local.", None),
            ("_landbridge._tcp.local.", None),
            ("rome._other._tcp.local.", None),
            ("ro\u{202e}me._landbridge._tcp.local.", None),
        ] {
            assert_eq!(
                instance_of(full_name, "_landbridge._tcp.local."),
                expected,
                "{full_name}"
            );
        }
    }
}
