//! The schemas of the built-in kinds, made from their types.

use super::REFERENCE;
use crate::kubeapi::tree::Tree;
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

/// The ends of the names of types that stand for any value, or for one of several types.
const ANYTHING: &[&str] = &[".JSON", "OrArray", "OrBool", "OrStringArray"];

/// The ends of the names of types that are a number or a text, and of which format the number is.
const NUMBERS: &[(&str, &str)] = &[(".IntOrString", "int32"), (".Quantity", "quantity")];

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
    (".core.v1.ServiceAccount", "secrets", "name"),
    (".v1.CustomResourceDefinitionStatus", "conditions", "type"),
];

/// Built-in types that are owned as a whole.
const ATOMIC: &[&str] = &[
    ".meta.v1.OwnerReference",
    ".core.v1.ObjectReference",
    ".meta.v1.LabelSelector",
];

/// The schemas of the built-in kinds, generated from their types.
pub(in crate::kubeapi) fn built_in_documents() -> Map<String, Value> {
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
    for (end, format) in NUMBERS {
        for (_, schema) in components
            .iter_mut()
            .filter(|(name, _)| name.ends_with(end))
        {
            schema.set(&["format"], json!(format));
        }
    }
    describe_lists(&mut components);
    components
}

/// Adds what the generated schemas do not say: how lists and maps are owned and merged.
fn describe_lists(components: &mut Map<String, Value>) {
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
pub(in crate::kubeapi) fn reference<T: JsonSchema>() -> Value {
    json!({"$ref": format!("{REFERENCE}{}", T::schema_name())})
}
