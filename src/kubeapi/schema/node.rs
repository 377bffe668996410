//! One node of a schema, read once: it is asked with every write of an object.

use super::REFERENCE;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// What is known of fields that are not named.
#[derive(Debug, Default)]
pub(super) enum Additional {
    /// There are none.
    #[default]
    None,
    /// There may be some, and nothing is said of them.
    Undescribed,
    /// They have this schema.
    Described(Box<Node>),
}

/// One node of a schema, without what is there for readers alone.
#[derive(Debug, Default)]
pub(in crate::kubeapi) struct Node {
    /// The name of the shared schema that stands in its place.
    pub(super) reference: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) nullable: bool,
    pub(super) properties: Option<BTreeMap<String, Self>>,
    pub(super) additional: Additional,
    pub(super) items: Option<Box<Self>>,
    pub(super) forbidden: Option<Box<Self>>,
    /// By keyword: `allOf`, `anyOf`, `oneOf`.
    pub(super) alternatives: BTreeMap<String, Vec<Self>>,
    /// The other keywords.
    pub(super) words: Map<String, Value>,
}

impl Node {
    /// Reads a schema as it stands in a document.
    pub(in crate::kubeapi) fn read(document: &Value) -> Self {
        let mut node = Self::default();
        for (keyword, value) in document.as_object().into_iter().flatten() {
            node.take(keyword, value);
        }
        node
    }

    fn take(&mut self, keyword: &str, value: &Value) {
        let one = |value| Box::new(Self::read(value));
        match (keyword, value) {
            ("$ref", Value::String(place)) => {
                self.reference = place.strip_prefix(REFERENCE).map(str::to_owned);
            }
            ("type", Value::String(kind)) => self.kind = Some(kind.clone()),
            ("nullable", Value::Bool(nullable)) => self.nullable = *nullable,
            ("properties", Value::Object(fields)) => {
                let fields = fields.iter();
                let read = fields.map(|(name, field)| (name.clone(), Self::read(field)));
                self.properties = Some(read.collect());
            }
            ("additionalProperties", Value::Object(_)) => {
                self.additional = Additional::Described(one(value));
            }
            ("additionalProperties", _) => self.additional = Additional::Undescribed,
            ("items", _) => self.items = Some(one(value)),
            ("not", _) => self.forbidden = Some(one(value)),
            ("allOf" | "anyOf" | "oneOf", Value::Array(parts)) => {
                let parts = parts.iter().map(Self::read).collect();
                self.alternatives.insert(keyword.to_owned(), parts);
            }
            ("description", _) => {}
            _ => {
                self.words.insert(keyword.to_owned(), value.clone());
            }
        }
    }
}
