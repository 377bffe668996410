//! What the server itself writes into objects of some kinds, and takes out of all.

use super::{
    access::name_groups,
    admission::name_of,
    cascade::OWN_FINALIZER,
    catalog::{Resource, Role},
    definition, naming,
    tree::Tree,
};
use base64::Engine;
use serde_json::{Value, json};

/// Adds what the server itself writes into some kinds.
pub(super) fn dress(
    resource: &Resource,
    object: &mut Value,
    old: Option<&Value>,
    now: jiff::Timestamp,
) {
    tidy(object);
    name_groups(resource, object);
    match resource.role {
        Role::Namespace => {
            let name = name_of(object);
            object.set(
                &["metadata", "labels", "kubernetes.io/metadata.name"],
                json!(name),
            );
            if old.is_none() {
                object.set(&["spec"], json!({"finalizers": [OWN_FINALIZER]}));
                object.set(&["status"], json!({"phase": "Active"}));
            }
        }
        Role::Secret => encode_texts(object),
        Role::Definition => establish(object, old, now),
        Role::Plain | Role::Review => {}
    }
}

/// Removes from the metadata what is empty or not kept here.
pub(super) fn tidy(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("selfLink");
        metadata.retain(|_, value| {
            !value.is_null()
                && value.as_object().is_none_or(|map| !map.is_empty())
                && value.as_array().is_none_or(|list| !list.is_empty())
        });
    }
}

fn encode_texts(object: &mut Value) {
    let Some(fields) = object.as_object_mut() else {
        return;
    };
    let kind = fields.entry("type").or_insert(Value::Null);
    if kind.is_null() || *kind == "" {
        *kind = json!("Opaque");
    }
    let texts = fields.remove("stringData");
    let Some(Value::Object(mut texts)) = texts else {
        return;
    };
    let data = fields.entry("data").or_insert_with(|| json!({}));
    if data.is_null() {
        *data = json!({});
    }
    if let Some(data) = data.as_object_mut() {
        texts.retain(|key, text| {
            let Some(text) = text.as_str() else {
                return !text.is_null();
            };
            let encoded = base64::engine::general_purpose::STANDARD.encode(text);
            data.insert(key.clone(), json!(encoded));
            false
        });
    }
    if !texts.is_empty() {
        // What is no text is left for its schema to refuse.
        fields.insert("stringData".to_owned(), Value::Object(texts));
    }
}

/// Says whether a definition is served, which it is as soon as it is stored, unless it cannot be.
pub(super) fn establish(object: &mut Value, old: Option<&Value>, now: jiff::Timestamp) {
    let mut names = object.field("spec").field("names").clone();
    if let Some(fields) = names.as_object_mut() {
        let kind = fields
            .get("kind")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let (list, singular) = (format!("{kind}List"), kind.to_lowercase());
        fields.entry("listKind").or_insert_with(|| json!(list));
        fields.entry("singular").or_insert_with(|| json!(singular));
    }
    let versions = stored_versions(object, old);
    let Some(fields) = object.as_object_mut() else {
        return;
    };
    if let Some(spec) = fields.get_mut("spec").and_then(Value::as_object_mut) {
        spec.entry("conversion")
            .or_insert_with(|| json!({"strategy": "None"}));
        spec.insert("names".to_owned(), names.clone());
    }
    // What changes is still to be checked, and is not stored if it cannot be served.
    let same = old.filter(|old| old.field("spec") == object.field("spec"));
    let mistake = same.and_then(definition::mistake_of);
    let accepted = Ok("the initial names have been accepted");
    let established = mistake.as_deref().map_or(accepted, Err);
    let conflicts = Ok("no conflicts found");
    let conditions = json!([
        condition(object, now, "NamesAccepted", "NoConflicts", conflicts),
        condition(
            object,
            now,
            "Established",
            "InitialNamesAccepted",
            established
        ),
    ]);
    let status = json!({
        "acceptedNames": names,
        "conditions": conditions,
        "storedVersions": versions,
    });
    object.set(&["status"], status);
}

/// A condition of a definition: that something is so for this reason, or what is wrong.
fn condition(
    object: &Value,
    now: jiff::Timestamp,
    kind: &str,
    reason: &str,
    outcome: Result<&str, &str>,
) -> Value {
    let (status, reason, message) = match outcome {
        Ok(message) => ("True", reason, message),
        Err(mistake) => ("False", "NotServed", mistake),
    };
    let known = object.field("status").field("conditions").as_array();
    let mut known = known.into_iter().flatten();
    let same = known.find(|known| known.text("type") == kind && known.text("status") == status);
    let since = same.map(|known| known.field("lastTransitionTime").clone());
    let since = since.filter(|since| !since.is_null());
    json!({"type": kind, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": since.unwrap_or_else(|| naming::time(now))})
}

/// The versions that objects may be stored in: the present one, and those that were before it until
/// somebody who stored all objects anew takes them off the list.
fn stored_versions(object: &Value, old: Option<&Value>) -> Vec<Value> {
    let listed = |object: &Value| {
        let versions = object.field("status").field("storedVersions").as_array();
        versions.cloned().unwrap_or_default()
    };
    let offered = object.field("spec").field("versions").as_array();
    let stored = offered.into_iter().flatten();
    let stored = stored
        .filter(|version| version.field("storage") == true)
        .map(|version| version.field("name"));
    let mut versions = listed(object);
    if !stored.clone().all(|version| versions.contains(version)) {
        versions = old.map(listed).unwrap_or_default();
        for version in stored {
            if !versions.contains(version) {
                versions.push(version.clone());
            }
        }
    }
    versions
}
