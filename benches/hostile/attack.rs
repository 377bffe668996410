//! What hostile peers and strangers do, and how much of it they got done.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures::{
    FutureExt as _,
    future::{join_all, select_all},
};
use kube::{
    Api,
    api::{PostParams, WatchParams},
};
use landbridge::{
    api::{ClusterId, PeeringRequest, peering_request::PeeringRequestSpec},
    peer::tls::client_config,
};
use rustls::{
    SignatureScheme, client::ResolvesClientCert, pki_types::ServerName, sign::CertifiedKey,
};
use tokio::{
    io::AsyncReadExt as _,
    net::TcpSocket,
    sync::Notify,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_rustls::TlsConnector;

use crate::{crowd::crowd, peer::Peer, rig::credentials};

/// How many sessions a hostile peer has, and how many requests it has open in each.
const SESSIONS: usize = 8;
const STREAMS: usize = 8;
/// How many addresses hostile strangers have.
const ADDRESSES: u8 = 40;

/// What is done to the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attack {
    /// An accepted peer changes its object a thousand times a second.
    Updates,
    /// An accepted peer does all that it can think of, as fast as it can.
    Everything,
    /// Strangers with the chain of somebody else and without its key, 500 a second.
    Handshakes,
    /// 2,000 connections that only stay.
    Crowd,
}

impl Attack {
    pub(crate) const ALL: [Self; 4] = [
        Self::Updates,
        Self::Everything,
        Self::Handshakes,
        Self::Crowd,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Updates => "1,000 updates a second of an accepted peer",
            Self::Everything => "updates, megabytes, objects and watches as fast as one peer can",
            Self::Handshakes => "500 rejected handshakes a second",
            Self::Crowd => "2,000 half-open connections, a byte a second",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|attack| attack.name() == name)
    }

    /// Says when it is under way, goes on for so long, and returns what became of it.
    pub(crate) async fn go_on(self, target: SocketAddr, time: Duration) -> String {
        let tally = Tally::default();
        let end = async {
            tally.begun.notified().await;
            println!("under way");
            sleep(time).await;
        };
        let attack = async {
            match self {
                Self::Updates => updates(target, &tally).await,
                Self::Everything => everything(target, &tally).await,
                Self::Handshakes => handshakes(target, &tally).await,
                Self::Crowd => {
                    tally.begun.notify_one();
                    crowd(target, &addresses()).await;
                }
            }
        };
        tokio::select! {
            () = attack => {}
            () = end => {}
        }
        tally.told(time)
    }
}

fn addresses() -> Vec<Ipv4Addr> {
    let last = 1..=ADDRESSES;
    last.map(|last| Ipv4Addr::new(127, 0, 1, last)).collect()
}

/// How often each thing happened, and whether it has begun.
#[derive(Debug, Default)]
struct Tally {
    counts: RefCell<BTreeMap<String, u64>>,
    begun: Notify,
}

impl Tally {
    /// Tells whether there was an answer.
    fn count<T>(&self, deed: &str, result: &Result<T, kube::Error>) -> bool {
        let outcome = match result {
            Ok(_) => "done".to_owned(),
            Err(kube::Error::Api(status)) => status.code.to_string(),
            Err(_) => "cut off".to_owned(),
        };
        self.add(format!("{deed} {outcome}"));
        outcome != "cut off"
    }

    fn add(&self, what: String) {
        *self.counts.borrow_mut().entry(what).or_default() += 1;
    }

    fn told(&self, time: Duration) -> String {
        let seconds = time.as_secs().max(1);
        let counts = self.counts.borrow();
        let parts: Vec<String> = counts
            .iter()
            .map(|(what, count)| format!("{what}: {}/s", count / seconds))
            .collect();
        parts.join(", ")
    }
}

async fn updates(target: SocketAddr, tally: &Tally) {
    let peer = Peer::accepted(target).await;
    let mut lanes = Vec::new();
    for _ in 0..SESSIONS {
        lanes.push(peer.another_session().await.unwrap());
    }
    tally.begun.notify_one();
    let pace = 1_000 / u64::try_from(SESSIONS * STREAMS).unwrap();
    let name = peer.name();
    join_all(lanes.iter().flat_map(|api| {
        (0..STREAMS).map(move |lane| async move {
            let mut ticks = interval(Duration::from_micros(1_000_000 / pace));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            for index in 0_u64.. {
                ticks.tick().await;
                let namespace = format!("n{lane}-{index}");
                tally.count("update", &Peer::change(api, name, &namespace).await);
            }
        })
    }))
    .await;
}

