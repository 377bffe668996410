//! Who gets through the handshake, and what is sent before it is over.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use landbridge::{
    api::labels::reason,
    engine::addresses::OwnNetworks,
    peer::{
        client::{ConnectError, Connector as _, TlsConnector},
        tls::{Credentials, client_config, server_config},
    },
};
use rustls::{
    ServerConfig, SignatureScheme,
    client::ResolvesClientCert,
    crypto::ring::{default_provider, sign::any_eddsa_type},
    pki_types::{CertificateDer, ServerName},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
    version::TLS13,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use crate::rig::{Cluster, connector, credentials, target, was_connected};

#[tokio::test]
async fn the_right_key_is_let_through_on_both_sides() {
    let (rome, milan) = (Cluster::start().await, Cluster::start().await);
    let connection = connector(&milan.credentials)
        .connect(&rome.target())
        .await
        .unwrap();
    assert_eq!(&connection.proven.cluster_id, rome.id());
    assert_eq!(connection.address, Some(rome.address));
    let ids = connection.ids().await.unwrap();
    assert_eq!(&ids.cluster_id, rome.id());
    assert!(!connection.is_closed());
}

#[tokio::test]
async fn the_end_of_the_other_side_is_noticed() {
    let rome = Cluster::start().await;
    let connection = connector(&credentials())
        .connect(&rome.target())
        .await
        .unwrap();
    connection.ids().await.unwrap();
    drop(rome);
    connection.closed().await;
    let error = connection.ids().await.unwrap_err();
    assert_eq!(error.reason(), reason::UNREACHABLE, "{error}");
}

#[tokio::test]
async fn a_new_leaf_is_the_same_cluster() {
    let rome = Cluster::start().await;
    let month = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24 * 21);
    assert!(!rome.credentials.rotate(jiff::Timestamp::now()).unwrap());
    let open = connector(&credentials()).connect(&rome.target()).await;
    let open = open.unwrap();
    open.ids().await.unwrap();
    assert!(rome.credentials.rotate(month).unwrap());
    open.ids()
        .await
        .expect("a session outlives the leaf that it began with");
    let connection = connector(&credentials()).connect(&rome.target()).await;
    assert_eq!(&connection.unwrap().proven.cluster_id, rome.id());
}

#[tokio::test]
async fn another_cluster_at_the_address_gets_nothing() {
    let (rome, impostor) = (credentials(), credentials());
    let (address, received) = listen(server_config(&impostor).unwrap()).await;
    let mut target = target(address);
    target.expect = Some(rome.identity().cluster_id().clone());
    let error = connector(&credentials()).connect(&target).await;
    let expected = ConnectError::IdentityMismatch {
        expected: rome.identity().cluster_id().clone(),
        found: impostor.identity().cluster_id().clone(),
    };
    assert_eq!(error.unwrap_err(), expected);
    assert_eq!(received.await.unwrap(), Received::HandshakeFailed);
}

#[tokio::test]
async fn our_own_identity_at_the_address_gets_nothing() {
    let own = credentials();
    let (address, received) = listen(server_config(&own).unwrap()).await;
    let error = connector(&own).connect(&target(address)).await.unwrap_err();
    assert_eq!(error, ConnectError::OwnIdentity);
    assert_eq!(error.reason(), reason::OWN_IDENTITY);
    assert_eq!(received.await.unwrap(), Received::HandshakeFailed);
}

#[tokio::test]
async fn the_right_certificate_with_another_key_is_nobody() {
    let (rome, own) = (credentials(), credentials());
    for victim in [&rome, &own] {
        for expect in [None, Some(victim.identity().cluster_id().clone())] {
            let (address, received) = listen(thief_config(victim)).await;
            let mut target = target(address);
            target.expect.clone_from(&expect);
            let error = connector(&own).connect(&target).await.unwrap_err();
            let told = match expect {
                Some(_) => reason::IDENTITY_MISMATCH,
                None => reason::INVALID_ANSWER,
            };
            assert_eq!(error.reason(), told, "{error}");
            assert_eq!(received.await.unwrap(), Received::HandshakeFailed);
        }
    }
}

