//! Who is announced on the LAN at present, and what was said of them to the roster.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr, SocketAddrV6},
    time::Duration,
};

use mdns_sd::{InterfaceId, ResolvedService, ScopedIp};
use tokio::time::Instant;

use crate::{
    api::{
        foreign_cluster::DiscoveryType,
        identity::{ClusterId, ClusterName},
    },
    discovery::{interfaces::Links, record::Record},
    engine::sighting::{Event, Sighting},
};

/// How many advertisements are remembered. Others are still reported, but not repeated.
const LIMIT: usize = 1024;
/// How often what still stands is repeated; the library itself only tells what changes.
const REPEAT: Duration = Duration::from_secs(40);
/// For how long a sighting holds, the time to live of SRV and addresses (RFC 6762, section 10). The
/// library keeps the real one to itself and reports when it is over.
const TTL: Duration = Duration::from_secs(120);
/// The longest instance name (RFC 6763, section 4.1.1).
const INSTANCE_LIMIT: usize = 63;

/// The advertisements on the LAN. Those of the run of this program are left out.
#[derive(Debug)]
pub(super) struct Neighbours {
    own_id: ClusterId,
    own_boot: String,
    rows: BTreeMap<String, Row>,
}

#[derive(Debug)]
struct Row {
    /// What is announced under each service type; the first one counts where they disagree.
    services: BTreeMap<&'static str, Service>,
    told: Vec<Sighting>,
    repeat_at: Instant,
}

#[derive(Debug)]
struct Service {
    full_name: String,
    port: u16,
    addresses: BTreeSet<(String, u32, IpAddr)>,
    record: Record,
}

impl Neighbours {
    pub(super) fn new(own_id: ClusterId, own_boot: String) -> Self {
        Self {
            own_id,
            own_boot,
            rows: BTreeMap::new(),
        }
    }

    /// Takes an advertisement; returns whether it is a new one, and what is to be reported.
    pub(super) fn resolved(
        &mut self,
        service_type: &'static str,
        found: &ResolvedService,
        links: &Links,
        now: Instant,
    ) -> (bool, Vec<Event>) {
        let nothing = (false, Vec::new());
        let Some(instance) = instance_of(&found.fullname, service_type) else {
            return nothing;
        };
        let record = match Record::from_pairs(
            found
                .txt_properties
                .iter()
                .map(|property| (property.key().as_bytes(), property.val())),
        ) {
            Ok(record) => record,
            Err(error) => {
                tracing::debug!(instance, %error, "Ignoring an advertisement");
                return nothing;
            }
        };
        if found.port == 0 || self.is_own(instance, &record) {
            return nothing;
        }
        let is_new = !self.rows.contains_key(instance);
        let service = Service {
            full_name: found.fullname.clone(),
            port: found.port,
            addresses: found.addresses.iter().flat_map(heard_on).collect(),
            record,
        };
        let remembered = !is_new || self.rows.len() < LIMIT;
        let mut fresh = Row::new(now);
        let row = if remembered {
            self.rows.entry(instance.to_owned()).or_insert(fresh)
        } else {
            &mut fresh
        };
        row.services.insert(service_type, service);
        (is_new && remembered, row.news(instance, links, now))
    }

    /// Takes a withdrawal or an expiry; returns what is to be reported.
    pub(super) fn removed(
        &mut self,
        service_type: &'static str,
        full_name: &str,
        links: &Links,
        now: Instant,
    ) -> Vec<Event> {
        let Some(instance) = instance_of(full_name, service_type) else {
            return Vec::new();
        };
        if let Some(row) = self.rows.get_mut(instance) {
            row.services.remove(service_type);
            if !row.services.is_empty() {
                return row.news(instance, links, now);
            }
            self.rows.remove(instance);
        }
        vec![Event::Gone {
            source: DiscoveryType::Lan,
            instance: instance.to_owned(),
        }]
    }

    /// Judges every address anew, after the links changed.
    pub(super) fn links_changed(&mut self, links: &Links, now: Instant) -> Vec<Event> {
        self.rows
            .iter_mut()
            .flat_map(|(instance, row)| row.news(instance, links, now))
            .collect()
    }

