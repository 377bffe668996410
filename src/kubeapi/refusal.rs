//! Every answer that is not the one asked for, as the Status that kube clients expect.

use super::{bounds::quote, protobuf};
use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header},
};
use serde_json::{Map, Value, json};
use std::fmt::Display;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// What is wrong with one field of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FieldError {
    pub(super) field: String,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl FieldError {
    pub(super) fn invalid(
        field: &(impl Display + ?Sized),
        value: &Value,
        why: impl AsRef<str>,
    ) -> Self {
        Self {
            field: field.to_string(),
            reason: "FieldValueInvalid",
            message: format!("Invalid value: {}: {}", quote(value), why.as_ref()),
        }
    }

    pub(super) fn wrong_type(field: &(impl Display + ?Sized), found: &str, expected: &str) -> Self {
        Self {
            field: field.to_string(),
            reason: "FieldValueTypeInvalid",
            message: format!(
                "Invalid value: \"{found}\": {field} in body must be of type {expected}: \"{found}\""
            ),
        }
    }

    pub(super) fn required(field: &(impl Display + ?Sized), why: &str) -> Self {
        let message = if why.is_empty() {
            "Required value".to_owned()
        } else {
            format!("Required value: {why}")
        };
        Self {
            field: field.to_string(),
            reason: "FieldValueRequired",
            message,
        }
    }

    pub(super) fn unsupported(
        field: &(impl Display + ?Sized),
        value: &str,
        supported: &[String],
    ) -> Self {
        Self {
            field: field.to_string(),
            reason: "FieldValueNotSupported",
            message: format!(
                "Unsupported value: {value}: supported values: {}",
                supported.join(", ")
            ),
        }
    }

    pub(super) fn forbidden(field: &(impl Display + ?Sized), why: impl AsRef<str>) -> Self {
        Self {
            field: field.to_string(),
            reason: "FieldValueForbidden",
            message: format!("Forbidden: {}", why.as_ref()),
        }
    }
}

/// A request that is not carried out, with all that the client is told about it.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    code: u16,
    reason: &'static str,
    message: String,
    details: Option<Value>,
}

/// What a refusal is about: `group` and `kind` of its details (kind may be the plural).
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) group: &'a str,
    pub(super) kind: &'a str,
    pub(super) name: &'a str,
}

impl Subject<'_> {
    fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.kind.to_owned()
        } else {
            format!("{}.{}", self.kind, self.group)
        }
    }

    fn details(&self) -> Map<String, Value> {
        let mut details = Map::new();
        for (field, value) in [
            ("name", self.name),
            ("group", self.group),
            ("kind", self.kind),
        ] {
            if !value.is_empty() {
                details.insert(field.to_owned(), json!(value));
            }
        }
        details
    }
}

