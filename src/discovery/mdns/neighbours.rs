//! Who is announced on the LAN at present: from packets and time to events and questions.
//!
//! Everything in a packet is a claim by a stranger. So what one source says never removes what
//! another one said: a goodbye or a replacement from elsewhere only makes us ask, and whoever is
//! there answers. What nobody has proven is bounded for each source and in all.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    time::Duration,
};

use tokio::time::Instant;

use super::{
    gate::Gate,
    responder::{TTL, service_types},
    wire::{self, Data, Name, Packet, Question},
};
use crate::{
    api::{
        foreign_cluster::DiscoveryType,
        identity::{ClusterId, ClusterName},
    },
    discovery::{interfaces::Links, record::Record},
    engine::sighting::{CROWD, CROWD_PAUSE, Event},
};

mod asking;
mod host;
mod row;
mod service;

use asking::Wanted;
use host::Host;
use row::Row;
use service::{Location, Refresh};

/// The most advertisements that are remembered.
const LIMIT: usize = 1024;
/// The most of one source whose ids are not known.
const LIMIT_OF_SOURCE: usize = 16;
/// The longest instance name (RFC 6763, section 4.1.1).
const INSTANCE_LIMIT: usize = 63;
/// How long what was taken back is kept, so that its owner can object (RFC 6762, section 10.1).
const FAREWELL: Duration = Duration::from_secs(1);
/// How long what is doubted has to be confirmed.
const DOUBT: Duration = Duration::from_secs(2);

/// Where a packet came from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin {
    /// The number of the interface that received it.
    pub(super) interface: u32,
    /// The address of the sender.
    pub(super) source: IpAddr,
}

/// The advertisements on the LAN. Those of this run of the program are left out.
#[derive(Debug)]
pub(super) struct Neighbours {
    own_id: ClusterId,
    own_boot: String,
    types: Vec<Name>,
    known: BTreeSet<ClusterId>,
    gate: Gate,
    rows: BTreeMap<String, Row>,
    hosts: BTreeMap<Name, Host>,
    events: VecDeque<Event>,
    wanted: Wanted,
    /// When all rows are to be looked at, at the latest: every change of one brings it forward.
    due: Option<Instant>,
    /// Until when a crowd is left alone.
    rest: Option<Instant>,
    /// Whether somebody who is known was lost since that was asked last.
    has_lost: bool,
}

impl Neighbours {
    pub(super) fn new(own_id: ClusterId, own_boot: String) -> Self {
        Self {
            own_id,
            own_boot,
            types: service_types(),
            known: BTreeSet::new(),
            gate: Gate::default(),
            rows: BTreeMap::new(),
            hosts: BTreeMap::new(),
            events: VecDeque::new(),
            wanted: Wanted::default(),
            due: None,
            rest: None,
            has_lost: false,
        }
    }

    /// Takes the ids that are known already: they come first and are never turned away.
    pub(super) fn set_known(&mut self, known: BTreeSet<ClusterId>) {
        self.known = known;
        for (key, row) in &mut self.rows {
            row.is_known = is_among(&self.known, key);
        }
    }

    /// Returns whether a packet of a source is to be read at all.
    pub(super) fn admits(&mut self, source: IpAddr, now: Instant) -> bool {
        self.gate.admits_packet(source, now)
    }

    /// Returns how many packets were not read.
    pub(super) fn refused(&self) -> u64 {
        self.gate.refused()
    }

    /// Takes an answer or an announcement; returns whether somebody new is in it.
    pub(super) fn hear(
        &mut self,
        packet: &Packet,
        from: Origin,
        links: &Links,
        now: Instant,
    ) -> bool {
        let mut touched = BTreeSet::new();
        let mut is_new = false;
        for record in packet.records() {
            if let Data::Ptr(to) = &record.data {
                is_new |= self.hear_pointer(record, to, from, &mut touched, now);
            }
        }
        for record in packet.records() {
            match &record.data {
                Data::Srv { .. } | Data::Txt(_) => {
                    self.hear_instance(record, from, &mut touched, now);
                }
                Data::Ptr(_) | Data::A(_) | Data::Aaaa(_) => {}
            }
        }
        self.hear_addresses(packet, from, &mut touched, now);
        self.tell(&touched, links, now);
        is_new
    }

