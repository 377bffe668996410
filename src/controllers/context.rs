//! What every controller needs: the client, who we are, and what is remembered between two looks.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use futures::Stream;
use ipnet::Ipv4Net;
use jiff::{SignedDuration, Timestamp};
use kube::{Client, runtime::reflector::Store};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::{
    approvals::Approvals, events::Events, failures::Failures, fleet::Fleet, links::Links,
    peering_request::stock::Stock, suspicions::Suspicions, tokens::Tokens,
};
use crate::{
    api::{ClusterConfigSpec, ClusterId, ClusterName, ForeignCluster},
    engine::{
        addressing::Surroundings,
        peering::{Neighbour, Own},
    },
    peer::{certificates::Proven, client::Connector, web_pki::WebPki},
};

/// Tells the time: the wall clock in the daemon, a virtual one in the simulation.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What every controller needs.
pub struct Context {
    /// The Kubernetes API that holds our objects, embedded or real.
    pub client: Client,
    /// The way to other clusters.
    pub connector: Arc<dyn Connector>,
    /// Who we are; see [`Context::own_name`] for what we are called now, and
    /// [`Context::auth_url`] for where we are.
    pub own: Own,
    /// The URL of our peer endpoint as others should use it now, possibly empty.
    auth_url: watch::Sender<String>,
    /// The range of our services.
    pub service_cidr: Ipv4Net,
    /// The networks that this machine is on, and reaches.
    pub surroundings: watch::Receiver<Surroundings>,
    /// The secret that all machines of one owner share.
    pub fleet: watch::Receiver<Fleet>,
    /// Our certificate of the Web PKI, and the authorities that we believe.
    pub web_pki: WebPki,
    /// The policy of this cluster, as it stands now.
    pub config: watch::Receiver<ClusterConfigSpec>,
    /// The time.
    pub clock: Clock,
    /// When this daemon started, by a clock that nobody sets.
    born: Instant,
    /// The connections to peers.
    pub links: Links,
    /// What discovery says about each peer.
    pub neighbours: Neighbours,
    /// What people are told has happened.
    pub(crate) events: Events,
    /// What fails at present.
    pub(crate) failures: Failures,
    /// The approval codes of peers that came to us.
    pub(crate) approvals: Approvals,
    /// Who is said to use an identity that is not its own, or ours.
    pub(crate) suspicions: Suspicions,
    /// What this cluster has to offer.
    pub(crate) stock: Stock,
    /// The tokens that we gave out and were given.
    pub(crate) tokens: Tokens,
    /// The ForeignClusters as their controller sees them, once it runs.
    pub(crate) seen: OnceLock<Store<ForeignCluster>>,
    /// Held while a ForeignCluster is looked for and created, so that two finds make one object.
    pub(crate) enrolment: tokio::sync::Mutex<()>,
    /// Held while a peer takes of what all peers share, so that no two take the same.
    pub(crate) sharing: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Context {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Context")
            .field("own", &self.own)
            .finish_non_exhaustive()
    }
}

/// The parts of a [`Context`] that the daemon puts in.
#[expect(
    missing_debug_implementations,
    reason = "holds trait objects and is taken apart at once"
)]
pub struct Parts {
    /// See [`Context::client`].
    pub client: Client,
    /// See [`Context::connector`].
    pub connector: Arc<dyn Connector>,
    /// See [`Context::own`].
    pub own: Own,
    /// See [`Context::service_cidr`].
    pub service_cidr: Ipv4Net,
    /// See [`Context::surroundings`].
    pub surroundings: watch::Receiver<Surroundings>,
    /// See [`Context::fleet`].
    pub fleet: watch::Receiver<Fleet>,
    /// See [`Context::web_pki`].
    pub web_pki: WebPki,
    /// See [`Context::config`].
    pub config: watch::Receiver<ClusterConfigSpec>,
    /// See [`Context::clock`].
    pub clock: Clock,
}

impl Context {
    /// Puts a context together. Nothing is remembered yet.
    pub fn new(parts: Parts) -> Arc<Self> {
        let auth_url = watch::Sender::new(parts.own.auth_url.clone());
        Arc::new(Self {
            client: parts.client,
            connector: parts.connector,
            own: parts.own,
            auth_url,
            service_cidr: parts.service_cidr,
            surroundings: parts.surroundings,
            fleet: parts.fleet,
            web_pki: parts.web_pki,
            config: parts.config,
            clock: parts.clock,
            born: Instant::now(),
            links: Links::default(),
            neighbours: Neighbours::default(),
            events: Events::default(),
            failures: Failures::default(),
            approvals: Approvals::default(),
            suspicions: Suspicions::default(),
            stock: Stock::default(),
            tokens: Tokens::default(),
            seen: OnceLock::new(),
            enrolment: tokio::sync::Mutex::new(()),
            sharing: tokio::sync::Mutex::new(()),
        })
    }

    /// Tells the time.
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// Tells when this daemon started, by the clock as it is set now.
    pub fn started(&self) -> Timestamp {
        let age = SignedDuration::try_from(self.born.elapsed()).unwrap_or(SignedDuration::MAX);
        self.now().checked_sub(age).unwrap_or(Timestamp::MIN)
    }

    /// Follows where another machine holds our identity: then we announce nothing and join nobody.
    pub fn twin(&self) -> watch::Receiver<Option<String>> {
        self.suspicions.twins_told()
    }

    /// Returns what a handshake with us proves.
    pub(crate) fn proven(&self) -> Proven {
        Proven {
            cluster_id: self.own.cluster_id.clone(),
            fingerprint: self.own.fingerprint.clone(),
        }
    }

