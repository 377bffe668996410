//! Shows objects in the form that the client accepts: JSON, YAML, Table or metadata only.

use super::{
    catalog::{Resource, View},
    event_view,
    refusal::Refusal,
    store::Stored,
    table::{self, Include},
};
use crate::kubeapi::tree::Tree;
use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, Response, StatusCode, header},
};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;

/// The forms of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Yaml,
    Table,
    Partial,
}

impl Format {
    /// The first form of the `Accept` header that is on offer; JSON when it says nothing.
    pub(super) fn negotiate(headers: &HeaderMap) -> Result<Self, Refusal> {
        let accept = headers
            .get(header::ACCEPT)
            .and_then(|accept| accept.to_str().ok())
            .unwrap_or_default();
        if accept.trim().is_empty() {
            return Ok(Self::Json);
        }
        accept
            .split(',')
            .find_map(Self::of_media_range)
            .ok_or_else(Refusal::not_acceptable)
    }

    fn of_media_range(range: &str) -> Option<Self> {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next()?;
        let shape = parts.find_map(|part| part.strip_prefix("as="));
        match (media, shape) {
            ("application/json" | "application/*" | "*/*", None) => Some(Self::Json),
            ("application/yaml", None) => Some(Self::Yaml),
            ("application/json", Some("Table")) => Some(Self::Table),
            ("application/json", Some("PartialObjectMetadata" | "PartialObjectMetadataList")) => {
                Some(Self::Partial)
            }
            _ => None,
        }
    }
}

/// Changes a stored object into the one that this resource shows.
pub(super) fn as_shown(resource: &Resource, mut object: Value) -> Value {
    match resource.view {
        View::Stored => object,
        View::NewEvent => event_view::to_new(object),
        View::Versioned => {
            object.set(&["apiVersion"], json!(resource.api_version()));
            object
        }
    }
}

/// A stored object as this resource shows it, the same tree if there is nothing to change.
pub(super) fn shown(resource: &Resource, object: Arc<Value>) -> Arc<Value> {
    let as_is = match resource.view {
        View::Stored => true,
        View::NewEvent => false,
        View::Versioned => object.text("apiVersion") == resource.api_version(),
    };
    if as_is {
        object
    } else {
        Arc::new(as_shown(resource, Arc::unwrap_or_clone(object)))
    }
}

/// Changes an object as this resource shows it into the one to store.
pub(super) fn as_stored(resource: &Resource, object: Value) -> Value {
    if resource.view == View::NewEvent {
        event_view::to_core(object)
    } else {
        object
    }
}

/// Where a list ends, and how it goes on.
#[derive(Debug, Clone, Default)]
pub(super) struct ListEnd {
    pub(super) revision: u64,
    pub(super) next: Option<String>,
    pub(super) remaining: Option<usize>,
}

impl ListEnd {
    fn metadata(&self, resource: &Resource) -> Value {
        let mut metadata = json!({"resourceVersion": self.revision.to_string()});
        if !resource.is_built_in() {
            // A real server writes the lists of custom kinds so.
            metadata.set(&["continue"], json!(""));
        }
        if let Some(next) = &self.next {
            metadata.set(&["continue"], json!(next));
        }
        if let Some(remaining) = self.remaining {
            metadata.set(&["remainingItemCount"], json!(remaining));
        }
        metadata
    }
}

/// How one request wants its objects shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Presenter<'a> {
    pub(super) resource: &'a Resource,
    pub(super) format: Format,
    pub(super) include: Include,
    pub(super) now: Timestamp,
}