    /// Does what time alone brings about.
    pub(super) fn handle_timeout(&mut self, links: &Links, now: Instant) {
        if let Some(rest) = self.rest.filter(|rest| now < *rest) {
            self.due = Some(rest);
            return;
        }
        self.rest = (self.rows.len() > CROWD).then(|| now + CROWD_PAUSE);
        let mut touched = BTreeSet::new();
        for host in self.hosts.values_mut() {
            if host.expire(now) {
                touched.extend(host.rows.iter().cloned());
            }
        }
        for (key, row) in &mut self.rows {
            if row.expire(now) {
                touched.insert(key.clone());
            }
        }
        for (key, row) in &mut self.rows {
            if let Some(since) = row.question_due(now) {
                self.wanted.add(key, since);
                touched.insert(key.clone());
            }
            self.events.extend(row.repeat(now));
        }
        self.tell(&touched, links, now);
        let rows = self.rows.values().filter_map(Row::next_timer);
        let hosts = self.hosts.values().filter_map(Host::next_timer);
        self.due = rows.chain(hosts).min();
    }

    /// Returns when [`Neighbours::handle_timeout`] is to be called, if at all.
    pub(super) fn next_timer(&self) -> Option<Instant> {
        self.due
    }

    /// Returns what is to be reported.
    pub(super) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Has an advertisement confirmed within two seconds, or it is gone.
    pub(super) fn verify(&mut self, instance: &str, now: Instant) {
        let key = instance.to_ascii_lowercase();
        if let Some(row) = self.rows.get_mut(&key) {
            row.doubt_all(now);
            self.wanted.add(&key, now);
            self.due = sooner(self.due, row.next_timer());
            // It may be there still on one of two LANs.
            for target in row.targets() {
                if let Some(host) = self.hosts.get_mut(target) {
                    host.doubt_all(now + DOUBT);
                    self.due = sooner(self.due, host.next_timer());
                }
            }
        }
    }

    /// Judges every address anew, after the links changed.
    pub(super) fn links_changed(&mut self, links: &Links, now: Instant) {
        let all = self.rows.keys().cloned().collect();
        self.tell(&all, links, now);
    }

    /// Returns the advertisements that are known well enough for their owners to be silent: which
    /// type, which instance, and for how many seconds more.
    pub(super) fn known_answers(&self, now: Instant) -> impl Iterator<Item = (usize, String, u32)> {
        self.rows
            .values()
            .flat_map(move |row| row.known_answers(now))
    }

    /// Returns whether since the last call somebody who is known was lost and did not say goodbye. When
    /// it was the network that was gone, nobody there knows that it is back.
    pub(super) fn take_lost(&mut self) -> bool {
        std::mem::take(&mut self.has_lost)
    }

    /// Returns how many advertisements are remembered.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Forgets everybody, when looking for others is switched off.
    pub(super) fn clear(&mut self) {
        for row in std::mem::take(&mut self.rows).into_values() {
            self.events.extend(row.farewell());
        }
        self.hosts.clear();
        self.wanted.clear();
        self.due = None;
    }

    /// Returns whether the pointer leads to somebody new.
    fn hear_pointer(
        &mut self,
        record: &wire::Record,
        to: &Name,
        from: Origin,
        touched: &mut BTreeSet<String>,
        now: Instant,
    ) -> bool {
        let Some(index) = self.types.iter().position(|name| *name == record.name) else {
            return false;
        };
        let Some(instance) = self.types.get(index).and_then(|name| instance_of(to, name)) else {
            return false;
        };
        let key = instance.to_ascii_lowercase();
        let present = self.rows.contains_key(&key);
        if !present && (record.ttl == 0 || !self.admit(&key, from.source, now)) {
            return false;
        }
        let is_known = is_among(&self.known, &key);
        let row = self
            .rows
            .entry(key.clone())
            .or_insert_with(|| Row::new(instance, from.source, is_known, now));
        if record.ttl == 0 {
            if row.withdraw(index, from.source, now, self.wanted.has_room()) {
                self.wanted.add(&key, now);
            }
        } else {
            row.expect(index, now);
        }
        touched.insert(key);
        !present
    }

