//! TunnelEndpoint: makes the tunnel as the objects want it, keeps it so, and says how it does.
//!
//! All peers share one interface, so that this is one loop over all objects and not one per object:
//! gather objects and what is there, let the engine plan, carry out, report. Between two passes the
//! peers are probed.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use ipnet::Ipv4Net;
use jiff::Timestamp;
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams},
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use serde_json::json;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::context::Clock;
use crate::{
    api::{identity::ClusterId, labels::FINALIZER_TUNNEL, tunnel_endpoint::TunnelEndpoint},
    engine::overlay::{
        LARGEST_MTU, Observed, Operation, Overlay, Peer, PublicKey,
        health::Health,
        plan, tunnel_mtu,
        wanted::{Admission, Local, admit},
    },
    tunnel::{Driver, Error},
};

mod report;

/// How often what is there is compared with what is wanted, so that what somebody deleted is
/// restored.
const PASS_INTERVAL: Duration = Duration::from_secs(5);
/// The same while endpoints take turns, until each had so many.
const TURNING_INTERVAL: Duration = Duration::from_secs(2);
const TURNS: usize = 3;
/// How long the driver may take to clean up when the daemon stops: less than the daemon waits.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);
/// How long a write of ours may keep the loop, which has tunnels to look after. After one that took
/// longer none is tried until the next pass is due.
const WRITE_LIMIT: Duration = Duration::from_secs(1);

/// What the loop has to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The range of our own pods.
    pub range: Ipv4Net,
    /// The largest packet in the tunnel, in bytes; 0 takes what fits the paths to the peers.
    pub mtu: u16,
    /// Where the state of every tunnel is shown to other parts of the daemon.
    pub board: watch::Sender<BTreeMap<ClusterId, Connectivity>>,
}

impl Settings {
    /// Takes the MTU from the paths.
    pub fn new(range: Ipv4Net) -> Self {
        Self {
            range,
            mtu: 0,
            board: watch::Sender::default(),
        }
    }
}

/// How the tunnel to a peer does, for metrics and for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connectivity {
    /// Whether packets pass.
    pub is_connected: bool,
    /// Why, in words.
    pub message: String,
    /// The last round-trip time of an echo.
    pub round_trip: Option<Duration>,
    /// Since when the tunnel is as it is.
    pub since: Timestamp,
    /// The address of the peer's end, as it is reached from here.
    pub address: Ipv4Addr,
    /// Bytes that came from the peer.
    pub received: u64,
    /// Bytes that went to the peer.
    pub sent: u64,
}

/// Keeps the tunnel as the TunnelEndpoint objects want it until `shutdown`, then removes it from
/// the machine. The objects stay.
pub async fn run(
    client: Client,
    driver: Arc<dyn Driver>,
    settings: Settings,
    clock: Clock,
    shutdown: CancellationToken,
) {
    let api: Api<TunnelEndpoint> = Api::all(client);
    let events = watcher(api.clone(), watcher::Config::default()).default_backoff();
    let mut events = pin!(events);
    let mut tunnels = Tunnels::new(api, driver, settings, clock);
    tunnels.writes.stop = shutdown.clone();
    loop {
        let next_wake = tunnels.next_wake();
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(event) = events.next() => tunnels.handle_watch(event).await,
            Some((cluster, answer)) = tunnels.echoes.next(), if !tunnels.echoes.is_empty() => {
                tunnels.handle_echo(&cluster, answer).await;
            }
            () = sleep_until(next_wake) => tunnels.handle_timeout().await,
        }
    }
    close(&*tunnels.driver).await;
}

async fn close(driver: &dyn Driver) {
    match timeout(CLOSE_LIMIT, driver.close()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "Could not remove the tunnel"),
        Err(_) => tracing::warn!("Removing the tunnel took too long"),
    }
}

type Echo = (ClusterId, Result<Duration, Error>);

/// What is remembered between two passes.
struct Tunnels {
    api: Api<TunnelEndpoint>,
    driver: Arc<dyn Driver>,
    settings: Settings,
    clock: Clock,
    objects: BTreeMap<String, TunnelEndpoint>,
    listing: BTreeMap<String, TunnelEndpoint>,
    is_listed: bool,
    admission: Option<Admission>,
    observed: Observed,
    faults: Faults,
    peers: BTreeMap<ClusterId, State>,
    echoes: FuturesUnordered<BoxFuture<'static, Echo>>,
    next_pass: Instant,
    writes: Writes,
}

