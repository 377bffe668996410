//! Connections to other clusters: dialled, proven, and only then spoken over.
//!
//! ```text
//! resolve once -> engine::addresses::judge -> TCP -> TLS 1.3, key proven -> HTTP/2 on that stream
//! ```

use std::{fmt, net::SocketAddr, time::Duration};

use axum::{
    body::Body,
    http::{HeaderMap, Method, Request, Response, StatusCode, header},
};
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use tower::{BoxError, ServiceExt as _, util::BoxCloneSyncService};

use super::{
    body::{self, BodyError},
    certificates::Proven,
};
use crate::api::{
    foreign_cluster::DiscoveryType,
    identity::{ClusterId, is_printable},
    labels::reason,
    wire::{Attestation, Decision, IdentityAnswer, IdentityRequest, Ids},
};

mod dial;
mod objects;
mod transport;

pub use dial::TlsConnector;

/// The requests of one connection, to be answered by the other end.
pub type Http = BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>;

/// How long a request with one answer may take.
pub const REQUEST_TIME: Duration = Duration::from_secs(5);
/// The largest answer of `/ids` and `/identity`, in bytes.
const ANSWER_LIMIT: usize = 16 * 1024;

/// Whom to connect to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Target {
    /// The URL of the peer endpoint, https://host:port.
    pub url: String,
    /// Who must answer there, if that is known.
    pub expect: Option<ClusterId>,
    /// Where the host of the URL was already found; empty means that it is resolved once.
    pub addresses: Vec<SocketAddr>,
    /// Who named the address, which decides what may be dialled.
    pub source: DiscoveryType,
}

/// Makes connections to other clusters.
pub trait Connector: Send + Sync {
    /// Connects and proves who answers. Nothing but the handshake is sent before.
    fn connect<'a>(&'a self, target: &'a Target)
    -> BoxFuture<'a, Result<Connection, ConnectError>>;
}

/// Indicates why another cluster cannot be spoken to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// Indicates an address that may not be dialled, or a URL that is none.
    #[error("{address} is not dialled: {detail}")]
    AddressRefused {
        /// The address or URL.
        address: String,
        /// Why not.
        detail: String,
    },
    /// Indicates that nothing answers.
    #[error("{address} cannot be reached: {detail}")]
    Unreachable {
        /// The address or URL.
        address: String,
        /// What happened.
        detail: String,
    },
    /// Indicates that something answers that is not a peer endpoint.
    #[error("{address} is not a peer endpoint: {detail}")]
    NotAPeer {
        /// The address or URL.
        address: String,
        /// What it answered.
        detail: String,
    },
    /// Indicates that another cluster answers than the one that was expected.
    #[error("{found} answered instead of {expected}")]
    IdentityMismatch {
        /// Who was expected.
        expected: ClusterId,
        /// Who answered.
        found: ClusterId,
    },
    /// Indicates an end that shows the chain of the expected cluster and does not hold its key.
    #[error("the certificate of {claimed} was shown without its key")]
    KeyNotHeld {
        /// Whose chain it is.
        claimed: ClusterId,
    },
    /// Indicates that our own identity answers.
    #[error("our own identity answered: this is ourselves or a clone of this machine")]
    OwnIdentity,
    /// Indicates that a step took too long.
    #[error("{address} did not {step} in time")]
    Timeout {
        /// The address or URL.
        address: String,
        /// What was waited for.
        step: &'static str,
    },
    /// Indicates a peer that asks us to come again later.
    #[error("the peer is busy: try again in {retry_after:?}")]
    Busy {
        /// How long to wait.
        retry_after: Duration,
    },
}

impl ConnectError {
    /// Returns who has answered instead of whom was expected, where that is known.
    pub fn found(&self) -> Option<&ClusterId> {
        if let Self::IdentityMismatch { found, .. } = self {
            Some(found)
        } else {
            None
        }
    }

    /// Returns the reason that a condition carries.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::AddressRefused { .. } => reason::ADDRESS_REFUSED,
            Self::Unreachable { .. } | Self::Timeout { .. } | Self::Busy { .. } => {
                reason::UNREACHABLE
            }
            Self::NotAPeer { .. } => reason::INVALID_ANSWER,
            Self::IdentityMismatch { .. } | Self::KeyNotHeld { .. } => reason::IDENTITY_MISMATCH,
            Self::OwnIdentity => reason::OWN_IDENTITY,
        }
    }
}

/// A connection whose other end is proven.
#[derive(Clone)]
pub struct Connection {
    /// Who is at the other end.
    pub proven: Proven,
    /// What both ends of this session, and nobody else, can derive.
    pub exporter: [u8; 32],
    /// The address that was dialled.
    pub address: Option<SocketAddr>,
    http: Http,
    closed: CancellationToken,
}

impl Connection {
    /// Makes a connection over any service; see [`super::auth::PeerEndpoint::in_session`].
    pub fn new(
        proven: Proven,
        exporter: [u8; 32],
        address: Option<SocketAddr>,
        http: Http,
    ) -> Self {
        Self {
            proven,
            exporter,
            address,
            http,
            closed: CancellationToken::new(),
        }
    }

