//! A whole peer endpoint on loopback, and a connector that may dial it.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use futures::future::{BoxFuture, ready};
use landbridge::{
    api::{
        PeeringRequest,
        foreign_cluster::DiscoveryType,
        identity::{ClusterId, ClusterName},
        wire::{Decision, Features, IdentityAnswer, IdentityRequest, Ids},
    },
    engine::addresses::OwnNetworks,
    kubeapi::{KubeApi, Options},
    peer::{
        auth::{PeerEndpoint, Reception, Session, Undecided},
        certificates::Identity,
        client::{Target, TlsConnector},
        listener,
        tls::{Credentials, client_config},
        trust::{FleetSecret, Role},
    },
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_rustls::client::TlsStream;
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Decides as a test wishes, and counts what it was asked.
pub(crate) struct Desk {
    pub own: ClusterId,
    pub accepted: Mutex<BTreeSet<ClusterId>>,
    pub fleet: Option<FleetSecret>,
    pub otherwise: Mutex<Decision>,
    pub asked: AtomicUsize,
    /// How often it was looked up who is accepted.
    pub looked_up: AtomicUsize,
    /// Whether nobody can say who is accepted.
    pub undecided: AtomicBool,
}

impl Reception for Desk {
    fn ids(&self) -> BoxFuture<'_, Ids> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Box::pin(async {
            Ids {
                cluster_id: self.own.clone(),
                cluster_name: ClusterName::neutralise("rome"),
                guest_namespace: "liqo".to_owned(),
                landbridge: Some(Features {
                    protocol: 1,
                    version: String::new(),
                    boot: String::new(),
                    attestation: None,
                    features: vec![],
                }),
            }
        })
    }

    fn identify<'a>(
        &'a self,
        session: &'a Session,
        request: IdentityRequest,
    ) -> BoxFuture<'a, Result<IdentityAnswer, Undecided>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            let peer = session
                .peer
                .as_ref()
                .expect("only proven peers come so far");
            let (home, exporter) = (&peer.cluster_id, &session.exporter);
            let shown = self.fleet.as_ref().zip(request.proof.as_ref());
            let proof = shown
                .filter(|(fleet, proof)| fleet.verify(proof, Role::Home, home, &self.own, exporter))
                .map(|(fleet, _)| fleet.proof(Role::Foreign, home, &self.own, exporter));
            let mut decision = *self.otherwise.lock().unwrap();
            if proof.is_some() || self.accepted.lock().unwrap().contains(home) {
                decision = Decision::Accepted;
                self.accepted.lock().unwrap().insert(home.clone());
            }
            Ok(IdentityAnswer {
                token_proof: None,
                nonce: None,
                decision,
                message: "as decided".to_owned(),
                proof,
            })
        })
    }

    fn is_known_accepted(&self, id: &ClusterId) -> bool {
        !self.undecided.load(Ordering::SeqCst) && self.accepted.lock().unwrap().contains(id)
    }

    fn accepted<'a>(&'a self, id: &'a ClusterId) -> BoxFuture<'a, Result<bool, Undecided>> {
        self.looked_up.fetch_add(1, Ordering::SeqCst);
        let is_undecided = self.undecided.load(Ordering::SeqCst);
        let is_accepted = self.accepted.lock().unwrap().contains(id);
        let decided = (!is_undecided).then_some(is_accepted);
        Box::pin(ready(decided.ok_or(Undecided)))
    }
}

/// A running cluster, as far as its peers can see it.
pub(crate) struct Cluster {
    pub credentials: Arc<Credentials>,
    pub desk: Arc<Desk>,
    pub objects: KubeApi,
    pub endpoint: PeerEndpoint,
    pub address: SocketAddr,
    _stop: DropGuard,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        Self::start_with(credentials()).await
    }

    pub(crate) async fn start_with(credentials: Arc<Credentials>) -> Self {
        let desk = Arc::new(Desk {
            own: credentials.identity().cluster_id().clone(),
            accepted: Mutex::default(),
            fleet: FleetSecret::new(SECRET).ok(),
            otherwise: Mutex::new(Decision::Waiting),
            asked: AtomicUsize::new(0),
            looked_up: AtomicUsize::new(0),
            undecided: AtomicBool::new(false),
        });
        let objects = KubeApi::open(Options::in_memory(
            Arc::new(jiff::Timestamp::now),
            landbridge::api::crds(),
        ))
        .await
        .unwrap();
        let reception: Arc<dyn Reception> = Arc::<Desk>::clone(&desk);
        let endpoint = PeerEndpoint::new(reception, objects.client());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(listener::serve(
            listener,
            Arc::clone(&credentials),
            endpoint.clone(),
            stop.clone(),
        ));
        Self {
            credentials,
            desk,
            objects,
            endpoint,
            address,
            _stop: stop.drop_guard(),
        }
    }

    pub(crate) fn id(&self) -> &ClusterId {
        self.credentials.identity().cluster_id()
    }

    /// Returns what is stored of a peer, as the cluster itself sees it.
    pub(crate) async fn stored(&self, peer: &ClusterId) -> Option<serde_json::Value> {
        let api: kube::Api<PeeringRequest> = kube::Api::all(self.objects.client());
        let object = api.get_opt(peer.as_str()).await.unwrap();
        object.map(|object| serde_json::to_value(object).unwrap())
    }

    pub(crate) fn accept(&self, id: &ClusterId) {
        self.desk.accepted.lock().unwrap().insert(id.clone());
    }

    pub(crate) fn target(&self) -> Target {
        Target {
            expect: Some(self.id().clone()),
            ..target(self.address)
        }
    }
}

pub(crate) fn credentials() -> Arc<Credentials> {
    let identity = Arc::new(Identity::generate().unwrap());
    Credentials::new(identity, jiff::Timestamp::now()).unwrap()
}

/// A connector that may dial this machine.
pub(crate) fn connector(credentials: &Arc<Credentials>) -> TlsConnector {
    let own = OwnNetworks {
        loopback_allowed: true,
        ..OwnNetworks::default()
    };
    TlsConnector::new(Arc::clone(credentials), watch::channel(own).1)
}

/// Tells whether somebody has connected to a listener that nobody serves.
pub(crate) fn was_connected(listener: TcpListener) -> bool {
    listener.into_std().unwrap().accept().is_ok()
}

pub(crate) fn target(address: SocketAddr) -> Target {
    Target {
        url: format!("https://{address}"),
        expect: None,
        addresses: vec![],
        source: DiscoveryType::Manual,
    }
}

pub(crate) fn request(id: &ClusterId) -> IdentityRequest {
    IdentityRequest {
        commitment: None,
        nonce: None,
        cluster_id: id.clone(),
        cluster_name: ClusterName::default(),
        auth_url: String::new(),
        boot: String::new(),
        token: None,
        token_proof: None,
        proof: None,
    }
}

/// Connects without a certificate. The verifier of a real client is not the point here: it takes
/// ours.
pub(crate) async fn nobody(address: SocketAddr, protocol: &str) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(address).await.unwrap();
    nobody_on(stream, protocol).await.unwrap()
}

/// Finishes a handshake without a certificate on a connection that is there.
pub(crate) async fn nobody_on(
    stream: TcpStream,
    protocol: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let (mut config, _) = client_config(&credentials(), None).unwrap();
    config.client_auth_cert_resolver = Arc::new(NoCertificate);
    config.alpn_protocols = vec![protocol.into()];
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

#[derive(Debug)]
struct NoCertificate;

impl rustls::client::ResolvesClientCert for NoCertificate {
    fn resolve(
        &self,
        _: &[&[u8]],
        _: &[rustls::SignatureScheme],
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}
