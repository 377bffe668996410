//! Sets of fields: who owns what, in the form of `metadata.managedFields` (FieldsV1).

use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The mark of a field that is itself in the set while fields below it are too.
const ITSELF: &str = ".";

/// A set of fields. A step is `f:NAME`, `k:{KEYS}` or `v:VALUE`, as the Kubernetes API writes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct FieldSet(BTreeMap<String, Entry>);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Entry {
    member: bool,
    below: FieldSet,
}

impl Entry {
    fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }
}

/// The step to a named field.
pub(super) fn named(name: &str) -> String {
    format!("f:{name}")
}

impl FieldSet {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a field; the empty path is none.
    pub(super) fn insert(&mut self, path: &[String]) {
        let Some((step, rest)) = path.split_first() else {
            return;
        };
        let entry = self.0.entry(step.clone()).or_default();
        if rest.is_empty() {
            entry.member = true;
        } else {
            entry.below.insert(rest);
        }
    }

    /// Whether the field after this one step is in the set.
    pub(super) fn has(&self, step: &str) -> bool {
        self.0.get(step).is_some_and(|entry| entry.member)
    }

    /// The fields below a step.
    pub(super) fn below(&self, step: &str) -> Option<&Self> {
        let entry = self.0.get(step)?;
        (!entry.below.is_empty()).then_some(&entry.below)
    }

    /// The same set, without or with only what is at and below one first step.
    pub(super) fn filtered(mut self, keep: impl Fn(&str) -> bool) -> Self {
        self.0.retain(|step, _| keep(step));
        self
    }

    pub(super) fn union(&self, other: &Self) -> Self {
        let mut all = self.clone();
        for (step, entry) in &other.0 {
            let known = all.0.entry(step.clone()).or_default();
            known.member |= entry.member;
            known.below = known.below.union(&entry.below);
        }
        all
    }

    pub(super) fn intersection(&self, other: &Self) -> Self {
        self.combine(other, |mine, theirs| mine && theirs, Self::intersection)
    }

    /// Without the fields of the other set; what is below them stays.
    pub(super) fn difference(&self, other: &Self) -> Self {
        self.combine(other, |mine, theirs| mine && !theirs, Self::difference)
    }

    /// Whether some field is in both sets.
    pub(super) fn meets(&self, other: &Self) -> bool {
        other.0.iter().any(|(step, theirs)| {
            self.0
                .get(step)
                .is_some_and(|mine| mine.member && theirs.member || mine.below.meets(&theirs.below))
        })
    }

    /// Whether every field is in the other set.
    pub(super) fn is_part_of(&self, other: &Self) -> bool {
        self.0.iter().all(|(step, mine)| {
            other.0.get(step).is_some_and(|theirs| {
                (theirs.member || !mine.member) && mine.below.is_part_of(&theirs.below)
            })
        })
    }

    fn combine(
        &self,
        other: &Self,
        member: fn(bool, bool) -> bool,
        below: fn(&Self, &Self) -> Self,
    ) -> Self {
        let nothing = Entry::default();
        let entries = self.0.iter().map(|(step, mine)| {
            let theirs = other.0.get(step).unwrap_or(&nothing);
            let entry = Entry {
                member: member(mine.member, theirs.member),
                below: below(&mine.below, &theirs.below),
            };
            (step.clone(), entry)
        });
        Self(entries.filter(|(_, entry)| !entry.is_empty()).collect())
    }

    /// The same set with every step that `is_part` accepts being itself in it, where fields below
    /// it are; `descend` gives what to ask below a step.
    pub(super) fn with_parents<C: Copy>(
        &self,
        context: C,
        is_part: fn(C, &str) -> bool,
        descend: fn(C, &str) -> C,
    ) -> Self {
        let entries = self.0.iter().map(|(step, entry)| {
            let member = entry.member || (!entry.below.is_empty() && is_part(context, step));
            let below = entry
                .below
                .with_parents(descend(context, step), is_part, descend);
            (step.clone(), Entry { member, below })
        });
        Self(entries.collect())
    }

