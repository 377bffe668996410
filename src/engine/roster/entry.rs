//! One candidate in the roster: its advertisements, what was told of it and what was proven.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use jiff::Timestamp;

use super::{Bounds, Candidate, Change, Endpoint, Key};
use crate::{
    api::{
        foreign_cluster::DiscoveryType,
        identity::{ClusterId, ClusterName},
    },
    engine::{
        addresses::is_link_local,
        backoff::Backoff,
        sighting::{Sighting, Voucher},
    },
};

/// The most advertisements of one candidate: more are forgeries or a loop.
const HINT_LIMIT: usize = 16;
/// The most endpoints of one advertisement.
const ENDPOINTS_PER_HINT: usize = 8;
/// The most endpoints that are told of one candidate.
const ENDPOINT_LIMIT: usize = 16;
/// The bounds of a time to live; the longest is that of PTR and TXT (RFC 6762, section 10).
const TTL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(75));

/// Which advertisement on which interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct HintKey {
    source: DiscoveryType,
    instance: String,
    interface: Option<String>,
    search_domain: Option<String>,
}

impl HintKey {
    pub(super) fn of(sighting: &Sighting) -> Self {
        Self {
            source: sighting.source,
            instance: sighting.instance.clone(),
            interface: sighting.interface.clone(),
            search_domain: sighting.search_domain.clone(),
        }
    }

    pub(super) fn is_of(&self, source: DiscoveryType, instance: &str) -> bool {
        self.source == source && self.instance == instance
    }
}

/// One advertisement as last seen.
#[derive(Debug)]
pub(super) struct Hint {
    name: ClusterName,
    /// Whether it names the id itself; else it belongs to whoever answers there.
    names_id: bool,
    boot: Option<String>,
    endpoints: Vec<(SocketAddr, Timestamp)>,
    vouchers: Vec<Voucher>,
    ttl: Duration,
    seen: Duration,
    expires: Duration,
    proven: bool,
    failures: u32,
}

impl Hint {
    fn is_at(&self, endpoint: SocketAddr) -> bool {
        self.endpoints
            .iter()
            .any(|(address, _)| *address == endpoint)
    }
}

/// One candidate.
#[derive(Debug)]
pub(super) struct Entry {
    hints: BTreeMap<HintKey, Hint>,
    told: Option<Candidate>,
    told_at: Duration,
    changed_at: Option<Duration>,
    /// How long the next change waits after the last one, and how that goes on.
    pause: Duration,
    pauses: Backoff,
    /// Whether only IPv6 addresses are named that a URL cannot carry whole. Who announces by both
    /// protocols says the better one a moment later (RFC 8305, section 3).
    link_local_only: bool,
    backoff: Backoff,
    pub(super) retry_at: Option<Duration>,
    retry_due: bool,
    pub(super) proven: bool,
    pub(super) first_seen: Duration,
}

impl Entry {
    pub(super) fn new(time: Duration, bounds: &Bounds) -> Self {
        Self {
            hints: BTreeMap::new(),
            told: None,
            told_at: Duration::ZERO,
            changed_at: None,
            pause: Duration::ZERO,
            pauses: Backoff::new(bounds.proven_pause.0, bounds.proven_pause.1),
            link_local_only: false,
            backoff: Backoff::new(bounds.retry.0, bounds.retry.1),
            retry_at: None,
            retry_due: false,
            proven: false,
            first_seen: time,
        }
    }

    /// Takes a sighting; false when there is no room for its advertisement.
    pub(super) fn see(&mut self, sighting: &Sighting, now: Timestamp, time: Duration) -> bool {
        let key = HintKey::of(sighting);
        if !self.hints.contains_key(&key) && !self.make_room() {
            return false;
        }
        let ttl = sighting.ttl.clamp(TTL.0, TTL.1);
        let old = self.hints.get(&key);
        let first_seen = |address: &SocketAddr| {
            old.and_then(|hint| hint.endpoints.iter().find(|(known, _)| known == address))
                .map_or(now, |(_, first_seen)| *first_seen)
        };
        let mut endpoints: Vec<(SocketAddr, Timestamp)> = Vec::new();
        for address in &sighting.endpoints {
            if endpoints.len() < ENDPOINTS_PER_HINT
                && !endpoints.iter().any(|(known, _)| known == address)
            {
                endpoints.push((*address, first_seen(address)));
            }
        }
        let same = old.is_some_and(|hint| hint.endpoints == endpoints);
        let unchanged = old.is_some_and(|hint| {
            same && hint.name == sighting.name
                && hint.boot == sighting.boot
                && hint.vouchers == sighting.vouchers
                && hint.ttl == ttl
                && hint.expires > time
        });
        let (proven, failures) = old
            .filter(|_| same)
            .map_or((false, 0), |hint| (hint.proven, hint.failures));
        self.hints.insert(
            key,
            Hint {
                name: sighting.name.clone(),
                names_id: sighting.cluster_id.is_some(),
                boot: sighting.boot.clone(),
                endpoints,
                vouchers: sighting.vouchers.clone(),
                ttl,
                seen: time,
                expires: time + ttl,
                proven,
                failures,
            },
        );
        if !unchanged {
            self.mark_changed(time);
        }
        self.judge_addresses();
        true
    }

