//! Lays JSON out in lines for people: who asks for it, and who comes with curl, Wget or a browser.

use super::routes::Parameters;
use axum::{
    body::{Body, HttpBody as _},
    http::{HeaderMap, Request, Response, header},
};
use serde_json::Value;

/// The programs through which a person looks at the very bytes.
const PEOPLE: [&str; 3] = ["curl", "Wget", "Mozilla/5.0"];

/// Tells whether the answer to a request is for a person.
pub(super) fn is_for_a_person(request: &Request<Body>) -> bool {
    match Parameters::of(request.uri()).get("pretty") {
        "" => comes_from_a_person(request.headers()),
        asked => matches!(asked, "1" | "t" | "T" | "true" | "TRUE" | "True"),
    }
}

fn comes_from_a_person(headers: &HeaderMap) -> bool {
    let program = headers.get(header::USER_AGENT);
    let program = program.and_then(|program| program.to_str().ok());
    program.is_some_and(|program| PEOPLE.iter().any(|known| program.starts_with(known)))
}

/// Lays out an answer that is an object or a list. A watch has a line for each event, and what has a
/// tag is the very document that the tag is of.
pub(super) async fn lay_out(response: Response<Body>) -> Response<Body> {
    let headers = response.headers();
    let is_json = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|media_type| media_type == "application/json");
    let is_whole = response.body().size_hint().exact().is_some();
    if !is_json || !is_whole || headers.contains_key(header::ETAG) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX)
        .await
        .unwrap_or_default();
    let lines = serde_json::from_slice::<Value>(&bytes)
        .and_then(|value| serde_json::to_vec_pretty(&value))
        .map_or(bytes, Into::into);
    Response::from_parts(parts, Body::from(lines))
}
