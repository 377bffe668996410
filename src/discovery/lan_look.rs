//! One look at the LAN, for a person: needs no daemon, announces nothing and ends by itself.
//!
//! It asks through mdns-sd and shares no code with the source that the daemon runs, so it also shows
//! what an implementation of somebody else makes of our announcements.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr, SocketAddrV6},
    time::Duration,
};

use futures::{StreamExt as _, stream::select_all};
use mdns_sd::{
    IfKind, IfPredicate, InterfaceId, ResolvedService, ScopedIp, ServiceDaemon, ServiceEvent,
};

use crate::{
    api::{foreign_cluster::DiscoveryType, identity::ClusterName},
    discovery::{
        interfaces::{InterfaceRules, Links},
        record::Record,
    },
    engine::sighting::Sighting,
};

/// The service types that are asked for: our own, whose record counts, and Liqo's.
const SERVICE_TYPES: [&str; 2] = ["_landbridge._tcp.local.", "_liqo_auth._tcp.local."];
/// How many advertisements are taken. A person reads no more, and a flood ends there.
const LIMIT: usize = 1024;
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

/// Looks for so long at who is announced on the LAN; one sighting for each instance and interface, in
/// the order of their names. Nothing in them is proven.
///
/// # Errors
///
/// When no interface can be asked, or port 5353 cannot be had.
pub async fn look(rules: &InterfaceRules, within: Duration) -> Result<Vec<Sighting>, LookError> {
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
    for service_type in SERVICE_TYPES {
        let receiver = library.0.browse(service_type)?;
        subscriptions.push(
            receiver
                .into_stream()
                .map(move |event| (service_type, event)),
        );
    }
    let mut events = select_all(subscriptions);
    let mut found = Found::default();
    let listen = async {
        while let Some((service_type, event)) = events.next().await {
            if let ServiceEvent::ServiceResolved(service) = event {
                found.take(service_type, &service, &links);
            }
        }
    };
    // The end of the time is the end of the look.
    let _ = tokio::time::timeout(within, listen).await;
    Ok(found.sightings())
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

/// What was announced: for each instance its record, and its endpoints on each interface.
#[derive(Debug, Default)]
struct Found(BTreeMap<String, (Record, BTreeMap<String, BTreeSet<SocketAddr>>)>);

impl Found {
    fn take(&mut self, service_type: &str, service: &ResolvedService, links: &Links) {
        let Some(instance) = instance_of(&service.fullname, service_type) else {
            return;
        };
        let pairs = service.txt_properties.iter();
        let pairs = pairs.map(|property| (property.key().as_bytes(), property.val()));
        let Ok(record) = Record::from_pairs(pairs) else {
            return;
        };
        if !self.0.contains_key(instance) && self.0.len() >= LIMIT {
            return;
        }
        let entry = self.0.entry(instance.to_owned());
        let (known, endpoints) = entry.or_insert_with(|| (record.clone(), BTreeMap::new()));
        if service_type == SERVICE_TYPES[0] {
            *known = record;
        }
        for address in &service.addresses {
            for (interface, index, ip) in heard_on(address) {
                if links.reaches(&interface, ip) {
                    let endpoint = socket_address(ip, service.port, index);
                    endpoints.entry(interface).or_default().insert(endpoint);
                }
            }
        }
    }

    fn sightings(self) -> Vec<Sighting> {
        let each = self.0.into_iter().flat_map(|(instance, (record, on))| {
            on.into_iter().map(move |(interface, endpoints)| Sighting {
                source: DiscoveryType::Lan,
                instance: instance.clone(),
                cluster_id: record.cluster_id.clone(),
                name: record.name.clone(),
                boot: record.boot.clone(),
                endpoints: endpoints.into_iter().collect(),
                interface: Some(interface),
                search_domain: None,
                ttl: TTL,
            })
        });
        each.collect()
    }
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

/// A link-local address means nothing without its interface (RFC 4007, section 6).
fn socket_address(address: IpAddr, port: u16, index: u32) -> SocketAddr {
    match address {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            SocketAddr::V6(SocketAddrV6::new(v6, port, 0, index))
        }
        IpAddr::V4(_) | IpAddr::V6(_) => SocketAddr::new(address, port),
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
                instance_of(full_name, SERVICE_TYPES[0]),
                expected,
                "{full_name}"
            );
        }
    }
}
