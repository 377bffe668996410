//! Patches: merge (RFC 7386), JSON (RFC 6902) and the strategic ones of built-in kinds.

mod strategic;

use super::{
    apply,
    body::{self, Parsed},
    bounds,
    catalog::Resource,
    refusal::Refusal,
};
use json_patch::PatchOperation as Operation;
use serde_json::{Map, Value};

const JSON: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

/// How many operations a JSON patch may have, as with a real server.
const OPERATIONS: usize = 10_000;
/// How many bytes a JSON patch may copy, about: as many as a body may have, as with a real server.
const COPIED_BYTES: usize = 3 * 1024 * 1024;
/// How many bytes it may move: that makes nothing larger, but each time all of it is looked through.
const MOVED_BYTES: usize = 32 * COPIED_BYTES;

/// A patch that can be carried out on any state of the object, also after a conflict.
#[derive(Debug, Clone)]
pub(super) enum Patch {
    Merge(Value),
    Json(json_patch::Patch),
    Strategic(Value, &'static [(&'static str, &'static str)]),
}

impl Patch {
    /// Reads a patch of the content type that the request names; tells the keys that stand twice in it, too.
    pub(super) fn parse(
        content_type: &str,
        bytes: &[u8],
        resource: &Resource,
    ) -> Result<(Self, Vec<String>), Refusal> {
        let media = content_type.split(';').next().unwrap_or_default().trim();
        match (media, resource.rules.merge_keys) {
            (JSON, _) => serde_json::from_slice(bytes)
                .map(|patch| (Self::Json(patch), Vec::new()))
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
            (MERGE, _) => {
                let Parsed { object, duplicates } = object(bytes)?;
                Ok((Self::Merge(object), duplicates))
            }
            (STRATEGIC, Some(keys)) => {
                let Parsed { object, duplicates } = object(bytes)?;
                Ok((Self::Strategic(object, keys), duplicates))
            }
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
            Self::Strategic(patch, keys) => strategic::merge(&mut patched, patch, keys)?,
        }
        Ok(patched)
    }
}

fn object(bytes: &[u8]) -> Result<Parsed, Refusal> {
    let patch = body::json(bytes)
        .map_err(|error| Refusal::bad_request(format!("error decoding patch: {error}")))?;
    if patch.object.is_object() {
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

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
}
