//! An object as the store keeps it in memory.

use super::Operation;
use crate::kubeapi::tree::Tree;
use axum::body::Bytes;
use serde::Deserialize;
use serde_json::Value;

/// An object in the form in which it is sent: compact JSON, in the line that tells watchers of it.
#[derive(Debug)]
pub(in crate::kubeapi) struct Stored {
    pub(in crate::kubeapi) revision: u64,
    operation: Operation,
    line: Bytes,
    pub(super) owners: Box<[Box<str>]>,
}

/// What follows the object in its line.
const LINE_END: &[u8] = b"}\n";

/// What stands before an object in the line that tells what happened to it.
fn line_start(operation: Operation) -> &'static [u8] {
    match operation {
        Operation::Added => br#"{"type":"ADDED","object":"#,
        Operation::Modified => br#"{"type":"MODIFIED","object":"#,
        Operation::Deleted => br#"{"type":"DELETED","object":"#,
    }
}

impl Stored {
    pub(super) fn new(revision: u64, operation: Operation, object: &Value) -> Self {
        let owners = object
            .pointer("/metadata/ownerReferences")
            .and_then(Value::as_array)
            .map(|references| {
                references
                    .iter()
                    .filter_map(|reference| reference.field("uid").as_str().map(Box::from))
                    .collect()
            })
            .unwrap_or_default();
        let mut line = line_start(operation).to_vec();
        serde_json::to_writer(&mut line, object).expect("a tree is written to memory");
        Self::of_line(revision, operation, line, owners)
    }

    fn of_line(
        revision: u64,
        operation: Operation,
        mut line: Vec<u8>,
        owners: Box<[Box<str>]>,
    ) -> Self {
        line.extend_from_slice(LINE_END);
        Self {
            revision,
            operation,
            line: Bytes::from(line.into_boxed_slice()),
            owners,
        }
    }

    pub(super) fn loaded(revision: u64, operation: Operation, json: &[u8]) -> Self {
        let text = std::str::from_utf8(json).unwrap_or_default();
        let owners = if text.contains("\"ownerReferences\"") {
            let glance: Glance = serde_json::from_str(text).unwrap_or_default();
            let owners = glance.metadata.owner_references.into_iter();
            owners.map(|owner| owner.uid.into_boxed_str()).collect()
        } else {
            Box::default()
        };
        let line = [line_start(operation), json].concat();
        Self::of_line(revision, operation, line, owners)
    }

    /// The object as it is sent; shares its memory.
    pub(in crate::kubeapi) fn json(&self) -> Bytes {
        let start = line_start(self.operation).len();
        let end = self.line.len() - LINE_END.len();
        self.line.slice(start..end)
    }

    /// The line that tells a watcher of this change, when this is what happened.
    pub(in crate::kubeapi) fn line(&self, operation: Operation) -> Option<Bytes> {
        (operation == self.operation).then(|| self.line.clone())
    }

    /// How much memory it takes, about.
    pub(super) fn size(&self) -> usize {
        self.line.len()
    }

    /// The object as a tree.
    pub(in crate::kubeapi) fn value(&self) -> Value {
        serde_json::from_slice(&self.json()).unwrap_or_default()
    }
}

#[derive(Default, Deserialize)]
struct Glance {
    #[serde(default)]
    metadata: GlanceMetadata,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct GlanceMetadata {
    #[serde(default)]
    owner_references: Vec<GlanceOwner>,
}

#[derive(Deserialize)]
struct GlanceOwner {
    uid: String,
}
