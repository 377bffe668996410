//! The TLS listener before the peer endpoint, and what strangers may use of it.
//!
//! A connection counts as a stranger's until its cluster is accepted. There are few of them: without a
//! certificate for a short time, with one until somebody else needs the place.

use std::{net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{body::Body, http::Request};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::Service as _;

use super::{
    auth::{PeerEndpoint, Session},
    certificates::verify_chain,
    limits::{Guest, Guests},
    tls::{Credentials, EXPORTER_LABEL, server_config},
};
use crate::{api::identity::ClusterId, engine::addresses::normalise};

mod places;
mod shortage;

use places::{Stranger, Strangers};
use shortage::Shortage;

/// How many connections strangers may have, as everybody is at first.
const STRANGERS: usize = 128;
/// How many accepted peers may have in all, beside those.
const ACCEPTED: usize = 256;
/// How many one address may have while it is a stranger's.
const STRANGERS_PER_ADDRESS: usize = 8;
/// How many an accepted peer may have.
const CONNECTIONS_PER_PEER: usize = 32;
/// How long the handshake, and then the head of each request, may take.
const HEADER_TIME: Duration = Duration::from_secs(5);
/// How long a client without a certificate may stay.
const STRANGER_TIME: Duration = Duration::from_secs(30);
/// How often it is looked whether a peer is accepted by now, or still.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// How long requests may take to finish when the listener stops.
const GRACE: Duration = Duration::from_millis(500);
/// How long to wait when the system has no more connections to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The largest head of a request, in bytes.
const HEADER_LIMIT: u32 = 16 * 1024;
/// How many requests one connection may have open.
const STREAMS: u32 = 32;
/// How often a silent connection is asked whether it lives, and how long it may take to answer.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(10));

/// Indicates that the listener cannot start.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up TLS for the peer endpoint: {0}")]
pub struct Error(#[from] rustls::Error);

/// Serves the peer endpoint until `shutdown`, then lets running requests finish for a moment.
pub async fn serve(
    listener: TcpListener,
    credentials: Arc<Credentials>,
    endpoint: PeerEndpoint,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let door = Door {
        acceptor: TlsAcceptor::from(Arc::new(server_config(&credentials)?)),
        endpoint,
        strangers: Strangers::new(STRANGERS, STRANGERS_PER_ADDRESS),
        accepted: Guests::new(ACCEPTED, CONNECTIONS_PER_PEER),
        shutdown,
    };
    let connections = TaskTracker::new();
    let mut shortage = Shortage::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = door.shutdown.cancelled() => break,
        };
        match accepted {
            Ok((stream, address)) => {
                // Without a place it is closed at once.
                if let Some(place) = Strangers::enter(&door.strangers, normalise(address).ip()) {
                    connections.spawn(door.clone().receive(stream, address, place));
                }
            }
            Err(error) => {
                if shortage.begins(&error) {
                    tracing::error!(%error, "No cluster can connect: allow more open files, as by LimitNOFILE or ulimit -n");
                } else {
                    tracing::debug!(%error, "Cannot accept a connection");
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    connections.close();
    // Connections end by themselves within the grace; what is left is dropped with the runtime.
    let _ = timeout(GRACE * 2, connections.wait()).await;
    Ok(())
}

#[derive(Clone)]
struct Door {
    acceptor: TlsAcceptor,
    endpoint: PeerEndpoint,
    strangers: Arc<Strangers>,
    accepted: Arc<Guests<ClusterId>>,
    shutdown: CancellationToken,
}

impl Door {
    async fn receive(self, stream: TcpStream, address: SocketAddr, place: Stranger) {
        let away = place.away();
        let shaken = tokio::select! {
            shaken = self.handshake(stream, address) => shaken,
            () = away.cancelled() => return,
            () = self.shutdown.cancelled() => return,
        };
        match shaken {
            Ok((stream, session)) => {
                place.shaken();
                self.serve(stream, session, place).await;
            }
            Err(reason) => tracing::debug!(%address, reason, "Connection was not let in"),
        }
    }

    async fn handshake(
        &self,
        stream: TcpStream,
        address: SocketAddr,
    ) -> Result<(TlsStream<TcpStream>, Session), String> {
        // Requests are small and somebody waits for each.
        stream
            .set_nodelay(true)
            .map_err(|error| error.to_string())?;
        let stream = timeout(HEADER_TIME, self.acceptor.accept(stream))
            .await
            .map_err(|_| "the handshake took too long".to_owned())?
            .map_err(|error| error.to_string())?;
        let session = session(&stream, address).ok_or("the session has no exporter")?;
        Ok((stream, session))
    }

    async fn serve(&self, stream: TlsStream<TcpStream>, session: Session, place: Stranger) {
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let (endpoint, asking) = (self.endpoint.clone(), session.clone());
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(session.clone());
            endpoint.clone().call(request)
        });
        let builder = http_builder(is_http2);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        let mut leaving = pin!(self.leave(&asking, place));
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            grace = leaving.as_mut() => {
                connection.as_mut().graceful_shutdown();
                timeout(grace, connection).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "Connection of a peer ended");
        }
    }

    /// Waits for the reason to end a connection: the shutdown, a stranger's time is up, or its place
    /// is needed. Who is accepted by then gives the stranger's place back and stays as long as it is.
    /// Who waits for that is not sent away to come again: each connection needs six digits of its own.
    /// Returns for how long requests may go on.
    async fn leave(&self, session: &Session, place: Stranger) -> Duration {
        let away = place.away();
        let stay = async move {
            let Some(peer) = &session.peer else {
                return sleep(STRANGER_TIME).await;
            };
            let guest = self.until_accepted(session, &peer.cluster_id).await;
            drop(place);
            while self.endpoint.accepted(session).await != Some(false) {
                sleep(LOOK_INTERVAL).await;
            }
            drop(guest);
        };
        tokio::select! {
            () = stay => GRACE,
            () = self.shutdown.cancelled() => GRACE,
            () = away.cancelled() => Duration::ZERO,
        }
    }

    async fn until_accepted(&self, session: &Session, peer: &ClusterId) -> Guest<ClusterId> {
        loop {
            if self.endpoint.accepted(session).await == Some(true)
                && let Some(guest) = Guests::enter(&self.accepted, peer.clone())
            {
                return guest;
            }
            sleep(LOOK_INTERVAL).await;
        }
    }
}

/// Reads out of the finished handshake who is there. The verifier has already accepted the chain.
fn session(stream: &TlsStream<TcpStream>, address: SocketAddr) -> Option<Session> {
    let connection = &stream.get_ref().1;
    let peer = match connection.peer_certificates() {
        Some([leaf, rest @ ..]) => Some(verify_chain(leaf, rest).ok()?),
        Some([]) | None => None,
    };
    let exporter = connection
        .export_keying_material([0_u8; 32], EXPORTER_LABEL, None)
        .ok()?;
    Some(Session {
        peer,
        exporter,
        address: Some(normalise(address)),
    })
}

fn http_builder(is_http2: bool) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(HEADER_LIMIT as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADER_LIMIT)
        .keep_alive_interval(KEEP_ALIVE.0)
        .keep_alive_timeout(KEEP_ALIVE.1);
    if is_http2 {
        builder.http2_only()
    } else {
        builder.http1_only()
    }
}
