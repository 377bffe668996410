//! The same API for kubectl: TLS 1.3 on loopback, open only to the client certificate of its kubeconfig.

mod credentials;

pub use credentials::Credentials;

use super::{Error, KubeApi, refusal::Refusal};
use axum::{
    body::Body,
    http::{Request, Response, header},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::Service;

/// A kubectl has one connection; a thousand are a mistake or an attack.
const MOST_CONNECTIONS: usize = 1_000;

const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long open requests may go on after the end was announced. Watches never end by themselves.
const FAREWELL: Duration = Duration::from_millis(500);

/// Paths that need no certificate, so that a probe can ask them.
const OPEN: &[&str] = &["/version", "/livez", "/readyz", "/healthz"];

/// Writes the kubeconfig and serves until `shutdown`.
pub async fn serve(
    listener: TcpListener,
    api: KubeApi,
    credentials: &Credentials,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let address = listener.local_addr().map_err(|error| Error::Listen {
        address: "a closed socket".to_owned(),
        reason: error.to_string(),
    })?;
    credentials.write_kubeconfig(&format!("https://{address}"))?;
    let acceptor = TlsAcceptor::from(Arc::new(credentials.server_config()?));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(_) if connections.len() >= MOST_CONNECTIONS => {
                tracing::warn!("Refused a connection to the embedded API: too many are open");
            }
            Ok((stream, _)) => {
                let (acceptor, api, end) = (acceptor.clone(), api.clone(), shutdown.clone());
                connections.spawn(serve_connection(stream, acceptor, api, end));
            }
            Err(error) => {
                tracing::warn!(%error, "Could not accept a connection to the embedded API");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    while connections.join_next().await.is_some() {}
    Ok(())
}

async fn serve_connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    api: KubeApi,
    end: CancellationToken,
) {
    let Ok(Ok(stream)) = timeout(HANDSHAKE, acceptor.accept(stream)).await else {
        tracing::debug!("A connection to the embedded API did not complete its handshake");
        return;
    };
    let known = stream.get_ref().1.peer_certificates().is_some();
    let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
        answer(api.clone(), known, request.map(Body::new))
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HANDSHAKE);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = end.cancelled() => {
            connection.as_mut().graceful_shutdown();
            timeout(FAREWELL, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "A connection to the embedded API broke");
    }
}

async fn answer(
    mut api: KubeApi,
    known: bool,
    request: Request<Body>,
) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().trim_end_matches('/');
    if known || OPEN.contains(&path) {
        return api.call(request).await;
    }
    let refusal = if request.headers().contains_key(header::AUTHORIZATION) {
        Refusal::unauthorized()
    } else {
        api.server.refuse_anonymous(&request)
    };
    Ok(refusal.into_response())
}
