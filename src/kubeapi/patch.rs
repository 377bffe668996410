//! Patches: merge (RFC 7386), JSON (RFC 6902) and the strategic ones of built-in kinds.

use super::{apply, bounds, catalog::Resource, refusal::Refusal};
use crate::kubeapi::tree::Tree;
use json_patch::PatchOperation as Operation;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

const JSON: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

/// How many operations a JSON patch may have, as with a real server.
const OPERATIONS: usize = 10_000;
/// How many bytes a JSON patch may copy, about: as many as a body may have, as with a real server.
const COPIED_BYTES: usize = 3 * 1024 * 1024;
/// How many bytes it may move: that makes nothing larger, but each time all of it is looked through.
const MOVED_BYTES: usize = 32 * COPIED_BYTES;

/// The one set in objects that a strategic patch adds to.
const FINALIZERS: (&str, &str) = ("metadata.finalizers", "");

/// A patch that can be carried out on any state of the object, also after a conflict.
#[derive(Debug, Clone)]
pub(super) enum Patch {
    Merge(Value),
    Json(json_patch::Patch),
    Strategic(Value, &'static [(&'static str, &'static str)]),
}

impl Patch {
    /// Reads a patch of the content type that the request names.
    pub(super) fn parse(
        content_type: &str,
        bytes: &[u8],
        resource: &Resource,
    ) -> Result<Self, Refusal> {
        let media = content_type.split(';').next().unwrap_or_default().trim();
        match (media, resource.rules.merge_keys) {
            (JSON, _) => serde_json::from_slice(bytes)
                .map(Self::Json)
                .map_err(|error| {
                    let is_object = serde_json::from_slice::<Map<String, Value>>(bytes).is_ok();
                    let why = if is_object {
                        // The words of the real server, which tools look for.
                        "json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp"
                            .to_owned()
                    } else {
                        error.to_string()
                    };
                    Refusal::bad_request(format!("error decoding patch: {why}"))
                }),
            (MERGE, _) => object(bytes).map(Self::Merge),
            (STRATEGIC, Some(keys)) => object(bytes).map(|patch| Self::Strategic(patch, keys)),
            (_, Some(_)) => Err(Refusal::unsupported_media(&[
                JSON,
                MERGE,
                STRATEGIC,
                apply::MEDIA_TYPE,
            ])),
            (_, None) => Err(Refusal::unsupported_media(&[
                JSON,
                MERGE,
                apply::MEDIA_TYPE,
            ])),
        }
    }

