//! Userspace WireGuard on a TUN: gotatun between our socket and our TUN.

use std::{net::SocketAddr, time::Duration};

use futures::FutureExt as _;
use gotatun::{
    device::{Device as Engine, DeviceBuilder, Error as EngineError, Peer},
    x25519,
};
use ipnet::Ipv4Net;
use nix::errno::Errno;
use tokio::{sync::watch, task::JoinHandle, time::timeout};

use super::{
    driver::Error,
    key::PrivateKey,
    tun::{self, Passage, Pulse},
    udp,
};
use crate::engine::overlay::{Link, PublicKey};

/// Keeps a NAT on the way open (WireGuard's manual: 25 seconds suit most of them).
const KEEPALIVE_SECONDS: u16 = 25;
/// How long the engine may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(3);
/// How often, and how many times, a port that is taken is tried again.
const BIND_INTERVAL: Duration = Duration::from_millis(20);
const BIND_TRIES: u32 = 10;

/// What WireGuard knows about a peer.
#[derive(Debug, Clone)]
pub(crate) struct PeerFacts {
    pub(crate) public_key: PublicKey,
    pub(crate) allowed: Vec<Ipv4Net>,
    pub(crate) endpoint: Option<SocketAddr>,
    pub(crate) handshake_age: Option<Duration>,
    pub(crate) received: u64,
    pub(crate) sent: u64,
}

/// What a device is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parts<'a> {
    pub(crate) interface: &'a str,
    pub(crate) key: &'a PrivateKey,
    pub(crate) port: u16,
    pub(crate) mtu: u16,
    pub(crate) offload: bool,
}

/// A running WireGuard.
pub(crate) struct Device {
    engine: Engine<(udp::Factory, tun::Sender, tun::Receiver)>,
    writer: JoinHandle<()>,
    pulse: Pulse,
    mtu: watch::Sender<u16>,
    port: u16,
}

impl Device {
    /// Makes the TUN, up, and WireGuard on it.
    pub(crate) async fn start(
        parts: Parts<'_>,
        passages: watch::Receiver<Vec<Passage>>,
    ) -> Result<Self, Error> {
        let tun = open_tun(&parts)?;
        let pulse = Pulse::default();
        let mtu = watch::Sender::new(parts.mtu);
        let sockets = udp::Factory::new(passages.clone());
        let (sender, receiver, writer) = tun::halves(tun, mtu.subscribe(), passages, &pulse);
        let engine = DeviceBuilder::new()
            .with_udp(sockets)
            .with_ip_pair(sender, receiver)
            .with_private_key(parts.key.secret())
            .with_listen_port(parts.port)
            .build()
            .await
            .map_err(|error| engine_error("start WireGuard", error))?;
        let device = Self {
            engine,
            writer,
            pulse,
            mtu,
            port: parts.port,
        };
        if let Err(error) = device.listen().await {
            device.stop().await;
            return Err(error);
        }
        Ok(device)
    }