#[tokio::test]
async fn a_client_with_a_stolen_certificate_and_another_key_is_not_let_in() {
    let (rome, victim) = (Cluster::start().await, credentials());
    rome.accept(victim.identity().cluster_id());
    let (mut config, _) = client_config(&credentials(), None).unwrap();
    config.client_auth_cert_resolver = Arc::new(Fixed(stolen(&victim)));
    config.alpn_protocols = vec![];
    let stream = TcpStream::connect(rome.address).await.unwrap();
    let name = ServerName::try_from("rome").unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    // The client's part of a TLS 1.3 handshake is over before the server has judged it.
    if let Ok(mut stream) = connector.connect(name, stream).await {
        let _ = stream
            .write_all(b"GET /ids HTTP/1.1\r\nhost: x\r\n\r\n")
            .await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert_eq!(answer, b"");
    }
    assert_eq!(rome.desk.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_server_with_an_ordinary_certificate_is_not_a_peer() {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let certificate = rcgen::CertificateParams::default()
        .self_signed(&key)
        .unwrap();
    let chain = vec![certificate.der().clone()];
    let (address, received) = listen(config_showing(certified(chain, &key))).await;
    let error = connector(&credentials())
        .connect(&target(address))
        .await
        .unwrap_err();
    assert_eq!(error.reason(), reason::INVALID_ANSWER, "{error}");
    assert_eq!(received.await.unwrap(), Received::HandshakeFailed);
}

#[tokio::test]
async fn tls_1_2_is_not_spoken_by_our_client() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut hello = vec![0; 4096];
        let length = stream.read(&mut hello).await.unwrap();
        // RFC 8446, section 4.1.2: the session id stands after the version and the random bytes.
        let session = &hello[44..44 + usize::from(hello[43])];
        assert!(length > 44 + session.len());
        stream
            .write_all(&tls12_server_hello(session))
            .await
            .unwrap();
        let _ = stream.read(&mut hello).await;
    });
    let error = connector(&credentials())
        .connect(&target(address))
        .await
        .unwrap_err();
    assert_eq!(error.reason(), reason::INVALID_ANSWER, "{error}");
}

#[tokio::test]
async fn tls_1_2_is_not_spoken_by_our_listener() {
    let rome = Cluster::start().await;
    let mut stream = TcpStream::connect(rome.address).await.unwrap();
    stream.write_all(&tls12_client_hello()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    // RFC 8446, section 6: a fatal alert and nothing else.
    assert_eq!(answer.first(), Some(&21), "{answer:?}");
    assert_eq!(answer.get(5), Some(&2), "{answer:?}");
    assert_eq!(answer.len(), 7, "{answer:?}");
}

#[tokio::test]
async fn an_address_that_is_refused_gets_no_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let own = tokio::sync::watch::channel(OwnNetworks::default()).1;
    let strict = TlsConnector::new(credentials(), own);
    let mut named = target(address);
    named.url = format!("https://localhost:{}", address.port());
    let mut resolved = target(address);
    resolved.url = format!("https://peer.example:{}", address.port());
    resolved.addresses = vec![address];
    let mut nonsense = target(address);
    nonsense.url = format!("https://{address}/path");
    for target in [target(address), named, resolved, nonsense] {
        let error = strict.connect(&target).await.unwrap_err();
        assert_eq!(error.reason(), reason::ADDRESS_REFUSED, "{error}");
    }
    assert!(!was_connected(listener));
}

#[tokio::test]
async fn the_address_with_the_right_key_is_found_among_wrong_ones() {
    let (rome, milan) = (Cluster::start().await, Cluster::start().await);
    let mut target = rome.target();
    target.addresses = vec!["127.0.0.1:1".parse().unwrap(), milan.address, rome.address];
    let connection = connector(&credentials()).connect(&target).await.unwrap();
    assert_eq!(connection.address, Some(rome.address));
    target.addresses = vec!["127.0.0.1:1".parse().unwrap(), milan.address];
    let error = connector(&credentials())
        .connect(&target)
        .await
        .unwrap_err();
    assert_eq!(error.reason(), reason::IDENTITY_MISMATCH, "{error}");
}