    /// The object after this patch.
    pub(super) fn apply(&self, object: &Value) -> Result<Value, Refusal> {
        let mut patched = object.clone();
        match self {
            Self::Merge(patch) => json_patch::merge(&mut patched, patch),
            Self::Json(patch) => carry_out(patch, &mut patched)?,
            Self::Strategic(patch, keys) => {
                let keys = [*keys, &[FINALIZERS]].concat();
                merge_strategic(&mut patched, patch, &keys);
            }
        }
        Ok(patched)
    }
}

fn object(bytes: &[u8]) -> Result<Value, Refusal> {
    let patch: Value = serde_json::from_slice(bytes)
        .map_err(|error| Refusal::bad_request(format!("error decoding patch: {error}")))?;
    if patch.is_object() {
        Ok(patch)
    } else {
        Err(Refusal::bad_request(
            "error decoding patch: a merge patch must be an object",
        ))
    }
}

/// Carries out the operations one by one, each only if nothing grows out of bounds by it.
fn carry_out(patch: &json_patch::Patch, object: &mut Value) -> Result<(), Refusal> {
    if patch.0.len() > OPERATIONS {
        return Err(Refusal::too_many_operations(OPERATIONS, patch.0.len()));
    }
    let mut room = Room {
        copied: COPIED_BYTES,
        moved: MOVED_BYTES,
    };
    for operation in &patch.0 {
        check_shifts(operation, object, &mut room)?;
        check_growth(operation, object, &mut room)?;
        if !is_test_for_nothing(operation, object) {
            json_patch::patch(object, std::slice::from_ref(operation))
                .map_err(|_| Refusal::unprocessable())?;
        }
    }
    Ok(())
}

/// How many bytes the operations of a patch may still copy and move.
struct Room {
    copied: usize,
    moved: usize,
}

/// Refuses an operation that puts something deeper than an object may be, or that copies more than
/// there is room for: by copies alone a patch doubles an object with each operation.
fn check_growth(operation: &Operation, object: &Value, room: &mut Room) -> Result<(), Refusal> {
    let there = |from: &str| object.pointer(from).unwrap_or(&Value::Null);
    let (path, value) = match operation {
        Operation::Add(add) => (&add.path, &add.value),
        Operation::Replace(replace) => (&replace.path, &replace.value),
        Operation::Move(moved) => (&moved.path, there(moved.from.as_str())),
        Operation::Copy(copy) => (&copy.path, there(copy.from.as_str())),
        Operation::Remove(_) | Operation::Test(_) => return Ok(()),
    };
    let levels = bounds::LEVELS.checked_sub(path.count());
    let bytes = levels.and_then(|levels| bounds::weigh(value, levels));
    let bytes = bytes.ok_or_else(Refusal::too_deep)?;
    let room = match operation {
        Operation::Copy(_) => &mut room.copied,
        Operation::Move(_) => &mut room.moved,
        Operation::Add(_) | Operation::Replace(_) | Operation::Remove(_) | Operation::Test(_) => {
            return Ok(());
        }
    };
    *room = room
        .checked_sub(bytes)
        .ok_or_else(Refusal::too_much_copied)?;
    Ok(())
}

/// Refuses an operation that moves more items of a list than there is room for: all that stand behind the
/// one that comes or goes.
fn check_shifts(operation: &Operation, object: &Value, room: &mut Room) -> Result<(), Refusal> {
    let behind = |path: &str| {
        let (list, index) = path.rsplit_once('/')?;
        let items = object.pointer(list)?.as_array()?;
        items.len().checked_sub(index.parse().ok()?)
    };
    let shifted = |path: &str| behind(path).unwrap_or(0);
    let items = match operation {
        Operation::Add(add) => shifted(add.path.as_str()),
        Operation::Copy(copy) => shifted(copy.path.as_str()),
        Operation::Remove(remove) => shifted(remove.path.as_str()),
        Operation::Move(moved) => shifted(moved.from.as_str()) + shifted(moved.path.as_str()),
        Operation::Replace(_) | Operation::Test(_) => 0,
    };
    let left = room.moved.checked_sub(items * bounds::OVERHEAD);
    room.moved = left.ok_or_else(Refusal::too_much_copied)?;
    Ok(())
}

/// A real server lets `test` for null succeed where there is nothing; the finalizers of kube rely on it.
fn is_test_for_nothing(operation: &Operation, object: &Value) -> bool {
    if let Operation::Test(test) = operation {
        test.value.is_null() && object.pointer(test.path.as_str()).is_none()
    } else {
        false
    }
}

/// Merges a patch; `keys` are the lists in it that are merged, and what their items are known by: nothing
/// for those of a set.
fn merge_strategic(target: &mut Value, patch: &Value, keys: &[(&str, &str)]) {
    let Some(changes) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if changes.get("$patch").and_then(Value::as_str) == Some("replace") {
        *target = without_directives(changes);
        return;
    }
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(fields) = target.as_object_mut() else {
        return;
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
                merge_list(list, items, key);
            }
            _ => {
                let field = fields.entry(name).or_insert(Value::Null);
                merge_strategic(field, change, &below(keys, name));
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

fn merge_list(list: &mut Value, items: &[Value], key: &str) {
    if !list.is_array() {
        *list = Value::Array(Vec::new());
    }
    let Some(list) = list.as_array_mut() else {
        return;
    };
    if items.iter().any(|item| item.field("$patch") == "replace") {
        *list = items
            .iter()
            .filter(|item| item.field("$patch") != "replace")
            .cloned()
            .collect();
        return;
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
            merge_strategic(known, item, &[]);
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

    fn strategic(object: &Value, patch: Value) -> Value {
        Patch::Strategic(patch, KEYS).apply(object).unwrap()
    }

    fn json_patched(object: &Value, patch: Value) -> Result<Value, Refusal> {
        let patch = serde_json::from_value(patch).map_err(|_| Refusal::unprocessable())?;
        Patch::Json(patch).apply(object)
    }

    #[test]
    fn a_merge_patch_removes_with_null() {
        let patch = Patch::Merge(json!({"metadata": {"labels": {"a": null, "b": "2"}}}));
        let object = json!({"metadata": {"labels": {"a": "1"}, "name": "x"}});
        let patched = patch.apply(&object).unwrap();
        assert_eq!(
            patched,
            json!({"metadata": {"labels": {"b": "2"}, "name": "x"}})
        );
    }

    #[test]
    fn a_json_patch_may_test_that_nothing_is_there() {
        let patch = json!([
            {"op": "test", "path": "/metadata/finalizers", "value": null},
            {"op": "add", "path": "/metadata/finalizers", "value": ["f"]}
        ]);
        let object = json!({"metadata": {}});
        let patched = json_patched(&object, patch.clone()).unwrap();
        assert_eq!(patched["metadata"]["finalizers"], json!(["f"]));
        assert!(json_patched(&patched, patch).is_err());
    }

    #[test]
    fn a_json_patch_that_fails_changes_nothing() {
        let patch =
            json!([{"op": "replace", "path": "/a", "value": 2}, {"op": "remove", "path": "/nope"}]);
        assert!(json_patched(&json!({"a": 1}), patch).is_err());
    }

    #[test]
    fn a_json_patch_grows_an_object_only_so_far() {
        let object = json!({"x": {"a": "text"}});
        let bomb = |operation: &dyn Fn(usize) -> Value, count: usize| {
            let operations: Vec<Value> = (0..count).map(operation).collect();
            let refusal = json_patched(&object, json!(operations)).unwrap_err();
            refusal.status()["code"].clone()
        };
        let doubled = |n: usize| json!({"op": "copy", "from": "/x", "path": format!("/x/{n}")});
        assert_eq!(bomb(&doubled, 40), 413, "it doubles with each operation");
        let deeper = |n: usize| {
            let path = "/a".repeat(2_usize.pow(u32::try_from(n).unwrap()));
            json!({"op": "copy", "from": "/x", "path": format!("/x{path}")})
        };
        assert_eq!(
            bomb(&deeper, 12),
            400,
            "its depth doubles with each operation"
        );
        let nested = |n: usize| {
            let path = "/b".repeat(n);
            json!({"op": "add", "path": format!("/x{path}/b"), "value": {}})
        };
        assert_eq!(bomb(&nested, 200), 400, "each is one level deeper");
        let large = json!({"x": {"a": "t".repeat(COPIED_BYTES / 2)}});
        let there_and_back = |count: usize| -> Value {
            let places = ["/x", "/y"];
            (0..count)
                .map(|n| json!({"op": "move", "from": places[n % 2], "path": places[(n + 1) % 2]}))
                .collect()
        };
        assert!(json_patched(&large, there_and_back(40)).is_ok());
        let refusal = json_patched(&large, there_and_back(120)).unwrap_err();
        assert_eq!(refusal.status()["code"], 413, "it moves too much");
        let many = |_: usize| json!({"op": "test", "path": "/x/a", "value": "text"});
        assert_eq!(bomb(&many, 10_001), 413, "they are too many");
    }

    #[test]
    fn a_json_patch_moves_only_so_many_items_of_a_list() {
        let list = json!({"x": vec![0; 30_000]});
        let many = |operation: Value| json!(vec![operation; 1_000]);
        for (operation, wanted) in [
            (json!({"op": "remove", "path": "/x/0"}), 413),
            (json!({"op": "add", "path": "/x/0", "value": 1}), 413),
            (json!({"op": "move", "from": "/x/0", "path": "/x/1"}), 413),
            (json!({"op": "add", "path": "/x/-", "value": 1}), 200),
        ] {
            let outcome = json_patched(&list, many(operation.clone()));
            let code =
                outcome.map_or_else(|refusal| refusal.status()["code"].clone(), |_| json!(200));
            assert_eq!(code, wanted, "{operation}");
        }
    }

    #[test]
    fn a_field_with_a_dot_in_its_name_is_no_list_with_keys() {
        let object = json!({"spec.parts": [{"key": "a"}]});
        let patch = json!({"spec.parts": [{"key": "b"}]});
        assert_eq!(strategic(&object, patch.clone()), patch);
    }

    #[test]
    fn a_strategic_patch_adds_finalizers() {
        let object = json!({"metadata": {"finalizers": ["a"]}});
        let patch = json!({"metadata": {"finalizers": ["b", "a"],
            "$setElementOrder/finalizers": ["b", "a"]}});
        let patched = strategic(&object, patch);
        assert_eq!(patched["metadata"]["finalizers"], json!(["b", "a"]));
    }

    #[test]
    fn a_strategic_patch_merges_lists_by_their_key() {
        let node = json!({"spec": {"parts": [{"key": "a", "effect": "NoSchedule"}]}});
        let added = strategic(
            &node,
            json!({"spec": {"parts": [{"key": "b", "effect": "NoExecute"}]}}),
        );
        assert_eq!(added["spec"]["parts"].as_array().unwrap().len(), 2);
        let changed = strategic(
            &added,
            json!({"spec": {"parts": [{"key": "a", "value": "1"}]}}),
        );
        assert_eq!(
            changed["spec"]["parts"][0],
            json!({"key": "a", "effect": "NoSchedule", "value": "1"})
        );
        let removed = strategic(
            &changed,
            json!({"spec": {"parts": [{"key": "a", "$patch": "delete"}]}}),
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
            json!({
                "metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]},
                "data": {"$patch": "replace", "y": "2"},
                "spec": {"$setElementOrder/parts": [{"key": "b"}, {"key": "a"}]}
            }),
        );
        assert_eq!(patched["metadata"]["finalizers"], json!(["b"]));
        assert_eq!(patched["data"], json!({"y": "2"}));
        assert_eq!(
            patched["spec"]["parts"],
            json!([{"key": "b"}, {"key": "a"}])
        );
    }
}