/// What is remembered about a peer.
struct State {
    public_key: PublicKey,
    health: Health,
    next_echo: Instant,
    is_probing: bool,
}

/// What could not be done.
#[derive(Debug, Default, PartialEq, Eq)]
struct Faults {
    /// What stops every tunnel.
    common: Option<String>,
    /// What stops the tunnel to one peer.
    single: BTreeMap<ClusterId, String>,
}

impl Tunnels {
    fn new(
        api: Api<TunnelEndpoint>,
        driver: Arc<dyn Driver>,
        settings: Settings,
        clock: Clock,
    ) -> Self {
        Self {
            api,
            driver,
            settings,
            clock,
            objects: BTreeMap::new(),
            listing: BTreeMap::new(),
            is_listed: false,
            admission: None,
            observed: Observed::default(),
            faults: Faults::default(),
            peers: BTreeMap::new(),
            echoes: FuturesUnordered::new(),
            next_pass: Instant::now() + PASS_INTERVAL,
            writes: Writes::default(),
        }
    }

    async fn handle_watch(&mut self, event: Result<Event<TunnelEndpoint>, watcher::Error>) {
        match event {
            Ok(event) => self.handle_event(event).await,
            Err(error) => tracing::debug!(%error, "The watch on TunnelEndpoints broke"),
        }
    }

    async fn handle_event(&mut self, event: Event<TunnelEndpoint>) {
        let is_news = match event {
            Event::Init => {
                self.listing.clear();
                false
            }
            Event::InitApply(object) => {
                self.listing.insert(object.name_any(), object);
                false
            }
            Event::InitDone => {
                self.objects = std::mem::take(&mut self.listing);
                self.is_listed = true;
                true
            }
            Event::Apply(object) => {
                let known = self.objects.insert(object.name_any(), object.clone());
                known.is_none_or(|known| matters(&known) != matters(&object))
            }
            Event::Delete(object) => self.objects.remove(&object.name_any()).is_some(),
        };
        if is_news && self.is_listed {
            self.pass().await;
        }
    }

    async fn handle_echo(&mut self, cluster: &ClusterId, answer: Result<Duration, Error>) {
        let Some(state) = self.peers.get_mut(cluster) else {
            return;
        };
        state.is_probing = false;
        state.health.handle_echo(answer.ok());
        self.report().await;
    }

    fn next_wake(&self) -> Instant {
        let echoes = self.peers.values().filter(|it| !it.is_probing);
        echoes
            .map(|it| it.next_echo)
            .chain([self.next_pass])
            .min()
            .unwrap_or(self.next_pass)
    }

    async fn handle_timeout(&mut self) {
        if Instant::now() >= self.next_pass {
            self.next_pass = Instant::now() + PASS_INTERVAL;
            // A machine without peers is not looked at all day long.
            let is_idle = self.objects.is_empty()
                && self.observed == Observed::default()
                && self.faults.common.is_none();
            if self.is_listed && !is_idle {
                self.pass().await;
            }
        }
        self.send_echoes();
    }

    fn send_echoes(&mut self) {
        let now = Instant::now();
        let Some(admission) = &self.admission else {
            return;
        };
        for (cluster, state) in &mut self.peers {
            if state.is_probing || state.next_echo > now {
                continue;
            }
            state.next_echo = now + state.health.interval();
            let Some(peer) = admission.overlay.peers.get(cluster) else {
                continue;
            };
            // Without an interface there is nothing to send through.
            if self.observed.interface.is_none() {
                continue;
            }
            state.is_probing = true;
            let (driver, cluster) = (Arc::clone(&self.driver), cluster.clone());
            let target = peer.target();
            // A task of its own, so that what else this loop does is not part of the time it takes.
            let probe = tokio::spawn(async move { driver.probe(target).await });
            self.echoes.push(Box::pin(async move {
                let answer = probe.await.unwrap_or(Err(Error::NoEcho(target)));
                (cluster, answer)
            }));
        }
    }

