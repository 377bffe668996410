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
const TTL: Duration = Duration::from_mins(2);
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
                search_domain: None,
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

#[cfg(test)]
mod tests {
    use mdns_sd::{ScopedIpV4, ServiceInfo};

    use super::*;

    const ROME: &str = "0f1e2d3c-4b5a-8697-8877-665544332211";
    const LANDBRIDGE: &str = "_landbridge._tcp.local.";
    const LIQO: &str = "_liqo_auth._tcp.local.";

    fn neighbours() -> Neighbours {
        let own_id = "00000000-0000-8000-8000-000000000000";
        Neighbours::new(own_id.parse().expect("a UUID"), "aaaa".to_owned())
    }

    fn links() -> Links {
        let subnets = |nets: &[&str]| nets.iter().map(|net| net.parse().expect("nets")).collect();
        [
            ("eth0".to_owned(), subnets(&["10.0.0.5/24", "fe80::5/64"])),
            ("wlan0".to_owned(), subnets(&["10.0.0.6/24"])),
        ]
        .into_iter()
        .collect()
    }

    fn found(
        service_type: &str,
        id: &str,
        pairs: &[(&str, &str)],
        addresses: &[ScopedIp],
    ) -> ResolvedService {
        let host = format!("{id}.local.");
        let mut service = ServiceInfo::new(service_type, id, &host, (), 5870, pairs)
            .expect("the test describes a service")
            .as_resolved_service();
        service.addresses = addresses.iter().cloned().collect();
        service
    }

    fn v4(ip: &str, name: &str, index: u32) -> ScopedIp {
        let interface = InterfaceId {
            name: name.to_owned(),
            index,
        };
        ScopedIp::V4(ScopedIpV4::new(ip.parse().expect("an address"), interface))
    }

    fn sightings(events: &[Event]) -> Vec<&Sighting> {
        let seen = events.iter().map(|event| match event {
            Event::Seen(sighting) => Some(sighting),
            Event::Gone { .. } => None,
        });
        seen.flatten().collect()
    }

