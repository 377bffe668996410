//! One advertisement: where it is said to be, by whom and for how long, and what was told of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    DOUBT, FAREWELL, gone,
    host::{self, ASK_PAUSE, Host},
    service::{Location, Service, is_named_by},
    wire::{Name, Question, kind},
};
use crate::{
    api::{foreign_cluster::DiscoveryType, identity::ClusterId},
    discovery::{
        interfaces::{Links, socket_address},
        record::Record,
    },
    engine::{
        addresses::is_link_local,
        sighting::{Event, Sighting},
    },
};

/// The most places of an advertisement on one interface.
const PLACES: usize = 8;
/// How often what still stands is repeated, so that a lost event is made good.
const REPEAT: Duration = Duration::from_secs(40);
/// Shortly after something was to be asked again it is not asked once more.
const SPREAD: f64 = 0.02;
/// When what is missing is asked for: at once, and twice more.
const MISSING: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_secs(1),
    Duration::from_secs(3),
];
/// How long an advertisement may stay without a place.
const INCOMPLETE: Duration = Duration::from_secs(10);

/// One advertisement.
#[derive(Debug)]
pub(super) struct Row {
    instance: String,
    /// Who was the first to advertise it.
    pub(super) source: IpAddr,
    pub(super) first_seen: Instant,
    /// Whether it is named by an id that is known.
    pub(super) is_known: bool,
    /// What is announced under each service type; the first one counts where they disagree.
    services: BTreeMap<usize, Service>,
    /// The hosts that have noted it.
    hosts: BTreeSet<Name>,
    /// Whether what ended last was not taken back.
    is_silent: bool,
    told: Vec<Sighting>,
    repeat_at: Instant,
    asked: Option<Instant>,
    /// When it was left to others to ask about it, if we have not asked since.
    left: Option<Instant>,
    /// How often what is missing was asked for.
    missing: usize,
    /// When it is asked for, besides when its locations are to be asked for again.
    ask_at: Option<Instant>,
}

impl Row {
    pub(super) fn new(instance: String, source: IpAddr, is_known: bool, now: Instant) -> Self {
        Self {
            instance,
            source,
            first_seen: now,
            is_known,
            services: BTreeMap::new(),
            hosts: BTreeSet::new(),
            is_silent: false,
            told: Vec::new(),
            repeat_at: now + REPEAT,
            asked: None,
            left: None,
            missing: 0,
            ask_at: None,
        }
    }

    /// Notes that it is announced under a service type.
    pub(super) fn expect(&mut self, index: usize, now: Instant) {
        let service = self.services.entry(index).or_default();
        if self.told.is_empty() && service.locations.is_empty() {
            // It is asked for after the rest of the packet, if it is missing still.
            self.ask_at.get_or_insert(now);
        }
    }

    /// Takes where a source says that it is.
    pub(super) fn locate(
        &mut self,
        index: usize,
        location: Location,
        hosts: &BTreeMap<Name, Host>,
    ) {
        self.hosts.insert(location.target.clone());
        let service = self.services.entry(index).or_default();
        service.locate(location, hosts);
    }

    /// Takes what a source says about it.
    pub(super) fn describe(&mut self, index: usize, source: IpAddr, record: Record) {
        let service = self.services.entry(index).or_default();
        service.describe(&self.instance, source, record);
    }

    /// Takes back what a source said; what others said is doubted if it may be, and then to be asked
    /// about, which is returned. What was asked about a moment ago stands: whoever confirmed it then
    /// has said it.
    pub(super) fn withdraw(
        &mut self,
        index: usize,
        source: IpAddr,
        now: Instant,
        may_doubt: bool,
    ) -> bool {
        let Some(service) = self.services.get_mut(&index) else {
            return false;
        };
        let rests = !may_doubt || host::is_recent(self.asked, now);
        let mut is_doubted = false;
        for location in &mut service.locations {
            if location.source == source {
                location.expires = location.expires.min(now + FAREWELL);
                location.is_taken_back = true;
            } else if !rests {
                location.expires = location.expires.min(now + DOUBT);
                is_doubted = true;
            }
        }
        if is_doubted {
            self.await_answer(now);
        }
        is_doubted
    }

    /// Lets everything run out unless it is confirmed.
    pub(super) fn doubt_all(&mut self, now: Instant) {
        for service in self.services.values_mut() {
            for location in &mut service.locations {
                location.expires = location.expires.min(now + DOUBT);
            }
        }
        self.await_answer(now);
    }

    /// Has a doubt asked about once more half-way, should the first question get lost.
    pub(super) fn await_answer(&mut self, now: Instant) {
        self.asked = Some(now);
        self.ask_at = Some(now + DOUBT / 2);
    }

    /// Returns whether all that is said of it was heard after a moment, so that nothing is to be asked.
    pub(super) fn is_confirmed(&self, since: Instant, hosts: &BTreeMap<Name, Host>) -> bool {
        let is_heard = |one: &Location| {
            let host = hosts.get(&one.target);
            one.refresh.heard > since && host.is_some_and(|host| host.is_heard(since))
        };
        self.is_told() && self.locations().all(is_heard)
    }

