//! The schemas of all kinds: what a field is, read from a CRD or made from the built-in types.

use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{ConfigMap, Event, Namespace, Node, Pod, Secret, ServiceAccount},
        events::v1::Event as NewEvent,
        rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
    schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings},
};
use serde_json::{Map, Value, json};

/// Where a reference to a shared schema begins.
pub(super) const REFERENCE: &str = "#/components/schemas/";

/// The name of the schema of every object's metadata.
pub(super) const METADATA: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// The ends of the names of types that stand for any value, or for one of several types.
const ANYTHING: &[&str] = &[".JSON", "OrArray", "OrBool", "OrStringArray"];

/// Lists of built-in types that are owned item by item: type, list, key of an item (none: a set).
const LISTS: &[(&str, &str, &str)] = &[
    (".meta.v1.ObjectMeta", "finalizers", ""),
    (".meta.v1.ObjectMeta", "ownerReferences", "uid"),
    (".core.v1.NodeStatus", "conditions", "type"),
    (".core.v1.NodeStatus", "addresses", "type"),
    (".core.v1.NodeSpec", "podCIDRs", ""),
    (".core.v1.PodSpec", "containers", "name"),
    (".core.v1.PodSpec", "initContainers", "name"),
    (".core.v1.PodSpec", "volumes", "name"),
    (".core.v1.PodStatus", "conditions", "type"),
    (".core.v1.NamespaceStatus", "conditions", "type"),
    (".v1.CustomResourceDefinitionStatus", "conditions", "type"),
];

/// Built-in types that are owned as a whole.
const ATOMIC: &[&str] = &[
    ".meta.v1.OwnerReference",
    ".core.v1.ObjectReference",
    ".meta.v1.LabelSelector",
];

/// The shared schemas by name.
pub(super) type Components = Map<String, Value>;

/// One node of a schema, with what is needed to follow its references.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schema<'a> {
    node: &'a Value,
    components: &'a Components,
    /// A structural schema of a CRD: what it does not name is not allowed.
    structural: bool,
}

impl<'a> Schema<'a> {
    pub(super) fn new(node: &'a Value, components: &'a Components) -> Self {
        let root = Self {
            node,
            components,
            structural: true,
        };
        root.resolved()
    }

    fn at(self, node: &'a Value) -> Self {
        Self { node, ..self }.resolved()
    }

    fn resolved(self) -> Self {
        let Some(target) = self
            .node
            .get("$ref")
            .and_then(Value::as_str)
            .and_then(|reference| reference.strip_prefix(REFERENCE))
            .and_then(|name| self.components.get(name))
        else {
            return self;
        };
        Self {
            node: target,
            components: self.components,
            structural: false,
        }
    }

    /// A keyword of this node.
    pub(super) fn get(self, keyword: &str) -> Option<&'a Value> {
        self.node.get(keyword)
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

    /// The declared type, if there is one.
    pub(super) fn kind(self) -> Option<&'a str> {
        self.get("type").and_then(Value::as_str)
    }

    /// The schema of a named field.
    pub(super) fn property(self, name: &str) -> Option<Self> {
        let node = self.get("properties")?.get(name)?;
        Some(self.at(node))
    }

    /// The schema of a field, named or not; `None` when it is not described.
    pub(super) fn field(self, name: &str) -> Option<Self> {
        self.property(name).or_else(|| {
            let node = self.get("additionalProperties")?;
            node.is_object().then(|| self.at(node))
        })
    }

    /// The names and schemas of the named fields.
    pub(super) fn properties(self) -> impl Iterator<Item = (&'a String, Self)> {
        self.get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .map(move |(name, node)| (name, self.at(node)))
    }

    /// The schema of the items of a list.
    pub(super) fn items(self) -> Option<Self> {
        self.get("items").map(|node| self.at(node))
    }

    /// The sub-schemas under `allOf`, `anyOf` or `oneOf`.
    pub(super) fn alternatives(self, keyword: &str) -> Option<impl Iterator<Item = Self>> {
        let nodes = self.get(keyword)?.as_array()?;
        Some(nodes.iter().map(move |node| self.at(node)))
    }

    /// The sub-schema that a value must not have.
    pub(super) fn forbidden(self) -> Option<Self> {
        self.get("not").map(|node| self.at(node))
    }

    /// Whether fields that it does not describe are kept.
    pub(super) fn keeps_unknown_fields(self) -> bool {
        if self.flag("x-kubernetes-preserve-unknown-fields")
            || self.get("additionalProperties").is_some()
        {
            return true;
        }
        if self.get("properties").is_some() {
            return false;
        }
        !self.structural || self.kind() != Some("object")
    }
}

/// The schemas of the built-in kinds, generated from their types.
pub(super) fn built_in_components() -> Components {
    let mut generator = SchemaSettings::openapi3().into_generator();
    add::<ObjectMeta>(&mut generator);
    add::<Node>(&mut generator);
    add::<Namespace>(&mut generator);
    add::<Secret>(&mut generator);
    add::<ConfigMap>(&mut generator);
    add::<Event>(&mut generator);
    add::<NewEvent>(&mut generator);
    add::<Lease>(&mut generator);
    add::<Pod>(&mut generator);
    add::<ServiceAccount>(&mut generator);
    add::<Role>(&mut generator);
    add::<RoleBinding>(&mut generator);
    add::<ClusterRole>(&mut generator);
    add::<ClusterRoleBinding>(&mut generator);
    add::<CustomResourceDefinition>(&mut generator);
    let mut components = generator.take_definitions(true);
    for (_, schema) in components
        .iter_mut()
        .filter(|(name, _)| ANYTHING.iter().any(|end| name.ends_with(end)))
    {
        // Their generated schemas say object, and they are values of several types.
        *schema = json!({"x-kubernetes-preserve-unknown-fields": true});
    }
    describe_lists(&mut components);
    components
}

/// Adds what the generated schemas do not say: how lists and maps are owned and merged.
fn describe_lists(components: &mut Components) {
    for (name, list, key) in LISTS {
        let node = components
            .iter_mut()
            .find(|(known, _)| known.ends_with(name))
            .and_then(|(_, schema)| {
                schema
                    .get_mut("properties")?
                    .get_mut(*list)?
                    .as_object_mut()
            });
        let Some(node) = node else {
            continue;
        };
        let kind = if key.is_empty() { "set" } else { "map" };
        node.insert("x-kubernetes-list-type".to_owned(), json!(kind));
        if !key.is_empty() {
            node.insert("x-kubernetes-list-map-keys".to_owned(), json!([key]));
        }
    }
    for (_, schema) in components
        .iter_mut()
        .filter(|(name, _)| ATOMIC.iter().any(|end| name.ends_with(end)))
    {
        if let Some(schema) = schema.as_object_mut() {
            schema.insert("x-kubernetes-map-type".to_owned(), json!("atomic"));
        }
    }
}

fn add<T: JsonSchema>(generator: &mut SchemaGenerator) {
    drop(generator.subschema_for::<T>());
}

/// The reference to the schema of a type.
pub(super) fn reference<T: JsonSchema>() -> Value {
    json!({"$ref": format!("{REFERENCE}{}", T::schema_name())})
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
