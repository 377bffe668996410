//! Which clusters are said to be out there: the one machine that turns sightings and time into
//! candidates that appear, change and expire.
//!
//! Everything in a sighting is a claim by a stranger, so the machine is bounded in memory and in
//! how fast it speaks, and what nobody has proven makes room for what somebody has.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use jiff::Timestamp;

use crate::{
    api::{foreign_cluster::DiscoveryType, identity::ClusterId},
    engine::sighting::{Event, Sighting},
};

mod candidate;
mod clock;
mod entry;
mod room;
mod telling;
mod turns;

pub use candidate::{Candidate, Change, Endpoint, Key};
use clock::{Clock, Pace};
use entry::{Entry, HintKey};
pub use turns::Turns;

/// How much a roster holds and how fast it speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    /// The most candidates at a time that were heard on a LAN.
    pub candidates: usize,
    /// The most candidates at a time that are listed in a domain.
    pub listed: usize,
    /// The most unproven candidates that share their least crowded address.
    pub candidates_per_address: usize,
    /// The most candidates of a LAN, where anybody can name any, that appear in a second, and at once
    /// after a pause. What is listed in a domain is bounded by whoever reads the domain.
    pub new_per_second: u32,
    /// For how long further changes are collected before they are told. The first sighting of a
    /// candidate is told at once, unless it names link-local addresses only.
    pub debounce: Duration,
    /// For how long a withdrawn advertisement is kept, in case it comes back or was forged.
    pub damping: Duration,
    /// The shortest time between two changes of a candidate that is not proven.
    pub unproven_pause: Duration,
    /// The shortest time between two changes of a proven candidate: after a while without any it is
    /// none, then the first of these, and it doubles up to the second.
    pub proven_pause: (Duration, Duration),
    /// The first wait after a failed proof, and the longest.
    pub retry: (Duration, Duration),
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            candidates: 1024,
            listed: 16_384,
            candidates_per_address: 16,
            new_per_second: 20,
            debounce: Duration::from_millis(75),
            damping: Duration::from_secs(1),
            unproven_pause: Duration::from_secs(1),
            proven_pause: (Duration::from_secs(1), Duration::from_secs(30)),
            retry: (Duration::from_secs(1), Duration::from_mins(1)),
        }
    }
}

/// The machine. Each `handle_` method may have changes ready: call [`Roster::poll_change`] until it
/// returns nothing, then wait until [`Roster::poll_timeout`] or the next event.
#[derive(Debug)]
pub struct Roster {
    own_id: ClusterId,
    own_boot: String,
    bounds: Bounds,
    clock: Clock,
    pace: Pace,
    known: BTreeSet<ClusterId>,
    entries: BTreeMap<Key, Entry>,
    /// How often a stranger at an address was told since one there has proven itself.
    tries: BTreeMap<IpAddr, u32>,
    changes: VecDeque<Change>,
    duplicate_told: Option<Duration>,
    refused: u64,
    /// When all entries are to be looked at, at the latest: every change of one brings it forward.
    due: Option<Duration>,
    /// Until when a crowd is left alone.
    rest: Option<Duration>,
}

/// How often a duplicate of ourselves is told.
const DUPLICATE_PAUSE: Duration = Duration::from_secs(10);

impl Roster {
    /// Starts an empty roster of a cluster that advertises itself as `own_id` and `own_boot`.
    pub fn new(own_id: ClusterId, own_boot: String, bounds: Bounds) -> Self {
        Self {
            own_id,
            own_boot,
            clock: Clock::default(),
            pace: Pace::new(bounds.new_per_second),
            bounds,
            known: BTreeSet::new(),
            entries: BTreeMap::new(),
            tries: BTreeMap::new(),
            changes: VecDeque::new(),
            duplicate_told: None,
            refused: 0,
            due: None,
            rest: None,
        }
    }

    /// Returns the names of the advertisements of a cluster on a LAN.
    pub fn advertisements(&self, id: &ClusterId) -> Vec<String> {
        self.entries
            .get(&Key::Cluster(id.clone()))
            .map(|entry| entry.advertisements(DiscoveryType::Lan))
            .unwrap_or_default()
    }

