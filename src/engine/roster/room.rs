//! Who may stay in a roster that is full, and who makes room.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use super::{Entry, Key, Roster};
use crate::{api::foreign_cluster::DiscoveryType, engine::sighting::Sighting};

impl Roster {
    /// Says whether a newcomer may stay, and evicts another one for it if need be.
    pub(super) fn make_room(&mut self, newcomer: &Key, sighting: &Sighting) -> bool {
        if sighting.source == DiscoveryType::Wan {
            let listed = self.entries.values().filter(|entry| entry.is_listed());
            return listed.count() < self.bounds.listed;
        }
        let has_room = self.heard() < self.bounds.candidates;
        if self.is_known(newcomer) {
            return has_room || self.evict(usize::MIN, |_| true);
        }
        let crowd = sighting
            .endpoints
            .iter()
            .map(|endpoint| self.unproven_at(endpoint.ip()))
            .min()
            .unwrap_or_default();
        if crowd >= self.bounds.candidates_per_address {
            let addresses: BTreeSet<IpAddr> =
                sighting.endpoints.iter().map(SocketAddr::ip).collect();
            return self.evict(usize::MAX, |entry| {
                entry
                    .addresses()
                    .any(|address| addresses.contains(&address))
            });
        }
        has_room || self.evict(crowd, |_| true)
    }

    /// How many candidates were heard on a LAN only.
    fn heard(&self) -> usize {
        let heard = self.entries.values().filter(|entry| !entry.is_listed());
        heard.count()
    }

    /// Evicts the unproven candidate that failed, or else the one from the most crowded address if
    /// that is more crowded than `crowd`; among equals the oldest.
    fn evict(&mut self, crowd: usize, eligible: impl Fn(&Entry) -> bool) -> bool {
        let crowds = self.crowds();
        let victim = self
            .entries
            .iter()
            .filter(|(key, entry)| !entry.proven && !self.is_unpaced(key, entry) && eligible(entry))
            .map(|(key, entry)| {
                let own_crowd = crowd_of(entry, &crowds);
                let rank = (entry.has_failed(), own_crowd);
                (rank, std::cmp::Reverse(entry.first_seen), key)
            })
            .max()
            .filter(|((failed, own_crowd), _, _)| *failed || *own_crowd > crowd)
            .map(|(_, _, key)| key.clone());
        if let Some(key) = &victim {
            self.remove(key);
        }
        victim.is_some()
    }

    fn unproven_at(&self, address: IpAddr) -> usize {
        self.entries
            .values()
            .filter(|entry| !entry.proven && entry.addresses().any(|own| own == address))
            .count()
    }

    fn crowds(&self) -> BTreeMap<IpAddr, usize> {
        let mut crowds = BTreeMap::new();
        let mut addresses = Vec::new();
        for entry in self.entries.values().filter(|entry| !entry.proven) {
            addresses.clear();
            addresses.extend(entry.addresses());
            addresses.sort_unstable();
            addresses.dedup();
            for address in &addresses {
                *crowds.entry(*address).or_default() += 1;
            }
        }
        crowds
    }
}

/// Returns how crowded the least crowded address of a candidate is.
pub(super) fn crowd_of<Count: Copy + Default + Ord>(
    entry: &Entry,
    crowds: &BTreeMap<IpAddr, Count>,
) -> Count {
    entry
        .addresses()
        .map(|address| crowds.get(&address).copied().unwrap_or_default())
        .min()
        .unwrap_or_default()
}
