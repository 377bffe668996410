//! An embedded API on loopback TLS, and the users that speak to it.

use axum::{
    body::Body,
    http::{HeaderMap, Request, Response, StatusCode},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use landbridge::kubeapi::{Clock, KubeApi, Options, loopback, store};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use serde_json::{Value, json};
use std::{path::Path, sync::Arc};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::{CancellationToken, DropGuard};

/// The collection of the definition that the recordings were made with.
pub(crate) const CLUSTERS: &str = "/apis/discovery.lb.test/v1alpha1/lbclusters";

/// What people do with the Python client.
pub(crate) const PYTHON: &str = include_str!("data/client.py");

/// A connection with TLS and without HTTP.
pub(crate) type RawStream = TlsStream<TcpStream>;

/// A running API.
pub(crate) struct Server {
    pub(crate) url: String,
    _home: TempDir,
    credentials: loopback::Credentials,
    _stop: DropGuard,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

impl Server {
    /// Starts an API that serves the definition of the recordings beside our own.
    pub(crate) async fn start() -> Self {
        Self::start_at(Arc::new(jiff::Timestamp::now)).await
    }

    /// Starts one whose objects have the times of this clock.
    pub(crate) async fn start_at(clock: Clock) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut crds = landbridge::api::crds();
        crds.push(definition());
        let api = KubeApi::open(Options {
            backend: Box::new(store::Sqlite::open(home.path().join("store.db")).unwrap()),
            commit: store::Commit::Threaded,
            clock,
            crds,
        })
        .await
        .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let credentials = load(home.path());
        let served = load(home.path());
        let stop = CancellationToken::new();
        let end = stop.clone();
        tokio::spawn(async move {
            loopback::serve(listener, api, &served, end).await.unwrap();
        });
        Self {
            url,
            _home: home,
            credentials,
            _stop: stop.drop_guard(),
        }
    }

    /// The kubeconfig of a user: an admin, somebody with a certificate, with a token, or nobody.
    pub(crate) fn kubeconfig(&self, user: &str, groups: &[&str]) -> String {
        let now = jiff::Timestamp::now();
        match user {
            "admin" => self.credentials.kubeconfig(&self.url),
            _ => self
                .credentials
                .kubeconfig_for(user, groups, &self.url, now)
                .unwrap(),
        }
    }

    /// A client of a user with a certificate.
    pub(crate) async fn client(&self, user: &str, groups: &[&str]) -> Client {
        let kubeconfig = Kubeconfig::from_yaml(&self.kubeconfig(user, groups)).unwrap();
        client_of(kubeconfig).await
    }

    /// A client without a certificate, perhaps with a token.
    pub(crate) async fn stranger(&self, token: Option<&str>) -> Client {
        let mut kubeconfig = Kubeconfig::from_yaml(&self.kubeconfig("admin", &[])).unwrap();
        for info in &mut kubeconfig.auth_infos {
            info.auth_info = Some(kube::config::AuthInfo {
                token: token.map(|token| token.to_owned().into()),
                ..Default::default()
            });
        }
        client_of(kubeconfig).await
    }
}

/// A connection to the API with TLS and without HTTP, of somebody with this kubeconfig or of a stranger.
pub(crate) async fn raw(server: &Server, protocol: &[u8], kubeconfig: Option<&str>) -> RawStream {
    let part = |text: &str, pointer: &str| {
        let kubeconfig: Value = serde_saphyr::from_str(text).unwrap();
        let encoded = kubeconfig.pointer(pointer).unwrap().as_str().unwrap();
        STANDARD.decode(encoded).unwrap()
    };
    let certificate = |pem: &[u8]| CertificateDer::from_pem_slice(pem).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    let pem = part(
        &server.kubeconfig("admin", &[]),
        "/clusters/0/cluster/certificate-authority-data",
    );
    roots.add(certificate(&pem)).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match kubeconfig {
        None => builder.with_no_client_auth(),
        Some(text) => {
            let chain = vec![certificate(&part(
                text,
                "/users/0/user/client-certificate-data",
            ))];
            let key = part(text, "/users/0/user/client-key-data");
            let key = PrivateKeyDer::from_pem_slice(&key).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    let address = server.url.trim_start_matches("https://");
    let stream = TcpStream::connect(address).await.unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(ServerName::try_from("localhost").unwrap(), stream)
        .await
        .unwrap()
}

fn load(home: &Path) -> loopback::Credentials {
    loopback::Credentials::load_or_create(home, jiff::Timestamp::now()).unwrap()
}

async fn client_of(kubeconfig: Kubeconfig) -> Client {
    let options = KubeConfigOptions::default();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .unwrap();
    // Every answer counts, also the ones that ask to come back later.
    config.default_retry = false;
    Client::try_from(config).unwrap()
}

/// The definition that the recordings were made with.
pub(crate) fn definition() -> CustomResourceDefinition {
    serde_saphyr::from_str(include_str!("data/definition.yaml")).unwrap()
}

/// An object of that definition.
pub(crate) fn cluster(name: &str) -> Value {
    json!({"apiVersion": "discovery.lb.test/v1alpha1", "kind": "LbCluster",
        "metadata": {"name": name}, "spec": {"authUrl": "https://x"}})
}

/// Sends a request and reads its answer to the end.
pub(crate) async fn send(
    client: &Client,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Vec<u8>>,
) -> Answer {
    read(open(client, method, path, headers, body).await).await
}

/// Sends a request and returns when its answer has begun.
pub(crate) async fn open(
    client: &Client,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Vec<u8>>,
) -> Response<kube::client::Body> {
    let mut request = Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| *name == "accept") {
        request = request.header("accept", "*/*");
    }
    request = request.header("user-agent", "curl/8");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(kube::client::Body::from(body.into())).unwrap();
    client.send(request).await.unwrap()
}

/// Reads an answer to its end.
pub(crate) async fn read(answer: Response<kube::client::Body>) -> Answer {
    let (parts, body) = answer.into_parts();
    let bytes = axum::body::to_bytes(Body::new(body), usize::MAX)
        .await
        .unwrap();
    Answer {
        status: parts.status,
        headers: parts.headers,
        body: String::from_utf8_lossy(&bytes).into_owned(),
    }
}

/// Sends an object as JSON.
pub(crate) async fn post(client: &Client, path: &str, object: &Value) -> Answer {
    let headers = [("content-type", "application/json")];
    send(client, "POST", path, &headers, object.to_string()).await
}

/// Sends a merge patch.
pub(crate) async fn merge(client: &Client, path: &str, patch: &Value) -> Answer {
    let headers = [("content-type", "application/merge-patch+json")];
    send(client, "PATCH", path, &headers, patch.to_string()).await
}