    /// Takes where an instance is, or what it says of itself.
    fn hear_instance(
        &mut self,
        record: &wire::Record,
        from: Origin,
        touched: &mut BTreeSet<String>,
        now: Instant,
    ) {
        let Some((index, key)) = self.instance_at(&record.name) else {
            return;
        };
        let Some(row) = self.rows.get_mut(&key) else {
            return;
        };
        let ttl = time_to_live(record.ttl);
        match &record.data {
            Data::Srv { .. } | Data::Txt(_) if record.ttl == 0 => {
                if row.withdraw(index, from.source, now, self.wanted.has_room()) {
                    self.wanted.add(&key, now);
                }
            }
            Data::Srv { port, target } if *port != 0 => {
                let location = Location {
                    source: from.source,
                    port: *port,
                    target: target.clone(),
                    ttl,
                    expires: now + ttl,
                    is_taken_back: false,
                    refresh: Refresh::new(now, ttl),
                };
                row.locate(index, location, &self.hosts);
                let host = self.hosts.entry(target.clone()).or_default();
                host.rows.insert(key.clone());
            }
            Data::Txt(text) => match Record::decode(text) {
                Ok(record) => row.describe(index, from.source, record),
                Err(error) => tracing::debug!(instance = key, %error, "Ignoring a TXT record"),
            },
            Data::Srv { .. } | Data::Ptr(_) | Data::A(_) | Data::Aaaa(_) => return,
        }
        touched.insert(key);
    }

    /// Returns the service type and the key of the instance with a name.
    fn instance_at(&self, name: &Name) -> Option<(usize, String)> {
        let mut types = self.types.iter().enumerate();
        types.find_map(|(index, service_type)| {
            let instance = instance_of(name, service_type)?;
            Some((index, instance.to_ascii_lowercase()))
        })
    }

    /// Takes the addresses of hosts that somebody is said to be on.
    fn hear_addresses(
        &mut self,
        packet: &Packet,
        from: Origin,
        touched: &mut BTreeSet<String>,
        now: Instant,
    ) {
        let mut flushed: BTreeSet<(Name, bool)> = BTreeSet::new();
        let mut doubted: BTreeSet<String> = BTreeSet::new();
        for record in packet.records() {
            let address = match &record.data {
                Data::A(v4) => IpAddr::V4(*v4),
                Data::Aaaa(v6) => IpAddr::V6(*v6),
                Data::Ptr(_) | Data::Srv { .. } | Data::Txt(_) => continue,
            };
            let Some(host) = self.hosts.get_mut(&record.name) else {
                continue;
            };
            let ttl = time_to_live(record.ttl);
            if record.ttl == 0 {
                if host.withdraw(from, address, now, self.wanted.has_room()) {
                    doubted.extend(host.rows.iter().cloned());
                }
            } else if host.hear(from, address, ttl, now) {
                touched.extend(host.rows.iter().cloned());
            }
            self.due = sooner(self.due, host.next_timer());
            if record.flush && record.ttl > 0 {
                flushed.insert((record.name.clone(), address.is_ipv4()));
            }
        }
        for (name, is_v4) in flushed {
            let Some(host) = self.hosts.get_mut(&name) else {
                continue;
            };
            if host.replace(from, is_v4, now, self.wanted.has_room()) {
                doubted.extend(host.rows.iter().cloned());
            }
            self.due = sooner(self.due, host.next_timer());
        }
        for key in doubted {
            if let Some(row) = self.rows.get_mut(&key) {
                row.await_answer(now);
                self.wanted.add(&key, now);
                touched.insert(key);
            }
        }
    }

