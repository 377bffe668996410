//! A LAN without sockets: announcements, connections, partitions, cut wires and moving machines.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    http::Request,
};
use futures::{StreamExt as _, future::BoxFuture};
use landbridge::{
    engine::sighting::{Event, Sighting},
    peer::{
        auth::{PeerEndpoint, Session},
        certificates::Proven,
        client::{ConnectError, Connection, Connector, Http, Target},
    },
};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tower::{BoxError, ServiceExt as _, util::BoxCloneSyncService};

/// How long anything is on the way.
const LATENCY: Duration = Duration::from_millis(1);
/// How long a connection is tried to a machine that does not answer.
const DIAL_TIME: Duration = Duration::from_secs(3);

/// What all machines are plugged into.
#[derive(Clone)]
pub(crate) struct Lan {
    state: Arc<Mutex<State>>,
    changes: watch::Sender<()>,
}

struct State {
    hosts: Vec<Host>,
    cuts: BTreeSet<(usize, usize)>,
    wires: Vec<Arc<Wire>>,
    /// Of a hundred announcements so many are lost.
    loss: u8,
    chance: fastrand::Rng,
    connections: u64,
    dials: u64,
}

struct Host {
    address: SocketAddr,
    plug: Option<Plug>,
}

/// What a running cluster plugs in.
pub(crate) struct Plug {
    pub endpoint: PeerEndpoint,
    pub proven: Proven,
    pub life: CancellationToken,
    pub events: mpsc::Sender<Event>,
    pub sighting: Sighting,
}

/// One connection.
struct Wire {
    ends: [(usize, SocketAddr); 2],
    lives: [CancellationToken; 2],
    cut: CancellationToken,
}

impl Lan {
    pub(crate) fn new(seed: u64, addresses: &[SocketAddr]) -> Self {
        let hosts = addresses.iter().map(|address| Host {
            address: *address,
            plug: None,
        });
        Self {
            state: Arc::new(Mutex::new(State {
                hosts: hosts.collect(),
                cuts: BTreeSet::new(),
                wires: Vec::new(),
                loss: 0,
                chance: fastrand::Rng::with_seed(seed),
                connections: 0,
                dials: 0,
            })),
            changes: watch::channel(()).0,
        }
    }

    /// Plugs a running cluster in.
    pub(crate) fn plug(&self, host: usize, plug: Plug) {
        self.state().hosts[host].plug = Some(plug);
        self.changes.send_replace(());
    }

    /// Cuts every wire of a cluster that runs no more.
    pub(crate) fn unplug(&self, host: usize) {
        self.state().hosts[host].plug = None;
        self.cut_wires(host);
    }

    /// Cuts every wire of a cluster; new ones can be made.
    pub(crate) fn cut_wires(&self, host: usize) {
        self.state().wires.retain(|wire| {
            let concerned = wire.ends.iter().any(|(end, _)| *end == host);
            if concerned {
                wire.cut.cancel();
            }
            !concerned
        });
    }

    /// Lets no packet pass between two machines.
    pub(crate) fn part(&self, one: usize, other: usize) {
        self.state().cuts.insert(pair(one, other));
    }

    /// Lets packets pass between all machines.
    pub(crate) fn heal(&self) {
        self.state().cuts.clear();
        self.changes.send_replace(());
    }

    /// Gives a machine another address. What was on the way to the old one is lost.
    pub(crate) fn move_to(&self, host: usize, address: SocketAddr) {
        let mut state = self.state();
        state.hosts[host].address = address;
        if let Some(plug) = &mut state.hosts[host].plug {
            plug.sighting.endpoints = vec![address];
        }
    }

    pub(crate) fn address(&self, host: usize) -> SocketAddr {
        self.state().hosts[host].address
    }

    /// Loses so many of a hundred announcements.
    pub(crate) fn lose(&self, percent: u8) {
        self.state().loss = percent;
    }

    /// Returns how often somebody dialled.
    pub(crate) fn dials(&self) -> u64 {
        self.state().dials
    }

