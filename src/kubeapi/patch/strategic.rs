//! Strategic merge patches, which merge lists of built-in kinds by a key.

use crate::kubeapi::{bounds::quote, refusal::Refusal, tree::Tree};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// The one set that is merged: its items are known by themselves.
const FINALIZERS: (&str, &str) = ("metadata.finalizers", "");

/// Carries out a patch; `keys` are the lists that are merged, and what their items are known by.
pub(super) fn merge(
    object: &mut Value,
    patch: &Value,
    keys: &[(&str, &str)],
) -> Result<(), Refusal> {
    merge_fields(object, patch, &[keys, &[FINALIZERS]].concat())
}

fn merge_fields(target: &mut Value, patch: &Value, keys: &[(&str, &str)]) -> Result<(), Refusal> {
    let Some(changes) = patch.as_object() else {
        *target = patch.clone();
        return Ok(());
    };
    if let Some(directive) = changes.get("$patch") {
        *target = match directive.as_str() {
            Some("replace") => without_directives(changes),
            Some("delete") => Value::Object(Map::new()),
            _ => {
                let why = format!("unknown patch type {} in map", quote(directive));
                return Err(Refusal::bad_request(why));
            }
        };
        return Ok(());
    }
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(fields) = target.as_object_mut() else {
        return Ok(());
    };
    for (name, change) in changes {
        if name.starts_with('$') {
            delete_from_list(fields, name, change);
            continue;
        }
        let key = key_of(keys, name);
        match (key, change.as_array()) {
            _ if change.is_null() => drop(fields.remove(name)),
            (Some(""), Some(items)) => merge_set(fields, name, items),
            (Some(key), Some(items)) => {
                let list = fields
                    .entry(name)
                    .or_insert_with(|| Value::Array(Vec::new()));
                merge_list(list, items, key)?;
            }
            _ => {
                let field = fields.entry(name).or_insert(Value::Null);
                merge_fields(field, change, &below(keys, name))?;
            }
        }
    }
    for (name, change) in changes {
        if let Some(list) = name.strip_prefix("$setElementOrder/") {
            let key = key_of(keys, list).filter(|key| !key.is_empty());
            if let Some(items) = fields.get_mut(list).and_then(Value::as_array_mut) {
                order(items, change, key);
            }
        }
    }
    Ok(())
}

/// What the items of the list in this field are known by, if it is merged.
fn key_of<'a>(keys: &[(&str, &'a str)], name: &str) -> Option<&'a str> {
    let mut here = keys.iter().filter(|(list, _)| !list.contains('.'));
    here.find(|(list, _)| *list == name).map(|(_, key)| *key)
}

/// The lists below this field, named from there: deep down there are none, and nothing is compared.
fn below<'a>(keys: &[(&'a str, &'a str)], name: &str) -> Vec<(&'a str, &'a str)> {
    let within = keys.iter().filter_map(|(list, key)| {
        let (first, rest) = list.split_once('.')?;
        (first == name).then_some((rest, *key))
    });
    within.collect()
}

fn merge_list(list: &mut Value, items: &[Value], key: &str) -> Result<(), Refusal> {
    if !list.is_array() {
        *list = Value::Array(Vec::new());
    }
    let Some(list) = list.as_array_mut() else {
        return Ok(());
    };
    if items.iter().any(|item| item.field("$patch") == "replace") {
        *list = items
            .iter()
            .filter(|item| item.field("$patch") != "replace")
            .cloned()
            .collect();
        return Ok(());
    }
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for (place, item) in list.iter().enumerate() {
        places.entry(text_of(item.field(key))).or_insert(place);
    }
    let mut gone = BTreeSet::new();
    for item in items {
        let name = text_of(item.field(key));
        if item.field("$patch") == "delete" {
            gone.insert(name);
        } else if let Some(known) = places.get(&name).and_then(|place| list.get_mut(*place)) {
            merge_fields(known, item, &[])?;
        } else {
            places.insert(name, list.len());
            list.push(
                item.as_object()
                    .map_or_else(|| item.clone(), without_directives),
            );
        }
    }
    if !gone.is_empty() {
        list.retain(|item| !gone.contains(&text_of(item.field(key))));
    }
    Ok(())
}

/// A value as a text that only equal ones have.
fn text_of(value: &Value) -> String {
    value.to_string()
}

fn merge_set(fields: &mut Map<String, Value>, name: &str, items: &[Value]) {
    let set = fields
        .entry(name)
        .or_insert_with(|| Value::Array(Vec::new()));
    if let Some(set) = set.as_array_mut() {
        let mut known: BTreeSet<String> = set.iter().map(text_of).collect();
        set.extend(
            items
                .iter()
                .filter(|item| known.insert(text_of(item)))
                .cloned(),
        );
    }
}

