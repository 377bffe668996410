//! OpenAPI v3 documents, as much of them as kubectl reads to explain and to validate.

use super::{
    catalog::{Catalog, Resource, Verbs},
    schema::{Components, REFERENCE},
};
use crate::kubeapi::tree::Tree;
use axum::body::Bytes;
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, fmt::Write};

/// The index, and a document for each group and version.
#[derive(Debug)]
pub(super) struct OpenApi {
    pub(super) index: Bytes,
    pub(super) documents: BTreeMap<String, Document>,
}

/// A document and the hash under which clients keep it.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) body: Bytes,
    pub(super) hash: String,
}

impl OpenApi {
    pub(super) fn new(catalog: &Catalog, components: &Components) -> Self {
        let mut by_version: BTreeMap<String, Vec<&Resource>> = BTreeMap::new();
        for resource in catalog.resources() {
            let root = root(resource);
            by_version.entry(root).or_default().push(resource);
        }
        let documents: BTreeMap<String, Document> = by_version
            .into_iter()
            .map(|(root, resources)| {
                let body = document(&root, &resources, components).to_string();
                let hash = hash(body.as_bytes());
                let body = Bytes::from(body);
                (root, Document { body, hash })
            })
            .collect();
        let paths: Map<String, Value> = documents
            .iter()
            .map(|(root, document)| {
                let url = format!("/openapi/v3/{root}?hash={}", document.hash);
                (root.clone(), json!({"serverRelativeURL": url}))
            })
            .collect();
        Self {
            index: Bytes::from(json!({"paths": paths}).to_string()),
            documents,
        }
    }
}

/// SHA-512 in capital hexadecimal digits.
pub(super) fn hash(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA512, bytes);
    digest
        .as_ref()
        .iter()
        .fold(String::new(), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02X}");
            text
        })
}

fn root(resource: &Resource) -> String {
    if resource.group.is_empty() {
        format!("api/{}", resource.version)
    } else {
        format!("apis/{}/{}", resource.group, resource.version)
    }
}

fn document(root: &str, resources: &[&Resource], components: &Components) -> Value {
    let mut schemas = Map::new();
    let mut paths = Map::new();
    for resource in resources {
        let identity = json!({
            "group": resource.group,
            "version": resource.version,
            "kind": resource.kind,
        });
        let (name, mut schema) = root_schema(resource, components);
        collect(&schema, components, &mut schemas);
        schema.set(&["x-kubernetes-group-version-kind"], json!([identity]));
        schemas.insert(name, schema);
        add_paths(&mut paths, root, resource, &identity);
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Landbridge", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths,
        "components": {"schemas": schemas},
    })
}

/// The name and the schema of a kind.
fn root_schema(resource: &Resource, components: &Components) -> (String, Value) {
    if let Some(name) = referenced(&resource.schema) {
        let schema = components.document(name).cloned().unwrap_or_default();
        return (name.to_owned(), schema);
    }
    let reversed: Vec<&str> = resource.group.rsplit('.').collect();
    let name = format!(
        "{}.{}.{}",
        reversed.join("."),
        resource.version,
        resource.kind
    );
    (name, resource.schema.clone())
}

fn referenced(schema: &Value) -> Option<&str> {
    schema.get("$ref")?.as_str()?.strip_prefix(REFERENCE)
}

/// Adds the shared schemas that a schema refers to, and those that they refer to.
fn collect(schema: &Value, components: &Components, found: &mut Map<String, Value>) {
    if let Some(name) = referenced(schema)
        && !found.contains_key(name)
        && let Some(target) = components.document(name)
    {
        found.insert(name.to_owned(), target.clone());
        collect(target, components, found);
    }
    if let Some(fields) = schema.as_object() {
        for field in fields.values() {
            collect(field, components, found);
        }
    } else if let Some(items) = schema.as_array() {
        for item in items {
            collect(item, components, found);
        }
    }
}

fn add_paths(paths: &mut Map<String, Value>, root: &str, resource: &Resource, identity: &Value) {
    let operation = |action: &str, writes: bool| {
        let mut operation = json!({
            "x-kubernetes-group-version-kind": identity,
            "x-kubernetes-action": action,
            "responses": {},
        });
        if writes {
            operation.set(
                &["parameters"],
                json!([
                    {"name": "fieldValidation", "in": "query", "schema": {"type": "string"}},
                    {"name": "dryRun", "in": "query", "schema": {"type": "string"}},
                ]),
            );
        }
        operation
    };
    let place = if resource.namespaced {
        format!("/{root}/namespaces/{{namespace}}/{}", resource.plural)
    } else {
        format!("/{root}/{}", resource.plural)
    };
    if resource.verbs == Verbs::Create {
        let collection = format!("/{root}/{}", resource.plural);
        paths.insert(collection, json!({"post": operation("post", true)}));
        return;
    }
    let collection = json!({
        "get": operation("list", false),
        "post": operation("post", true),
        "delete": operation("deletecollection", true),
    });
    let item = json!({
        "get": operation("get", false),
        "put": operation("put", true),
        "patch": operation("patch", true),
        "delete": operation("delete", true),
    });
    if resource.rules.status {
        let status = json!({
            "get": operation("get", false),
            "put": operation("put", true),
            "patch": operation("patch", true),
        });
        paths.insert(format!("{place}/{{name}}/status"), status);
    }
    paths.insert(format!("{place}/{{name}}"), item);
    paths.insert(place, collection);
}