    /// Leaves a question to somebody else who has asked it on an interface; returns false where we have
    /// to ask. When the last one that was left had no answer we ask: anybody can ask so that only we
    /// hear it.
    pub(super) fn is_left_to_others(
        &mut self,
        interface: &str,
        hosts: &BTreeMap<Name, Host>,
        now: Instant,
    ) -> bool {
        let mut told = self.told.iter();
        let is_left = told.all(|one| one.interface.as_deref() == Some(interface))
            && self.left.is_none_or(|left| self.is_confirmed(left, hosts));
        if is_left {
            self.left = Some(now);
        }
        is_left
    }

    /// Notes that it is asked about.
    pub(super) fn note_asked(&mut self) {
        self.left = None;
    }

    /// Forgets what is over; returns whether there was any.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let mut ended = Vec::new();
        for service in self.services.values_mut() {
            let before = ended.len();
            let over = |location: &mut Location| location.expires <= now;
            let over = service.locations.extract_if(.., over);
            ended.extend(over.map(|location| location.is_taken_back));
            if ended.len() != before {
                let locations = &service.locations;
                service
                    .descriptions
                    .retain(|(by, _)| locations.iter().any(|one| one.source == *by));
            }
        }
        if !ended.is_empty() {
            self.is_silent = ended.contains(&false);
        }
        !ended.is_empty() || self.is_over(now)
    }

    /// Returns whether nothing is left of it.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        let located = self.locations().next().is_some();
        !located && (self.is_told() || now >= self.first_seen + INCOMPLETE)
    }

    /// Returns the hosts that it is said to be on.
    pub(super) fn targets(&self) -> BTreeSet<&Name> {
        self.locations().map(|one| &one.target).collect()
    }

    /// Returns the hosts that it is not said to be on any more since this was asked last.
    pub(super) fn take_left_hosts(&mut self) -> BTreeSet<Name> {
        let present = self.targets().into_iter().cloned().collect();
        let left = self.hosts.difference(&present).cloned().collect();
        self.hosts = present;
        left
    }

    /// Returns all hosts that have noted it.
    pub(super) fn into_hosts(self) -> BTreeSet<Name> {
        self.hosts
    }

    /// Another run under our id is a clone, which the roster must hear of.
    pub(super) fn is_claim_of(&self, own_id: &ClusterId, own_boot: &str) -> bool {
        let record = self.record();
        let own = match record.and_then(|record| record.cluster_id.as_ref()) {
            Some(id) => id == own_id,
            None => self.instance.eq_ignore_ascii_case(own_id.as_str()),
        };
        let boot = record.and_then(|record| record.boot.as_deref());
        own && boot.is_none_or(|boot| boot == own_boot)
    }

    /// Returns whether something is to be asked now: unless it was heard after the moment that is
    /// returned.
    pub(super) fn question_due(&mut self, now: Instant) -> Option<Instant> {
        let is_told = self.is_told();
        let mut is_due = is_told && self.refresh(now);
        if self.ask_at.is_some_and(|due| due <= now) {
            self.ask_at = None;
            if !is_told {
                self.missing += 1;
                self.ask_at = MISSING.get(self.missing).map(|wait| now + *wait);
            }
            is_due = true;
        }
        is_due.then(|| self.asked.unwrap_or(now))
    }

    /// Returns whether a location is to be asked for again. One question is for all of them.
    fn refresh(&mut self, now: Instant) -> bool {
        if self.next_refresh().is_none_or(|due| due > now) {
            return false;
        }
        let services = self.services.values_mut();
        for location in services.flat_map(|service| &mut service.locations) {
            location.refresh.pass(now + location.ttl.mul_f64(SPREAD));
        }
        let asks = self.asked.is_none_or(|asked| asked + ASK_PAUSE <= now);
        if asks {
            self.asked = Some(now);
        }
        asks
    }

    fn next_refresh(&self) -> Option<Instant> {
        self.locations().filter_map(|one| one.refresh.due).min()
    }

    /// Asks for everything that makes it reachable.
    pub(super) fn questions(&self, key: &str, types: &[Name]) -> Vec<Question> {
        let ask = |name: &Name, kind| Question {
            name: name.clone(),
            kind,
            unicast: false,
        };
        let mut questions = Vec::new();
        for (index, service) in &self.services {
            let Some(name) = types.get(*index).and_then(|name| Name::under(key, name)) else {
                continue;
            };
            questions.push(ask(&name, kind::SRV));
            if service.descriptions.is_empty() {
                questions.push(ask(&name, kind::TXT));
            }
        }
        for target in self.targets() {
            questions.extend(host::questions(target));
        }
        questions
    }

    /// Returns what is said now and was not said before.
    pub(super) fn news(
        &mut self,
        hosts: &BTreeMap<Name, Host>,
        links: &Links,
        now: Instant,
    ) -> Vec<Event> {
        let sightings = self.sightings(hosts, links);
        if self.is_told() == sightings.is_empty() {
            // It became reachable, or is not any more: from now on other things are asked for.
            self.ask_at = None;
            self.missing = 0;
        }
        if sightings.is_empty() && self.missing == 0 {
            self.ask_at = Some(now);
        }
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
            self.repeat_at = now + self.repeat_after();
        }
        events
    }

    /// Repeats what still stands and was not said for a while.
    pub(super) fn repeat(&mut self, now: Instant) -> Vec<Event> {
        if self.repeat_at > now {
            return Vec::new();
        }
        self.repeat_at = now + self.repeat_after();
        self.told.iter().cloned().map(Event::Seen).collect()
    }

    /// Returns what is to be said when it is gone.
    pub(super) fn farewell(&self) -> Option<Event> {
        self.is_told().then(|| gone(&self.instance))
    }

    /// Returns whether it is known and has ended without a goodbye of its owner.
    pub(super) fn is_lost(&self) -> bool {
        self.is_known && self.is_told() && self.is_silent
    }

    pub(super) fn next_timer(&self) -> Option<Instant> {
        let end = self.locations().map(|location| location.expires).min();
        let incomplete = (end.is_none()).then_some(self.first_seen + INCOMPLETE);
        let repeat = self.is_told().then_some(self.repeat_at);
        let refresh = self.next_refresh().filter(|_| self.is_told());
        [end, incomplete, repeat, refresh, self.ask_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// See [`super::Neighbours::known_answers`].
    pub(super) fn known_answers(&self, now: Instant) -> Vec<(usize, String, u32)> {
        let rows = self.services.iter().filter_map(|(index, service)| {
            let best = service.locations.iter().max_by_key(|one| one.expires)?;
            let rest = best.expires.saturating_duration_since(now);
            let seconds = u32::try_from(rest.as_secs()).unwrap_or(u32::MAX);
            (rest > best.ttl / 2).then(|| (*index, self.instance.clone(), seconds))
        });
        rows.collect()
    }

    fn is_told(&self) -> bool {
        !self.told.is_empty()
    }

    fn repeat_after(&self) -> Duration {
        REPEAT.min(self.ttl() / 2).max(Duration::from_secs(1))
    }

    /// For how long it holds, as its owner says.
    fn ttl(&self) -> Duration {
        let ttl = self.locations().map(|location| location.ttl).max();
        ttl.unwrap_or(REPEAT)
    }

    fn locations(&self) -> impl Iterator<Item = &Location> {
        self.services
            .values()
            .flat_map(|service| &service.locations)
    }

    /// What the first one says that describes the cluster that it is named by, or any cluster.
    fn record(&self) -> Option<&Record> {
        let all = || self.services.values().flat_map(|one| &one.descriptions);
        let named = all().find(|(_, record)| is_named_by(&self.instance, record));
        named.or_else(|| all().next()).map(|(_, record)| record)
    }

    /// Returns whether nothing is missing, or what is missing was asked for in vain.
    fn is_complete(&self) -> bool {
        let told = self.told.first();
        let told_without = told.is_some_and(|one| one.cluster_id.is_none() && one.boot.is_none());
        let is_described = self.record().is_some() || self.missing > 1 || told_without;
        self.locations().next().is_some() && is_described
    }

    /// Describes the advertisement, once for each interface that it is heard on.
    fn sightings(&self, hosts: &BTreeMap<Name, Host>, links: &Links) -> Vec<Sighting> {
        if !self.is_complete() {
            return Vec::new();
        }
        let record = self.record().cloned().unwrap_or_default();
        self.places(hosts, links)
            .into_iter()
            .map(|(interface, endpoints)| Sighting {
                source: DiscoveryType::Lan,
                instance: self.instance.clone(),
                cluster_id: record.cluster_id.clone(),
                name: record.name.clone(),
                boot: record.boot.clone(),
                endpoints,
                interface: Some(interface.to_owned()),
                search_domain: None,
                vouchers: Vec::new(),
                ttl: self.ttl(),
            })
            .collect()
    }

    /// Returns where it is said to be, by interface, the most promising places first: it spoke from
    /// there, while anybody can name many addresses. A link-local one is no more than a last resort.
    fn places<'a>(
        &self,
        hosts: &BTreeMap<Name, Host>,
        links: &'a Links,
    ) -> BTreeMap<&'a str, Vec<SocketAddr>> {
        let mut named: BTreeMap<&str, BTreeMap<SocketAddr, bool>> = BTreeMap::new();
        for location in self.locations() {
            let addresses = hosts.get(&location.target).into_iter();
            for (index, address) in addresses.flat_map(Host::addresses) {
                if let Some((name, link)) = links.numbered(index)
                    && link.reaches(address)
                {
                    let place = socket_address(address, location.port, index);
                    let places = named.entry(name).or_default();
                    *places.entry(place).or_default() |= location.source == address;
                }
            }
        }
        let sorted = named.into_iter().map(|(name, places)| {
            let mut places: Vec<(SocketAddr, bool)> = places.into_iter().collect();
            places.sort_by_key(|(_, spoke)| !spoke);
            places.truncate(PLACES);
            places.sort_by_key(|(place, _)| is_link_local(place.ip()));
            (name, places.into_iter().map(|(place, _)| place).collect())
        });
        sorted.collect()
    }
}
