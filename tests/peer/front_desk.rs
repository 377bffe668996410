//! A cluster with its whole front desk, and visitors that come to it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use landbridge::{
    api::{
        self, ClusterConfigSpec, ClusterId, ClusterName, ForeignCluster, labels,
        token::{self, TokenHash},
        wire::{IdentityAnswer, IdentityRequest},
    },
    controllers::{Clock, Context, cluster_config, context::Parts, reception::FrontDesk},
    engine::{addressing::Surroundings, peering::Own},
    kubeapi::{KubeApi, Options},
    peer::{
        auth::{PeerEndpoint, Reception as _, Session},
        certificates::{Identity, Proven},
        client::{ConnectError, Connection, Connector, Target},
        tls::Credentials,
        token::proof,
        trust::Role,
        web_pki::WebPki,
    },
};
use serde_json::json;
use tokio::sync::watch;

use crate::rig::request;

/// A token that rome may have given out.
pub(crate) const TOKEN: &str = "5f2d9c0b7a1e4836d0c4b7f19e83a6520d1f6b8c3e7a94152b60d8f7c9e3a41b";

/// A cluster that gives out tokens.
pub(crate) struct Rome {
    pub(crate) client: kube::Client,
    pub(crate) context: Arc<Context>,
    pub(crate) desk: Arc<FrontDesk>,
    pub(crate) endpoint: PeerEndpoint,
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) clock: Arc<AtomicI64>,
    pub(crate) config: watch::Sender<ClusterConfigSpec>,
}

impl Rome {
    pub(crate) async fn open() -> Self {
        let (now, clock) = clock();
        let objects = KubeApi::open(Options::in_memory(Arc::clone(&now), api::crds()));
        let client = objects.await.unwrap().client();
        cluster_config::ensure_namespace(&client, labels::NAMESPACE)
            .await
            .unwrap();
        Self::with(client, now, clock)
    }

    /// The same over any API.
    pub(crate) fn over(client: kube::Client) -> Self {
        let (now, clock) = clock();
        Self::with(client, now, clock)
    }

    fn with(client: kube::Client, now: Clock, clock: Arc<AtomicI64>) -> Self {
        let identity = Arc::new(Identity::generate().unwrap());
        let credentials = Credentials::new(identity, Timestamp::now()).unwrap();
        let (config, policy) = watch::channel(ClusterConfigSpec::default());
        let context = Context::new(Parts {
            client: client.clone(),
            connector: Arc::new(Nobody),
            own: own(credentials.identity()),
            service_cidr: "10.96.0.0/12".parse().unwrap(),
            surroundings: watch::channel(Surroundings::default()).1,
            fleet: watch::channel(None).1,
            web_pki: WebPki::default(),
            config: policy,
            clock: now,
        });
        let desk = Arc::new(FrontDesk::new(Arc::clone(&context)));
        let endpoint = PeerEndpoint::new(Arc::<FrontDesk>::clone(&desk), client.clone());
        Self {
            client,
            context,
            desk,
            endpoint,
            credentials,
            clock,
            config,
        }
    }

    pub(crate) fn id(&self) -> &ClusterId {
        self.credentials.identity().cluster_id()
    }

