//! A hostile machine on the LAN: it announces what it likes, and takes or passes on connections.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use landbridge::peer::tls::{client_config, server_config};
use rustls::{
    ServerConfig,
    crypto::ring::{default_provider, sign::any_eddsa_type},
    pki_types::{CertificateDer, ServerName},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
    version::TLS13,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::CancellationToken;

use crate::{lab::Lab, rig::credentials};

/// The port of everybody's peer endpoint.
pub(crate) const PORT: u16 = 5870;
/// How often an announcement is repeated.
const AGAIN: Duration = Duration::from_millis(250);

/// What a hostile machine does with who connects.
#[derive(Debug, Clone)]
pub(crate) enum Trick {
    /// Shows a proper chain of its own.
    OwnKey,
    /// Shows the chain of the cluster at an address, whose keys it does not have.
    StolenChain(SocketAddr),
    /// Passes every byte on to an address, and back.
    Relay(SocketAddr),
}

/// What came of a connection to a hostile machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Loot {
    /// The other end left in the handshake.
    Nothing,
    /// The handshake ended well, and so many bytes came.
    Bytes(usize),
    /// The types of the TLS records that were passed on, in both directions.
    Records(Vec<u8>),
}

/// A hostile machine at work; it stops when this is dropped.
pub(crate) struct Eve {
    loot: Arc<Mutex<Vec<Loot>>>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Eve {
    /// Sets the machine `eve` of a lab to work. With an id it announces that id as its own.
    pub(crate) fn start(lab: &Lab, announced: Option<&str>, trick: Trick) -> Self {
        let loot: Arc<Mutex<Vec<Loot>>> = Arc::default();
        let stop = CancellationToken::new();
        let (address, taken, stopped) = (lab.address("eve"), Arc::clone(&loot), stop.clone());
        let announced = announced.map(str::to_owned);
        let thread = lab.beside("eve", move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(async move {
                tokio::select! {
                    () = stopped.cancelled() => {}
                    () = announce(address, announced) => {}
                    () = serve(address, trick, taken) => {}
                }
            });
        });
        Self {
            loot,
            stop,
            thread: Some(thread),
        }
    }

    /// Returns what has come of all connections so far.
    pub(crate) fn loot(&self) -> Vec<Loot> {
        lock(&self.loot).clone()
    }
}

