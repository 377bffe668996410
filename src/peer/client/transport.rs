//! HTTP/2, or HTTP/1.1 for whoever has nothing newer, on a TLS stream whose other end is proven.

use std::{error::Error as _, sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{HeaderValue, Request, Response, Uri, header, uri::PathAndQuery},
};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{net::TcpStream, sync::Mutex};
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use tower::{BoxError, util::BoxCloneSyncService};

use super::{ConnectError, Http};

/// How often a silent connection is asked whether it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// How long it may take to answer that.
const KEEP_ALIVE_TIME: Duration = Duration::from_secs(10);
/// The largest head of an answer, in bytes.
const HEADER_LIMIT: u32 = 16 * 1024;

/// Starts HTTP on a stream; the token is cancelled when the connection ends.
pub(super) async fn start(
    stream: TlsStream<TcpStream>,
    authority: &str,
) -> Result<(Http, CancellationToken), ConnectError> {
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let closed = CancellationToken::new();
    let started = if is_http2 {
        start_http2(stream, authority, closed.clone()).await
    } else {
        start_http1(stream, authority, closed.clone()).await
    };
    match started {
        Ok(http) => Ok((http, closed)),
        Err(error) => Err(classify(authority.to_owned(), &error)),
    }
}

async fn start_http2(
    stream: TlsStream<TcpStream>,
    authority: &str,
    closed: CancellationToken,
) -> Result<Http, BoxError> {
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIME)
        .keep_alive_while_idle(true)
        .max_header_list_size(HEADER_LIMIT)
        .handshake::<_, Body>(TokioIo::new(stream))
        .await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "Connection to a peer ended");
        }
        closed.cancel();
    });
    let authority: Arc<str> = authority.into();
    Ok(BoxCloneSyncService::new(tower::service_fn(
        move |mut request: Request<Body>| {
            let (mut sender, authority) = (sender.clone(), Arc::clone(&authority));
            async move {
                *request.uri_mut() = Uri::builder()
                    .scheme("https")
                    .authority(&*authority)
                    .path_and_query(path_of(&request))
                    .build()?;
                sender.ready().await?;
                let response = sender.send_request(request).await?;
                Ok::<_, BoxError>(response.map(Body::new))
            }
        },
    )))
}

/// One request at a time: the answer's body has to be read before the next one is sent.
async fn start_http1(
    stream: TlsStream<TcpStream>,
    authority: &str,
    closed: CancellationToken,
) -> Result<Http, BoxError> {
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(HEADER_LIMIT as usize)
        .handshake::<_, Body>(TokioIo::new(stream))
        .await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "Connection to a peer ended");
        }
        closed.cancel();
    });
    let host = HeaderValue::from_str(authority)?;
    let sender = Arc::new(Mutex::new(sender));
    Ok(BoxCloneSyncService::new(tower::service_fn(
        move |mut request: Request<Body>| {
            let (sender, host) = (Arc::clone(&sender), host.clone());
            async move {
                *request.uri_mut() = Uri::from(path_of(&request));
                request.headers_mut().insert(header::HOST, host);
                let mut sender = sender.lock().await;
                sender.ready().await?;
                let response: Response<_> = sender.send_request(request).await?;
                Ok::<_, BoxError>(response.map(Body::new))
            }
        },
    )))
}

fn path_of(request: &Request<Body>) -> PathAndQuery {
    request
        .uri()
        .path_and_query()
        .cloned()
        .unwrap_or_else(|| PathAndQuery::from_static("/"))
}

/// Tells a wire that broke from an end that does not speak our language.
pub(super) fn classify(address: String, error: &BoxError) -> ConnectError {
    let detail = with_sources(error);
    if is_foreign_language(error) {
        ConnectError::NotAPeer { address, detail }
    } else {
        ConnectError::Unreachable { address, detail }
    }
}

fn is_foreign_language(error: &BoxError) -> bool {
    let Some(error) = error.downcast_ref::<hyper::Error>() else {
        return false;
    };
    let http2 = error
        .source()
        .and_then(|source| source.downcast_ref::<h2::Error>());
    error.is_parse() || error.is_parse_too_large() || http2.is_some_and(h2::Error::is_library)
}

fn with_sources(error: &BoxError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}
