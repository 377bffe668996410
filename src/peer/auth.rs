//! The peer endpoint: `/ids`, `/identity` and the way to the gateway (protocol, section 4).
//!
//! It is a service from request to response and knows no socket: the listener stands before it, and
//! tests or a simulation call it directly.

use std::{
    convert::Infallible,
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::Body,
    http::{HeaderValue, Method, Request, Response, StatusCode, header},
};
use futures::future::{BoxFuture, ready};
use serde_json::json;
use tokio::time::Instant;
use tower::{Service, ServiceExt as _, util::BoxCloneSyncService};

use super::{
    body,
    certificates::Proven,
    client::Http,
    gateway::Gateway,
    guesses::Guesses,
    limits::{Buckets, Rate},
    permissions,
    refusal::{Refusal, json_response},
};
use crate::{
    api::{
        identity::ClusterId,
        wire::{Attestation, Decision, IdentityAnswer, IdentityRequest, Ids},
    },
    engine::addresses::{AuthUrl, normalise},
};

/// The largest body that a peer may send, in bytes.
pub const BODY_LIMIT: usize = 64 * 1024;
/// How long a body may take to arrive.
pub const BODY_TIME: Duration = Duration::from_secs(10);
/// How `/ids` is asked for a certificate of the Web PKI.
const ATTESTATION_QUERY: &str = "attestation=webpki";
/// How long a decision may take before the asker is sent away to ask again.
const DECISION_TIME: Duration = Duration::from_secs(4);
/// The longest text that a peer may put into a field of `/identity`.
const TEXT_LIMIT: usize = 512;

/// How often one source, and all together, may ask for a decision, and have it looked up whether they
/// are accepted.
const ASKING: (Rate, Rate) = (
    Rate {
        burst: 30,
        each: Duration::from_secs(1),
    },
    Rate {
        burst: 200,
        each: Duration::from_millis(20),
    },
);
/// How often one peer that is accepted, and all of them, may ask for a decision.
const ASKING_ACCEPTED: (Rate, Rate) = (
    ASKING.0,
    Rate {
        burst: 2000,
        each: Duration::from_millis(1),
    },
);

/// Who is at the other end of a connection. The listener puts it into every request's extensions.
#[derive(Clone)]
pub struct Session {
    /// Whom the handshake proved, if a certificate was shown.
    pub peer: Option<Proven>,
    /// What both ends of this TLS session, and nobody else, can derive.
    pub exporter: [u8; 32],
    /// The address that the connection comes from.
    pub address: Option<SocketAddr>,
}

impl Session {
    fn source(&self) -> String {
        match (self.address, &self.peer) {
            (Some(address), _) => normalise(address).ip().to_string(),
            (None, Some(peer)) => peer.cluster_id.to_string(),
            (None, None) => String::new(),
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Session")
            .field("peer", &self.peer)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// The decisions behind the peer endpoint, made by the controllers.
pub trait Reception: Send + Sync {
    /// Returns what `/ids` tells everybody.
    fn ids(&self) -> BoxFuture<'_, Ids>;

    /// Decides about a proven peer. `session.peer` is there and is the one that `request` names.
    /// Asking again gives the present state.
    fn identify<'a>(
        &'a self,
        session: &'a Session,
        request: IdentityRequest,
    ) -> BoxFuture<'a, Result<IdentityAnswer, Undecided>>;

    /// Shows our certificate of the Web PKI to the peer of a session, if we have one.
    fn attest<'a>(&'a self, _session: &'a Session) -> BoxFuture<'a, Option<Attestation>> {
        Box::pin(ready(None))
    }

    /// Tells whether a peer is known to be accepted. This costs nothing; who has just been accepted
    /// may not be known yet.
    fn is_known_accepted(&self, id: &ClusterId) -> bool;

    /// Tells whether the gateway is open for a peer now.
    fn accepted<'a>(&'a self, id: &'a ClusterId) -> BoxFuture<'a, Result<bool, Undecided>>;
}

/// Indicates that nobody can say just now whether a peer is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nobody can say just now whether the peer is accepted")]
pub struct Undecided;

/// The peer endpoint as a service.
#[derive(Clone)]
pub struct PeerEndpoint {
    inner: Arc<Inner>,
}

struct Inner {
    reception: Arc<dyn Reception>,
    gateway: Gateway,
    asking: Mutex<Buckets>,
    asking_accepted: Mutex<Buckets>,
    looking_up: Mutex<Buckets>,
    guessing: Mutex<Guesses>,
}

impl PeerEndpoint {
    /// Makes an endpoint that asks `reception` and keeps PeeringRequests behind `client`.
    pub fn new(reception: Arc<dyn Reception>, client: kube::Client) -> Self {
        let now = Instant::now();
        Self {
            inner: Arc::new(Inner {
                gateway: Gateway::new(client, Arc::clone(&reception)),
                reception,
                asking: Mutex::new(Buckets::new(ASKING.0, ASKING.1, now)),
                asking_accepted: Mutex::new(Buckets::new(
                    ASKING_ACCEPTED.0,
                    ASKING_ACCEPTED.1,
                    now,
                )),
                looking_up: Mutex::new(Buckets::new(ASKING.0, ASKING.1, now)),
                guessing: Mutex::default(),
            }),
        }
    }

    /// Returns the endpoint as one session sees it, for a [`super::client::Connection`] in memory.
    pub fn in_session(&self, session: Session) -> Http {
        let service = self
            .clone()
            .map_request(move |mut request: Request<Body>| {
                request.extensions_mut().insert(session.clone());
                request
            })
            .map_err(|never| match never {});
        BoxCloneSyncService::new(service)
    }

    /// Tells whether the gateway is open for the peer of a session now, if somebody can say.
    pub(super) async fn accepted(&self, session: &Session) -> Option<bool> {
        let id = &session.peer.as_ref()?.cluster_id;
        self.inner.look_up(session, id).await?.ok()
    }
}

impl fmt::Debug for PeerEndpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("PeerEndpoint")
            .finish_non_exhaustive()
    }
}

