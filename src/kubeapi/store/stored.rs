//! An object as the store keeps it in memory.

use super::Operation;
use crate::kubeapi::tree::Tree;
use axum::body::Bytes;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An object in the form in which it is sent: compact JSON, in the line that tells watchers of it.
#[derive(Debug)]
pub(in crate::kubeapi) struct Stored {
    pub(in crate::kubeapi) revision: u64,
    operation: Operation,
    line: Bytes,
    pub(super) owners: Box<[Box<str>]>,
    /// Whether it waits for its end.
    ends: bool,
    /// What the JSON says, of an object that was written lately.
    tree: Mutex<Option<Arc<Value>>>,
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
    pub(super) fn new(revision: u64, operation: Operation, object: Value) -> Self {
        let metadata = object.field("metadata");
        let references = metadata.field("ownerReferences").as_array();
        let owners = references.into_iter().flatten();
        let owners = owners.filter_map(|owner| owner.field("uid").as_str().map(Box::from));
        let mut line = line_start(operation).to_vec();
        serde_json::to_writer(&mut line, &object).expect("a tree is written to memory");
        Self {
            owners: owners.collect(),
            ends: !metadata.field("deletionTimestamp").is_null(),
            tree: Mutex::new(Some(Arc::new(object))),
            ..Self::of_line(revision, operation, line)
        }
    }

    fn of_line(revision: u64, operation: Operation, mut line: Vec<u8>) -> Self {
        line.extend_from_slice(LINE_END);
        Self {
            revision,
            operation,
            line: Bytes::from(line.into_boxed_slice()),
            owners: Box::default(),
            ends: false,
            tree: Mutex::default(),
        }
    }

    pub(super) fn loaded(revision: u64, operation: Operation, json: &[u8]) -> Self {
        let text = std::str::from_utf8(json).unwrap_or_default();
        let fields = ["\"ownerReferences\"", "\"deletionTimestamp\""];
        let metadata = if fields.iter().any(|field| text.contains(field)) {
            let glance: Glance = serde_json::from_str(text).unwrap_or_default();
            glance.metadata
        } else {
            GlanceMetadata::default()
        };
        let owners = metadata.owner_references.into_iter();
        let owners = owners.filter_map(|owner| owner.uid.map(String::into_boxed_str));
        Self {
            owners: owners.collect(),
            ends: metadata.deletion_timestamp.is_some(),
            ..Self::of_line(revision, operation, [line_start(operation), json].concat())
        }
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

    /// Whether it waits for its end: it has a time of deletion.
    pub(in crate::kubeapi) fn is_ending(&self) -> bool {
        self.ends
    }

    /// The object as a tree.
    pub(in crate::kubeapi) fn tree(&self) -> Arc<Value> {
        let kept = self.lock().clone();
        kept.unwrap_or_else(|| Arc::new(serde_json::from_slice(&self.json()).unwrap_or_default()))
    }

    /// A tree of the object that may be changed.
    pub(in crate::kubeapi) fn value(&self) -> Value {
        Arc::unwrap_or_clone(self.tree())
    }

    /// Takes the tree that it keeps, which a reader then makes anew.
    pub(super) fn take_tree(&self) -> Option<Arc<Value>> {
        self.lock().take()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Value>>> {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
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
    deletion_timestamp: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct GlanceOwner {
    uid: Option<String>,
}
