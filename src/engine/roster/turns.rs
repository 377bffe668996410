//! Whose turn it is to be asked for a proof, when more wait than can be asked at the same time.
//!
//! Whoever floods a LAN with clusters that never answer waits behind those at whose address nobody
//! else has failed.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{Candidate, Key};

/// How many addresses are remembered for their failures.
const ADDRESSES: usize = 4096;
/// How many that are known or proven are asked at a time while strangers wait.
const FAMILIAR: usize = 4;
/// How many that have failed before are asked at a time while others wait: a domain may list hundreds
/// of machines that are off, and each of them is due again all the time.
const SILENT: usize = 2;

/// The candidates that wait. There are never more than the roster has, since each waits once.
#[derive(Debug, Default)]
pub struct Turns {
    waiting: BTreeMap<Key, Waiting>,
    running: BTreeMap<Key, Running>,
    failures: BTreeMap<IpAddr, Failures>,
    arrivals: u64,
}

/// The proofs that were not had at an address.
#[derive(Debug)]
struct Failures {
    count: u32,
    /// Whose they were, as long as there is only one.
    only: Option<Key>,
}

#[derive(Debug)]
struct Running {
    addresses: Vec<IpAddr>,
    /// Whether it is known or proven.
    is_familiar: bool,
    /// Whether it has failed before.
    has_failed: bool,
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

    /// Returns whose turn it is: those who are known or proven first, unless four of them are being
    /// asked, then those who have not failed yet, if two who have are being asked, then those at the
    /// addresses at which others have failed least, then those who wait longest. Nobody is asked twice
    /// at the same time.
    pub fn pop(&mut self, known: &BTreeSet<crate::api::ClusterId>) -> Option<Candidate> {
        let is_familiar = |candidate: &Candidate| {
            let id = candidate.cluster_id.as_ref();
            candidate.proven || id.is_some_and(|id| known.contains(id))
        };
        let familiar = self.running.values().filter(|one| one.is_familiar).count();
        let strangers_first = familiar >= FAMILIAR;
        let silent = self.running.values().filter(|one| one.has_failed).count();
        let silent_last = silent >= SILENT;
        let key = self
            .waiting
            .iter()
            .filter(|(key, _)| !self.running.contains_key(key))
            .min_by_key(|(key, waiting)| {
                let later = is_familiar(&waiting.candidate) == strangers_first;
                let silent = silent_last && self.has_failed(key, &waiting.candidate);
                let crowd = self.crowd(key, &waiting.candidate);
                (later, silent, crowd, waiting.arrival)
            })
            .map(|(key, _)| key.clone())?;
        let candidate = self.waiting.remove(&key)?.candidate;
        let running = Running {
            addresses: addresses(&candidate),
            is_familiar: is_familiar(&candidate),
            has_failed: self.has_failed(&key, &candidate),
        };
        self.running.insert(key, running);
        Some(candidate)
    }

    /// Takes note that a candidate was asked, and whether it has proven its key.
    pub fn done(&mut self, key: &Key, proven: bool) {
        let addresses = self.running.remove(key).map(|running| running.addresses);
        for address in addresses.unwrap_or_default() {
            if proven {
                self.failures.remove(&address);
                continue;
            }
            if self.failures.len() >= ADDRESSES {
                self.failures.clear();
            }
            let failures = self.failures.entry(address).or_insert_with(|| Failures {
                count: 0,
                only: Some(key.clone()),
            });
            failures.count = failures.count.saturating_add(1);
            failures.only = failures.only.take().filter(|only| only == key);
        }
    }

    /// Returns how many are being asked.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Whether a candidate has failed where nobody else has.
    fn has_failed(&self, key: &Key, candidate: &Candidate) -> bool {
        let failures = |address| self.failures.get(&address);
        addresses(candidate)
            .into_iter()
            .filter_map(failures)
            .any(|failures| failures.only.as_ref() == Some(key))
    }

    /// How often others have failed at the best address of a candidate, with those that are tried
    /// right now. Its own failures do not count: who was busy once must not wait behind a flood.
    fn crowd(&self, key: &Key, candidate: &Candidate) -> usize {
        let crowds = addresses(candidate).into_iter().map(|address| {
            let failures = self.failures.get(&address);
            let of_others = failures.filter(|failures| failures.only.as_ref() != Some(key));
            let failed = of_others.map_or(0, |failures| failures.count);
            let tried = self.running.values();
            let tried = tried.filter(|one| one.addresses.contains(&address));
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
    fn who_has_failed_alone_at_its_address_does_not_wait_behind_a_flood() {
        let mut turns = Turns::default();
        for _ in 0..3 {
            turns.push(candidate(100, 9));
            assert_eq!(next(&mut turns), Some(id(100)));
            turns.done(&Key::Cluster(id(100)), false);
        }
        for number in 0..4 {
            turns.push(candidate(
                number,
                60 + u8::try_from(number % 2).expect("small"),
            ));
        }
        for _ in 0..2 {
            let key = next(&mut turns).expect("one of the flood");
            turns.done(&Key::Cluster(key), false);
        }
        turns.push(candidate(100, 9));
        assert_eq!(next(&mut turns), Some(id(100)));
        turns.done(&Key::Cluster(id(100)), false);
        // Who comes to the address of failures waits for all others.
        turns.push(candidate(101, 9));
        turns.push(candidate(100, 9));
        let order: Vec<_> = std::iter::from_fn(|| next(&mut turns)).collect();
        assert_eq!(order.last(), Some(&id(101)), "{order:?}");
    }

    #[test]
    fn a_newcomer_does_not_wait_for_those_who_are_always_silent() {
        let mut turns = Turns::default();
        for number in 0..20 {
            turns.push(candidate(number, u8::try_from(number).expect("small")));
            assert_eq!(next(&mut turns), Some(id(number)));
            turns.done(&Key::Cluster(id(number)), false);
        }
        for number in 0..20 {
            turns.push(candidate(number, u8::try_from(number).expect("small")));
        }
        let asked: Vec<_> = (0..8).filter_map(|_| next(&mut turns)).collect();
        assert_eq!(asked.len(), 8, "as long as nobody else waits");
        turns.push(candidate(100, 100));
        turns.done(&Key::Cluster(id(0)), false);
        assert_eq!(next(&mut turns), Some(id(100)));
        // Nor do they wait for newcomers alone.
        for number in 1..7 {
            turns.done(&Key::Cluster(id(number)), false);
        }
        turns.push(candidate(101, 101));
        let order: Vec<_> = (0..2).filter_map(|_| next(&mut turns)).collect();
        assert_eq!(order, [id(8), id(101)]);
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

    #[test]
    fn the_known_leave_half_of_the_places_to_strangers_while_any_wait() {
        let mut turns = Turns::default();
        let known: BTreeSet<ClusterId> = (0..10).map(id).collect();
        let pop = |turns: &mut Turns| turns.pop(&known)?.cluster_id;
        for number in 0..10 {
            turns.push(candidate(number, 1));
        }
        turns.push(candidate(100, 9));
        let order: Vec<_> = (0..6).filter_map(|_| pop(&mut turns)).collect();
        assert_eq!(order[4..], [id(100), id(4)], "{order:?}");
        turns.push(candidate(101, 9));
        turns.done(&Key::Cluster(id(0)), true);
        turns.done(&Key::Cluster(id(1)), true);
        assert_eq!(pop(&mut turns), Some(id(5)), "three of them are asked");
        assert_eq!(pop(&mut turns), Some(id(101)));
    }
}