impl Service<Request<Body>> for PeerEndpoint {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let inner = Arc::clone(&self.inner);
        Box::pin(async move { Ok(inner.answer(request).await) })
    }
}

impl Inner {
    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let path = request.uri().path();
        let session = request.extensions().get::<Session>().cloned();
        if (request.method(), path) == (&Method::GET, "/ids") {
            let asked = request.uri().query() == Some(ATTESTATION_QUERY);
            return self.ids(session.filter(|_| asked)).await;
        }
        if (request.method(), path) == (&Method::POST, "/identity") {
            return self.identity(session, request).await;
        }
        if path == "/apis"
            || path == "/api"
            || path.starts_with("/apis/")
            || path.starts_with("/api/")
        {
            return self.through_the_gateway(session, request).await;
        }
        json_response(StatusCode::NOT_FOUND, &"not found")
    }

    /// Tells who we are. To a session that is given, our certificate is shown besides; a signature
    /// costs something, so that is for those who have proven an identity, and not without end.
    async fn ids(&self, session: Option<Session>) -> Response<Body> {
        let mut ids = self.reception.ids().await;
        if let Some(session) = session.filter(|session| session.peer.is_some()) {
            if let Err(wait) = self.count_asking(&session) {
                return too_many(wait);
            }
            if let Some(landbridge) = &mut ids.landbridge {
                landbridge.attestation = self.reception.attest(&session).await;
            }
        }
        json_response(StatusCode::OK, &ids)
    }

    async fn through_the_gateway(
        &self,
        session: Option<Session>,
        request: Request<Body>,
    ) -> Response<Body> {
        let proven = session.and_then(|session| session.peer.clone().map(|peer| (session, peer)));
        let Some((session, peer)) = proven else {
            return Refusal::forbidden("a client certificate is needed").response();
        };
        let id = &peer.cluster_id;
        let Some(accepted) = self.look_up(&session, id).await else {
            return Refusal::too_many().response();
        };
        if accepted != Ok(true) {
            // What a cluster has left here it may take back, whatever is thought of it now.
            if !permissions::takes_back(request.method(), request.uri(), id) {
                return closed(accepted);
            }
            if lock(&self.asking)
                .try_take(&session.source(), Instant::now())
                .is_err()
            {
                return Refusal::too_many().response();
            }
        }
        self.gateway.answer(id, session.address, request).await
    }

    async fn is_accepted(&self, id: &ClusterId) -> bool {
        self.reception.accepted(id).await == Ok(true)
    }

    /// Looks up whether a peer is accepted. Strangers have that done only so often, then there is
    /// no answer.
    async fn look_up(&self, session: &Session, id: &ClusterId) -> Option<Result<bool, Undecided>> {
        if self.reception.is_known_accepted(id) {
            return Some(Ok(true));
        }
        let counted = lock(&self.looking_up).try_take(&session.source(), Instant::now());
        counted.ok()?;
        Some(self.reception.accepted(id).await)
    }

    /// Counts a request for a decision. Strangers, however many, leave accepted peers theirs.
    fn count_asking(&self, session: &Session) -> Result<(), Duration> {
        let now = Instant::now();
        match &session.peer {
            Some(peer) if self.reception.is_known_accepted(&peer.cluster_id) => {
                lock(&self.asking_accepted).try_take(peer.cluster_id.as_str(), now)
            }
            Some(_) | None => lock(&self.asking).try_take(&session.source(), now),
        }
    }

    async fn identity(&self, session: Option<Session>, request: Request<Body>) -> Response<Body> {
        let Some((session, peer)) =
            session.and_then(|session| session.peer.clone().map(|peer| (session, peer)))
        else {
            return json_response(StatusCode::FORBIDDEN, &"forbidden");
        };
        let source = session.source();
        if let Err(wait) = self.count_asking(&session) {
            return too_many(wait);
        }
        let mut asked = match read_request(request).await {
            Ok(asked) => asked,
            Err(reason) => return json_response(StatusCode::BAD_REQUEST, &json!(reason)),
        };
        if asked.cluster_id != peer.cluster_id {
            // Any stranger can do so as often as it likes.
            tracing::debug!(
                peer = %peer.cluster_id,
                named = %asked.cluster_id,
                "Peer asked in the name of another cluster"
            );
            return json_response(StatusCode::FORBIDDEN, &"forbidden");
        }
        if let Err(wait) = self.count_guess(&source, &mut asked).await {
            return too_many(wait);
        }
        let guesses = asked.shows_token();
        let deciding = self.reception.identify(&session, asked);
        let Ok(Ok(answer)) = tokio::time::timeout(DECISION_TIME, deciding).await else {
            return retry_later(StatusCode::SERVICE_UNAVAILABLE, Duration::from_secs(5));
        };
        if guesses && answer.token_proof.is_some() {
            lock(&self.guessing).give_back(&source);
        }
        json_response(status_of(answer.decision), &answer)
    }

    /// Counts a token that is shown as a guess. Of a source that has guessed too often, who is in
    /// needs no token, so that it is not looked at; everybody else has to wait.
    async fn count_guess(&self, source: &str, asked: &mut IdentityRequest) -> Result<(), Duration> {
        if !asked.shows_token() {
            return Ok(());
        }
        let counted = lock(&self.guessing).try_take(source, Instant::now());
        if counted.is_err() && self.is_accepted(&asked.cluster_id).await {
            asked.token = None;
            asked.token_proof = None;
            return Ok(());
        }
        counted
    }
}

