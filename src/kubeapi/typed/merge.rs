//! Puts an applied object into a live one, and takes fields out again.

use super::{Described, Shape, field, items, shape, step};
use crate::kubeapi::{
    fields::{FieldSet, Fields, named},
    schema::Schema,
};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Puts everything that the applied object names into the live one.
pub(in crate::kubeapi) fn merge(schema: Schema<'_>, live: &mut Value, applied: &Value) {
    let standing = live.take();
    *live = both(Some(schema), Some(standing), applied);
}

fn both(schema: Described<'_>, live: Option<Value>, applied: &Value) -> Value {
    let shape = shape(schema, applied);
    match (&shape, live, applied) {
        (Shape::Map, Some(Value::Object(mut live)), Value::Object(applied)) => {
            for (name, value) in applied {
                let standing = live.remove(name);
                let value = both(field(schema, name), standing, value);
                live.insert(name.clone(), value);
            }
            Value::Object(live)
        }
        (Shape::Set | Shape::Keyed(_), Some(Value::Array(live)), Value::Array(applied)) => {
            lists(schema, &shape, &live, applied)
        }
        _ => applied.clone(),
    }
}

/// Merges two lists: shared items in the order of the applied one, the others where they stood.
fn lists(schema: Described<'_>, shape: &Shape<'_>, live: &[Value], applied: &[Value]) -> Value {
    let named = |list: &[Value]| -> Vec<String> {
        list.iter().map(|item| step(shape, schema, item)).collect()
    };
    let (live_steps, applied_steps) = (named(live), named(applied));
    let known: BTreeSet<&String> = applied_steps.iter().collect();
    let mut places = BTreeMap::new();
    for (place, step) in live_steps.iter().enumerate() {
        places.entry(step).or_insert(place);
    }
    let mut merged = Vec::new();
    let mut standing = live_steps.iter().zip(live).peekable();
    for (wanted, item) in applied_steps.iter().zip(applied) {
        let shared = places.get(wanted).copied();
        // Items of others stay before what comes after them: up to the next shared item.
        while let Some((step, other)) = standing
            .next_if(|(step, _)| !known.contains(step) || (shared.is_some() && *step != wanted))
        {
            if !known.contains(step) {
                merged.push(other.clone());
            }
        }
        standing.next_if(|(step, _)| *step == wanted);
        let before = shared.and_then(|place| live.get(place)).cloned();
        merged.push(both(items(schema), before, item));
    }
    let rest = standing.filter(|(step, _)| !known.contains(step));
    merged.extend(rest.map(|(_, item)| item.clone()));
    Value::Array(merged)
}

/// The object without these fields; a map or list that is left empty becomes null.
pub(in crate::kubeapi) fn without(schema: Schema<'_>, object: &Value, gone: &FieldSet) -> Value {
    remove(Some(schema), object, gone.fields())
}

fn remove(schema: Described<'_>, value: &Value, gone: Fields<'_>) -> Value {
    let shape = shape(schema, value);
    match (&shape, value) {
        (Shape::Map, Value::Object(fields)) if !fields.is_empty() => {
            let mut left = Map::new();
            for (name, below) in fields {
                let step = named(name);
                if gone.has(&step) {
                    continue;
                }
                let below = match gone.below(&step) {
                    Some(gone) => remove(field(schema, name), below, gone),
                    None => below.clone(),
                };
                left.insert(name.clone(), below);
            }
            if left.is_empty() {
                Value::Null
            } else {
                Value::Object(left)
            }
        }
        (Shape::Set | Shape::Keyed(_), Value::Array(list)) if !list.is_empty() => {
            let left: Vec<Value> = list
                .iter()
                .map(|item| (step(&shape, schema, item), item))
                .filter(|(step, _)| !gone.has(step))
                .map(|(step, item)| match gone.below(&step) {
                    Some(gone) => remove(items(schema), item, gone),
                    None => item.clone(),
                })
                .collect();
            if left.is_empty() {
                Value::Null
            } else {
                Value::Array(left)
            }
        }
        _ => value.clone(),
    }
}