    /// Reports what is said now of some rows and was not said before; forgets those that are over.
    fn tell(&mut self, touched: &BTreeSet<String>, links: &Links, now: Instant) {
        for key in touched {
            let Some(row) = self.rows.get_mut(key) else {
                continue;
            };
            if row.is_over(now) {
                self.forget(key);
                continue;
            }
            if !row.is_claim_of(&self.own_id, &self.own_boot) {
                self.events.extend(row.news(&self.hosts, links, now));
            }
            self.due = sooner(self.due, row.next_timer());
            let left = row.take_left_hosts();
            self.leave(key, left);
        }
    }

    /// Forgets a row, and the hosts that nobody else is on.
    fn forget(&mut self, key: &str) {
        let Some(row) = self.rows.remove(key) else {
            return;
        };
        self.events.extend(row.farewell());
        self.has_lost |= row.is_lost();
        self.wanted.remove(key);
        self.leave(key, row.into_hosts());
    }

    /// Takes a row off hosts, and forgets those that nobody else is on.
    fn leave(&mut self, key: &str, hosts: BTreeSet<Name>) {
        for name in hosts {
            if let Some(host) = self.hosts.get_mut(&name) {
                host.rows.remove(key);
                if host.rows.is_empty() {
                    self.hosts.remove(&name);
                }
            }
        }
    }

    /// Says whether a newcomer may stay, and makes room for it if need be.
    fn admit(&mut self, key: &str, source: IpAddr, now: Instant) -> bool {
        let known = is_among(&self.known, key);
        if !known && !self.gate.admits_newcomer(source, now) {
            return false;
        }
        let of_source = |row: &&Row| !row.is_known && row.source == source;
        let crowd = self.rows.values().filter(of_source).count();
        if !known && crowd >= LIMIT_OF_SOURCE {
            return self.evict(|row| row.source == source);
        }
        if self.rows.len() < LIMIT {
            return true;
        }
        let most = self.crowds().into_iter().max_by_key(|(_, crowd)| *crowd);
        match most {
            Some((crowded, size)) if known || size > crowd => {
                self.evict(|row| row.source == crowded)
            }
            _ => false,
        }
    }

    /// How many advertisements each source has whose ids are not known.
    fn crowds(&self) -> BTreeMap<IpAddr, usize> {
        let mut crowds = BTreeMap::new();
        for row in self.rows.values().filter(|row| !row.is_known) {
            *crowds.entry(row.source).or_default() += 1;
        }
        crowds
    }

    /// Forgets the oldest row that is eligible and whose id is not known.
    fn evict(&mut self, eligible: impl Fn(&Row) -> bool) -> bool {
        let oldest = self
            .rows
            .iter()
            .filter(|(_, row)| eligible(row) && !row.is_known)
            .min_by_key(|(_, row)| row.first_seen)
            .map(|(key, _)| key.clone());
        if let Some(key) = &oldest {
            self.forget(key);
        }
        oldest.is_some()
    }
}

/// The earlier one of two moments that may not come.
fn sooner(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}

/// An advertisement is named by its cluster's id.
fn is_among(known: &BTreeSet<ClusterId>, key: &str) -> bool {
    !known.is_empty() && key.parse::<ClusterId>().is_ok_and(|id| known.contains(&id))
}

/// Bounds a time to live: what would have to be asked for again at once holds for a while, and nothing
/// is believed for longer than a pointer of RFC 6762.
fn time_to_live(seconds: u32) -> Duration {
    Duration::from_secs(u64::from(seconds)).clamp(TTL.0, TTL.1)
}

/// Takes the service type off a name; none when nothing decent is left.
fn instance_of(name: &Name, service_type: &Name) -> Option<String> {
    let instance = std::str::from_utf8(name.label_before(service_type)?).ok()?;
    let decent =
        instance.len() <= INSTANCE_LIMIT && ClusterName::neutralise(instance).as_str() == instance;
    decent.then(|| instance.to_owned())
}

/// Says that an advertisement is gone.
fn gone(instance: &str) -> Event {
    Event::Gone {
        source: DiscoveryType::Lan,
        instance: instance.to_owned(),
    }
}

#[cfg(test)]
mod tests;