fn delete_from_list(fields: &mut Map<String, Value>, directive: &str, change: &Value) {
    let listed: BTreeSet<String> = change
        .as_array()
        .into_iter()
        .flatten()
        .map(text_of)
        .collect();
    if let Some(list) = directive.strip_prefix("$deleteFromPrimitiveList/")
        && let Some(items) = fields.get_mut(list).and_then(Value::as_array_mut)
    {
        items.retain(|item| !listed.contains(&text_of(item)));
    } else if directive == "$retainKeys" && change.is_array() {
        fields.retain(|name, _| listed.contains(&text_of(&Value::from(name.as_str()))));
    }
}

fn order(items: &mut [Value], wanted: &Value, key: Option<&str>) {
    let identity = |item: &Value| text_of(key.map_or(item, |key| item.field(key)));
    let mut places = BTreeMap::new();
    for (place, item) in wanted.as_array().into_iter().flatten().enumerate() {
        places.entry(identity(item)).or_insert(place);
    }
    items.sort_by_cached_key(|item| places.get(&identity(item)).copied().unwrap_or(usize::MAX));
}

fn without_directives(fields: &Map<String, Value>) -> Value {
    fields
        .iter()
        .filter(|(name, _)| !name.starts_with('$'))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const KEYS: &[(&str, &str)] = &[("spec.parts", "key"), ("status.conditions", "type")];

    fn strategic(object: &Value, patch: &Value) -> Value {
        let mut patched = object.clone();
        merge(&mut patched, patch, KEYS).unwrap();
        patched
    }

    #[test]
    fn a_field_with_a_dot_in_its_name_is_no_list_with_keys() {
        let object = json!({"spec.parts": [{"key": "a"}]});
        let patch = json!({"spec.parts": [{"key": "b"}]});
        assert_eq!(strategic(&object, &patch), patch);
    }

    #[test]
    fn a_strategic_patch_adds_finalizers() {
        let object = json!({"metadata": {"finalizers": ["a"]}});
        let patch = json!({"metadata": {"finalizers": ["b", "a"],
            "$setElementOrder/finalizers": ["b", "a"]}});
        let patched = strategic(&object, &patch);
        assert_eq!(patched["metadata"]["finalizers"], json!(["b", "a"]));
    }

    #[test]
    fn a_strategic_patch_merges_lists_by_their_key() {
        let node = json!({"spec": {"parts": [{"key": "a", "effect": "NoSchedule"}]}});
        let added = strategic(
            &node,
            &json!({"spec": {"parts": [{"key": "b", "effect": "NoExecute"}]}}),
        );
        assert_eq!(added["spec"]["parts"].as_array().unwrap().len(), 2);
        let changed = strategic(
            &added,
            &json!({"spec": {"parts": [{"key": "a", "value": "1"}]}}),
        );
        assert_eq!(
            changed["spec"]["parts"][0],
            json!({"key": "a", "effect": "NoSchedule", "value": "1"})
        );
        let removed = strategic(
            &changed,
            &json!({"spec": {"parts": [{"key": "a", "$patch": "delete"}]}}),
        );
        assert_eq!(
            removed["spec"]["parts"],
            json!([{"key": "b", "effect": "NoExecute"}])
        );
    }

    #[test]
    fn a_strategic_patch_obeys_its_directives() {
        let object = json!({"metadata": {"finalizers": ["a", "b"]}, "data": {"x": "1"},
            "spec": {"parts": [{"key": "a"}, {"key": "b"}]}});
        let patched = strategic(
            &object,
            &json!({
                "metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]},
                "data": {"$patch": "replace", "y": "2"},
                "spec": {"$setElementOrder/parts": [{"key": "b"}, {"key": "a"}]}
            }),
        );
        assert_eq!(patched["metadata"]["finalizers"], json!(["b"]));
        assert_eq!(patched["data"], json!({"y": "2"}));
        let emptied = strategic(&object, &json!({"data": {"$patch": "delete"}}));
        assert_eq!(emptied["data"], json!({}));
        let unknown = json!({"data": {"$patch": "merge"}});
        let mut object = object;
        let refusal = merge(&mut object, &unknown, KEYS).unwrap_err();
        assert_eq!(refusal.status()["code"], 400);
        assert_eq!(
            patched["spec"]["parts"],
            json!([{"key": "b"}, {"key": "a"}])
        );
    }
}