    #[test]
    fn what_is_announced_under_both_types_is_one_advertisement() {
        let (mut neighbours, links, now) = (neighbours(), links(), Instant::now());
        let pairs = [("id", ROME), ("name", "rome")];
        let addresses = [v4("10.0.0.9", "eth0", 2), v4("10.0.0.8", "eth0", 2)];
        let first = found(LIQO, ROME, &pairs, &addresses);
        let (is_new, events) = neighbours.resolved(LIQO, &first, &links, now);
        assert!(is_new);
        let seen = sightings(&events);
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].cluster_id, ROME.parse().ok());
        let endpoints: Vec<String> = seen[0].endpoints.iter().map(ToString::to_string).collect();
        assert_eq!(endpoints, ["10.0.0.8:5870", "10.0.0.9:5870"]);
        let second = found(LANDBRIDGE, ROME, &pairs, &addresses);
        assert_eq!(
            neighbours.resolved(LANDBRIDGE, &second, &links, now),
            (false, Vec::new())
        );
        assert!(
            neighbours
                .removed(LIQO, &first.fullname, &links, now)
                .is_empty()
        );
        let events = neighbours.removed(LANDBRIDGE, &second.fullname, &links, now);
        assert!(matches!(&events[..], [Event::Gone { instance, .. }] if instance == ROME));
    }

    #[test]
    fn a_link_local_address_keeps_its_interface() {
        for (address, expected) in [
            ("fe80::9", "[fe80::9%2]:5870"),
            ("2001:db8::9", "[2001:db8::9]:5870"),
            ("169.254.1.9", "169.254.1.9:5870"),
        ] {
            let address = address.parse().expect("the table holds addresses");
            assert_eq!(socket_address(address, 5870, 2).to_string(), expected);
        }
    }

    #[test]
    fn addresses_that_are_not_next_to_us_are_left_out_until_they_are() {
        let (mut neighbours, now) = (neighbours(), Instant::now());
        let addresses = [v4("203.0.113.9", "eth0", 2), v4("10.0.0.9", "docker0", 7)];
        let service = found(LIQO, ROME, &[("id", ROME)], &addresses);
        let (_, events) = neighbours.resolved(LIQO, &service, &links(), now);
        assert_eq!(events, []);
        let wider: Links = [(
            "eth0".to_owned(),
            vec!["203.0.113.1/24".parse().expect("a net")],
        )]
        .into_iter()
        .collect();
        assert_eq!(neighbours.links_changed(&wider, now).len(), 1);
    }

    #[test]
    fn an_interface_that_falls_silent_is_taken_back() {
        let (mut neighbours, links, now) = (neighbours(), links(), Instant::now());
        let both = [v4("10.0.0.9", "eth0", 2), v4("10.0.0.9", "wlan0", 3)];
        let service = found(LIQO, ROME, &[], &both);
        let (_, events) = neighbours.resolved(LIQO, &service, &links, now);
        assert_eq!(sightings(&events).len(), 2);
        let service = found(LIQO, ROME, &[], &both[..1]);
        let (_, events) = neighbours.resolved(LIQO, &service, &links, now);
        let seen = sightings(&events);
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].interface.as_deref(), Some("wlan0"));
        assert!(seen[0].endpoints.is_empty());
    }

    #[test]
    fn we_are_not_our_own_neighbour_and_a_clone_is() {
        let (mut neighbours, links, now) = (neighbours(), links(), Instant::now());
        let own = neighbours.own_id.to_string();
        let address = [v4("10.0.0.5", "eth0", 2)];
        for pairs in [&[("id", own.as_str()), ("boot", "aaaa")][..], &[]] {
            let service = found(LIQO, &own, pairs, &address);
            assert_eq!(
                neighbours.resolved(LIQO, &service, &links, now),
                (false, Vec::new())
            );
        }
        let service = found(LIQO, &own, &[("id", &own), ("boot", "bbbb")], &address);
        let (_, events) = neighbours.resolved(LIQO, &service, &links, now);
        assert_eq!(sightings(&events)[0].boot.as_deref(), Some("bbbb"));
    }

    #[test]
    fn what_still_stands_is_repeated() {
        let (mut neighbours, links, now) = (neighbours(), links(), Instant::now());
        let service = found(LIQO, ROME, &[], &[v4("10.0.0.9", "eth0", 2)]);
        let (_, events) = neighbours.resolved(LIQO, &service, &links, now);
        assert_eq!(neighbours.repeat(now), []);
        assert_eq!(neighbours.next_repeat(), Some(now + REPEAT));
        assert_eq!(neighbours.repeat(now + REPEAT), events);
    }

    #[test]
    fn more_advertisements_than_the_limit_are_reported_and_not_remembered() {
        let (mut neighbours, links, now) = (neighbours(), links(), Instant::now());
        for number in 0..LIMIT + 5 {
            let service = found(
                LIQO,
                &format!("c{number}"),
                &[],
                &[v4("10.0.0.9", "eth0", 2)],
            );
            let (is_new, events) = neighbours.resolved(LIQO, &service, &links, now);
            assert_eq!((is_new, events.len()), (number < LIMIT, 1));
        }
        assert_eq!(neighbours.rows.len(), LIMIT);
    }

    #[test]
    fn an_instance_name_that_could_deceive_is_ignored() {
        for (full_name, expected) in [
            ("rome._liqo_auth._tcp.local.", Some("rome")),
            ("Rome 2._LIQO_auth._tcp.local.", Some("Rome 2")),
            ("._liqo_auth._tcp.local.", None),
            ("_liqo_auth._tcp.local.", None),
            ("rome._other._tcp.local.", None),
            ("ro\u{202e}me._liqo_auth._tcp.local.", None),
            ("é", None),
        ] {
            assert_eq!(instance_of(full_name, LIQO), expected, "{full_name:?}");
        }
        let long = format!("{}.{LIQO}", "a".repeat(64));
        assert_eq!(instance_of(&long, LIQO), None);
    }
}