    pub(crate) fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), labels::NAMESPACE)
    }

    /// Gives a token out, as `landbridge token create` does.
    pub(crate) async fn give_out(&self, data: &[(&str, &str)]) {
        let hash = TokenHash::of(TOKEN).unwrap().to_text();
        let all = data.iter().copied().chain([(token::HASH, hash.as_str())]);
        let mut secret = Secret::default();
        secret.metadata.name = Some("invite".to_owned());
        secret.metadata.labels = Some([(token::GIVEN_OUT.to_owned(), String::new())].into());
        secret.data = Some(
            all.map(|(key, text)| (key.to_owned(), token::bytes(text)))
                .collect(),
        );
        self.keep(&secret).await;
    }

    pub(crate) async fn keep(&self, secret: &Secret) {
        let parameters = PostParams::default();
        self.secrets().create(&parameters, secret).await.unwrap();
    }

    /// Writes what a person decides about the first visitor.
    pub(crate) async fn decide(&self, spec: serde_json::Value) {
        let api: Api<ForeignCluster> = Api::all(self.client.clone());
        let (parameters, patch) = (PatchParams::default(), Patch::Merge(json!({"spec": spec})));
        api.patch("visitor-1", &parameters, &patch).await.unwrap();
    }

    pub(crate) async fn left(&self) -> String {
        let secret = self.secrets().get("invite").await.unwrap();
        let ByteString(text) = secret.data.unwrap().remove(token::USES).unwrap();
        String::from_utf8(text).unwrap()
    }

    pub(crate) async fn known(&self) -> Vec<ForeignCluster> {
        let api: Api<ForeignCluster> = Api::all(self.client.clone());
        api.list(&ListParams::default()).await.unwrap().items
    }

    /// Asks as a cluster does that shows the proof of a token.
    pub(crate) async fn show(&self, visitor: &Visitor, token: &str) -> IdentityAnswer {
        let request = visitor.request(self.id(), token);
        self.desk
            .identify(&visitor.session(), request)
            .await
            .unwrap()
    }

    /// The peer endpoint as it stands before a visitor.
    pub(crate) fn door(&self, visitor: &Visitor) -> Connection {
        let session = visitor.session();
        let proven = Proven {
            cluster_id: self.id().clone(),
            fingerprint: self.credentials.identity().fingerprint().clone(),
        };
        let http = self.endpoint.in_session(session.clone());
        Connection::new(proven, session.exporter, None, http)
    }

    /// Asks without a token.
    pub(crate) async fn ask(&self, visitor: &Visitor) -> IdentityAnswer {
        let request = IdentityRequest {
            token_proof: None,
            ..visitor.request(self.id(), TOKEN)
        };
        self.desk
            .identify(&visitor.session(), request)
            .await
            .unwrap()
    }
}

/// A clock that stands, and what sets it.
fn clock() -> (Clock, Arc<AtomicI64>) {
    let clock = Arc::new(AtomicI64::new(1_800_000_000));
    let seconds = Arc::clone(&clock);
    let now = move || Timestamp::from_second(seconds.load(Ordering::SeqCst)).unwrap();
    (Arc::new(now), clock)
}

/// A cluster that comes with a token.
pub(crate) struct Visitor {
    pub(crate) number: u16,
    pub(crate) id: ClusterId,
}

impl Visitor {
    pub(crate) fn new(number: u16) -> Self {
        let id = ClusterId::from_spki(&number.to_be_bytes());
        Self { number, id }
    }

    pub(crate) fn session(&self) -> Session {
        let [high, low] = self.number.to_be_bytes();
        let mut exporter = [7; 32];
        exporter[..2].copy_from_slice(&[high, low]);
        Session {
            peer: Some(Proven {
                cluster_id: self.id.clone(),
                fingerprint: api::Fingerprint::from_spki(&[high, low]),
            }),
            exporter,
            address: Some(SocketAddr::from((Ipv4Addr::new(10, 9, high, low), 40_000))),
        }
    }

    pub(crate) fn request(&self, to: &ClusterId, token: &str) -> IdentityRequest {
        let exporter = self.session().exporter;
        let token = TokenHash::of(token).unwrap();
        IdentityRequest {
            cluster_name: ClusterName::neutralise(&format!("visitor-{}", self.number)),
            token_proof: Some(proof(&token, Role::Home, &self.id, to, &exporter)),
            ..request(&self.id)
        }
    }
}

struct Nobody;

impl Connector for Nobody {
    fn connect<'a>(&'a self, _: &'a Target) -> BoxFuture<'a, Result<Connection, ConnectError>> {
        Box::pin(async { Err(ConnectError::OwnIdentity) })
    }
}

fn own(identity: &Identity) -> Own {
    Own {
        cluster_id: identity.cluster_id().clone(),
        fingerprint: identity.fingerprint().clone(),
        cluster_name: ClusterName::neutralise("rome"),
        auth_url: String::new(),
        pod_cidr: "10.244.0.0/16".parse().unwrap(),
        external_cidr: "10.1.0.0/24".parse().unwrap(),
        tunnel: None,
    }
}
