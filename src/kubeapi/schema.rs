//! The schemas of all kinds: what a field is, read from a CRD or made from the built-in types.

mod built_in;
mod node;

pub(super) use built_in::{built_in_documents, reference};
pub(super) use node::Node;

use crate::kubeapi::tree::Tree;
use node::Additional;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Where a reference to a shared schema begins.
pub(super) const REFERENCE: &str = "#/components/schemas/";

/// The name of the schema of every object's metadata.
pub(super) const METADATA: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// The shared schemas by name.
#[derive(Debug, Default)]
pub(super) struct Components {
    documents: Map<String, Value>,
    nodes: BTreeMap<String, Node>,
}

impl Components {
    pub(super) fn new(documents: Map<String, Value>) -> Self {
        let read = |(name, document): (&String, &Value)| (name.clone(), Node::read(document));
        let nodes = documents.iter().map(read).collect();
        Self { documents, nodes }
    }

    /// A schema as clients are told of it.
    pub(super) fn document(&self, name: &str) -> Option<&Value> {
        self.documents.get(name)
    }
}

/// One node of a schema, with what is needed to follow its references.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schema<'a> {
    node: &'a Node,
    components: &'a Components,
    /// A structural schema of a CRD: what it does not name is not allowed.
    structural: bool,
}

impl<'a> Schema<'a> {
    pub(super) fn new(node: &'a Node, components: &'a Components) -> Self {
        let root = Self {
            node,
            components,
            structural: true,
        };
        root.resolved()
    }

    fn at(self, node: &'a Node) -> Self {
        Self { node, ..self }.resolved()
    }

    fn resolved(self) -> Self {
        let reference = self.node.reference.as_ref();
        let Some(target) = reference.and_then(|name| self.components.nodes.get(name)) else {
            return self;
        };
        Self {
            node: target,
            components: self.components,
            structural: false,
        }
    }

    /// A keyword of this node, other than those that have a method of their own.
    pub(super) fn get(self, keyword: &str) -> Option<&'a Value> {
        self.node.words.get(keyword)
    }

    /// A keyword that is a number.
    pub(super) fn number(self, keyword: &str) -> Option<f64> {
        self.get(keyword).and_then(Value::as_f64)
    }

    /// A keyword that is a count.
    pub(super) fn count(self, keyword: &str) -> Option<usize> {
        let count = self.get(keyword).and_then(Value::as_u64)?;
        usize::try_from(count).ok()
    }

    /// A keyword that is set to true.
    pub(super) fn flag(self, keyword: &str) -> bool {
        self.get(keyword).and_then(Value::as_bool).unwrap_or(false)
    }

    /// Whether the format of its values is this.
    pub(super) fn has_format(self, format: &str) -> bool {
        self.get("format").is_some_and(|known| known == format)
    }

    /// Whether it is of a definition, and not of a built-in type.
    pub(super) fn is_structural(self) -> bool {
        self.structural
    }

    /// The declared type, if there is one.
    pub(super) fn kind(self) -> Option<&'a str> {
        self.node.kind.as_deref()
    }

    /// Whether null is a value of it.
    pub(super) fn is_nullable(self) -> bool {
        self.node.nullable
    }

    /// The schema of a named field.
    pub(super) fn property(self, name: &str) -> Option<Self> {
        let node = self.node.properties.as_ref()?.get(name)?;
        Some(self.at(node))
    }

    /// The schema of a field, named or not; `None` when it is not described.
    pub(super) fn field(self, name: &str) -> Option<Self> {
        self.property(name).or_else(|| match &self.node.additional {
            Additional::Described(node) => Some(self.at(node)),
            Additional::Undescribed | Additional::None => None,
        })
    }

    /// The names and schemas of the named fields.
    pub(super) fn properties(self) -> impl Iterator<Item = (&'a String, Self)> {
        let properties = self.node.properties.iter().flatten();
        properties.map(move |(name, node)| (name, self.at(node)))
    }

    /// The schema of the items of a list.
    pub(super) fn items(self) -> Option<Self> {
        self.node.items.as_ref().map(|node| self.at(node))
    }

    /// The sub-schemas under `allOf`, `anyOf` or `oneOf`.
    pub(super) fn alternatives(self, keyword: &str) -> Option<impl Iterator<Item = Self>> {
        let nodes = self.node.alternatives.get(keyword)?;
        Some(nodes.iter().map(move |node| self.at(node)))
    }

    /// The sub-schema that a value must not have.
    pub(super) fn forbidden(self) -> Option<Self> {
        self.node.forbidden.as_ref().map(|node| self.at(node))
    }

    /// Whether fields that it does not describe are kept.
    pub(super) fn keeps_unknown_fields(self) -> bool {
        if self.flag("x-kubernetes-preserve-unknown-fields")
            || !matches!(self.node.additional, Additional::None)
        {
            return true;
        }
        if self.node.properties.is_some() {
            return false;
        }
        !self.structural || self.kind() != Some("object")
    }
}

/// A complete schema as objects are held against it: with what the one of the CRD says of their names, which
/// is all that it may say of their metadata.
pub(super) fn with_names(complete: &Value, given: &Value) -> Value {
    let mut held = complete.clone();
    let fields = given
        .field("properties")
        .field("metadata")
        .field("properties");
    let names = ["name", "generateName"].into_iter();
    let names: Map<String, Value> = names
        .filter_map(|name| Some((name.to_owned(), fields.get(name)?.clone())))
        .collect();
    if let Some(root) = held.as_object_mut().filter(|_| !names.is_empty()) {
        let all = root.entry("allOf").or_insert_with(|| json!([]));
        if let Some(all) = all.as_array_mut() {
            all.push(json!({"properties": {"metadata": {"properties": names}}}));
        }
    }
    held
}

/// The schema of a CRD with the fields that every object has.
pub(super) fn complete(schema: Value) -> Value {
    let mut schema = if schema.is_object() {
        schema
    } else {
        json!({})
    };
    if let Some(root) = schema.as_object_mut() {
        root.entry("type").or_insert_with(|| json!("object"));
        let properties = root.entry("properties").or_insert_with(|| json!({}));
        if let Some(properties) = properties.as_object_mut() {
            for (name, meaning) in [
                (
                    "apiVersion",
                    "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources",
                ),
                (
                    "kind",
                    "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds",
                ),
            ] {
                properties
                    .entry(name)
                    .or_insert_with(|| json!({"type": "string", "description": meaning}));
            }
            properties.insert(
                "metadata".to_owned(),
                json!({
                    "description": "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata",
                    "$ref": format!("{REFERENCE}{METADATA}"),
                }),
            );
        }
    }
    schema
}
