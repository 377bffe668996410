//! Answers of the peer endpoint in JSON, refusals as Kubernetes `Status` objects.

use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use kube::core::Status;
use serde::Serialize;
use serde_json::json;

/// Indicates why the gateway does not do what a peer asks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The HTTP status.
    pub code: u16,
    /// The reason in one word, as Kubernetes spells it.
    pub reason: &'static str,
    /// The reason for people.
    pub message: String,
}

impl Refusal {
    /// The peer has no right to this.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(403, "Forbidden", message)
    }

    /// The request makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// The object is not well-formed.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(422, "Invalid", message)
    }

    /// The peer asks too often.
    pub fn too_many() -> Self {
        let message = "too much at once: try again in a second";
        Self::new(429, "TooManyRequests", message)
    }

    /// It cannot be done just now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }

    /// Makes a refusal of another kind.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
        }
    }

    /// Returns the answer.
    pub fn response(&self) -> Response<Body> {
        let mut status = Status::failure(&self.message, self.reason).with_code(self.code);
        status.metadata = Some(ListMeta::default());
        status_response(&status)
    }
}

/// Returns a `Status` as an answer, with the HTTP status that it names.
pub fn status_response(status: &Status) -> Response<Body> {
    let mut value = json!({"kind": "Status", "apiVersion": "v1"});
    if let (Some(fields), Ok(serde_json::Value::Object(status))) =
        (value.as_object_mut(), serde_json::to_value(status))
    {
        fields.extend(status);
    }
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    json_response(code, &value)
}

/// Returns a value in JSON.
pub fn json_response(code: StatusCode, value: &impl Serialize) -> Response<Body> {
    let (code, bytes) = match serde_json::to_vec(value) {
        Ok(bytes) => (code, bytes),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, b"null".to_vec()),
    };
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = code;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}
