//! What differs between two states of an object, field by field.

use super::{Described, Shape, field, items, shape, step};
use crate::kubeapi::{
    fields::{FieldSet, named},
    schema::Schema,
};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// The fields that came, changed and went.
#[derive(Debug, Default)]
pub(in crate::kubeapi) struct Comparison {
    pub(in crate::kubeapi) added: FieldSet,
    pub(in crate::kubeapi) modified: FieldSet,
    pub(in crate::kubeapi) removed: FieldSet,
}

impl Comparison {
    /// The comparison of some of the first steps only.
    pub(in crate::kubeapi) fn filtered(self, keep: impl Fn(&str) -> bool) -> Self {
        Self {
            added: self.added.filtered(&keep),
            modified: self.modified.filtered(&keep),
            removed: self.removed.filtered(&keep),
        }
    }

    fn leaf(&mut self, path: &[String], old: Option<&Value>, new: Option<&Value>) {
        match (old, new) {
            (None, _) => self.added.insert(path),
            (_, None) => self.removed.insert(path),
            (Some(_), Some(_)) => self.modified.insert(path),
        }
    }
}

/// Compares two states of an object.
pub(in crate::kubeapi) fn compare(schema: Schema<'_>, old: &Value, new: &Value) -> Comparison {
    let mut comparison = Comparison::default();
    walk(
        Some(schema),
        Some(old),
        Some(new),
        &mut Vec::new(),
        &mut comparison,
    );
    comparison
}

fn walk(
    schema: Described<'_>,
    old: Option<&Value>,
    new: Option<&Value>,
    path: &mut Vec<String>,
    found: &mut Comparison,
) {
    if old == new {
        return;
    }
    let solid = |value: &&Value| !value.is_null();
    let Some(sample) = new.filter(solid).or_else(|| old.filter(solid)) else {
        return found.leaf(path, old, new);
    };
    let shape = shape(schema, sample);
    let same = |value: Option<&Value>| {
        value.is_none_or(|value| value.is_null() || value.is_object() == sample.is_object())
    };
    if shape == Shape::Leaf || is_empty(old) && is_empty(new) || !same(old) || !same(new) {
        return found.leaf(path, old, new);
    }
    if shape == Shape::Map {
        let empty = Map::new();
        let old_fields = old.and_then(Value::as_object).unwrap_or(&empty);
        let new_fields = new.and_then(Value::as_object).unwrap_or(&empty);
        let names: BTreeSet<&String> = old_fields.keys().chain(new_fields.keys()).collect();
        for name in names {
            path.push(named(name));
            let below = (old_fields.get(name), new_fields.get(name));
            walk(field(schema, name), below.0, below.1, path, found);
            path.pop();
        }
    } else {
        let index = |list: Option<&Value>| -> BTreeMap<String, Value> {
            let list = list.and_then(Value::as_array).into_iter().flatten();
            list.map(|item| (step(&shape, schema, item), item.clone()))
                .collect()
        };
        let (old_items, new_items) = (index(old), index(new));
        let steps: BTreeSet<&String> = old_items.keys().chain(new_items.keys()).collect();
        for step in steps {
            path.push(step.clone());
            let below = (old_items.get(step), new_items.get(step));
            walk(items(schema), below.0, below.1, path, found);
            path.pop();
        }
    }
    if old.is_none() || new.is_none() {
        found.leaf(path, old, new);
    }
}

fn is_empty(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Array(list)) => list.is_empty(),
        Some(Value::Object(fields)) => fields.is_empty(),
        Some(_) => false,
    }
}
