//! Every chain that is not a leaf and its identity, shown by a server and by a client that hold
//! the keys: nobody is believed, the reason is said, and the next honest peer is served.

use std::sync::{Arc, atomic::Ordering};

use jiff::{SignedDuration, Timestamp};
use landbridge::peer::{
    certificates::Identity,
    client::{ConnectError, Connector as _},
    tls::{Credentials, client_config},
};
use rcgen::{CertificateParams, DnType, Issuer, KeyPair, SignatureAlgorithm};
use rustls::{
    ServerConfig, SignatureScheme,
    client::ResolvesClientCert,
    crypto::ring::{default_provider, sign::any_supported_type},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
    version::TLS13,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::rig::{Cluster, connector, credentials, target};

const ED25519: &SignatureAlgorithm = &rcgen::PKCS_ED25519;
const P256: &SignatureAlgorithm = &rcgen::PKCS_ECDSA_P256_SHA256;

#[tokio::test]
async fn a_server_with_a_chain_that_is_none_is_told_nothing_and_the_reason_is_said() {
    for chain in impossible() {
        let (error, received) = dial(&chain).await;
        let ConnectError::NotAPeer { detail, .. } = &error else {
            panic!("{}: {error:?}", chain.name);
        };
        assert!(detail.contains(chain.reason), "{}: {detail}", chain.name);
        assert_eq!(received, None, "{}: something was sent", chain.name);
    }
}

#[tokio::test]
async fn a_client_with_a_chain_that_is_none_is_not_let_in() {
    let rome = Cluster::start().await;
    for chain in impossible() {
        let answer = ask(&rome, &chain).await;
        // Who cannot sign in a way that we take shows nothing, and is nobody.
        let nobody = answer.starts_with("HTTP/1.1 403") && chain.name == "an RSA leaf";
        assert!(answer.is_empty() || nobody, "{}: {answer}", chain.name);
    }
    assert_eq!(rome.desk.asked.load(Ordering::SeqCst), 0);
    let honest = connector(&credentials()).connect(&rome.target()).await;
    honest.unwrap().ids().await.unwrap();
}

#[tokio::test]
async fn a_certificate_of_another_time_is_believed_for_its_key() {
    let rome = Cluster::start().await;
    for years in [-10, 10] {
        let then = Timestamp::now() + SignedDuration::from_hours(years * 365 * 24);
        let identity = Arc::new(Identity::generate().unwrap());
        let id = identity.cluster_id().clone();
        let late = Credentials::new(identity, then).unwrap();
        let connection = connector(&late).connect(&rome.target()).await.unwrap();
        assert_eq!(&connection.ids().await.unwrap().cluster_id, rome.id());
        let milan = Cluster::start_with(late).await;
        let found = connector(&credentials()).connect(&milan.target()).await;
        assert_eq!(found.unwrap().proven.cluster_id, id, "{years} years");
    }
}

#[tokio::test]
async fn the_name_in_a_certificate_makes_nobody_another_cluster() {
    let victim = credentials();
    let mut parameters = CertificateParams::default();
    let name = victim.identity().cluster_id().as_str();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.subject_alt_names = CertificateParams::new(vec![name.to_owned()])
        .unwrap()
        .subject_alt_names;
    let (identity, key) = (key(ED25519), key(ED25519));
    let issuer = Issuer::from_params(&parameters, &identity);
    let leaf = parameters.signed_by(&key, &issuer).unwrap();
    let root = parameters.self_signed(&identity).unwrap();
    let links = vec![leaf.der().clone(), root.der().clone()];
    let chain = Chain::new("another's name", links, key, "");
    let (address, serving) = serve(&chain).await;
    let mut target = target(address);
    target.expect = Some(victim.identity().cluster_id().clone());
    let error = connector(&credentials()).connect(&target).await;
    let error = error.unwrap_err();
    assert!(
        matches!(&error, ConnectError::IdentityMismatch { found, .. } if found.as_str() != name),
        "{error}"
    );
    assert_eq!(serving.await.unwrap(), None);
}

/// A chain with the key of its first link.
struct Chain {
    name: &'static str,
    links: Vec<CertificateDer<'static>>,
    key: KeyPair,
    /// What the refusal says.
    reason: &'static str,
}

impl Chain {
    fn new(
        name: &'static str,
        links: Vec<CertificateDer<'static>>,
        key: KeyPair,
        reason: &'static str,
    ) -> Self {
        Self {
            name,
            links,
            key,
            reason,
        }
    }
}

fn impossible() -> Vec<Chain> {
    [
        lengths_and_orders(),
        other_signers(),
        other_kinds(),
        other_shapes(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn lengths_and_orders() -> Vec<Chain> {
    let of_length = |count: usize, reason| {
        let (identity, leaf) = (key(ED25519), key(ED25519));
        let [end, root] = chain(&identity, &leaf);
        let mut links = vec![end];
        links.resize(count, root);
        Chain::new("another length", links, leaf, reason)
    };
    let identity = key(ED25519);
    let [_, root] = chain(&identity, &key(ED25519));
    let alone = Chain::new("the identity alone", vec![root], identity, "has 1 links");
    let (identity, leaf) = (key(ED25519), key(ED25519));
    let [end, root] = chain(&identity, &leaf);
    let reason = "identity certificate is not signed";
    let swapped = Chain::new("the wrong order", vec![root, end], identity, reason);
    vec![
        of_length(1, "has 1 links"),
        of_length(3, "has 3 links"),
        of_length(50, "has 50 links"),
        alone,
        swapped,
    ]
}

fn other_signers() -> Vec<Chain> {
    let identity = key(ED25519);
    let [_, root] = chain(&identity, &key(ED25519));
    let links = vec![root.clone(), root];
    let reason = "instead of one of its own";
    let own = Chain::new("the identity as its own leaf", links, identity, reason);
    // What a forged rotation of a leaf would look like: it leads to a key that did not sign it.
    let (victim, thief, leaf) = (key(ED25519), key(ED25519), key(ED25519));
    let [_, root] = chain(&victim, &key(ED25519));
    let [end, _] = chain(&thief, &leaf);
    let reason = "leaf certificate is not signed";
    let forged = Chain::new("a forged rotation", vec![end, root], leaf, reason);
    vec![own, forged]
}

fn other_kinds() -> Vec<Chain> {
    let kind = "of a kind that is not accepted";
    let rsa = || KeyPair::from_pem(include_str!("rsa.pem")).unwrap();
    [
        ("an RSA identity", rsa(), key(ED25519), kind),
        // A server of good faith finds no signature that we would take.
        ("an RSA leaf", key(ED25519), rsa(), "HandshakeFailure"),
        ("a P-256 identity", key(P256), key(ED25519), kind),
    ]
    .into_iter()
    .map(|(name, identity, leaf, reason)| {
        let links = chain(&identity, &leaf).to_vec();
        Chain::new(name, links, leaf, reason)
    })
    .collect()
}

fn other_shapes() -> Vec<Chain> {
    let leaf = key(ED25519);
    let mut large = CertificateParams::default();
    let name = "x".repeat(20_000);
    large.distinguished_name.push(DnType::CommonName, name);
    let large = large.self_signed(&leaf).unwrap().der().clone();
    let [_, root] = chain(&key(ED25519), &leaf);
    let large = Chain::new("a large leaf", vec![large, root], leaf, "not well-formed");
    let leaf = key(ED25519);
    let [end, _] = chain(&key(ED25519), &leaf);
    let noise = CertificateDer::from(vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff]);
    let noise = Chain::new("noise", vec![end, noise], leaf, "not well-formed");
    vec![large, noise]
}

fn key(algorithm: &'static SignatureAlgorithm) -> KeyPair {
    KeyPair::generate_for(algorithm).unwrap()
}

/// A leaf and the identity that signed it.
fn chain(identity: &KeyPair, leaf: &KeyPair) -> [CertificateDer<'static>; 2] {
    let parameters = CertificateParams::default();
    let issuer = Issuer::from_params(&parameters, identity);
    let end = parameters.signed_by(leaf, &issuer).unwrap();
    let root = parameters.self_signed(identity).unwrap();
    [end.der().clone(), root.der().clone()]
}

/// Dials a server that shows a chain; returns why nothing came of it, and what the server received.
async fn dial(chain: &Chain) -> (ConnectError, Option<usize>) {
    let (address, serving) = serve(chain).await;
    let error = connector(&credentials()).connect(&target(address)).await;
    (error.unwrap_err(), serving.await.unwrap())
}

/// Takes one connection with a chain, and counts the bytes that come after the handshake, if it
/// ever ends well.
async fn serve(chain: &Chain) -> (std::net::SocketAddr, tokio::task::JoinHandle<Option<usize>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Fixed(certified(chain))));
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let mut stream = acceptor.accept(stream).await.ok()?;
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes).await;
        Some(bytes.len())
    });
    (address, serving)
}

/// Asks to be accepted, showing a chain; returns the answer.
async fn ask(rome: &Cluster, chain: &Chain) -> String {
    let (mut config, _) = client_config(&credentials(), None).unwrap();
    config.client_auth_cert_resolver = Arc::new(Fixed(certified(chain)));
    config.alpn_protocols = vec![];
    let stream = TcpStream::connect(rome.address).await.unwrap();
    let name = ServerName::try_from("rome").unwrap();
    let mut answer = Vec::new();
    // The client's part of a TLS 1.3 handshake is over before the server has judged it.
    if let Ok(mut stream) = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
    {
        let request = b"POST /identity HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
        let _ = stream.write_all(request).await;
        let _ = stream.read_to_end(&mut answer).await;
    }
    String::from_utf8_lossy(&answer).into_owned()
}

fn certified(chain: &Chain) -> Arc<CertifiedKey> {
    let key = PrivateKeyDer::try_from(chain.key.serialize_der()).unwrap();
    let key = any_supported_type(&key).unwrap();
    Arc::new(CertifiedKey::new(chain.links.clone(), key))
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