    /// Announces a cluster to everybody, itself included, as multicast does.
    pub(crate) fn announce(&self, host: usize) {
        let mut state = self.state();
        let Some(plug) = state.hosts[host]
            .plug
            .as_ref()
            .filter(|plug| !plug.life.is_cancelled())
        else {
            return;
        };
        let event = Event::Seen(plug.sighting.clone());
        state.multicast(host, &event);
    }

    /// Announces a cluster as if it were at these places, the best first.
    pub(crate) fn announce_at(&self, host: usize, places: &[SocketAddr]) {
        let mut state = self.state();
        let Some(plug) = &state.hosts[host].plug else {
            return;
        };
        let sighting = Sighting {
            endpoints: places.to_vec(),
            ..plug.sighting.clone()
        };
        state.multicast(host, &Event::Seen(sighting));
    }

    /// Takes the announcement of a cluster back.
    pub(crate) fn say_goodbye(&self, host: usize) {
        let mut state = self.state();
        let Some(plug) = &state.hosts[host].plug else {
            return;
        };
        let event = Event::Gone {
            source: plug.sighting.source,
            instance: plug.sighting.instance.clone(),
        };
        state.multicast(host, &event);
    }

    /// Has everybody announced to a newcomer.
    pub(crate) fn query(&self) {
        let hosts = self.state().hosts.len();
        for host in 0..hosts {
            self.announce(host);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn is_passable(&self, wire: &Wire) -> bool {
        let state = self.state();
        let [(one, _), (other, _)] = wire.ends;
        !state.cuts.contains(&pair(one, other))
            && wire
                .ends
                .iter()
                .all(|(end, address)| state.hosts[*end].address.ip() == address.ip())
    }

    /// Carries something over a wire, waiting for as long as nothing passes.
    async fn carry(&self, wire: &Wire) -> Result<(), BoxError> {
        let mut changes = self.changes.subscribe();
        wire.unless_cut(async {
            tokio::time::sleep(LATENCY).await;
            while !self.is_passable(wire) {
                drop(changes.changed().await);
            }
        })
        .await
    }

    /// Finds who listens at the first address that can be reached, and lays a wire to it.
    fn lay(&self, home: usize, address: SocketAddr) -> Result<Laid, Missing> {
        let mut state = self.state();
        state.dials += 1;
        let Some(foreign) = state.hosts.iter().position(|host| host.address == address) else {
            return Err(Missing::Silence);
        };
        if state.cuts.contains(&pair(home, foreign)) {
            return Err(Missing::Silence);
        }
        let (Some(ours), Some(theirs)) = (&state.hosts[home].plug, &state.hosts[foreign].plug)
        else {
            return Err(Missing::Refusal);
        };
        if ours.life.is_cancelled() || theirs.life.is_cancelled() {
            return Err(Missing::Refusal);
        }
        let wire = Arc::new(Wire {
            ends: [(home, state.hosts[home].address), (foreign, address)],
            lives: [ours.life.clone(), theirs.life.clone()],
            cut: CancellationToken::new(),
        });
        let mut exporter = [0; 32];
        exporter[..8].copy_from_slice(&state.connections.to_be_bytes());
        let mut from = state.hosts[home].address;
        from.set_port(40_000);
        let service = theirs.endpoint.in_session(Session {
            peer: Some(ours.proven.clone()),
            exporter,
            address: Some(from),
        });
        let laid = Laid {
            wire: Arc::clone(&wire),
            service,
            exporter,
            proven: theirs.proven.clone(),
            is_oneself: ours.proven == theirs.proven,
        };
        state.connections += 1;
        state.wires.retain(|wire| !wire.cut.is_cancelled());
        state.wires.push(wire);
        Ok(laid)
    }
}

impl State {
    fn multicast(&mut self, from: usize, event: &Event) {
        for to in 0..self.hosts.len() {
            let is_parted = self.cuts.contains(&pair(from, to));
            let is_lost = self.chance.u8(0..100) < self.loss;
            if let Some(plug) = &self.hosts[to].plug
                && !is_parted
                && !is_lost
            {
                drop(plug.events.try_send(event.clone()));
            }
        }
    }
}

struct Laid {
    wire: Arc<Wire>,
    service: Http,
    exporter: [u8; 32],
    proven: Proven,
    /// Whether the other end holds our own key.
    is_oneself: bool,
}

/// Why nobody answers.
enum Missing {
    /// No packet comes back.
    Silence,
    /// Nobody listens there.
    Refusal,
}

impl Wire {
    async fn unless_cut<T>(&self, work: impl Future<Output = T>) -> Result<T, BoxError> {
        tokio::select! {
            biased;
            () = self.cut.cancelled() => Err("the connection was cut".into()),
            () = self.lives[0].cancelled() => Err("we died".into()),
            () = self.lives[1].cancelled() => Err("the peer died".into()),
            done = work => Ok(done),
        }
    }
}

/// Makes the requests of one connection go over its wire.
fn over(lan: &Lan, wire: &Arc<Wire>, service: Http) -> Http {
    let (lan, wire) = (lan.clone(), Arc::clone(wire));
    BoxCloneSyncService::new(tower::service_fn(move |request: Request<Body>| {
        let (lan, wire, service) = (lan.clone(), Arc::clone(&wire), service.clone());
        async move {
            lan.carry(&wire).await?;
            let response = wire.unless_cut(service.oneshot(request)).await??;
            lan.carry(&wire).await?;
            Ok::<_, BoxError>(response.map(|body| streamed(lan, wire, body)))
        }
    }))
}

fn streamed(lan: Lan, wire: Arc<Wire>, body: Body) -> Body {
    let chunks = futures::stream::unfold(Some(body.into_data_stream()), move |stream| {
        let (lan, wire) = (lan.clone(), Arc::clone(&wire));
        async move {
            let mut stream = stream?;
            let chunk: Result<Option<Bytes>, BoxError> = async {
                let chunk = wire.unless_cut(stream.next()).await?;
                lan.carry(&wire).await?;
                Ok(chunk.transpose()?)
            }
            .await;
            match chunk {
                Ok(None) => None,
                Ok(Some(chunk)) => Some((Ok(chunk), Some(stream))),
                Err(error) => Some((Err(error), None)),
            }
        }
    });
    Body::from_stream(chunks)
}

/// The way of one cluster to the others.
pub(crate) struct Socket {
    pub lan: Lan,
    pub host: usize,
}

impl Connector for Socket {
    fn connect<'a>(
        &'a self,
        target: &'a Target,
    ) -> BoxFuture<'a, Result<Connection, ConnectError>> {
        Box::pin(async move {
            let address = address_of(target)?;
            tokio::time::sleep(LATENCY).await;
            let laid = match self.lan.lay(self.host, address) {
                Ok(laid) => laid,
                Err(Missing::Refusal) => {
                    return Err(ConnectError::Unreachable {
                        address: address.to_string(),
                        detail: "connection refused".to_owned(),
                    });
                }
                Err(Missing::Silence) => {
                    tokio::time::sleep(DIAL_TIME).await;
                    return Err(ConnectError::Timeout {
                        address: address.to_string(),
                        step: "accept the connection",
                    });
                }
            };
            if laid.wire.ends[0].0 == laid.wire.ends[1].0 {
                return Err(ConnectError::OwnIdentity);
            }
            if target.expect.is_none() && laid.is_oneself {
                return Err(ConnectError::OwnIdentity);
            }
            if let Some(expected) = &target.expect
                && *expected != laid.proven.cluster_id
            {
                return Err(ConnectError::IdentityMismatch {
                    expected: expected.clone(),
                    found: laid.proven.cluster_id,
                });
            }
            let http = over(&self.lan, &laid.wire, laid.service);
            let cut = laid.wire.cut.clone();
            let connection = Connection::new(laid.proven, laid.exporter, Some(address), http);
            Ok(connection.closed_by(cut))
        })
    }
}

fn address_of(target: &Target) -> Result<SocketAddr, ConnectError> {
    let host = target.url.trim_start_matches("https://");
    let known = target.addresses.first().copied();
    known
        .or_else(|| host.parse().ok())
        .ok_or_else(|| ConnectError::Unreachable {
            address: target.url.clone(),
            detail: "no such host".to_owned(),
        })
}

fn pair(one: usize, other: usize) -> (usize, usize) {
    (one.min(other), one.max(other))
}
