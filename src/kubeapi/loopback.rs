//! The same API for kubectl: TLS 1.3 on loopback, open to the client certificates that its authority issued.

mod credentials;
mod host;

pub use credentials::Credentials;

use super::{Error, KubeApi, access::User, layout, refusal::Refusal, store::may_wait_here};
use axum::{
    body::Body,
    http::{Request, Response, header},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::{AbortHandle, JoinSet},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;
use tower::Service;

/// A kubectl has one connection; a thousand are a mistake or an attack.
const MOST_CONNECTIONS: usize = 1_000;

/// How many connections may be in their handshake.
const MOST_HANDSHAKES: usize = 256;

/// How many connections may be open to clients without a certificate: they ask for the health and go.
const MOST_STRANGERS: usize = 64;

/// How long a handshake may take, and how long after it the first request may come, head and all.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long a client of HTTP/1.1 may take from the end of one answer to the end of the next head, as on a
/// real server. It keeps connections for its next request, which is then lost when it meets the end.
const REST: Duration = Duration::from_secs(90);

/// How often a silent connection is asked whether its client is still there.
const PING: Duration = Duration::from_secs(30);

/// How long open requests may go on after the end was announced. Watches never end by themselves.
const FAREWELL: Duration = Duration::from_millis(500);

/// Writes the kubeconfig and serves until `shutdown`, on a thread of its own: what clients ask for holds
/// up nothing else, and a write wakes no more threads than it needs.
pub async fn serve(
    listener: TcpListener,
    api: KubeApi,
    credentials: &Credentials,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let wrong = |error: std::io::Error| Error::Listen {
        address: "a closed socket".to_owned(),
        reason: error.to_string(),
    };
    let address = listener.local_addr().map_err(wrong)?;
    let listener = listener.into_std().map_err(wrong)?;
    credentials.write_kubeconfig(&format!("https://{address}"))?;
    let acceptor = TlsAcceptor::from(Arc::new(credentials.server_config()?));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Thread)?;
    // Whoever gives up waiting wants no server any more.
    let end = shutdown.child_token();
    let _end = end.clone().drop_guard();
    let (ended, outcome) = oneshot::channel();
    std::thread::Builder::new()
        .name("kubeapi".to_owned())
        .spawn(move || {
            may_wait_here();
            let served = runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).map_err(wrong)?;
                accept(listener, api, acceptor, end).await;
                Ok(())
            });
            drop(ended.send(served));
        })
        .map_err(Error::Thread)?;
    // A panic there is not heard of otherwise.
    outcome.await.unwrap_or(Err(Error::Stopped))
}

async fn accept(
    listener: TcpListener,
    api: KubeApi,
    acceptor: TlsAcceptor,
    shutdown: CancellationToken,
) {
    let mut connections = JoinSet::new();
    let mut strangers = Queue::new(MOST_STRANGERS);
    let mut handshakes = Handshakes::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            Some(stream) = handshakes.next() => {
                let known = user_of(&stream);
                let strange = known.is_none();
                if strange || has_room(&connections) {
                    let served = serve_connection(stream, known, api.clone(), shutdown.clone());
                    let connection = connections.spawn(served);
                    if strange {
                        strangers.push(connection);
                    }
                }
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => handshakes.begin(acceptor.clone(), stream),
            Err(error) => {
                tracing::warn!(%error, "Could not accept a connection to the embedded API");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    while connections.join_next().await.is_some() {}
}

fn has_room(connections: &JoinSet<()>) -> bool {
    let room = connections.len() < MOST_CONNECTIONS;
    if !room {
        tracing::warn!("Refused a connection to the embedded API: too many are open");
    }
    room
}

/// Tasks of those whom nobody knows; when there are too many, the oldest gives way: an honest one is short.
struct Queue {
    order: VecDeque<AbortHandle>,
    most: usize,
}

impl Queue {
    fn new(most: usize) -> Self {
        Self {
            order: VecDeque::new(),
            most,
        }
    }

    fn push(&mut self, task: AbortHandle) {
        self.order.retain(|task| !task.is_finished());
        if self.order.len() >= self.most
            && let Some(oldest) = self.order.pop_front()
        {
            tracing::debug!("Gave up the oldest connection of a stranger to the embedded API");
            oldest.abort();
        }
        self.order.push_back(task);
    }
}

/// Connections that have not shown yet who they are.
struct Handshakes {
    running: JoinSet<Option<TlsStream<TcpStream>>>,
    queue: Queue,
}

impl Handshakes {
    fn new() -> Self {
        Self {
            running: JoinSet::new(),
            queue: Queue::new(MOST_HANDSHAKES),
        }
    }

    fn begin(&mut self, acceptor: TlsAcceptor, stream: TcpStream) {
        let handshake = self.running.spawn(async move {
            // An event must not wait until the one before it is acknowledged.
            stream.set_nodelay(true).ok()?;
            let outcome = timeout(HANDSHAKE, acceptor.accept(stream)).await;
            outcome.ok().and_then(Result::ok)
        });
        self.queue.push(handshake);
    }

    /// The next connection whose handshake is complete; `None` when none is under way.
    async fn next(&mut self) -> Option<TlsStream<TcpStream>> {
        loop {
            if let Ok(Some(stream)) = self.running.join_next().await? {
                return Some(stream);
            }
        }
    }
}

fn user_of(stream: &TlsStream<TcpStream>) -> Option<User> {
    let certificates = stream.get_ref().1.peer_certificates();
    certificates.and_then(|chain| User::of_certificate(chain.first()?))
}

async fn serve_connection(
    stream: TlsStream<TcpStream>,
    known: Option<User>,
    api: KubeApi,
    end: CancellationToken,
) {
    let asked = CancellationToken::new();
    let first = asked.clone();
    let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
        first.cancel();
        answer(api.clone(), known.clone(), request.map(Body::new))
    });
    let builder = builder();
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        outcome = connection.as_mut() => outcome,
        Err(_) = timeout(HANDSHAKE, asked.cancelled()) => {
            tracing::debug!("Closed a connection to the embedded API that asked for nothing");
            return;
        }
        () = end.cancelled() => {
            connection.as_mut().graceful_shutdown();
            timeout(FAREWELL, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "A connection to the embedded API broke");
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(REST);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING);
    builder
}

async fn answer(
    api: KubeApi,
    known: Option<User>,
    request: Request<Body>,
) -> Result<Response<Body>, Infallible> {
    let for_a_person = layout::is_for_a_person(&request);
    let response = pass_on(api, known, request).await?;
    Ok(if for_a_person {
        layout::lay_out(response).await
    } else {
        response
    })
}

async fn pass_on(
    mut api: KubeApi,
    known: Option<User>,
    mut request: Request<Body>,
) -> Result<Response<Body>, Infallible> {
    if !host::is_this_machine(&request) {
        return Ok(Refusal::misdirected().into_response());
    }
    if known.is_none() && request.headers().contains_key(header::AUTHORIZATION) {
        return Ok(Refusal::unauthorized().into_response());
    }
    // A request without a user would be one of the daemon itself.
    let user = known.unwrap_or_else(User::anonymous);
    request.extensions_mut().insert(user);
    api.call(request).await
}
