//! When a roster looks at its entries, and whom it tells first.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use super::{Entry, Key, Roster, room::crowd_of};
use crate::engine::sighting::{CROWD, CROWD_PAUSE};

/// How many addresses are remembered for their strangers. With one more all are forgotten.
const TRIED_ADDRESSES: usize = 4096;

impl Roster {
    /// Tells at once what nothing else depends on, and notes when the entry is to be looked at.
    pub(super) fn touch(&mut self, key: &Key) {
        let time = self.clock.elapsed();
        let is_due = |entry: &Entry| entry.told_due(&self.bounds).is_some_and(|due| due <= time);
        let Some(entry) = self.entries.get(key) else {
            return;
        };
        if is_due(entry) && !entry.is_over() && !self.is_paced(key, entry) {
            self.tell(key);
        }
        if let Some(due) = self
            .entries
            .get(key)
            .and_then(|entry| self.due_of(key, entry))
        {
            self.due = Some(self.due.map_or(due, |present| present.min(due)));
        }
    }

    /// Returns when time alone changes something about an entry.
    fn due_of(&self, key: &Key, entry: &Entry) -> Option<Duration> {
        let told = entry.told_due(&self.bounds).map(|due| {
            if self.is_paced(key, entry) {
                due.max(self.pace.next())
            } else {
                due
            }
        });
        let over = entry.is_over().then_some(Duration::ZERO);
        [told, entry.next_expiry(), entry.retry_at, over]
            .into_iter()
            .flatten()
            .min()
    }

    /// Expires what is over, then tells what is due, when it is time to look at all of it.
    pub(super) fn settle(&mut self) {
        let time = self.clock.elapsed();
        if self.due.is_none_or(|due| due > time) {
            return;
        }
        if let Some(rest) = self.rest.filter(|rest| time < *rest) {
            self.due = Some(rest);
            return;
        }
        self.rest = (self.entries.len() > CROWD).then(|| time + CROWD_PAUSE);
        let mut over = Vec::new();
        let mut due = Vec::new();
        for (key, entry) in &mut self.entries {
            entry.expire(time);
            if entry.is_over() {
                over.push(key.clone());
            } else if entry.told_due(&self.bounds).is_some_and(|due| due <= time) {
                let is_known = matches!(key, Key::Cluster(id) if self.known.contains(id));
                if entry.is_told() || entry.is_listed() || is_known {
                    due.push(key.clone());
                }
            }
        }
        for key in over {
            self.remove(&key);
        }
        for key in due {
            self.tell(&key);
        }
        self.tell_strangers(time);
        let entries = self.entries.iter();
        self.due = entries
            .filter_map(|(key, entry)| self.due_of(key, entry))
            .min();
    }

    /// Tells strangers as fast as the pace allows.
    fn tell_strangers(&mut self, time: Duration) {
        while self.pace.next() <= time {
            let Some(key) = self.next_stranger(time) else {
                return;
            };
            self.pace.take(time);
            self.note_try(&key);
            self.tell(&key);
        }
    }

    /// Returns which stranger is told next: one at an address whose strangers were told least, be
    /// they still there or not, so that a flood waits behind the others.
    fn next_stranger(&self, time: Duration) -> Option<Key> {
        let is_due = |entry: &Entry| entry.told_due(&self.bounds).is_some_and(|due| due <= time);
        let waiting = self
            .entries
            .iter()
            .filter(|(key, entry)| is_due(entry) && self.is_paced(key, entry));
        let ranked = waiting.map(|(key, entry)| {
            let tries = crowd_of(entry, &self.tries);
            (tries, entry.first_seen, key)
        });
        ranked.min().map(|(_, _, key)| key.clone())
    }

    fn note_try(&mut self, key: &Key) {
        let Some(entry) = self.entries.get(key) else {
            return;
        };
        let addresses: BTreeSet<IpAddr> = entry.addresses().collect();
        if self.tries.len() + addresses.len() > TRIED_ADDRESSES {
            self.tries.clear();
        }
        for address in addresses {
            let tries = self.tries.entry(address).or_default();
            *tries = tries.saturating_add(1);
        }
    }

    fn tell(&mut self, key: &Key) {
        let time = self.clock.elapsed();
        let entry = self.entries.get_mut(key);
        if let Some(change) = entry.and_then(|entry| entry.tell(key, &self.bounds, time)) {
            self.changes.push_back(change);
        }
    }
}
