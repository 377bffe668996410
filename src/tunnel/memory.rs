//! A tunnel without packets: drivers that meet in a [`Fabric`], for simulations of whole clusters.
//!
//! It needs no sockets, threads or wall clock. An echo comes back exactly when real packets would:
//! both sides know each other's key, and each sees the other under the range that the other
//! believes to be seen under.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use tokio::time::Instant;

use super::driver::{Driver, ECHO_LIMIT, Error};
use crate::engine::overlay::{Observed, Operation, PublicKey};

/// The network that in-memory drivers share.
#[derive(Debug, Clone, Default)]
pub struct Fabric {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    drivers: BTreeMap<PublicKey, Observed>,
    handshakes: BTreeMap<(PublicKey, PublicKey), Instant>,
    cut: BTreeSet<(PublicKey, PublicKey)>,
    latency: Duration,
    paths: BTreeMap<SocketAddr, u32>,
    looks: BTreeMap<PublicKey, usize>,
}

impl Fabric {
    /// Makes a driver with this key; a second one with the same key takes the first one's place.
    pub fn driver(&self, public_key: PublicKey) -> MemoryDriver {
        self.state()
            .drivers
            .insert(public_key.clone(), Observed::default());
        MemoryDriver {
            fabric: self.clone(),
            public_key,
            broken: Arc::default(),
            refuses_rules: Arc::default(),
        }
    }

    /// Sets how long an echo takes.
    pub fn set_latency(&self, latency: Duration) {
        self.state().latency = latency;
    }

    /// Sets the largest packet that the path to an endpoint carries.
    pub fn set_path(&self, endpoint: SocketAddr, mtu: u32) {
        self.state().paths.insert(endpoint, mtu);
    }

    /// Lets no packet pass between two drivers.
    pub fn cut(&self, one: &PublicKey, other: &PublicKey) {
        self.state().cut.insert(pair(one, other));
    }

    /// Lets packets pass between two drivers again.
    pub fn heal(&self, one: &PublicKey, other: &PublicKey) {
        self.state().cut.remove(&pair(one, other));
    }

    /// Changes what a driver has behind its back, as a person at a shell might.
    pub fn meddle(&self, driver: &PublicKey, change: impl FnOnce(&mut Observed)) {
        if let Some(observed) = self.state().drivers.get_mut(driver) {
            change(observed);
        }
    }

    /// Returns what a driver has.
    pub fn look(&self, driver: &PublicKey) -> Observed {
        self.state()
            .drivers
            .get(driver)
            .cloned()
            .unwrap_or_default()
    }

    /// Returns how often a driver was asked what it has.
    pub fn looks(&self, driver: &PublicKey) -> usize {
        self.state().looks.get(driver).copied().unwrap_or_default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Lets two drivers shake hands when each knows the other's key.
    fn shake_hands(&mut self, one: &PublicKey, other: &PublicKey, now: Instant) -> bool {
        let knows = |here: &PublicKey, there: &PublicKey| {
            self.drivers
                .get(here)
                .is_some_and(|it| it.peers.contains_key(there))
        };
        let meet = !self.cut.contains(&pair(one, other)) && knows(one, other) && knows(other, one);
        if meet {
            self.handshakes.insert(pair(one, other), now);
        }
        meet
    }

    /// Returns whether packets find their way there and back.
    fn is_consistent(&self, one: &PublicKey, other: &PublicKey) -> bool {
        let (Some(here), Some(there)) = (self.drivers.get(one), self.drivers.get(other)) else {
            return false;
        };
        let (Some(theirs), Some(ours)) = (here.peers.get(other), there.peers.get(one)) else {
            return false;
        };
        let routed = |side: &Observed, range| side.routes.contains_key(range);
        let filtered = here.filter.is_some() && there.filter.is_some();
        filtered
            && theirs.allowed.contains(&ours.presented)
            && ours.allowed.contains(&theirs.presented)
            && routed(here, &ours.presented)
            && routed(there, &theirs.presented)
    }
}

fn pair(one: &PublicKey, other: &PublicKey) -> (PublicKey, PublicKey) {
    let (first, second) = if one <= other {
        (one, other)
    } else {
        (other, one)
    };
    (first.clone(), second.clone())
}

/// A tunnel that passes no packets.
#[derive(Debug, Clone)]
pub struct MemoryDriver {
    fabric: Fabric,
    public_key: PublicKey,
    broken: Arc<Mutex<Option<(String, String)>>>,
    refuses_rules: Arc<AtomicBool>,
}

impl MemoryDriver {
    /// Makes every further operation fail as unavailable, or work again.
    pub fn set_unavailable(&self, missing_and_mend: Option<(&str, &str)>) {
        let broken = missing_and_mend.map(|(missing, mend)| (missing.to_owned(), mend.to_owned()));
        *self.broken.lock().unwrap_or_else(PoisonError::into_inner) = broken;
    }

    /// Makes packet rules be refused, or taken again.
    pub fn refuse_rules(&self, refuse: bool) {
        self.refuses_rules.store(refuse, Ordering::Relaxed);
    }

    fn check(&self, operation: &Operation) -> Result<(), Error> {
        let is_rules = matches!(operation, Operation::ReplaceFilter(_));
        if is_rules && self.refuses_rules.load(Ordering::Relaxed) {
            return Err(Error::Rules {
                what: "the rules",
                message: "Permission denied".to_owned(),
            });
        }
        let broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        match &*broken {
            None => Ok(()),
            Some((missing, mend)) => Err(Error::Unavailable {
                missing: missing.clone(),
                mend: mend.clone(),
            }),
        }
    }