    fn make_room(&mut self) -> bool {
        if self.hints.len() < HINT_LIMIT {
            return true;
        }
        let victim = self
            .hints
            .iter()
            .filter(|(_, hint)| !hint.proven)
            .max_by_key(|(_, hint)| (hint.failures, std::cmp::Reverse(hint.seen)))
            .map(|(key, _)| key.clone());
        victim.is_some_and(|key| self.hints.remove(&key).is_some())
    }

    fn judge_addresses(&mut self) {
        let only = self.addresses().all(is_link_local);
        self.link_local_only = only;
    }

    pub(super) fn mark_changed(&mut self, time: Duration) {
        self.changed_at.get_or_insert(time);
    }

    /// Returns whether it is listed in a domain.
    pub(super) fn is_listed(&self) -> bool {
        let mut keys = self.hints.keys();
        keys.any(|key| key.source == DiscoveryType::Wan)
    }

    /// Returns the names of its advertisements from a kind of source.
    pub(super) fn advertisements(&self, source: DiscoveryType) -> Vec<String> {
        let keys = self.hints.keys().filter(|key| key.source == source);
        let names: BTreeSet<&String> = keys.map(|key| &key.instance).collect();
        names.into_iter().cloned().collect()
    }

    pub(super) fn has_advertisement(&self, source: DiscoveryType, instance: &str) -> bool {
        self.hints.keys().any(|key| key.is_of(source, instance))
    }

    /// Takes over the advertisements of a candidate that turned out to be the same cluster.
    pub(super) fn absorb(&mut self, other: Self, time: Duration) {
        for (key, hint) in other.hints {
            if self.hints.len() < HINT_LIMIT || self.hints.contains_key(&key) {
                self.hints.insert(key, hint);
            }
        }
        self.first_seen = self.first_seen.min(other.first_seen);
        self.judge_addresses();
        self.mark_changed(time);
    }

    pub(super) fn note_proof(
        &mut self,
        endpoint: SocketAddr,
        proven: bool,
        jitter: f64,
        time: Duration,
    ) {
        for hint in self.hints.values_mut().filter(|hint| hint.is_at(endpoint)) {
            hint.proven = proven;
            hint.failures = if proven {
                0
            } else {
                hint.failures.saturating_add(1)
            };
        }
        if proven {
            self.proven = true;
            self.backoff.reset();
            self.retry_at = None;
            self.retry_due = false;
        } else if self.retry_at.is_none() && !self.hints.values().any(|hint| hint.proven) {
            self.retry_at = Some(time + self.backoff.next(jitter));
        }
    }

    /// Lets go of the advertisements without an id that lead to a place where another cluster has
    /// answered: they are somebody else's when they are seen again.
    pub(super) fn let_go(&mut self, endpoint: SocketAddr, time: Duration) {
        let before = self.hints.len();
        self.hints
            .retain(|_, hint| hint.names_id || !hint.is_at(endpoint));
        if self.hints.len() != before {
            self.judge_addresses();
            self.mark_changed(time);
        }
    }

    /// Lets advertisements run out at the deadline unless they are seen again; returns whether there
    /// are any.
    pub(super) fn withdraw(
        &mut self,
        concerned: impl Fn(&HintKey) -> bool,
        deadline: Duration,
    ) -> bool {
        let mut any = false;
        for (_, hint) in self.hints.iter_mut().filter(|(key, _)| concerned(key)) {
            hint.expires = hint.expires.min(deadline);
            any = true;
        }
        any
    }

    pub(super) fn expire(&mut self, time: Duration) {
        let before = self.hints.len();
        self.hints.retain(|_, hint| hint.expires > time);
        if self.hints.len() != before {
            self.mark_changed(time);
        }
        if self.retry_at.is_some_and(|due| due <= time) {
            self.retry_at = None;
            self.retry_due = true;
        }
    }

    pub(super) fn next_expiry(&self) -> Option<Duration> {
        self.hints.values().map(|hint| hint.expires).min()
    }

    pub(super) fn is_over(&self) -> bool {
        self.hints.is_empty()
    }

    pub(super) fn is_told(&self) -> bool {
        self.told.is_some()
    }

    /// Returns whether it was told and is not proven yet.
    pub(super) fn is_unproven(&self) -> bool {
        self.is_told() && !self.proven
    }