async fn everything(target: SocketAddr, tally: &Tally) {
    let peer = &Peer::accepted(target).await;
    tally.begun.notify_one();
    let sessions = (0..SESSIONS).map(|session| async move {
        loop {
            let Some(api) = peer.another_session().await else {
                tally.add("session refused".to_owned());
                sleep(Duration::from_millis(100)).await;
                continue;
            };
            let api = &api;
            let lanes = (0..STREAMS).map(|_| {
                async move {
                    let mut index = 0_u64;
                    while one_of_everything(api, peer.name(), (session, index), tally).await {
                        index += u64::try_from(STREAMS).unwrap();
                    }
                }
                .boxed_local()
            });
            // What ends one request ends the session, and the next one begins.
            select_all(lanes).await;
        }
    });
    join_all(sessions).await;
}

/// Does what this session is for; false when it was cut off.
async fn one_of_everything(
    api: &Api<PeeringRequest>,
    name: &str,
    (session, index): (usize, u64),
    tally: &Tally,
) -> bool {
    match session {
        0 => {
            let megabyte = "n".repeat(1 << 20);
            tally.count("megabyte", &Peer::change(api, name, &megabyte).await)
        }
        1 => {
            let watch = api.watch(&WatchParams::default(), "0").await;
            // It is kept for a moment, so that the peer comes up against its bound.
            sleep(Duration::from_millis(200)).await;
            tally.count("watch", &watch)
        }
        2 => {
            let other = ClusterId::from_spki(&index.to_be_bytes());
            let object = PeeringRequest::new(other.as_str(), PeeringRequestSpec::default());
            let created = api.create(&PostParams::default(), &object).await;
            tally.count("other object", &created)
        }
        _ => {
            let namespace = format!("n{session}-{index}");
            tally.count("update", &Peer::change(api, name, &namespace).await)
        }
    }
}

/// Chains that are well-formed and signed, with a key that is not the one of the leaf: refused only
/// after all the arithmetic of a handshake.
async fn handshakes(target: SocketAddr, tally: &Tally) {
    let addresses = addresses();
    let (mut config, _) = client_config(&credentials(), None).unwrap();
    config.client_auth_cert_resolver = Arc::new(Stolen::new());
    let connector = TlsConnector::from(Arc::new(config));
    tally.begun.notify_one();
    let pace = 500 / u64::from(ADDRESSES);
    join_all(addresses.iter().map(|from| {
        let connector = &connector;
        async move {
            let mut ticks = interval(Duration::from_micros(1_000_000 / pace));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let refused = refused(connector, *from, target).await;
                let outcome = if refused { "refused" } else { "not judged" };
                tally.add(format!("handshake {outcome}"));
            }
        }
    }))
    .await;
}

/// Tells whether the other end judged the handshake; it does so after our part of it is over.
async fn refused(connector: &TlsConnector, from: Ipv4Addr, target: SocketAddr) -> bool {
    let attempt = async {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((from, 0)))?;
        let stream = socket.connect(target).await?;
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = connector.connect(name, stream).await?;
        stream.read(&mut [0; 1]).await
    };
    match timeout(Duration::from_secs(5), attempt).await {
        Ok(Err(error)) => error.kind() == std::io::ErrorKind::InvalidData,
        Ok(Ok(_)) | Err(_) => false,
    }
}

/// The chain of one cluster with the key of another.
#[derive(Debug)]
struct Stolen(Arc<CertifiedKey>);

impl Stolen {
    fn new() -> Self {
        let shown = || credentials().resolve(&[], &[]).unwrap();
        let (victim, thief) = (shown(), shown());
        let stolen = CertifiedKey::new(victim.cert.clone(), Arc::clone(&thief.key));
        Self(Arc::new(stolen))
    }
}

impl ResolvesClientCert for Stolen {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}