    /// Repeats what still stands and was not said for a while.
    pub(super) fn repeat(&mut self, now: Instant) -> Vec<Event> {
        let mut events = Vec::new();
        for row in self.rows.values_mut().filter(|row| row.repeat_at <= now) {
            row.repeat_at = now + REPEAT;
            events.extend(row.told.iter().cloned().map(Event::Seen));
        }
        events
    }

    /// Returns when something is to be repeated.
    pub(super) fn next_repeat(&self) -> Option<Instant> {
        self.rows.values().map(|row| row.repeat_at).min()
    }

    /// Returns the names under which an advertisement is known to the library.
    pub(super) fn full_names(&self, instance: &str) -> Vec<String> {
        self.rows
            .get(instance)
            .into_iter()
            .flat_map(|row| row.services.values())
            .map(|service| service.full_name.clone())
            .collect()
    }

    /// Forgets everybody, when looking for others is switched off.
    pub(super) fn clear(&mut self) {
        self.rows.clear();
    }

    /// Another run under our id is a clone, which the roster must hear of.
    fn is_own(&self, instance: &str, record: &Record) -> bool {
        let own_id = match &record.cluster_id {
            Some(id) => *id == self.own_id,
            None => instance == self.own_id.as_str(),
        };
        own_id
            && record
                .boot
                .as_ref()
                .is_none_or(|boot| *boot == self.own_boot)
    }
}

impl Row {
    fn new(now: Instant) -> Self {
        Self {
            services: BTreeMap::new(),
            told: Vec::new(),
            repeat_at: now + REPEAT,
        }
    }

    /// Returns what is said now and was not said before.
    fn news(&mut self, instance: &str, links: &Links, now: Instant) -> Vec<Event> {
        let sightings = self.sightings(instance, links);
        let withdrawn = self.told.iter().filter(|old| {
            !sightings
                .iter()
                .any(|sighting| sighting.interface == old.interface)
        });
        let withdrawn = withdrawn.cloned().map(|mut sighting| {
            sighting.endpoints.clear();
            sighting
        });
        let fresh = sightings
            .iter()
            .filter(|sighting| !self.told.contains(sighting))
            .cloned();
        let events: Vec<Event> = fresh.chain(withdrawn).map(Event::Seen).collect();
        if !events.is_empty() {
            self.told = sightings;
            self.repeat_at = now + REPEAT;
        }
        events
    }

    /// Describes the advertisement, once for each interface that it is heard on.
    fn sightings(&self, instance: &str, links: &Links) -> Vec<Sighting> {
        let mut endpoints: BTreeMap<&str, BTreeSet<SocketAddr>> = BTreeMap::new();
        for service in self.services.values() {
            for (interface, index, address) in &service.addresses {
                if links.reaches(interface, *address) {
                    let endpoint = socket_address(*address, service.port, *index);
                    endpoints.entry(interface).or_default().insert(endpoint);
                }
            }
        }
        let Some(first) = self.services.values().next() else {
            return Vec::new();
        };
        endpoints
            .into_iter()
            .map(|(interface, endpoints)| Sighting {
                source: DiscoveryType::Lan,
                instance: instance.to_owned(),
                cluster_id: first.record.cluster_id.clone(),
                name: first.record.name.clone(),
                boot: first.record.boot.clone(),
                endpoints: endpoints.into_iter().collect(),
                interface: Some(interface.to_owned()),
                ttl: TTL,
            })
            .collect()
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

/// Takes the service type off a full name; none when nothing decent is left.
fn instance_of<'a>(full_name: &'a str, service_type: &str) -> Option<&'a str> {
    let length = full_name.len().checked_sub(service_type.len())?;
    let (start, end) = full_name.split_at_checked(length)?;
    let instance = start.strip_suffix('.')?;
    let decent = end.eq_ignore_ascii_case(service_type)
        && !instance.is_empty()
        && instance.len() <= INSTANCE_LIMIT
        && ClusterName::neutralise(instance).as_str() == instance;
    decent.then_some(instance)
}