    /// Compares what is there with what is wanted, and does what is left to do.
    async fn pass(&mut self) {
        self.next_pass = Instant::now() + PASS_INTERVAL;
        // Gather.
        let mut admission = self.admit();
        let mut faults = Faults::default();
        match self.driver.observe().await {
            Ok(observed) => self.observed = observed,
            Err(error) => faults.common = Some(error.to_string()),
        }
        self.look(&mut admission.overlay);
        // Decide and carry out.
        if faults.common.is_none() {
            let operations = plan(&admission.overlay, &self.observed);
            if !operations.is_empty() {
                // What a turn changes is seen soon enough: a look starts a program.
                let is_turn = operations
                    .iter()
                    .all(|it| matches!(it, Operation::SetEndpoint(..)));
                self.carry_out(&admission.overlay, operations, &mut faults)
                    .await;
                if !is_turn && let Ok(observed) = self.driver.observe().await {
                    self.observed = observed;
                }
            }
        }
        self.tell(&faults);
        self.faults = faults;
        if self.is_turning(&admission.overlay) {
            self.next_pass = Instant::now() + TURNING_INTERVAL;
        }
        self.admission = Some(admission);
        self.release().await;
        self.report().await;
        self.send_echoes();
    }

    fn is_turning(&self, overlay: &Overlay) -> bool {
        self.peers.iter().any(|(cluster, state)| {
            let choices = overlay
                .peers
                .get(cluster)
                .map_or(0, |it| it.endpoints.len());
            choices > 1 && state.health.is_turning() && state.health.turns() < TURNS * choices
        })
    }

    fn admit(&self) -> Admission {
        let local = Local {
            range: self.settings.range,
            public_key: self.driver.public_key(),
            port: self.driver.port(),
            mtu: match self.settings.mtu {
                0 => LARGEST_MTU,
                mtu => mtu,
            },
        };
        let mut admission = admit(&local, self.objects.values());
        if self.settings.mtu == 0 {
            let peers = admission.overlay.peers.values();
            let endpoints = peers.filter_map(|peer| self.endpoint_in_use(peer));
            let paths = endpoints.filter_map(|it| self.driver.path_mtu(it));
            let narrowest = paths.map(tunnel_mtu).min().unwrap_or(LARGEST_MTU);
            admission.overlay.mtu = admission.overlay.mtu.min(narrowest);
        }
        admission
    }

    /// Where a peer is spoken to, or will be first. Endpoints that take turns must not change the MTU.
    fn endpoint_in_use(&self, peer: &Peer) -> Option<SocketAddr> {
        let seen = self.observed.peers.get(&peer.public_key);
        let seen = seen.filter(|it| it.is_fresh());
        seen.and_then(|it| it.endpoint).or_else(|| peer.endpoint())
    }

    /// Tells each peer's machine what was seen, and the overlay whose turn it is.
    fn look(&mut self, overlay: &mut Overlay) {
        let now = (self.clock)();
        self.peers.retain(|cluster, state| {
            let wanted = overlay.peers.get(cluster);
            wanted.is_some_and(|peer| peer.public_key == state.public_key)
        });
        for (cluster, peer) in &mut overlay.peers {
            let state = self.peers.entry(cluster.clone()).or_insert_with(|| State {
                public_key: peer.public_key.clone(),
                health: Health::default(),
                next_echo: Instant::now(),
                is_probing: false,
            });
            let seen = self.observed.peers.get(&peer.public_key);
            state.health.handle_look(seen, now);
            state.health.advise(peer);
        }
    }

    async fn carry_out(
        &mut self,
        overlay: &Overlay,
        operations: Vec<Operation>,
        faults: &mut Faults,
    ) {
        for operation in operations {
            // Without its foundations, the rules above all, nothing else may be built.
            if faults.common.is_some() && !removes(&operation) {
                continue;
            }
            tracing::debug!(?operation, "Changing the tunnel");
            let concerned = concerned(overlay, &operation);
            let Err(error) = self.driver.carry_out(operation).await else {
                continue;
            };
            let message = error.to_string();
            match concerned {
                Some(cluster) => {
                    faults.single.insert(cluster, message);
                }
                // The first one is told.
                None => faults.common = faults.common.take().or(Some(message)),
            }
        }
    }