    /// Uses the given token to tell when the connection ended; a simulation cancels it to cut a wire.
    #[must_use]
    pub fn closed_by(mut self, token: CancellationToken) -> Self {
        self.closed = token;
        self
    }

    /// Tells whether the connection ended.
    pub fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Waits for the end of the connection.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Asks who the other end says it is; it must say what it proved.
    pub async fn ids(&self) -> Result<Ids, ConnectError> {
        self.ids_at("/ids").await
    }

    /// Asks for the certificate of the Web PKI that the other end may have.
    pub async fn attestation(&self) -> Result<Option<Attestation>, ConnectError> {
        let ids = self.ids_at("/ids?attestation=webpki").await?;
        Ok(ids.landbridge.and_then(|said| said.attestation))
    }

    async fn ids_at(&self, path: &'static str) -> Result<Ids, ConnectError> {
        let (status, headers, bytes) = self.send(Method::GET, path, Body::empty()).await?;
        if status == StatusCode::TOO_MANY_REQUESTS {
            let retry_after = retry_after(&headers);
            return Err(ConnectError::Busy { retry_after });
        }
        if status != StatusCode::OK {
            return Err(self.not_a_peer(format!("GET /ids answered {status}")));
        }
        let ids: Ids =
            body::parse(&bytes).map_err(|error| self.not_a_peer(format!("GET /ids: {error}")))?;
        if ids.cluster_id == self.proven.cluster_id {
            Ok(ids)
        } else {
            Err(ConnectError::IdentityMismatch {
                expected: self.proven.cluster_id.clone(),
                found: ids.cluster_id,
            })
        }
    }

    /// Asks to be accepted. A refusal is an answer and not an error.
    pub async fn identify(
        &self,
        request: &IdentityRequest,
    ) -> Result<IdentityAnswer, ConnectError> {
        let body = serde_json::to_vec(request)
            .map_err(|error| self.not_a_peer(format!("cannot write the request: {error}")))?;
        let (status, headers, bytes) = self
            .send(Method::POST, "/identity", Body::from(body))
            .await?;
        let said: Option<IdentityAnswer> = body::parse(&bytes).ok();
        let decision = match status {
            StatusCode::CREATED => Decision::Accepted,
            StatusCode::ACCEPTED => Decision::Waiting,
            StatusCode::FORBIDDEN => match said.as_ref().map(|answer| answer.decision) {
                Some(Decision::EmptyRefused) => Decision::EmptyRefused,
                _ => Decision::Refused,
            },
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                return Err(ConnectError::Busy {
                    retry_after: retry_after(&headers),
                });
            }
            other => {
                return Err(self.not_a_peer(format!("POST /identity answered {other}")));
            }
        };
        let said = said.unwrap_or_else(|| IdentityAnswer {
            decision,
            message: String::new(),
            proof: None,
            token_proof: None,
            nonce: None,
        });
        Ok(IdentityAnswer {
            decision,
            message: printable(&said.message),
            ..said
        })
    }

    /// Returns a client for our one object at the other end, over this very connection.
    pub fn kube_client(&self) -> kube::Client {
        objects::client(self.http.clone())
    }

    async fn send(
        &self,
        method: Method,
        path: &'static str,
        body: Body,
    ) -> Result<(StatusCode, HeaderMap, axum::body::Bytes), ConnectError> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = axum::http::Uri::from_static(path);
        request.headers_mut().insert(
            header::CONTENT_TYPE,
            header::HeaderValue::from_static("application/json"),
        );
        let exchange = async {
            let response = self
                .http
                .clone()
                .oneshot(request)
                .await
                .map_err(|error| transport::classify(self.place(), &error))?;
            let (head, body) = response.into_parts();
            let bytes = body::read(body, ANSWER_LIMIT, REQUEST_TIME)
                .await
                .map_err(|error| self.body_error(&error))?;
            Ok((head.status, head.headers, bytes))
        };
        tokio::time::timeout(REQUEST_TIME, exchange)
            .await
            .unwrap_or_else(|_| {
                Err(ConnectError::Timeout {
                    address: self.place(),
                    step: "answer",
                })
            })
    }

    fn body_error(&self, error: &BodyError) -> ConnectError {
        match error {
            BodyError::Broken(detail) => ConnectError::Unreachable {
                address: self.place(),
                detail: detail.clone(),
            },
            BodyError::TooLarge(_)
            | BodyError::TooSlow(_)
            | BodyError::TooDeep
            | BodyError::NotJson(_) => self.not_a_peer(error.to_string()),
        }
    }

    fn not_a_peer(&self, detail: String) -> ConnectError {
        ConnectError::NotAPeer {
            address: self.place(),
            detail,
        }
    }

    fn place(&self) -> String {
        match self.address {
            Some(address) => address.to_string(),
            None => self.proven.cluster_id.to_string(),
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Connection")
            .field("proven", &self.proven)
            .field("address", &self.address)
            .field("closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}

fn retry_after(headers: &HeaderMap) -> Duration {
    let seconds = headers
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok())
        .unwrap_or(5);
    Duration::from_secs(seconds.clamp(1, 300))
}

/// Makes a peer's text fit for a log or an object: short, and without characters that deceive.
fn printable(text: &str) -> String {
    text.chars()
        .filter(|character| is_printable(*character))
        .take(200)
        .collect()
}
