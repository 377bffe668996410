//! Brings an object into the form of its schema: unknown fields go, defaults come.

use super::{bounds::COMPLAINTS, path::Path, schema::Schema};
use serde_json::{Map, Value};

/// Below this every integer is a float of its own: 2^53.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Removes nulls and unknown fields, fills in defaults, writes whole numbers without a fraction as a
/// real server does (typed clients read no integer from `120.0`), and returns the paths of what was unknown, as
/// far as anybody is told of it.
pub(super) fn normalise(schema: Schema<'_>, object: &mut Value) -> Vec<String> {
    let mut unknown = Vec::new();
    walk(schema, object, Path::Root, &mut unknown);
    unknown
}

fn walk(schema: Schema<'_>, value: &mut Value, path: Path<'_>, unknown: &mut Vec<String>) {
    if let Value::Object(fields) = value {
        prune(schema, fields, path, unknown);
        fill(schema, fields);
        for (name, field) in fields {
            if let Some(described) = schema.field(name) {
                walk(described, field, Path::Field(&path, name), unknown);
            }
        }
    } else if let Value::Array(items) = value
        && let Some(described) = schema.items()
    {
        for (index, item) in items.iter_mut().enumerate() {
            walk(described, item, Path::Item(&path, index), unknown);
        }
    } else if let Some(whole) = whole(value) {
        *value = whole.into();
    }
}

/// What a float stands for when it stands for an integer, and exactly for that.
pub(super) fn whole(value: &Value) -> Option<i64> {
    let number = value.as_f64().filter(|_| value.is_f64())?;
    let exact = number.fract() == 0.0 && number.abs() < EXACT;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "it is whole and small enough"
    )]
    exact.then_some(number as i64)
}

fn prune(
    schema: Schema<'_>,
    fields: &mut Map<String, Value>,
    path: Path<'_>,
    unknown: &mut Vec<String>,
) {
    let keeps = schema.keeps_unknown_fields();
    let embedded = schema.flag("x-kubernetes-embedded-resource");
    fields.retain(|name, value| {
        if let Some(described) = schema.field(name) {
            return !value.is_null() || described.is_nullable();
        }
        let kept =
            keeps || (embedded && matches!(name.as_str(), "apiVersion" | "kind" | "metadata"));
        if !kept && unknown.len() < COMPLAINTS {
            unknown.push(Path::Field(&path, name).to_string());
        }
        kept
    });
}

fn fill(schema: Schema<'_>, fields: &mut Map<String, Value>) {
    for (name, described) in schema.properties() {
        if let Some(default) = described.get("default")
            && !fields.contains_key(name)
        {
            fields.insert(name.clone(), default.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubeapi::schema::{Components, Node};
    use serde_json::json;

    fn normalised(schema: &Value, mut object: Value) -> (Value, Vec<String>) {
        let (node, components) = (Node::read(schema), Components::default());
        let unknown = normalise(Schema::new(&node, &components), &mut object);
        (object, unknown)
    }

    #[test]
    fn defaults_are_filled_in_only_below_objects_that_are_there() {
        let schema = json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {"join": {"type": "boolean", "default": false}}},
            "status": {"type": "object", "properties": {"state": {"type": "string", "default": "Pending"}}}
        }});
        let (object, _) = normalised(&schema, json!({"spec": {}}));
        assert_eq!(object, json!({"spec": {"join": false}}));
    }

    #[test]
    fn unknown_fields_go_and_are_named() {
        let schema = json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {"list": {"type": "array", "items":
                {"type": "object", "properties": {"a": {"type": "string"}}}}}}
        }});
        let (object, unknown) = normalised(
            &schema,
            json!({"spec": {"bogus": 1, "list": [{"a": "x", "b": 2}]}}),
        );
        assert_eq!(object, json!({"spec": {"list": [{"a": "x"}]}}));
        assert_eq!(unknown, ["spec.bogus", "spec.list[0].b"]);
    }

    #[test]
    fn a_null_gives_way_to_the_default_unless_it_is_allowed() {
        let schema = json!({"type": "object", "properties": {
            "a": {"type": "string", "default": "x"},
            "b": {"type": "string", "nullable": true},
            "c": {"type": "string"}
        }});
        let (object, _) = normalised(&schema, json!({"a": null, "b": null, "c": null}));
        assert_eq!(object, json!({"a": "x", "b": null}));
    }

    #[test]
    fn whole_numbers_have_no_fraction() {
        let schema = json!({"type": "object", "properties": {
            "ttl": {"type": "integer"}, "part": {"type": "number"},
            "list": {"type": "array", "items": {"type": "integer"}}
        }});
        let object = json!({"ttl": 120.0, "part": 0.5, "list": [-3.0, 1e300]});
        let (object, _) = normalised(&schema, object);
        let expected = r#"{"list":[-3,1e+300],"part":0.5,"ttl":120}"#;
        assert_eq!(object.to_string(), expected);
    }

    #[test]
    fn maps_and_open_objects_keep_what_they_do_not_name() {
        let schema = json!({"type": "object", "properties": {
            "map": {"type": "object", "additionalProperties": {"type": "string"}},
            "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}
        }});
        let input = json!({"map": {"k": "v"}, "open": {"any": [1]}});
        assert_eq!(normalised(&schema, input.clone()), (input, vec![]));
    }
}
