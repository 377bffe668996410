//! When a roster looks at its entries, and whom it tells first.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use super::{Entry, Key, Roster, room::crowd_of};

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
        let mut over = Vec::new();
        let mut due = Vec::new();
        let mut waiting = Vec::new();
        for (key, entry) in &mut self.entries {
            entry.expire(time);
            if entry.is_over() {
                over.push(key.clone());
            } else if entry.told_due(&self.bounds).is_some_and(|due| due <= time) {
                let list = if entry.is_told() {
                    &mut due
                } else {
                    &mut waiting
                };
                list.push(key.clone());
            }
        }
        for key in over {
            self.remove(&key);
        }
        for key in due {
            self.tell(&key);
        }
        self.tell_new(waiting);
        let entries = self.entries.iter();
        self.due = entries
            .filter_map(|(key, entry)| self.due_of(key, entry))
            .min();
    }

    /// Tells newcomers as fast as the pace allows: known ids at once, then those at addresses whose
    /// strangers were told least, be they still there or not, so that a flood waits behind the others.
    fn tell_new(&mut self, waiting: Vec<Key>) {
        let (known, mut strangers): (Vec<Key>, Vec<Key>) = waiting.into_iter().partition(|key| {
            self.entries
                .get(key)
                .is_none_or(|entry| self.is_unpaced(key, entry))
        });
        for key in known {
            self.tell(&key);
        }
        let time = self.clock.elapsed();
        while !strangers.is_empty() && self.pace.take(time) {
            let next = strangers
                .iter()
                .enumerate()
                .filter_map(|(index, key)| {
                    let entry = self.entries.get(key)?;
                    Some((crowd_of(entry, &self.tries), entry.first_seen, index))
                })
                .min();
            let Some((_, _, index)) = next else {
                return;
            };
            let key = strangers.swap_remove(index);
            self.note_try(&key);
            self.tell(&key);
        }
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
        if let Some(change) = self
            .entries
            .get_mut(key)
            .and_then(|entry| entry.tell(key, time))
        {
            self.changes.push_back(change);
        }
    }
}
