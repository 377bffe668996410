//! Sets of fields, against examples and against plain sets of paths.

use super::*;
use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn set(fields: &Value) -> FieldSet {
    FieldSet::decode(fields.clone()).unwrap()
}

#[test]
fn what_is_read_is_written_again() {
    let fields = json!({"f:metadata": {"f:finalizers": {".": {}, "v:\"f/a\"": {}},
        "f:ownerReferences": {"k:{\"uid\":\"u\"}": {}}}, "f:spec": {"f:join": {}}});
    assert_eq!(set(&fields).encode(), fields);
    assert_eq!(
        set(&fields).paths(usize::MAX),
        [
            ".metadata.finalizers[=\"f/a\"]",
            ".metadata.finalizers",
            ".metadata.ownerReferences[uid=\"u\"]",
            ".spec.join"
        ]
    );
}

#[test]
fn of_a_long_step_the_beginning_is_written() {
    let fields = json!({format!("f:{}", "a".repeat(1_000)): {"f:b": {}}});
    let wanted = format!(".{}.b", "a".repeat(256));
    assert_eq!(set(&fields).paths(1), [wanted]);
}

#[test]
fn sets_are_added_and_taken_away_field_by_field() {
    let spec = set(&json!({"f:spec": {".": {}, "f:a": {}, "f:b": {}}}));
    let one = set(&json!({"f:spec": {"f:a": {}}}));
    assert_eq!(
        spec.clone().difference(&one).encode(),
        json!({"f:spec": {".": {}, "f:b": {}}})
    );
    assert_eq!(spec.intersection(&one), one);
    assert_eq!(one.clone().union(&spec), spec);
    assert!(one.difference(&spec).is_empty());
}

#[test]
fn what_one_step_leads_to_may_come_in_parts() {
    let branch = |itself, fields: &Value| Branch {
        itself,
        below: set(fields),
    };
    let mut spec = FieldSet::default();
    spec.attach(named("list"), branch(false, &json!({"f:a": {}})));
    spec.attach(named("list"), branch(true, &json!({"f:b": {}})));
    spec.attach(named("list"), Branch::default());
    assert_eq!(
        spec.encode(),
        json!({"f:list": {".": {}, "f:a": {}, "f:b": {}}})
    );
}

#[test]
fn what_is_not_a_set_is_noticed() {
    assert!(FieldSet::decode(json!({"x:spec": {}})).is_none());
    assert!(FieldSet::decode(json!({"f:spec": 1})).is_none());
    assert!(FieldSet::decode(json!("all")).is_none());
}

#[test]
fn sets_that_share_a_field_meet_and_one_may_be_part_of_the_other() {
    let set = |fields: Value| FieldSet::decode(fields).unwrap();
    let large = set(json!({"f:spec": {".": {}, "f:a": {}, "f:b": {"f:c": {}}}}));
    let small = set(json!({"f:spec": {"f:a": {}}}));
    let other = set(json!({"f:spec": {"f:b": {}}}));
    assert!(large.meets(&small) && small.meets(&large));
    assert!(!large.meets(&other) && !other.meets(&small));
    assert!(small.is_part_of(&large) && !large.is_part_of(&small));
    assert!(!other.is_part_of(&large));
}

type Paths = BTreeSet<Vec<&'static str>>;

/// Writes a plain set as FieldsV1, path by path.
fn written(paths: &Paths) -> Value {
    let mut fields = Map::new();
    for path in paths {
        let mut node = &mut fields;
        for step in path {
            let below = node.entry(*step).or_insert_with(|| json!({}));
            node = below.as_object_mut().unwrap();
        }
        node.insert(ITSELF.to_owned(), json!({}));
    }
    Value::Object(fields)
}

fn paths() -> impl Strategy<Value = Paths> {
    let step = select(vec!["f:a", "f:b", "k:{\"name\":\"a\"}", "v:1"]);
    vec(vec(step, 1..4), 0..8).prop_map(Paths::from_iter)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sets_of_fields_do_what_plain_sets_do(one in paths(), other in paths()) {
        let both = |paths: Paths| set(&written(&paths));
        let (mine, theirs) = (set(&written(&one)), set(&written(&other)));
        prop_assert_eq!(mine.clone().union(&theirs), both(&one | &other));
        prop_assert_eq!(mine.intersection(&theirs), both(&one & &other));
        prop_assert_eq!(mine.clone().difference(&theirs), both(&one - &other));
        prop_assert_eq!(mine.meets(&theirs), !one.is_disjoint(&other));
        prop_assert_eq!(mine.is_part_of(&theirs), one.is_subset(&other));
        prop_assert_eq!(mine == theirs, one == other);
        prop_assert_eq!(mine.count(), one.len());
        prop_assert_eq!(mine.paths(3).len(), one.len().min(3));
        prop_assert_eq!(set(&mine.clone().encode()), mine);
    }
}