impl Presenter<'_> {
    /// Whether the stored bytes can be sent as they are.
    pub(super) fn sends_bytes_of(&self, stored: &Stored) -> bool {
        self.format == Format::Json
            && match self.resource.view {
                View::Stored => true,
                View::Versioned => is_of(self.resource, &stored.json()),
                View::NewEvent => false,
            }
    }

    /// One object that is stored.
    pub(super) fn stored(&self, status: StatusCode, stored: &Stored) -> Response<Body> {
        if self.sends_bytes_of(stored) {
            return respond(status, "application/json", stored.json());
        }
        self.object(status, as_shown(self.resource, stored.value()))
    }

    /// One object as it is shown.
    pub(super) fn object(&self, status: StatusCode, object: Value) -> Response<Body> {
        match self.format {
            Format::Json => respond_json(status, &object),
            Format::Yaml => respond_yaml(status, &object),
            Format::Partial => respond_json(status, &table::partial(&object)),
            Format::Table => {
                let revision = object.field("metadata").field("resourceVersion").clone();
                let table = self.table(vec![object], json!({"resourceVersion": revision}));
                respond_json(status, &table)
            }
        }
    }

    /// A list of stored objects.
    pub(super) fn list(&self, items: &[Arc<Stored>], end: &ListEnd) -> Response<Body> {
        if self.format == Format::Json && items.iter().all(|stored| self.sends_bytes_of(stored)) {
            return respond(StatusCode::OK, "application/json", self.join(items, end));
        }
        let objects: Vec<Value> = items
            .iter()
            .map(|stored| as_shown(self.resource, stored.value()))
            .collect();
        let metadata = end.metadata(self.resource);
        let (kind, api_version, items) = match self.format {
            Format::Table => return respond_json(StatusCode::OK, &self.table(objects, metadata)),
            Format::Partial => (
                "PartialObjectMetadataList".to_owned(),
                "meta.k8s.io/v1".to_owned(),
                objects.iter().map(table::partial).collect(),
            ),
            Format::Json | Format::Yaml => (
                self.resource.list_kind.clone(),
                self.resource.api_version(),
                objects,
            ),
        };
        let list =
            json!({"kind": kind, "apiVersion": api_version, "metadata": metadata, "items": items});
        if self.format == Format::Yaml {
            respond_yaml(StatusCode::OK, &list)
        } else {
            respond_json(StatusCode::OK, &list)
        }
    }

    fn join(&self, items: &[Arc<Stored>], end: &ListEnd) -> Bytes {
        let head = json!({
            "apiVersion": self.resource.api_version(),
            "kind": self.resource.list_kind,
            "metadata": end.metadata(self.resource),
        })
        .to_string();
        let size: usize = items.iter().map(|stored| stored.json().len() + 1).sum();
        let mut body = Vec::with_capacity(head.len() + size + 16);
        body.extend_from_slice(head.trim_end_matches('}').as_bytes());
        body.extend_from_slice(b"},\"items\":[");
        for (index, stored) in items.iter().enumerate() {
            if index > 0 {
                body.push(b',');
            }
            body.extend_from_slice(&stored.json());
        }
        body.extend_from_slice(b"]}");
        Bytes::from(body)
    }

    fn table(&self, objects: Vec<Value>, metadata: Value) -> Value {
        let columns = &self.resource.columns;
        let rows = objects
            .into_iter()
            .map(|object| table::row(columns, object, self.include, self.now))
            .collect();
        table::table(table::definitions(columns), rows, metadata)
    }

    /// An object as it stands in a watch event; `first` events of tables name the columns.
    pub(super) fn watched(&self, object: Value, first: bool) -> Value {
        match self.format {
            Format::Json | Format::Yaml => object,
            Format::Partial => table::partial(&object),
            Format::Table => {
                let metadata =
                    json!({"resourceVersion": object.field("metadata").field("resourceVersion")});
                let mut table = self.table(vec![object], metadata);
                if !first {
                    table.set(&["columnDefinitions"], Value::Null);
                }
                table
            }
        }
    }
}

/// Whether an object is stored in this version, as its beginning tells: objects are written with
/// their fields in order.
fn is_of(resource: &Resource, json: &[u8]) -> bool {
    let parts = [
        "{\"apiVersion\":\"",
        &resource.group,
        "/",
        &resource.version,
        "\"",
    ];
    let rest = parts
        .iter()
        .try_fold(json, |rest, part| rest.strip_prefix(part.as_bytes()));
    rest.is_some()
}

/// An answer with this body.
pub(super) fn respond(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Body>,
) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, private"),
    );
    response
}

/// An answer in JSON.
pub(super) fn respond_json(status: StatusCode, value: &Value) -> Response<Body> {
    respond(status, "application/json", value.to_string())
}

fn respond_yaml(status: StatusCode, value: &Value) -> Response<Body> {
    match serde_saphyr::to_string(value) {
        Ok(text) => respond(status, "application/yaml", text),
        Err(error) => Refusal::internal(error.to_string()).into_response(),
    }
}