    pub(super) fn has_failed(&self) -> bool {
        self.backoff.attempts() > 0
    }

    /// Counts as never told from now on, and returns what was told.
    pub(super) fn forget_told(&mut self) -> Option<Candidate> {
        self.pause = Duration::ZERO;
        self.told.take()
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.hints
            .values()
            .flat_map(|hint| hint.endpoints.iter().map(|(address, _)| address.ip()))
    }

    /// Returns when there is something to tell.
    pub(super) fn told_due(&self, bounds: &Bounds) -> Option<Duration> {
        if self.retry_due {
            return Some(self.told_at);
        }
        let pause = if self.is_unproven() {
            bounds.unproven_pause
        } else {
            self.pause
        };
        let debounce = if self.is_told() || self.link_local_only {
            bounds.debounce
        } else {
            Duration::ZERO
        };
        self.changed_at
            .map(|changed| (changed + debounce).max(self.told_at + pause))
    }

    /// Notes the present state as told, and returns it if it is news.
    pub(super) fn tell(&mut self, key: &Key, bounds: &Bounds, time: Duration) -> Option<Change> {
        let again = self.retry_due;
        self.retry_due = false;
        self.changed_at = None;
        let candidate = self.candidate(key);
        let told = self.told.replace(candidate.clone());
        match told {
            None => {
                self.told_at = time;
                Some(Change::Appeared(candidate))
            }
            Some(told) if again || !says_the_same(&told, &candidate) => {
                if !again {
                    self.note_change(bounds, time);
                }
                self.told_at = time;
                Some(Change::Changed(candidate))
            }
            Some(_) => None,
        }
    }

    /// Makes the next change wait longer than this one did, unless it was quiet before.
    fn note_change(&mut self, bounds: &Bounds, time: Duration) {
        if time >= self.told_at + bounds.proven_pause.1 * 2 {
            self.pauses.reset();
        }
        self.pause = self.pauses.next(1.0);
    }

    /// Describes the candidate, its most promising advertisement first.
    pub(super) fn candidate(&self, key: &Key) -> Candidate {
        let mut hints: Vec<(&HintKey, &Hint)> = self.hints.iter().collect();
        // What has not failed goes first, and of that what is nearer: a LAN before a domain.
        hints.sort_by_key(|(key, hint)| {
            let failed = hint.failures > 0;
            (failed, key.source, !hint.proven, hint.failures, *key)
        });
        let mut endpoints: Vec<Endpoint> = Vec::new();
        let mut instances: Vec<String> = Vec::new();
        let mut search_domains: Vec<String> = Vec::new();
        for (key, hint) in &hints {
            if !instances.contains(&key.instance) {
                instances.push(key.instance.clone());
            }
            if let Some(domain) = &key.search_domain
                && !search_domains.contains(domain)
            {
                search_domains.push(domain.clone());
            }
            for (address, first_seen) in &hint.endpoints {
                if endpoints.len() < ENDPOINT_LIMIT
                    && !endpoints.iter().any(|known| known.address == *address)
                {
                    endpoints.push(Endpoint {
                        address: *address,
                        source: key.source,
                        interface: key.interface.clone(),
                        first_seen: *first_seen,
                    });
                }
            }
        }
        let best = hints.first().map(|(_, hint)| *hint);
        let vouchers: BTreeSet<&Voucher> =
            hints.iter().flat_map(|(_, hint)| &hint.vouchers).collect();
        Candidate {
            cluster_id: id_of(key),
            key: key.clone(),
            name: best.map(|hint| hint.name.clone()).unwrap_or_default(),
            boot: best.and_then(|hint| hint.boot.clone()),
            endpoints,
            instances,
            search_domains,
            vouchers: vouchers.into_iter().cloned().collect(),
            ttl: hints
                .iter()
                .map(|(_, hint)| hint.ttl)
                .max()
                .unwrap_or_default(),
            proven: self.proven,
        }
    }
}

fn id_of(key: &Key) -> Option<ClusterId> {
    match key {
        Key::Cluster(id) => Some(id.clone()),
        Key::Instance { .. } => None,
    }
}

/// That a candidate is proven is known to whoever said so, and the order follows from it.
fn says_the_same(told: &Candidate, now: &Candidate) -> bool {
    told.name == now.name
        && told.boot == now.boot
        && told.ttl == now.ttl
        && told.vouchers == now.vouchers
        && told.search_domains.len() == now.search_domains.len()
        && now
            .search_domains
            .iter()
            .all(|domain| told.search_domains.contains(domain))
        && told.endpoints.len() == now.endpoints.len()
        && now
            .endpoints
            .iter()
            .all(|endpoint| told.endpoints.contains(endpoint))
}