    /// The fields as people read them: `.spec.join`.
    pub(super) fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect_paths("", &mut paths);
        paths
    }

    fn collect_paths(&self, prefix: &str, paths: &mut Vec<String>) {
        for (step, entry) in &self.0 {
            let path = format!("{prefix}{}", readable(step));
            entry.below.collect_paths(&path, paths);
            if entry.member {
                paths.push(path);
            }
        }
    }

    /// Reads FieldsV1; what is not one gives nothing.
    pub(super) fn decode(fields: &Value) -> Option<Self> {
        let mut set = Self::default();
        for (step, below) in fields.as_object()? {
            if step == ITSELF {
                continue;
            }
            let inner = below.as_object()?;
            let entry = Entry {
                member: inner.is_empty() || inner.contains_key(ITSELF),
                below: Self::decode(below)?,
            };
            set.0.insert(canonical(step)?, entry);
        }
        Some(set)
    }

    /// Writes FieldsV1.
    pub(super) fn encode(&self) -> Value {
        let fields = self.0.iter().map(|(step, entry)| {
            let mut below = entry.below.encode();
            if entry.member
                && !entry.below.is_empty()
                && let Some(fields) = below.as_object_mut()
            {
                fields.insert(ITSELF.to_owned(), Value::Object(Map::new()));
            }
            (step.clone(), below)
        });
        Value::Object(fields.collect())
    }
}

/// The one spelling of a step, so that equal steps are equal texts.
fn canonical(step: &str) -> Option<String> {
    let (kind, rest) = step.split_once(':')?;
    match kind {
        "f" | "i" => Some(step.to_owned()),
        "k" | "v" => {
            let value: Value = serde_json::from_str(rest).ok()?;
            Some(format!("{kind}:{value}"))
        }
        _ => None,
    }
}

fn readable(step: &str) -> String {
    let (kind, rest) = step.split_once(':').unwrap_or(("f", step));
    match kind {
        "k" => {
            let keys: Map<String, Value> = serde_json::from_str(rest).unwrap_or_default();
            let keys: Vec<String> = keys
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            format!("[{}]", keys.join(","))
        }
        "v" => format!("[={rest}]"),
        "i" => format!("[{rest}]"),
        _ => format!(".{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn set(fields: &Value) -> FieldSet {
        FieldSet::decode(fields).unwrap()
    }

    #[test]
    fn what_is_read_is_written_again() {
        let fields = json!({"f:metadata": {"f:finalizers": {".": {}, "v:\"f/a\"": {}},
            "f:ownerReferences": {"k:{\"uid\":\"u\"}": {}}}, "f:spec": {"f:join": {}}});
        assert_eq!(set(&fields).encode(), fields);
        assert_eq!(
            set(&fields).paths(),
            [
                ".metadata.finalizers[=\"f/a\"]",
                ".metadata.finalizers",
                ".metadata.ownerReferences[uid=\"u\"]",
                ".spec.join"
            ]
        );
    }

    #[test]
    fn sets_are_added_and_taken_away_field_by_field() {
        let spec = set(&json!({"f:spec": {".": {}, "f:a": {}, "f:b": {}}}));
        let one = set(&json!({"f:spec": {"f:a": {}}}));
        assert_eq!(
            spec.difference(&one).encode(),
            json!({"f:spec": {".": {}, "f:b": {}}})
        );
        assert_eq!(spec.intersection(&one), one);
        assert_eq!(one.union(&spec), spec);
        assert!(one.difference(&spec).is_empty());
    }

    #[test]
    fn what_is_not_a_set_is_noticed() {
        assert!(FieldSet::decode(&json!({"x:spec": {}})).is_none());
        assert!(FieldSet::decode(&json!({"f:spec": 1})).is_none());
        assert!(FieldSet::decode(&json!("all")).is_none());
    }

    #[test]
    fn sets_that_share_a_field_meet_and_one_may_be_part_of_the_other() {
        let set = |fields: Value| FieldSet::decode(&fields).unwrap();
        let large = set(json!({"f:spec": {".": {}, "f:a": {}, "f:b": {"f:c": {}}}}));
        let small = set(json!({"f:spec": {"f:a": {}}}));
        let other = set(json!({"f:spec": {"f:b": {}}}));
        assert!(large.meets(&small) && small.meets(&large));
        assert!(!large.meets(&other) && !other.meets(&small));
        assert!(small.is_part_of(&large) && !large.is_part_of(&small));
        assert!(!other.is_part_of(&large));
    }
}