impl Drop for Eve {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Says again and again that an id is here, from the port that mDNS is spoken on.
pub(crate) async fn announce(address: Ipv4Addr, id: Option<String>) {
    let Some(id) = id else {
        return std::future::pending().await;
    };
    let socket = UdpSocket::bind((address, 5353)).await.unwrap();
    socket.set_multicast_ttl_v4(255).unwrap();
    loop {
        for service in ["_liqo_auth", "_landbridge"] {
            let packet = announcement(service, &id, address);
            let group = (Ipv4Addr::new(224, 0, 0, 251), 5353);
            socket.send_to(&packet, group).await.unwrap();
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// An announcement (RFC 1035, section 4) that claims to replace what was said before (RFC 6762,
/// section 10.2): PTR, SRV, TXT and A.
pub(crate) fn announcement(service: &str, id: &str, address: Ipv4Addr) -> Vec<u8> {
    let name = |labels: &[&str]| {
        let mut data = Vec::new();
        for label in labels {
            data.push(u8::try_from(label.len()).unwrap());
            data.extend_from_slice(label.as_bytes());
        }
        data.push(0);
        data
    };
    let of_all = name(&[service, "_tcp", "local"]);
    let own = name(&[id, service, "_tcp", "local"]);
    let host = name(&[id, "local"]);
    let mut text = Vec::new();
    for pair in [
        "v=1",
        &format!("id={id}"),
        "name=rome",
        "boot=ffffffffffffffff",
    ] {
        text.push(u8::try_from(pair.len()).unwrap());
        text.extend_from_slice(pair.as_bytes());
    }
    let server = [&[0, 0, 0, 0][..], &PORT.to_be_bytes(), &host].concat();
    let (shared, unique) = (1_u16, 0x8001_u16);
    let records = [
        (&of_all, 12_u16, shared, own.clone()),
        (&own, 33, unique, server),
        (&own, 16, unique, text),
        (&host, 1, unique, address.octets().to_vec()),
    ];
    let mut packet = vec![0, 0, 0x84, 0, 0, 0, 0, 4, 0, 0, 0, 0];
    for (owner, kind, class, data) in records {
        packet.extend_from_slice(owner);
        packet.extend_from_slice(&kind.to_be_bytes());
        packet.extend_from_slice(&class.to_be_bytes());
        packet.extend_from_slice(&[0, 0, 0, 120]);
        packet.extend_from_slice(&u16::try_from(data.len()).unwrap().to_be_bytes());
        packet.extend_from_slice(&data);
    }
    packet
}

async fn serve(address: Ipv4Addr, trick: Trick, loot: Arc<Mutex<Vec<Loot>>>) {
    let listener = TcpListener::bind((address, PORT)).await.unwrap();
    let config = match &trick {
        Trick::OwnKey => Some(server_config(&credentials()).unwrap()),
        Trick::StolenChain(victim) => Some(thief(steal(*victim).await)),
        Trick::Relay(_) => None,
    };
    let acceptor = config.map(|config| TlsAcceptor::from(Arc::new(config)));
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (acceptor, trick, loot) = (acceptor.clone(), trick.clone(), Arc::clone(&loot));
        tokio::spawn(async move {
            let taken = match (trick, acceptor) {
                (Trick::Relay(to), _) => relay(stream, to).await,
                (_, Some(acceptor)) => take(acceptor, stream).await,
                (_, None) => Loot::Nothing,
            };
            lock(&loot).push(taken);
        });
    }
}

async fn take(acceptor: TlsAcceptor, stream: TcpStream) -> Loot {
    let Ok(mut stream) = acceptor.accept(stream).await else {
        return Loot::Nothing;
    };
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    Loot::Bytes(bytes.len())
}

/// Dials a cluster and returns the chain that it shows to everybody.
async fn steal(victim: SocketAddr) -> Vec<CertificateDer<'static>> {
    let (config, _) = client_config(&credentials(), None).unwrap();
    let stream = TcpStream::connect(victim).await.unwrap();
    let name = ServerName::from(victim.ip());
    let connector = TlsConnector::from(Arc::new(config));
    let stream = connector.connect(name, stream).await.unwrap();
    let chain = stream.get_ref().1.peer_certificates().unwrap();
    chain.iter().map(|link| link.clone().into_owned()).collect()
}

fn thief(chain: Vec<CertificateDer<'static>>) -> ServerConfig {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let key = any_eddsa_type(&key.serialize_der().into()).unwrap();
    ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Shown(Arc::new(CertifiedKey::new(chain, key)))))
}

#[derive(Debug)]
struct Shown(Arc<CertifiedKey>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

async fn relay(stream: TcpStream, to: SocketAddr) -> Loot {
    let Ok(other) = TcpStream::connect(to).await else {
        return Loot::Nothing;
    };
    let (near_read, near_write) = stream.into_split();
    let (far_read, far_write) = other.into_split();
    let (there, back) = tokio::join!(pass(near_read, far_write), pass(far_read, near_write));
    Loot::Records([record_types(&there), record_types(&back)].concat())
}

/// Passes bytes on until the end, and keeps a copy.
async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> Vec<u8> {
    let (mut copy, mut buffer) = (Vec::new(), vec![0; 16 * 1024]);
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        copy.extend_from_slice(&buffer[..length]);
        if to.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
    copy
}

/// Lists the types of TLS records (RFC 8446, section 5.1).
fn record_types(mut bytes: &[u8]) -> Vec<u8> {
    let mut types = Vec::new();
    while let [kind, 3, _, high, low, rest @ ..] = bytes {
        types.push(*kind);
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        bytes = rest.get(length..).unwrap_or_default();
    }
    types
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