impl Refusal {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            details: None,
        }
    }

    fn about(mut self, subject: Subject<'_>) -> Self {
        self.details = Some(Value::Object(subject.details()));
        self
    }

    /// The path leads nowhere; answered as plain text, like the real server.
    pub(super) fn unknown_path() -> Self {
        Self::new(404, "", "404 page not found\n")
    }

    /// A path without objects that is asked for in another way than to read it.
    pub(super) fn only_read() -> Self {
        Self::new(405, "", "405: Method Not Allowed\n")
    }

    pub(super) fn not_found(subject: Subject<'_>) -> Self {
        let message = format!("{} \"{}\" not found", subject.qualified(), subject.name);
        Self::new(404, "NotFound", message).about(subject)
    }

    /// A kubectl below 1.29 needs a document that is not made here; only of this code, and only as
    /// plain text, does it show the message.
    pub(super) fn no_openapi_v2() -> Self {
        let message =
            "OpenAPI v2 is not served here: use kubectl 1.29 or newer, or try --validate=false\n";
        Self::new(406, "", message)
    }

    pub(super) fn no_subresource() -> Self {
        let message = "the server could not find the requested resource";
        let mut refusal = Self::new(404, "NotFound", message);
        refusal.details = Some(json!({}));
        refusal
    }

    pub(super) fn already_exists(subject: Subject<'_>) -> Self {
        let message = format!(
            "{} \"{}\" already exists",
            subject.qualified(),
            subject.name
        );
        Self::new(409, "AlreadyExists", message).about(subject)
    }

    pub(super) fn conflict(subject: Subject<'_>, why: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} \"{}\": {why}",
            subject.qualified(),
            subject.name
        );
        Self::new(409, "Conflict", message).about(subject)
    }

    /// Fields of an applied object belong to others.
    pub(super) fn conflicts(message: String, causes: &[Value]) -> Self {
        let mut refusal = Self::new(409, "Conflict", message);
        refusal.details = Some(json!({"causes": causes}));
        refusal
    }

    /// The object changed since the client read it.
    pub(super) fn modified(subject: Subject<'_>) -> Self {
        Self::conflict(
            subject,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    pub(super) fn invalid(subject: Subject<'_>, errors: &[FieldError]) -> Self {
        let mut texts: Vec<String> = errors
            .iter()
            .map(|error| format!("{}: {}", error.field, error.message))
            .collect();
        texts.dedup();
        let summary = match texts.as_slice() {
            [one] => one.clone(),
            several => format!("[{}]", several.join(", ")),
        };
        let message = format!(
            "{} \"{}\" is invalid: {summary}",
            subject.qualified(),
            subject.name
        );
        let causes: Vec<Value> = errors
            .iter()
            .map(|error| {
                json!({"reason": error.reason, "message": error.message, "field": error.field})
            })
            .collect();
        let mut details = subject.details();
        details.insert("causes".to_owned(), Value::Array(causes));
        let mut refusal = Self::new(422, "Invalid", message);
        refusal.details = Some(Value::Object(details));
        refusal
    }

    /// A patch that is well-formed and cannot be carried out.
    pub(super) fn unprocessable() -> Self {
        let message = "the server rejected our request due to an error in our request";
        let mut refusal = Self::new(422, "Invalid", message);
        refusal.details = Some(json!({}));
        refusal
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub(super) fn forbidden(subject: Subject<'_>, why: &str) -> Self {
        let name = if subject.name.is_empty() {
            String::new()
        } else {
            format!(" \"{}\"", subject.name)
        };
        let message = format!("{}{name} is forbidden: {why}", subject.qualified());
        Self::new(403, "Forbidden", message).about(subject)
    }

    /// The namespace of a new object is on its way out.
    pub(super) fn terminating(subject: Subject<'_>, namespace: &str) -> Self {
        let why = format!(
            "unable to create new content in namespace {namespace} because it is being terminated"
        );
        let mut refusal = Self::forbidden(subject, &why);
        if let Some(details) = refusal.details.as_mut().and_then(Value::as_object_mut) {
            let cause = json!({
                "reason": "NamespaceTerminating",
                "message": format!("namespace {namespace} is being terminated"),
                "field": "metadata.namespace",
            });
            details.insert("causes".to_owned(), json!([cause]));
        }
        refusal
    }

    /// A path without objects that is not open to everybody.
    pub(super) fn forbidden_path(why: &str) -> Self {
        let mut refusal = Self::new(403, "Forbidden", format!("forbidden: {why}"));
        refusal.details = Some(json!({}));
        refusal
    }

    pub(super) fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// The request was meant for another server (RFC 9110, section 15.5.20).
    pub(super) fn misdirected() -> Self {
        let message = "this server is reached as localhost or by its loopback address only";
        Self::new(421, "Misdirected", message)
    }

    pub(super) fn method_not_allowed(subject: Subject<'_>, verb: &str) -> Self {
        let message = format!(
            "{verb} is not supported on resources of kind \"{}\"",
            subject.qualified()
        );
        Self::new(405, "MethodNotAllowed", message).about(subject)
    }

    /// The kind of a new object is on its way out.
    pub(super) fn kind_terminating() -> Self {
        let message = "create not allowed while custom resource definition is terminating";
        Self::new(405, "MethodNotAllowed", message)
    }

    pub(super) fn not_acceptable() -> Self {
        let message = "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf";
        Self::new(406, "NotAcceptable", message)
    }

    pub(super) fn unsupported_media(accepted: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        Self::new(415, "UnsupportedMediaType", message)
    }

    pub(super) fn too_large() -> Self {
        Self::new(
            413,
            "RequestEntityTooLarge",
            "the body of the request is larger than 3 MiB",
        )
    }

    /// An object that would be larger than one may be.
    pub(super) fn object_too_large() -> Self {
        Self::new(
            413,
            "RequestEntityTooLarge",
            "the object would be larger than 1.5 MiB",
        )
    }

    /// An object that no client could read.
    pub(super) fn too_deep() -> Self {
        Self::bad_request("the object would have more than 100 levels")
    }

    /// A patch of more operations than a real server carries out, in its words.
    pub(super) fn too_many_operations(most: usize, found: usize) -> Self {
        let message =
            format!("The allowed maximum operations in a JSON patch is {most}, got {found}");
        Self::new(413, "RequestEntityTooLarge", message)
    }

    /// A patch that copies more than a real server lets it, or that moves far more.
    pub(super) fn too_much_copied() -> Self {
        let message = "the JSON patch copies more than 3 MiB, or moves too much";
        Self::new(413, "RequestEntityTooLarge", message)
    }

    pub(super) fn too_slow() -> Self {
        let message = "Timeout: the body of the request did not arrive within a minute";
        Self::new(504, "Timeout", message)
    }

    pub(super) fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// The client asks for a revision that does not exist yet.
    pub(super) fn from_the_future(asked: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
        let mut refusal = Self::new(504, "Timeout", message);
        refusal.details = Some(json!({
            "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            "retryAfterSeconds": 1
        }));
        refusal
    }

    /// A refusal without a reason: a fault of ours, or what some old paths of the real server so refuse.
    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new(500, "", message)
    }

    /// The disk refused the write; nothing was changed.
    pub(super) fn not_stored(why: &str) -> Self {
        Self::new(
            507,
            "InsufficientStorage",
            format!("nothing was changed: {why}"),
        )
    }

    /// The object has another name than the path.
    pub(super) fn misnamed(name: &str, wanted: &str) -> Self {
        Self::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({wanted})"
        ))
    }

    pub(super) fn is_not_found(&self) -> bool {
        self.code == 404
    }

    pub(super) fn is_already_exists(&self) -> bool {
        self.reason == "AlreadyExists"
    }

    pub(super) fn is_forbidden(&self) -> bool {
        self.code == 403
    }

    /// The Status object of this refusal.
    pub(super) fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "code": self.code,
        });
        if let Some(fields) = status.as_object_mut() {
            if !self.reason.is_empty() {
                fields.insert("reason".to_owned(), json!(self.reason));
            }
            if let Some(details) = &self.details {
                fields.insert("details".to_owned(), details.clone());
            }
        }
        status
    }

    /// The whole answer in protobuf, for a client that accepts nothing else.
    pub(super) fn into_binary_response(self) -> Response<Body> {
        let status = self.status();
        let mut response = self.into_response();
        if response.headers().get(header::CONTENT_TYPE) == Some(&JSON) {
            *response.body_mut() = Body::from(protobuf::encode_status(&status));
            let kind = HeaderValue::from_static(protobuf::MEDIA_TYPE);
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
        }
        response
    }

    /// The whole answer.
    pub(super) fn into_response(self) -> Response<Body> {
        let code = StatusCode::from_u16(self.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let plain = matches!(self.code, 404..=406) && self.reason.is_empty();
        let body = if plain {
            self.message.clone()
        } else {
            self.status().to_string()
        };
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = code;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, if plain { TEXT } else { JSON });
        headers.insert(
            header::CACHE_CONTROL,
            HeaderValue::from_static("no-cache, private"),
        );
        if plain || self.code == 403 {
            headers.insert(
                header::X_CONTENT_TYPE_OPTIONS,
                HeaderValue::from_static("nosniff"),
            );
        }
        if self
            .details
            .as_ref()
            .is_some_and(|details| details.get("retryAfterSeconds").is_some())
        {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