    /// Returns our name as it stands now: the one of the policy, if it has one.
    pub fn own_name(&self) -> ClusterName {
        let config = self.config.borrow();
        let named = config.discovery_config.cluster_name.as_deref();
        let named = named.map(ClusterName::neutralise);
        named
            .filter(|name| !name.as_str().is_empty())
            .unwrap_or_else(|| self.own.cluster_name.clone())
    }

    /// Returns the URL of our peer endpoint as it stands now, possibly empty.
    pub fn auth_url(&self) -> String {
        self.auth_url.borrow().clone()
    }

    /// Takes note of where our peer endpoint is now.
    pub fn move_to(&self, auth_url: String) {
        self.auth_url.send_replace(auth_url);
    }

    /// Returns the fleet secret as it stands now.
    pub(crate) fn fleet_secret(&self) -> Fleet {
        self.fleet.borrow().clone()
    }

    /// Returns the policy as it stands now.
    pub fn policy(&self) -> ClusterConfigSpec {
        self.config.borrow().clone()
    }
}

/// What discovery says about each peer, by cluster id.
#[derive(Debug, Default)]
pub struct Neighbours {
    known: Mutex<BTreeMap<ClusterId, Neighbour>>,
    visits: Mutex<BTreeMap<ClusterId, Timestamp>>,
    /// When each peer that may come in was at our door last.
    presences: Mutex<BTreeMap<ClusterId, Timestamp>>,
    forgotten: Mutex<BTreeSet<ClusterId>>,
    forgetting: Notify,
}

impl Neighbours {
    /// Returns what is known about a peer.
    pub fn get(&self, id: &ClusterId) -> Option<Neighbour> {
        self.lock().get(id).cloned()
    }

    /// Replaces what is known about a peer.
    pub fn set(&self, id: ClusterId, neighbour: Neighbour) {
        self.lock().insert(id, neighbour);
    }

    /// Notes that a peer's advertisement is gone; its old endpoints are no longer hints.
    pub fn expire(&self, id: &ClusterId, now: Timestamp) {
        if let Some(neighbour) = self.lock().get_mut(id) {
            neighbour.endpoints.clear();
            neighbour.addresses.clear();
            neighbour.expired.get_or_insert(now);
        }
    }

    /// Notes that a peer came to us. There is an object for each, so these are not without bound.
    pub(crate) fn note_visit(&self, id: ClusterId, now: Timestamp) {
        self.lock_visits().insert(id, now);
    }

    /// Notes that a peer that may come in is at our door. There is an object for each.
    pub(crate) fn note_presence(&self, id: ClusterId, now: Timestamp) {
        self.lock_presences().insert(id, now);
    }

    /// Returns when a peer was at our door last.
    pub(crate) fn present(&self, id: &ClusterId) -> Option<Timestamp> {
        self.lock_presences().get(id).copied()
    }

    /// Returns when a peer came to us.
    pub(crate) fn visited(&self, id: &ClusterId) -> Option<Timestamp> {
        self.lock_visits().get(id).copied()
    }

    /// Forgets that a peer came to us whose object is gone, and where it was when it is not there.
    pub(crate) fn forget_absent(&self, id: &ClusterId) {
        self.lock_visits().remove(id);
        self.lock_presences().remove(id);
        let mut known = self.lock();
        if known.get(id).is_some_and(|it| it.expired.is_some()) {
            known.remove(id);
        }
    }

    /// Forgets a peer.
    pub fn forget(&self, id: &ClusterId) {
        self.lock().remove(id);
        self.lock_visits().remove(id);
        self.lock_presences().remove(id);
    }

    /// Asks for a peer whose object is gone to be found anew, if it is still there.
    pub(crate) fn look_again(&self, id: ClusterId) {
        self.lock_forgotten().insert(id);
        self.forgetting.notify_one();
    }

    /// Waits for peers that are to be found anew.
    pub(crate) async fn forgotten(&self) -> BTreeSet<ClusterId> {
        self.forgetting.notified().await;
        std::mem::take(&mut *self.lock_forgotten())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ClusterId, Neighbour>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_visits(&self) -> MutexGuard<'_, BTreeMap<ClusterId, Timestamp>> {
        self.visits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_presences(&self) -> MutexGuard<'_, BTreeMap<ClusterId, Timestamp>> {
        self.presences
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_forgotten(&self) -> MutexGuard<'_, BTreeSet<ClusterId>> {
        self.forgotten
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Yields whenever a value has changed.
pub(super) fn changes<T: Send + Sync + 'static>(
    value: watch::Receiver<T>,
) -> impl Stream<Item = ()> + Send + 'static {
    futures::stream::unfold(value, |mut value| async move {
        value.changed().await.ok().map(|()| ((), value))
    })
}

/// Returns a number from 0 to 1 by chance, for the jitter of a retry.
pub(crate) fn chance() -> f64 {
    use ring::rand::SecureRandom as _;
    let mut bytes = [0_u8; 4];
    // Without chance the retry comes at the middle of its range, which is only less spread out.
    if ring::rand::SystemRandom::new().fill(&mut bytes).is_err() {
        return 0.5;
    }
    f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::enrolment::context;

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_set_makes_the_daemon_no_older() {
        let mut context = Arc::into_inner(context().await).unwrap();
        let before = context.born.elapsed();
        tokio::time::advance(std::time::Duration::from_secs(10)).await;
        let age = SignedDuration::try_from(before).unwrap() + SignedDuration::from_secs(10);
        for hour in [0, 1, 100_000] {
            let now = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(hour);
            context.clock = Arc::new(move || now);
            assert_eq!(context.started(), now - age);
        }
    }
}
