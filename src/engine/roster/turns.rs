//! Whose turn it is to be asked for a proof, when more wait than can be asked at the same time.
//!
//! Whoever floods a LAN with clusters that never answer waits behind those who have failed less.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{Candidate, Key};

/// How many addresses are remembered for their failures.
const ADDRESSES: usize = 4096;

/// The candidates that wait. There are never more than the roster has, since each waits once.
#[derive(Debug, Default)]
pub struct Turns {
    waiting: BTreeMap<Key, Waiting>,
    running: BTreeMap<Key, Vec<IpAddr>>,
    failures: BTreeMap<IpAddr, u32>,
    arrivals: u64,
}

#[derive(Debug)]
struct Waiting {
    arrival: u64,
    candidate: Candidate,
}

impl Turns {
    /// Lets a candidate wait, in the place that it has already if it has one.
    pub fn push(&mut self, candidate: Candidate) {
        self.arrivals += 1;
        let arrival = self
            .waiting
            .get(&candidate.key)
            .map_or(self.arrivals, |present| present.arrival);
        let waiting = Waiting { arrival, candidate };
        self.waiting.insert(waiting.candidate.key.clone(), waiting);
    }

    /// Forgets a candidate that is gone.
    pub fn remove(&mut self, key: &Key) {
        self.waiting.remove(key);
    }

    /// Returns whose turn it is: those who are known or proven first, then those at the addresses
    /// that have failed least, then those who wait longest. Nobody is asked twice at the same time.
    pub fn pop(&mut self, known: &BTreeSet<crate::api::ClusterId>) -> Option<Candidate> {
        let key = self
            .waiting
            .iter()
            .filter(|(key, _)| !self.running.contains_key(key))
            .min_by_key(|(_, waiting)| {
                let id = waiting.candidate.cluster_id.as_ref();
                let first = waiting.candidate.proven || id.is_some_and(|id| known.contains(id));
                (!first, self.crowd(&waiting.candidate), waiting.arrival)
            })
            .map(|(key, _)| key.clone())?;
        let candidate = self.waiting.remove(&key)?.candidate;
        self.running.insert(key, addresses(&candidate));
        Some(candidate)
    }

    /// Takes note that a candidate was asked, and whether it has proven its key.
    pub fn done(&mut self, key: &Key, proven: bool) {
        for address in self.running.remove(key).unwrap_or_default() {
            if proven {
                self.failures.remove(&address);
                continue;
            }
            if self.failures.len() >= ADDRESSES {
                self.failures.clear();
            }
            let count = self.failures.entry(address).or_default();
            *count = count.saturating_add(1);
        }
    }

    /// Returns how many are being asked.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// How often the best address of a candidate has failed, with those that are tried right now.
    fn crowd(&self, candidate: &Candidate) -> usize {
        let crowds = addresses(candidate).into_iter().map(|address| {
            let failed = self.failures.get(&address).copied().unwrap_or_default();
            let tried = self.running.values().filter(|all| all.contains(&address));
            usize::try_from(failed).unwrap_or(usize::MAX) + tried.count()
        });
        crowds.min().unwrap_or_default()
    }
}

fn addresses(candidate: &Candidate) -> Vec<IpAddr> {
    let all: BTreeSet<IpAddr> = candidate
        .endpoints
        .iter()
        .map(|endpoint| endpoint.address.ip())
        .collect();
    all.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, time::Duration};

    use jiff::Timestamp;

    use super::*;
    use crate::{
        api::{ClusterId, ClusterName, foreign_cluster::DiscoveryType},
        engine::roster::Endpoint,
    };

    fn id(number: u32) -> ClusterId {
        format!("cluster-{number}").parse().expect("a label")
    }

    fn candidate(number: u32, last: u8) -> Candidate {
        Candidate {
            key: Key::Cluster(id(number)),
            cluster_id: Some(id(number)),
            name: ClusterName::default(),
            boot: None,
            endpoints: vec![Endpoint {
                address: SocketAddr::from(([10, 0, 0, last], 5870)),
                source: DiscoveryType::Lan,
                interface: None,
                first_seen: Timestamp::UNIX_EPOCH,
            }],
            instances: Vec::new(),
            search_domains: Vec::new(),
            vouchers: Vec::new(),
            ttl: Duration::from_secs(90),
            proven: false,
        }
    }

    fn next(turns: &mut Turns) -> Option<ClusterId> {
        turns.pop(&BTreeSet::new())?.cluster_id
    }

    #[test]
    fn whoever_waits_longest_goes_first_and_nobody_goes_twice() {
        let mut turns = Turns::default();
        for number in [3, 1, 2, 1] {
            turns.push(candidate(number, u8::try_from(number).expect("small")));
        }
        let order: Vec<_> = std::iter::from_fn(|| next(&mut turns)).collect();
        assert_eq!(order, [id(3), id(1), id(2)]);
        turns.push(candidate(1, 1));
        assert_eq!((next(&mut turns), turns.running()), (None, 3));
        turns.done(&Key::Cluster(id(1)), false);
        assert_eq!(next(&mut turns), Some(id(1)));
    }

    #[test]
    fn a_newcomer_goes_before_a_flood_that_never_answers() {
        let mut turns = Turns::default();
        for number in 0..8 {
            turns.push(candidate(number, 66));
        }
        assert_eq!(next(&mut turns), Some(id(0)));
        turns.push(candidate(100, 9));
        assert_eq!(next(&mut turns), Some(id(100)), "66 is being tried");
        turns.done(&Key::Cluster(id(0)), false);
        turns.done(&Key::Cluster(id(100)), false);
        turns.push(candidate(101, 10));
        assert_eq!(next(&mut turns), Some(id(101)));
    }

    #[test]
    fn the_known_go_before_all_others_and_who_is_gone_does_not_wait() {
        let mut turns = Turns::default();
        for number in 0..3 {
            turns.push(candidate(number, 1));
        }
        turns.remove(&Key::Cluster(id(0)));
        let known = BTreeSet::from([id(2)]);
        let order: Vec<_> = std::iter::from_fn(|| turns.pop(&known)?.cluster_id).collect();
        assert_eq!(order, [id(2), id(1)]);
    }
}
