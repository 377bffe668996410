//! Objects as trees of fields that can be owned: what a schema says of maps and lists.
//!
//! Maps are granular and lists atomic, unless the schema says otherwise
//! (`x-kubernetes-map-type`, `x-kubernetes-list-type`), as in structured-merge-diff.

mod compare;
mod merge;

pub(super) use compare::{Comparison, compare};
pub(super) use merge::{merge, without};

use super::{
    bounds::{COMPLAINTS, quote},
    fields::{Branch, FieldSet, named},
    items::Identity,
    path::Path,
    schema::Schema,
};
use serde_json::{Map, Value};

/// The schema of a part, if it has one; without, the value speaks for itself.
pub(super) type Described<'a> = Option<Schema<'a>>;

/// How the parts of a value are owned.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Shape<'a> {
    /// As a whole.
    Leaf,
    /// Field by field.
    Map,
    /// Item by item; the item is its own name.
    Set,
    /// Item by item; these fields are its name.
    Keyed(Vec<&'a str>),
}

fn shape<'a>(schema: Described<'a>, value: &Value) -> Shape<'a> {
    let word = |keyword: &str| schema?.get(keyword)?.as_str();
    match value {
        Value::Object(_) if word("x-kubernetes-map-type") == Some("atomic") => Shape::Leaf,
        Value::Object(_) => Shape::Map,
        Value::Array(_) => match Identity::of(|keyword| schema?.get(keyword)) {
            Some(Identity::Whole) => Shape::Set,
            Some(Identity::Keys(keys)) => Shape::Keyed(keys),
            None => Shape::Leaf,
        },
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Shape::Leaf,
    }
}

fn field<'a>(schema: Described<'a>, name: &str) -> Described<'a> {
    schema.and_then(|schema| schema.field(name))
}

fn items(schema: Described<'_>) -> Described<'_> {
    schema.and_then(Schema::items)
}

fn is_named(schema: Described<'_>, name: &str) -> bool {
    schema.is_some_and(|schema| schema.property(name).is_some())
}

/// The step from a list to one of its items.
fn step(shape: &Shape<'_>, schema: Described<'_>, item: &Value) -> String {
    let Shape::Keyed(keys) = shape else {
        return format!("v:{item}");
    };
    let described = items(schema);
    let name: Map<String, Value> = keys
        .iter()
        .filter_map(|key| {
            let standing = item.get(*key).cloned();
            let default = || field(described, key)?.get("default").cloned();
            Some(((*key).to_owned(), standing.or_else(default)?))
        })
        .collect();
    format!("k:{}", Value::Object(name))
}

/// The fields that an applied object names.
pub(super) fn fields_of(schema: Schema<'_>, object: &Value) -> FieldSet {
    collect(Some(schema), object).below
}

fn collect(schema: Described<'_>, value: &Value) -> Branch {
    let shape = shape(schema, value);
    let mut found = Branch::default();
    match (&shape, value) {
        (Shape::Map, Value::Object(fields)) => {
            for (name, value) in fields {
                let mut branch = collect(field(schema, name), value);
                let empty = value.as_object().is_some_and(Map::is_empty);
                branch.itself |= value.is_null() || empty || !is_named(schema, name);
                found.below.attach(named(name), branch);
            }
        }
        (Shape::Set | Shape::Keyed(_), Value::Array(list)) => {
            for item in list {
                let mut branch = collect(items(schema), item);
                branch.itself = true;
                found.below.attach(step(&shape, schema, item), branch);
            }
        }
        _ => found.itself = true,
    }
    found
}

/// The set with the named fields above its fields, which are removed when nothing is left in them.
pub(super) fn with_parents(schema: Schema<'_>, set: FieldSet) -> FieldSet {
    set.with_parents(
        Some(schema),
        |schema, step| {
            step.strip_prefix("f:")
                .is_some_and(|name| is_named(schema, name))
        },
        |schema, step| match step.strip_prefix("f:") {
            Some(name) => field(schema, name),
            None => items(schema),
        },
    )
}

/// What keeps an object from being applied: unknown fields and wrong types.
pub(super) fn complaints(schema: Schema<'_>, object: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check(schema, object, Path::Root, &mut found);
    found
}

fn check(schema: Schema<'_>, value: &Value, path: Path<'_>, found: &mut Vec<String>) {
    if found.len() >= COMPLAINTS {
        return;
    }
    let expected = schema.kind().unwrap_or_default();
    let fits = match value {
        Value::Null => true,
        Value::Bool(_) => !matches!(
            expected,
            "string" | "integer" | "number" | "array" | "object"
        ),
        Value::Number(_) => !matches!(expected, "string" | "boolean" | "array" | "object"),
        Value::String(_) => !matches!(
            expected,
            "integer" | "number" | "boolean" | "array" | "object"
        ),
        Value::Array(_) => matches!(expected, "array" | ""),
        Value::Object(_) => matches!(expected, "object" | ""),
    };
    if !fits {
        let wanted = match expected {
            "integer" | "number" => "numeric (int or float)",
            "array" => "list",
            "object" => "map",
            other => other,
        };
        let shown = value
            .as_str()
            .map_or_else(|| quote(value), |text| quote(&text));
        found.push(format!(".{path}: expected {wanted}, got &{{{shown}}}"));
        return;
    }
    if let Value::Object(fields) = value {
        for (name, below) in fields {
            let path = Path::Field(&path, name);
            match schema.field(name) {
                Some(described) => check(described, below, path, found),
                None if schema.keeps_unknown_fields() => {}
                None if found.len() < COMPLAINTS => {
                    found.push(format!(".{path}: field not declared in schema"));
                }
                None => {}
            }
        }
    } else if let (Value::Array(list), Some(described)) = (value, schema.items()) {
        for (index, item) in list.iter().enumerate() {
            check(described, item, Path::Item(&path, index), found);
        }
    }
}