    /// Returns whether a cluster is said to be out there.
    pub fn holds(&self, id: &ClusterId) -> bool {
        self.entries.contains_key(&Key::Cluster(id.clone()))
    }

    /// Takes the ids that are known already: they come first and are never turned away.
    pub fn set_known(&mut self, ids: BTreeSet<ClusterId>) {
        self.known = ids;
        self.due = Some(self.clock.elapsed());
    }

    /// Takes what a source reports.
    pub fn handle_event(&mut self, event: Event, now: Timestamp) {
        self.clock.observe(now);
        match event {
            Event::Seen(sighting) if self.is_own(&sighting) => {
                self.check_duplicate(&sighting, now);
            }
            Event::Seen(sighting) if sighting.endpoints.is_empty() => {
                let key = HintKey::of(&sighting);
                self.withdraw(sighting.source, |hint| *hint == key);
            }
            Event::Seen(sighting) => self.see(&sighting, now),
            Event::Gone { source, instance } => {
                self.withdraw(source, |hint| hint.is_of(source, &instance));
            }
        }
        self.settle();
    }

    /// Takes the result of a handshake with an endpoint of a candidate: the id that the key gave, or
    /// nothing. `jitter`, between 0 and 1, spreads the next try.
    pub fn handle_proof(
        &mut self,
        key: &Key,
        endpoint: SocketAddr,
        proof: Option<&ClusterId>,
        jitter: f64,
        now: Timestamp,
    ) {
        self.clock.observe(now);
        match (key, proof) {
            (Key::Instance { .. }, Some(id)) if *id == self.own_id => self.remove(key),
            (Key::Instance { .. }, Some(id)) => {
                let adopted = Key::Cluster(id.clone());
                self.adopt(key, &adopted);
                self.note_proof(&adopted, endpoint, true, jitter);
            }
            (Key::Cluster(claimed), Some(id)) => {
                self.note_proof(key, endpoint, claimed == id, jitter);
                if claimed != id {
                    self.let_go(key, endpoint);
                }
            }
            (_, None) => self.note_proof(key, endpoint, false, jitter),
        }
        self.settle();
    }

