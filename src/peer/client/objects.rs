//! A `kube::Client` over one connection: single answers in time and size, watches that may not fall
//! silent.

use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    http::{Request, Response, header},
};
use futures::StreamExt as _;
use tower::{BoxError, ServiceExt as _};

use super::{Http, REQUEST_TIME};
use crate::peer::body;

/// How long a watch may be silent: several heartbeats (protocol, section 6).
const SILENCE: Duration = Duration::from_secs(15);
/// The largest single answer, and the largest line of a watch, in bytes.
const OBJECT_LIMIT: usize = 64 * 1024;

/// Makes the client.
pub(super) fn client(http: Http) -> kube::Client {
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        let http = http.clone();
        async move { exchange(http, request.map(Body::new)).await }
    });
    kube::Client::new(service, "default")
}

async fn exchange(http: Http, request: Request<Body>) -> Result<Response<Body>, BoxError> {
    let watches = request
        .uri()
        .query()
        .is_some_and(|query| query.split('&').any(|pair| pair == "watch=true"));
    let answering = async {
        let response = http.oneshot(request).await?;
        if response.status().is_redirection()
            || response.headers().contains_key(header::CONTENT_ENCODING)
        {
            return Err("the peer answered with a redirection or an encoded body".into());
        }
        let (head, body) = response.into_parts();
        let body = if watches && head.status.is_success() {
            audible(body)
        } else {
            Body::from(body::read(body, OBJECT_LIMIT, REQUEST_TIME).await?)
        };
        Ok(Response::from_parts(head, body))
    };
    tokio::time::timeout(REQUEST_TIME, answering)
        .await
        .unwrap_or_else(|_| Err("the peer did not answer in time".into()))
}

/// Ends a stream with an error when it falls silent or sends a line without end.
fn audible(body: Body) -> Body {
    let stream = body.into_data_stream();
    let lines = futures::stream::unfold(Some((stream, 0_usize)), |state| async move {
        let (mut stream, line) = state?;
        let chunk: Result<Bytes, BoxError> =
            match tokio::time::timeout(SILENCE, stream.next()).await {
                Ok(None) => return None,
                Ok(Some(chunk)) => chunk.map_err(Into::into),
                Err(_) => Err("the peer has been silent for 15 s".into()),
            };
        let chunk = match chunk {
            Ok(chunk) => chunk,
            Err(error) => return Some((Err(error), None)),
        };
        let line = match chunk.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => chunk.len() - end - 1,
            None => line + chunk.len(),
        };
        if line > OBJECT_LIMIT {
            return Some((Err("the peer sent a line without end".into()), None));
        }
        Some((Ok(chunk), Some((stream, line))))
    });
    Body::from_stream(lines)
}