    fn observe_now(&self) -> Observed {
        let mut state = self.fabric.state();
        let now = Instant::now();
        *state.looks.entry(self.public_key.clone()).or_default() += 1;
        let mut observed = state
            .drivers
            .get(&self.public_key)
            .cloned()
            .unwrap_or_default();
        for (key, peer) in &mut observed.peers {
            state.shake_hands(&self.public_key, key, now);
            peer.handshake_age = state
                .handshakes
                .get(&pair(&self.public_key, key))
                .map(|at| now.duration_since(*at));
        }
        observed
    }

    fn echo_from(&self, target: Ipv4Addr) -> Option<Duration> {
        let mut state = self.fabric.state();
        let here = state.drivers.get(&self.public_key)?;
        let has_target =
            |allowed: &BTreeSet<ipnet::Ipv4Net>| allowed.iter().any(|it| it.contains(&target));
        let (key, _) = here.peers.iter().find(|(_, it)| has_target(&it.allowed))?;
        let key = key.clone();
        let answers = state.shake_hands(&self.public_key, &key, Instant::now())
            && state.is_consistent(&self.public_key, &key);
        answers.then_some(state.latency)
    }
}

impl Driver for MemoryDriver {
    fn public_key(&self) -> PublicKey {
        self.public_key.clone()
    }

    fn port(&self) -> u16 {
        5871
    }

    fn path_mtu(&self, endpoint: SocketAddr) -> Option<u32> {
        Some(
            self.fabric
                .state()
                .paths
                .get(&endpoint)
                .copied()
                .unwrap_or(1500),
        )
    }

    fn observe(&self) -> BoxFuture<'_, Result<Observed, Error>> {
        Box::pin(async { Ok(self.observe_now()) })
    }

    fn carry_out(&self, operation: Operation) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            self.check(&operation)?;
            if let Some(observed) = self.fabric.state().drivers.get_mut(&self.public_key) {
                observed.obey(&operation);
            }
            Ok(())
        })
    }

    fn probe(&self, target: Ipv4Addr) -> BoxFuture<'_, Result<Duration, Error>> {
        Box::pin(async move {
            let Some(latency) = self.echo_from(target) else {
                tokio::time::sleep(ECHO_LIMIT).await;
                return Err(Error::NoEcho(target));
            };
            tokio::time::sleep(latency).await;
            Ok(latency)
        })
    }

    fn close(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async {
            self.fabric
                .meddle(&self.public_key, |it| *it = Observed::default());
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::overlay::{INTERFACE, Overlay, Peer, plan};

    #[tokio::test(start_paused = true)]
    async fn an_echo_needs_both_sides_to_agree() {
        let fabric = Fabric::default();
        let (one, other) = (fabric.driver(key(1)), fabric.driver(key(2)));
        let target = Ipv4Addr::new(10, 71, 0, 1);
        bring_up(&one, &overlay(2, "10.71.0.0/16", "10.72.0.0/16")).await;
        assert!(one.probe(target).await.is_err(), "only one side knows");

        bring_up(&other, &overlay(1, "10.73.0.0/16", "10.71.0.0/16")).await;
        assert!(one.probe(target).await.is_err(), "ranges differ");
        let observed = one.observe().await.unwrap();
        assert!(observed.peers[&key(2)].is_fresh(), "hands were shaken");

        bring_up(&other, &overlay(1, "10.72.0.0/16", "10.71.0.0/16")).await;
        assert!(one.probe(target).await.is_ok());
        assert!(other.probe(Ipv4Addr::new(10, 72, 0, 1)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_cut_ages_the_handshake_and_a_heal_renews_it() {
        let fabric = Fabric::default();
        let (one, other) = (fabric.driver(key(1)), fabric.driver(key(2)));
        bring_up(&one, &overlay(2, "10.71.0.0/16", "10.72.0.0/16")).await;
        bring_up(&other, &overlay(1, "10.72.0.0/16", "10.71.0.0/16")).await;
        assert!(one.observe().await.unwrap().peers[&key(2)].is_fresh());
        fabric.cut(&key(2), &key(1));
        tokio::time::advance(Duration::from_secs(200)).await;
        assert!(!one.observe().await.unwrap().peers[&key(2)].is_fresh());
        assert!(one.probe(Ipv4Addr::new(10, 71, 0, 1)).await.is_err());
        fabric.heal(&key(1), &key(2));
        assert!(one.observe().await.unwrap().peers[&key(2)].is_fresh());
    }

    async fn bring_up(driver: &MemoryDriver, overlay: &Overlay) {
        let observed = driver.observe().await.unwrap();
        for operation in plan(overlay, &observed) {
            driver.carry_out(operation).await.unwrap();
        }
    }

    fn overlay(peer: u8, remote: &str, presented: &str) -> Overlay {
        let peer = Peer {
            public_key: key(peer),
            endpoints: vec!["192.168.1.2:5871".parse().unwrap()],
            turn: 0,
            is_silent: false,
            remote: remote.parse().unwrap(),
            local_nat: Some(presented.parse().unwrap()),
        };
        Overlay {
            interface: INTERFACE.to_owned(),
            local: "10.244.0.0/16".parse().unwrap(),
            mtu: 1420,
            port: 5871,
            peers: BTreeMap::from([("peer".parse().unwrap(), peer)]),
        }
    }

    fn key(number: u8) -> PublicKey {
        PublicKey::new([number; 32])
    }
}