/// Answers a peer for which the gateway is not open.
fn closed(accepted: Result<bool, Undecided>) -> Response<Body> {
    match accepted {
        Ok(_) => {
            let message = "this cluster has not accepted yours: ask with POST /identity";
            Refusal::forbidden(message)
        }
        Err(undecided) => Refusal::unavailable(undecided.to_string()),
    }
    .response()
}

/// Returns the HTTP status of a decision.
pub(super) fn status_of(decision: Decision) -> StatusCode {
    match decision {
        Decision::Accepted => StatusCode::CREATED,
        Decision::Waiting => StatusCode::ACCEPTED,
        Decision::Refused | Decision::EmptyRefused => StatusCode::FORBIDDEN,
    }
}

async fn read_request(request: Request<Body>) -> Result<IdentityRequest, String> {
    let bytes = body::read(request.into_body(), BODY_LIMIT, BODY_TIME)
        .await
        .map_err(|error| error.to_string())?;
    let asked: IdentityRequest = body::parse(&bytes).map_err(|error| error.to_string())?;
    if !asked.auth_url.is_empty() {
        asked
            .auth_url
            .parse::<AuthUrl>()
            .map_err(|error| format!("authUrl: {error}"))?;
    }
    let texts = [
        Some(&asked.auth_url),
        asked.token.as_ref().map(|token| &token.0),
        asked.token_proof.as_ref(),
        asked.proof.as_ref(),
        asked.commitment.as_ref(),
        asked.nonce.as_ref(),
    ];
    if texts.iter().flatten().any(|text| text.len() > TEXT_LIMIT) {
        return Err(format!("no field may be longer than {TEXT_LIMIT} bytes"));
    }
    Ok(asked)
}

fn too_many(wait: Duration) -> Response<Body> {
    retry_later(StatusCode::TOO_MANY_REQUESTS, wait)
}

fn retry_later(code: StatusCode, wait: Duration) -> Response<Body> {
    let mut response = json_response(code, &"too many requests: try again later");
    let seconds = wait.as_secs().max(1);
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}

fn lock<T>(limit: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    limit.lock().unwrap_or_else(PoisonError::into_inner)
}