    /// Logs what is wrong once, and not at every pass.
    fn tell(&self, faults: &Faults) {
        if faults.common != self.faults.common {
            if let Some(message) = &faults.common {
                tracing::warn!(%message, "The tunnel cannot be made");
            } else {
                tracing::info!("The tunnel can be made again");
            }
        }
        let known = |cluster, message| self.faults.single.get(cluster) == Some(message);
        let news = faults
            .single
            .iter()
            .filter(|(cluster, message)| !known(cluster, message));
        for (cluster, message) in news {
            tracing::warn!(%cluster, %message, "The tunnel to a peer cannot be made");
        }
    }

    /// Lets objects go whose tunnel is gone.
    async fn release(&mut self) {
        // What the kernel refused to remove is still there; what could never be made is not.
        let is_clean = self.admission.as_ref().is_some_and(|admission| {
            let (peers, routes) = self.observed.leftovers(&admission.overlay);
            peers.count() == 0 && routes.count() == 0
        });
        if !is_clean {
            return;
        }
        for object in self.objects.values() {
            let finalizers = object.finalizers();
            if object.metadata.deletion_timestamp.is_none()
                || !finalizers.iter().any(|it| it == FINALIZER_TUNNEL)
            {
                continue;
            }
            let is_others = |it: &&String| *it != FINALIZER_TUNNEL;
            let rest: Vec<_> = finalizers.iter().filter(is_others).collect();
            let patch = Patch::Merge(json!({"metadata": {
                "finalizers": rest,
                // Somebody else may be adding a finalizer of its own.
                "resourceVersion": object.resource_version(),
            }}));
            let name = object.name_any();
            let params = PatchParams::default();
            let release = self.api.patch(&name, &params, &patch);
            match self.writes.within_limit(release).await {
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    tracing::debug!(%error, %name, "Could not release a TunnelEndpoint yet");
                }
                None => return,
            }
        }
    }
}

/// What we write into the objects, which must not hold up the tunnels.
#[derive(Default)]
struct Writes {
    /// Ends the waits for the API.
    stop: CancellationToken,
    /// Until when the API is not asked, since it did not answer.
    rest: Option<Instant>,
}

impl Writes {
    /// Waits for an answer of the API, unless it takes too long, has just done so, or the daemon stops.
    async fn within_limit<T>(&mut self, request: impl Future<Output = T>) -> Option<T> {
        if self.rest.is_some_and(|rest| Instant::now() < rest) {
            return None;
        }
        let answer = self.stop.run_until_cancelled(timeout(WRITE_LIMIT, request));
        let answer = answer.await.and_then(Result::ok);
        self.rest = answer.is_none().then(|| Instant::now() + PASS_INTERVAL);
        answer
    }
}

/// What of an object can change the tunnel; our own reports cannot.
fn matters(object: &TunnelEndpoint) -> impl PartialEq + use<> {
    let status = object.status.clone().unwrap_or_default();
    (
        object.spec.clone(),
        status.phase,
        status.local_nat_pod_cidr,
        status.remote_nat_pod_cidr,
        object.metadata.deletion_timestamp.clone(),
        object.metadata.uid.clone(),
    )
}

/// Returns whether an operation only takes away what is there.
fn removes(operation: &Operation) -> bool {
    matches!(
        operation,
        Operation::RemovePeer(_)
            | Operation::RemoveRoute(_)
            | Operation::RemoveInterface
            | Operation::RemoveFilter
    )
}

/// Returns the one peer that an operation is for, if there is one.
fn concerned(overlay: &Overlay, operation: &Operation) -> Option<ClusterId> {
    let find = |is_it: &dyn Fn(&Peer) -> bool| {
        let found = overlay.peers.iter().find(|(_, peer)| is_it(peer));
        found.map(|(cluster, _)| cluster.clone())
    };
    match operation {
        Operation::SetPeer(link) => Some(link.cluster.clone()),
        Operation::SetEndpoint(key, _) => find(&|peer| peer.public_key == *key),
        Operation::AddRoute { range, .. } => find(&|peer| peer.remote == *range),
        Operation::CreateInterface { .. }
        | Operation::BringUp
        | Operation::SetMtu(_)
        | Operation::AddAddress(_)
        | Operation::RemoveAddress(_)
        | Operation::ReplaceFilter(_)
        | Operation::RemovePeer(_)
        | Operation::RemoveRoute(_)
        | Operation::RemoveInterface
        | Operation::RemoveFilter => None,
    }
}
