//! What differs between two states of an object, field by field.

use super::{Described, Shape, field, items, shape, step};
use crate::kubeapi::{
    fields::{Branch, FieldSet, named},
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
}

/// What differs in one field and below it.
#[derive(Default)]
struct Difference {
    added: Branch,
    modified: Branch,
    removed: Branch,
}

impl Difference {
    /// Says that the field itself differs.
    fn mark(mut self, old: Option<&Value>, new: Option<&Value>) -> Self {
        let branch = match (old, new) {
            (None, _) => &mut self.added,
            (_, None) => &mut self.removed,
            (Some(_), Some(_)) => &mut self.modified,
        };
        branch.itself = true;
        self
    }

    /// Puts what differs after one step below this field.
    fn attach(&mut self, step: impl Fn() -> String, below: Self) {
        let pairs = [
            (&mut self.added, below.added),
            (&mut self.modified, below.modified),
            (&mut self.removed, below.removed),
        ];
        for (branch, below) in pairs {
            if !below.is_empty() {
                branch.below.attach(step(), below);
            }
        }
    }
}

/// Compares two states of an object.
pub(in crate::kubeapi) fn compare(schema: Schema<'_>, old: &Value, new: &Value) -> Comparison {
    let difference = differ(Some(schema), Some(old), Some(new));
    Comparison {
        added: difference.added.below,
        modified: difference.modified.below,
        removed: difference.removed.below,
    }
}

fn differ(schema: Described<'_>, old: Option<&Value>, new: Option<&Value>) -> Difference {
    let mut found = Difference::default();
    if old == new {
        return found;
    }
    let solid = |value: &&Value| !value.is_null();
    let Some(sample) = new.filter(solid).or_else(|| old.filter(solid)) else {
        return found.mark(old, new);
    };
    let shape = shape(schema, sample);
    let same = |value: Option<&Value>| {
        value.is_none_or(|value| value.is_null() || value.is_object() == sample.is_object())
    };
    if shape == Shape::Leaf || is_empty(old) && is_empty(new) || !same(old) || !same(new) {
        return found.mark(old, new);
    }
    if shape == Shape::Map {
        differ_in_fields(schema, old, new, &mut found);
    } else {
        differ_in_items(&shape, schema, old, new, &mut found);
    }
    if old.is_none() || new.is_none() {
        return found.mark(old, new);
    }
    found
}

fn differ_in_fields(
    schema: Described<'_>,
    old: Option<&Value>,
    new: Option<&Value>,
    found: &mut Difference,
) {
    let empty = Map::new();
    let old = old.and_then(Value::as_object).unwrap_or(&empty);
    let new = new.and_then(Value::as_object).unwrap_or(&empty);
    let gone = old.keys().filter(|name| !new.contains_key(*name));
    for name in new.keys().chain(gone) {
        let below = differ(field(schema, name), old.get(name), new.get(name));
        found.attach(|| named(name), below);
    }
}

fn differ_in_items(
    shape: &Shape<'_>,
    schema: Described<'_>,
    old: Option<&Value>,
    new: Option<&Value>,
    found: &mut Difference,
) {
    let index = |list: Option<&Value>| -> BTreeMap<String, Value> {
        let list = list.and_then(Value::as_array).into_iter().flatten();
        list.map(|item| (step(shape, schema, item), item.clone()))
            .collect()
    };
    let (old, new) = (index(old), index(new));
    let steps: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for step in steps {
        let below = differ(items(schema), old.get(step), new.get(step));
        found.attach(|| step.clone(), below);
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
