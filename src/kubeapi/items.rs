//! By what the items of a list are told apart, and so found again (`x-kubernetes-list-type`).

use super::tree::Tree;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// What names an item among those of its list.
#[derive(Debug)]
pub(super) enum Identity<Key> {
    /// All of it: the list is a set.
    Whole,
    /// Some of its fields (`x-kubernetes-list-map-keys`).
    Keys(Vec<Key>),
}

impl<'a> Identity<&'a str> {
    /// What the keywords of a schema say; of a list that is replaced as a whole, nothing.
    pub(super) fn of(keyword: impl Fn(&str) -> Option<&'a Value>) -> Option<Self> {
        match keyword("x-kubernetes-list-type").and_then(Value::as_str) {
            Some("set") => Some(Self::Whole),
            Some("map") => {
                let keys = keyword("x-kubernetes-list-map-keys").and_then(Value::as_array);
                let keys = keys.into_iter().flatten();
                Some(Self::Keys(keys.filter_map(Value::as_str).collect()))
            }
            _ => None,
        }
    }

    pub(super) fn into_owned(self) -> Identity<String> {
        match self {
            Self::Whole => Identity::Whole,
            Self::Keys(keys) => Identity::Keys(keys.into_iter().map(str::to_owned).collect()),
        }
    }
}

impl<Key: AsRef<str>> Identity<Key> {
    /// Of an item, what tells it apart. Equal ones are written alike.
    pub(super) fn name(&self, item: &Value) -> Value {
        match self {
            Self::Whole => item.clone(),
            Self::Keys(keys) => by_keys(keys, item),
        }
    }
}

fn by_keys(keys: &[impl AsRef<str>], item: &Value) -> Value {
    let keys = keys.iter().map(AsRef::as_ref);
    let fields: Map<String, Value> = keys
        .map(|key| (key.to_owned(), item.field(key).clone()))
        .collect();
    fields.into()
}

/// Finds the old states of the items of a list, which only those that have keys have.
pub(super) fn standing<'a, Key: AsRef<str>>(
    identity: Option<&Identity<Key>>,
    old: Option<&'a Value>,
) -> impl Fn(&Value) -> Option<&'a Value> {
    let keys = match identity {
        Some(Identity::Keys(keys)) => Some(keys),
        Some(Identity::Whole) | None => None,
    };
    let name = move |item: &Value| keys.map(|keys| by_keys(keys, item).to_string());
    let old = old.and_then(Value::as_array).into_iter().flatten();
    let known: BTreeMap<String, &Value> =
        old.filter_map(|item| Some((name(item)?, item))).collect();
    move |item| known.get(&name(item)?).copied()
}