#[tokio::test]
async fn so_many_targets_are_dialled_at_once_and_none_is_waited_for_for_ever() {
    /// The places of eight candidates.
    const AT_ONCE: usize = 128;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut silent = target(listener.local_addr().unwrap());
    silent.expect = Some(credentials().identity().cluster_id().clone());
    let connector = Arc::new(connector(&credentials()));
    let dials: Vec<_> = (0..=AT_ONCE)
        .map(|_| {
            let (connector, silent) = (Arc::clone(&connector), silent.clone());
            tokio::spawn(async move { connector.connect(&silent).await.unwrap_err() })
        })
        .collect();
    // They are held until all have had their turn: only the time of a step lets the last one come.
    let mut held = Vec::new();
    for _ in 0..AT_ONCE {
        held.push(listener.accept().await.unwrap().0);
    }
    let second = Duration::from_secs(1);
    let last = tokio::time::timeout(second, listener.accept()).await;
    assert!(last.is_err(), "one more is dialled beside them");
    held.push(listener.accept().await.unwrap().0);
    for dial in dials {
        let error = dial.await.unwrap();
        assert!(matches!(error, ConnectError::Timeout { .. }), "{error}");
    }
}

/// What a server saw of us.
#[derive(Debug, PartialEq, Eq)]
enum Received {
    HandshakeFailed,
    Bytes(usize),
}

/// Takes one connection and counts what comes through it after the handshake.
async fn listen(config: ServerConfig) -> (SocketAddr, JoinHandle<Received>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let receiving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        match TlsAcceptor::from(Arc::new(config)).accept(stream).await {
            Err(_) => Received::HandshakeFailed,
            Ok(mut stream) => {
                let mut bytes = Vec::new();
                let _ = stream.read_to_end(&mut bytes).await;
                Received::Bytes(bytes.len())
            }
        }
    });
    (address, receiving)
}

/// A server that shows the chain of somebody else and signs with a key of its own.
fn thief_config(victim: &Arc<Credentials>) -> ServerConfig {
    config_showing(stolen(victim))
}

fn stolen(victim: &Arc<Credentials>) -> Arc<CertifiedKey> {
    let leaf = victim.identity().leaf(jiff::Timestamp::now()).unwrap();
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    certified(leaf.chain, &key)
}

fn certified(chain: Vec<CertificateDer<'static>>, key: &rcgen::KeyPair) -> Arc<CertifiedKey> {
    let key = any_eddsa_type(&key.serialize_der().into()).unwrap();
    Arc::new(CertifiedKey::new(chain, key))
}

#[derive(Debug)]
struct Fixed(Arc<CertifiedKey>);

impl ResolvesServerCert for Fixed {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

impl ResolvesClientCert for Fixed {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn config_showing(certified: Arc<CertifiedKey>) -> ServerConfig {
    ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Fixed(certified)))
}

/// A TLS 1.2 ServerHello (RFC 5246, section 7.4.1.3) with a cipher suite of that version.
fn tls12_server_hello(session: &[u8]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.push(u8::try_from(session.len()).unwrap());
    body.extend(session);
    body.extend([0xc0, 0x2b, 0]);
    record(2, &body)
}

/// A TLS 1.2 ClientHello (RFC 5246, section 7.4.1.2): it names no newer version.
fn tls12_client_hello() -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]);
    let extensions = [
        [0, 10, 0, 4, 0, 2, 0, 23].as_slice(),
        [0, 13, 0, 4, 0, 2, 4, 3].as_slice(),
    ]
    .concat();
    body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    body.extend(extensions);
    record(1, &body)
}

fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap();
    let mut bytes = vec![22, 3, 3];
    bytes.extend((length + 4).to_be_bytes());
    bytes.extend([kind, 0]);
    bytes.extend(length.to_be_bytes());
    bytes.extend(body);
    bytes
}