    /// Opens the socket, once and before the first peer, so that none is known without it.
    async fn listen(&self) -> Result<(), Error> {
        let mut tries = 0;
        loop {
            // The engine opens its socket when something was cleared, never for a first peer.
            match self.engine.clear_peers().await {
                // An engine that was stopped lets its port go a moment later.
                Err(EngineError::Bind(error, _))
                    if is(&error, Errno::EADDRINUSE) && tries < BIND_TRIES =>
                {
                    tries += 1;
                    tokio::time::sleep(BIND_INTERVAL).await;
                }
                Err(error) => return Err(engine_error("open the tunnel's socket", error)),
                Ok(_) => return Ok(()),
            }
        }
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        let has_failed = self.engine.wait().now_or_never().is_some();
        !has_failed && !self.pulse.is_dead() && !self.writer.is_finished()
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn set_mtu(&self, mtu: u16) {
        self.mtu.send_replace(mtu);
    }

    pub(crate) async fn set_peer(&self, link: &Link) -> Result<(), Error> {
        let key = to_engine(&link.public_key);
        let range = link.allowed.to_string();
        let range = range.parse().expect("a range of ipnet is one of ipnetwork");
        let result = self
            .engine
            .write(async |device| {
                let known = device.modify_peer(&key, |peer| {
                    peer.clear_allowed_ips();
                    peer.add_allowed_ips([range]);
                    if link.endpoint.is_some() {
                        peer.set_endpoint(link.endpoint);
                    }
                });
                if known.await {
                    return;
                }
                let mut peer = Peer::new(key).with_allowed_ip(range);
                peer.endpoint = link.endpoint;
                peer.keepalive = Some(KEEPALIVE_SECONDS);
                device.add_peer(peer);
            })
            .await;
        result.map_err(|error| engine_error("make a peer known", error))
    }

    pub(crate) async fn set_endpoint(
        &self,
        key: &PublicKey,
        endpoint: SocketAddr,
    ) -> Result<(), Error> {
        let key = to_engine(key);
        let result = self
            .engine
            .write(async |device| {
                let change = device.modify_peer(&key, |peer| peer.set_endpoint(Some(endpoint)));
                change.await;
            })
            .await;
        result.map_err(|error| engine_error("set a peer's endpoint", error))
    }

    pub(crate) async fn remove_peer(&self, key: &PublicKey) -> Result<(), Error> {
        let key = to_engine(key);
        let result = self
            .engine
            .write(async |device| {
                device.remove_peer(&key).await;
            })
            .await;
        result.map_err(|error| engine_error("remove a peer", error))
    }

    pub(crate) async fn peers(&self) -> Vec<PeerFacts> {
        let peers = self.engine.peers().await;
        let facts = peers.into_iter().map(|it| PeerFacts {
            public_key: PublicKey::new(it.peer.public_key.to_bytes()),
            allowed: it
                .peer
                .allowed_ips
                .iter()
                .filter_map(|range| range.to_string().parse().ok())
                .collect(),
            endpoint: it.peer.endpoint,
            handshake_age: it.stats.last_handshake,
            received: u64::try_from(it.stats.rx_bytes).unwrap_or(u64::MAX),
            sent: u64::try_from(it.stats.tx_bytes).unwrap_or(u64::MAX),
        });
        facts.collect()
    }

    /// Stops WireGuard and lets the TUN go.
    pub(crate) async fn stop(self) {
        let Self { engine, writer, .. } = self;
        let abort = writer.abort_handle();
        let stop = async {
            engine.stop().await;
            // The writer ends once the engine has dropped its half.
            let _ = writer.await;
        };
        if timeout(STOP_LIMIT, stop).await.is_err() {
            abort.abort();
        }
    }
}

fn open_tun(parts: &Parts<'_>) -> Result<tun_rs::AsyncDevice, Error> {
    let open = |offload: bool| {
        tun_rs::DeviceBuilder::new()
            .name(parts.interface)
            .mtu(parts.mtu)
            .enable(true)
            .with(|builder| {
                builder.offload(offload);
            })
            .build_async()
    };
    let opened = match open(parts.offload) {
        Err(error) if parts.offload && is(&error, Errno::EINVAL) => open(false),
        opened => opened,
    };
    opened.map_err(|source| {
        if is(&source, Errno::EBUSY) {
            return Error::Unavailable {
                missing: format!("interface {} belongs to another process", parts.interface),
                mend: "stop the other daemon on this machine".to_owned(),
            };
        }
        if is(&source, Errno::EPERM) || is(&source, Errno::EACCES) {
            return Error::Unavailable {
                missing: "this process may not make network interfaces (CAP_NET_ADMIN)".to_owned(),
                mend: "run as root, or give it the capability CAP_NET_ADMIN".to_owned(),
            };
        }
        Error::kernel(format!("make interface {}", parts.interface), source)
    })
}

fn to_engine(key: &PublicKey) -> x25519::PublicKey {
    x25519::PublicKey::from(*key.as_bytes())
}

fn engine_error(what: &str, error: EngineError) -> Error {
    if let EngineError::Bind(source, params) = error {
        let port = params.port;
        return Error::kernel(format!("listen on UDP port {port} for the tunnel"), source);
    }
    if let EngineError::IoError(source) = error {
        return Error::kernel(what, source);
    }
    Error::kernel(what, std::io::Error::other(error.to_string()))
}

fn is(error: &std::io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno as i32)
}