    /// Takes note that what was made of a cluster is gone: it appears anew if it is still there.
    pub fn handle_forgotten(&mut self, id: &ClusterId, now: Timestamp) {
        self.clock.observe(now);
        let time = self.clock.elapsed();
        let key = Key::Cluster(id.clone());
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.forget_told();
            entry.mark_changed(time);
        }
        self.touch(&key);
        self.settle();
    }

    /// Does what time alone brings about.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.clock.observe(now);
        self.settle();
    }

    /// Returns the next change, in the order in which they came about.
    pub fn poll_change(&mut self) -> Option<Change> {
        self.changes.pop_front()
    }

    /// Returns when [`Roster::handle_timeout`] is to be called, if at all.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.due.map(|due| self.clock.timestamp(due))
    }

    /// Returns how many sightings were turned away because there was no room.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Returns how many candidates are held, told or not.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether no candidate is held.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn is_own(&self, sighting: &Sighting) -> bool {
        match &sighting.cluster_id {
            Some(id) => *id == self.own_id,
            None => sighting.instance == self.own_id.as_str(),
        }
    }

    fn is_known(&self, key: &Key) -> bool {
        matches!(key, Key::Cluster(id) if self.known.contains(id))
    }

    /// Returns whether an entry waits for its turn among strangers.
    fn is_paced(&self, key: &Key, entry: &Entry) -> bool {
        !entry.is_told() && !self.is_unpaced(key, entry)
    }

    /// Returns whether the pace for strangers does not count: it is known, or listed in a domain.
    fn is_unpaced(&self, key: &Key, entry: &Entry) -> bool {
        self.is_known(key) || entry.is_listed()
    }

    fn check_duplicate(&mut self, sighting: &Sighting, now: Timestamp) {
        let foreign = sighting
            .boot
            .as_ref()
            .is_some_and(|boot| *boot != self.own_boot);
        let recent = self
            .duplicate_told
            .is_some_and(|told| self.clock.elapsed() < told + DUPLICATE_PAUSE);
        if !foreign || recent || sighting.endpoints.is_empty() {
            return;
        }
        self.duplicate_told = Some(self.clock.elapsed());
        let mut entry = Entry::new(self.clock.elapsed(), &self.bounds);
        entry.see(sighting, now, self.clock.elapsed());
        let key = Key::Cluster(self.own_id.clone());
        self.changes
            .push_back(Change::Duplicate(entry.candidate(&key)));
    }

    fn see(&mut self, sighting: &Sighting, now: Timestamp) {
        let key = self.key_of(sighting);
        let instance = Key::Instance {
            source: sighting.source,
            instance: sighting.instance.clone(),
        };
        if key != instance && self.entries.contains_key(&instance) {
            self.adopt(&instance, &key);
        }
        if !self.entries.contains_key(&key) && !self.make_room(&key, sighting) {
            self.refused = self.refused.saturating_add(1);
            return;
        }
        let time = self.clock.elapsed();
        let bounds = &self.bounds;
        let entry = self
            .entries
            .entry(key.clone())
            .or_insert_with(|| Entry::new(time, bounds));
        if !entry.see(sighting, now, time) {
            self.refused = self.refused.saturating_add(1);
        }
        self.touch(&key);
    }

    /// An advertisement without an id belongs to the cluster that has proven its id through it.
    fn key_of(&self, sighting: &Sighting) -> Key {
        if let Some(id) = &sighting.cluster_id {
            return Key::Cluster(id.clone());
        }
        self.entries
            .iter()
            .find(|(key, entry)| {
                matches!(key, Key::Cluster(_))
                    && entry.has_advertisement(sighting.source, &sighting.instance)
            })
            .map_or_else(
                || Key::Instance {
                    source: sighting.source,
                    instance: sighting.instance.clone(),
                },
                |(key, _)| key.clone(),
            )
    }

    /// Goes on under the id what was known by its advertisement only.
    fn adopt(&mut self, instance: &Key, cluster: &Key) {
        let Some(mut orphan) = self.entries.remove(instance) else {
            return;
        };
        if let Some(told) = orphan.forget_told() {
            self.changes.push_back(Change::Expired(told));
        }
        let time = self.clock.elapsed();
        if let Some(entry) = self.entries.get_mut(cluster) {
            entry.absorb(orphan, time);
        } else {
            orphan.mark_changed(time);
            self.entries.insert(cluster.clone(), orphan);
        }
        self.touch(cluster);
    }

    fn note_proof(&mut self, key: &Key, endpoint: SocketAddr, proven: bool, jitter: f64) {
        let time = self.clock.elapsed();
        if proven {
            self.tries.remove(&endpoint.ip());
        }
        if let Some(entry) = self.entries.get_mut(key) {
            entry.note_proof(endpoint, proven, jitter, time);
        }
        self.touch(key);
    }

    fn let_go(&mut self, key: &Key, endpoint: SocketAddr) {
        let time = self.clock.elapsed();
        if let Some(entry) = self.entries.get_mut(key) {
            entry.let_go(endpoint, time);
        }
        self.end(key);
    }

    fn withdraw(&mut self, source: DiscoveryType, concerned: impl Fn(&HintKey) -> bool) {
        // On a LAN the advertiser was waited for already.
        let damping = if source == DiscoveryType::Lan {
            Duration::ZERO
        } else {
            self.bounds.damping
        };
        let time = self.clock.elapsed();
        let mut withdrawn = Vec::new();
        for (key, entry) in &mut self.entries {
            if entry.withdraw(&concerned, time + damping) {
                entry.expire(time);
                withdrawn.push(key.clone());
            }
        }
        for key in withdrawn {
            self.end(&key);
        }
    }

    /// Drops an entry if nothing is left of it.
    fn end(&mut self, key: &Key) {
        if self.entries.get(key).is_some_and(Entry::is_over) {
            self.remove(key);
        } else {
            self.touch(key);
        }
    }

    fn remove(&mut self, key: &Key) {
        if let Some(told) = self
            .entries
            .remove(key)
            .and_then(|mut entry| entry.forget_told())
        {
            self.changes.push_back(Change::Expired(told));
        }
    }
}

#[cfg(test)]
mod tests;
