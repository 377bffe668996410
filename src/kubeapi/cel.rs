//! The rules of a schema in CEL (`x-kubernetes-validations`), compiled once for each kind.

mod limits;

use super::{
    bounds::quote,
    items::{Identity, standing},
    path::Path,
    refusal::FieldError,
    tree::Tree,
};
use kube::core::cel::{CompiledSchema, ValidationError, Validator};
use serde_json::Value;
use std::collections::BTreeMap;

const KEYWORD: &str = "x-kubernetes-validations";

/// The compiled rules of one kind.
#[derive(Debug)]
pub(super) struct CelRules(Node);

impl CelRules {
    /// The rules of a schema, if it has any.
    pub(super) fn of(schema: &Value) -> Option<Self> {
        Node::of(schema).map(Self)
    }

    /// Why a rule cannot be evaluated, if one cannot.
    pub(super) fn mistake(&self) -> Option<String> {
        self.0.mistake()
    }

    /// The rules about an old state in parts of the schema whose old states cannot be found.
    pub(super) fn uncorrelated(&self, schema: Path<'_>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        self.0.find_uncorrelated(schema, None, &mut errors);
        errors
    }

    /// What is wrong with an object, after its old state if it has one. As with the rest of a schema,
    /// what is as it was is let be, but for rules about the old state.
    pub(super) fn check(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let validator = Validator::new();
        let mut errors = Vec::new();
        let state = State {
            now: object,
            old,
            kept: false,
        };
        self.0.check(&validator, state, Path::Root, &mut errors);
        errors
    }
}

/// A part of a schema that has rules or has some below it.
#[derive(Debug)]
struct Node {
    /// Its own rules, and the schema of what they read.
    own: Option<CompiledSchema>,
    /// How deep the loops of its own rules are in each other.
    loops: u32,
    /// Why its own rules are not read.
    refused: Option<String>,
    fields: BTreeMap<String, Self>,
    /// Of what has a name that is no field's.
    others: Option<Box<Self>>,
    items: Option<Box<Self>>,
    /// Under `allOf`, `anyOf` and `oneOf`.
    branches: Vec<Self>,
    /// By what the old states of items are found.
    identity: Option<Identity<String>>,
    /// Whether it is replaced as a whole, so that its fields have no old states.
    atomic: bool,
}

impl Node {
    fn of(schema: &Value) -> Option<Self> {
        let boxed = |keyword| schema.get(keyword).and_then(Self::of).map(Box::new);
        let fields = schema.field("properties").as_object();
        let fields = fields.into_iter().flatten();
        let branches = ["allOf", "anyOf", "oneOf"].into_iter();
        let branches = branches.filter_map(|keyword| schema.field(keyword).as_array());
        let rules = schema.get(KEYWORD);
        let own = rules.map(|_| limits::read(&without_rules_below(schema)));
        let (own, refused) = own.map_or((None, None), |own| match own {
            Ok(own) => (Some(own), None),
            Err(refused) => (None, Some(refused)),
        });
        let node = Self {
            loops: own.as_ref().map_or(0, limits::loops),
            own,
            refused,
            fields: fields
                .filter_map(|(name, field)| Some((name.clone(), Self::of(field)?)))
                .collect(),
            others: boxed("additionalProperties"),
            items: boxed("items"),
            branches: branches.flatten().filter_map(Self::of).collect(),
            identity: Identity::of(|keyword| schema.get(keyword)).map(Identity::into_owned),
            atomic: schema.text("x-kubernetes-map-type") == "atomic",
        };
        let rules = node.own.is_some() || node.refused.is_some();
        (rules || node.below().next().is_some()).then_some(node)
    }

    fn below(&self) -> impl Iterator<Item = &Self> {
        let unnamed = [&self.others, &self.items].into_iter().flatten();
        let named = self.fields.values().chain(&self.branches);
        named.chain(unnamed.map(AsRef::as_ref))
    }

    fn has_keys(&self) -> bool {
        matches!(self.identity, Some(Identity::Keys(_)))
    }

    fn mistake(&self) -> Option<String> {
        let refused = self.refused.clone();
        let own = refused.or_else(|| self.own.as_ref().and_then(mistake));
        own.or_else(|| self.below().find_map(Self::mistake))
    }

    fn find_uncorrelated(
        &self,
        schema: Path<'_>,
        within: Option<Path<'_>>,
        errors: &mut Vec<FieldError>,
    ) {
        if let (Some(own), Some(within)) = (&self.own, within) {
            for (index, rule) in own.validations.iter().enumerate() {
                if let Ok(rule) = rule
                    && rule.is_transition_rule
                {
                    let rules = Path::Field(&schema, KEYWORD);
                    let rules = Path::Item(&rules, index);
                    let why = format!(
                        "oldSelf cannot be used on the uncorrelatable portion of the schema within {within}"
                    );
                    let text = Value::from(&*rule.rule.rule);
                    errors.push(FieldError::invalid(
                        &Path::Field(&rules, "rule"),
                        &text,
                        why,
                    ));
                }
            }
        }
        let fields = within.or_else(|| self.atomic.then_some(schema));
        let named = Path::Field(&schema, "properties");
        for (name, node) in &self.fields {
            node.find_uncorrelated(Path::Key(&named, name), fields, errors);
        }
        if let Some(node) = &self.others {
            let others = Path::Field(&schema, "additionalProperties");
            node.find_uncorrelated(others, fields, errors);
        }
        if let Some(node) = &self.items {
            let within = within.or_else(|| (!self.has_keys()).then_some(schema));
            node.find_uncorrelated(Path::Field(&schema, "items"), within, errors);
        }
    }

    fn check(
        &self,
        validator: &Validator,
        state: State<'_>,
        path: Path<'_>,
        errors: &mut Vec<FieldError>,
    ) {
        let kept = state.kept || state.old == Some(state.now);
        let state = State { kept, ..state };
        if limits::are_too_many(self.loops, state.now, state.old) {
            errors.extend((!kept).then(|| unaffordable(state.now, path)));
        } else if let Some(own) = &self.own {
            errors.extend(evaluate(own, validator, state, path));
        }
        for branch in &self.branches {
            branch.check(validator, state, path, errors);
        }
        match state.now {
            Value::Object(fields) => {
                for (name, now) in fields {
                    let (node, path) = match (self.fields.get(name), &self.others) {
                        (Some(node), _) => (node, Path::Field(&path, name)),
                        (None, Some(node)) => (&**node, Path::Key(&path, name)),
                        (None, None) => continue,
                    };
                    let old = state.old.filter(|_| !self.atomic);
                    let old = old.and_then(|old| old.get(name));
                    node.check(validator, State { now, old, kept }, path, errors);
                }
            }
            Value::Array(items) => {
                let Some(node) = &self.items else { return };
                let standing = standing(self.identity.as_ref(), state.old);
                for (index, now) in items.iter().enumerate() {
                    let old = standing(now);
                    let path = Path::Item(&path, index);
                    node.check(validator, State { now, old, kept }, path, errors);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}

/// A part of an object.
#[derive(Clone, Copy)]
struct State<'a> {
    now: &'a Value,
    old: Option<&'a Value>,
    /// It, or something that it is in, is as it was.
    kept: bool,
}

fn evaluate(
    own: &CompiledSchema,
    validator: &Validator,
    state: State<'_>,
    path: Path<'_>,
) -> Vec<FieldError> {
    let Err(errors) = validator.validate_compiled(own, state.now, state.old) else {
        return Vec::new();
    };
    let transitions = |rule: &str| {
        let mut rules = own.validations.iter().flatten();
        rules.any(|known| known.rule.rule == rule && known.is_transition_rule)
    };
    errors
        .into_vec()
        .into_iter()
        .filter(|error| !state.kept || transitions(&error.rule))
        .map(|error| complaint(&error, state.now, path))
        .collect()
}

/// What a client is told of a rule that was broken by this value.
fn complaint(error: &ValidationError, value: &Value, path: Path<'_>) -> FieldError {
    // Of the value, the field that the rule names.
    let named = error.field_path.trim_start_matches('.');
    let reason = match error.reason.as_deref() {
        Some("FieldValueForbidden") => "FieldValueForbidden",
        Some("FieldValueRequired") => "FieldValueRequired",
        Some("FieldValueDuplicate") => "FieldValueDuplicate",
        _ => "FieldValueInvalid",
    };
    let start = match reason {
        "FieldValueForbidden" => "Forbidden".to_owned(),
        "FieldValueRequired" => "Required value".to_owned(),
        "FieldValueDuplicate" => "Duplicate value".to_owned(),
        _ => format!("Invalid value: {}", shown(value, named)),
    };
    let field = if named.is_empty() {
        path.to_string()
    } else {
        Path::Field(&path, named).to_string()
    };
    FieldError {
        field,
        reason,
        message: format!("{start}: {}", error.message),
    }
}

/// What a client is told of a value that is too large for its rules.
fn unaffordable(value: &Value, path: Path<'_>) -> FieldError {
    let why = "validation failed due to running out of cost budget, no further validation rules will be run";
    let message = format!("Invalid value: {}: {why}", shown(value, ""));
    FieldError {
        field: path.to_string(),
        reason: "FieldValueInvalid",
        message,
    }
}

/// A field of a value as refusals show it: maps and lists only by their type.
fn shown(value: &Value, field: &str) -> String {
    let names = field.split('.').filter(|name| !name.is_empty());
    match names.fold(value, |value, name| value.field(name)) {
        Value::Object(_) | Value::Null => "\"object\"".to_owned(),
        Value::Array(_) => "\"array\"".to_owned(),
        value @ (Value::Bool(_) | Value::Number(_) | Value::String(_)) => quote(value),
    }
}

/// A schema with its own rules alone: those below it are of other values.
fn without_rules_below(schema: &Value) -> Value {
    let mut alone = schema.clone();
    strip_rules(&mut alone);
    alone.set(&[KEYWORD], schema.field(KEYWORD).clone());
    alone
}

fn strip_rules(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.remove(KEYWORD);
            fields.values_mut().for_each(strip_rules);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_rules),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn mistake(schema: &CompiledSchema) -> Option<String> {
    let own = schema.compilation_errors().first().map(ToString::to_string);
    own.or_else(|| {
        let below = schema.properties.values();
        let inner = [&schema.items, &schema.additional_properties];
        below
            .chain(inner.into_iter().flatten().map(AsRef::as_ref))
            .find_map(mistake)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_rule_refuses_with_its_message_and_path() {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object",
            "properties": {"low": {"type": "integer"}, "high": {"type": "integer"}},
            "x-kubernetes-validations": [{"rule": "self.low <= self.high", "message": "low must not be above high"}]}}});
        let rules = CelRules::of(&schema).unwrap();
        assert!(
            rules
                .check(&json!({"spec": {"low": 1, "high": 2}}), None)
                .is_empty()
        );
        let errors = rules.check(&json!({"spec": {"low": 3, "high": 2}}), None);
        assert_eq!(errors[0].field, "spec");
        assert_eq!(
            errors[0].message,
            "Invalid value: \"object\": low must not be above high"
        );
    }

    #[test]
    fn a_transition_rule_looks_at_the_old_state() {
        let schema = json!({"type": "object", "properties": {"name": {"type": "string",
            "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "is immutable"}]}}});
        let rules = CelRules::of(&schema).unwrap();
        assert!(rules.check(&json!({"name": "a"}), None).is_empty());
        assert!(
            rules
                .check(&json!({"name": "a"}), Some(&json!({"name": "a"})))
                .is_empty()
        );
        assert_eq!(
            rules
                .check(&json!({"name": "b"}), Some(&json!({"name": "a"})))
                .len(),
            1
        );
    }

    #[test]
    fn a_new_rule_does_not_lock_what_stays_as_it_was() {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object",
            "properties": {"low": {"type": "integer"}},
            "x-kubernetes-validations": [{"rule": "self.low > 5"}]}}});
        let rules = CelRules::of(&schema).unwrap();
        let old = json!({"spec": {"low": 3}, "held": true});
        assert!(
            rules
                .check(&json!({"spec": {"low": 3}}), Some(&old))
                .is_empty()
        );
        assert_eq!(
            rules.check(&json!({"spec": {"low": 4}}), Some(&old)).len(),
            1
        );
        assert_eq!(rules.check(&old, None).len(), 1);
    }

    #[test]
    fn what_a_rule_is_about_counts_and_not_the_field_that_it_names() {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object",
            "properties": {"low": {"type": "integer"}, "high": {"type": "integer"}},
            "x-kubernetes-validations": [{"rule": "self.low <= self.high", "fieldPath": ".low"}]}}});
        let rules = CelRules::of(&schema).unwrap();
        let object = |low, high| json!({"spec": {"low": low, "high": high}});
        let errors = rules.check(&object(1, 0), Some(&object(1, 5)));
        assert_eq!(errors[0].field, "spec.low");
        assert!(rules.check(&object(1, 0), Some(&object(1, 0))).is_empty());
    }

    #[test]
    fn a_list_that_stays_as_it_was_is_let_be() {
        let schema = json!({"type": "object", "properties": {"list": {"type": "array", "items":
            {"type": "integer", "x-kubernetes-validations": [{"rule": "self > 5"}]}}}});
        let rules = CelRules::of(&schema).unwrap();
        let old = json!({"list": [3, 9], "status": 1});
        let check = |object: Value| rules.check(&object, Some(&old)).len();
        assert_eq!(check(json!({"list": [3, 9], "status": 2})), 0);
        assert_eq!(check(json!({"list": [3, 8], "status": 1})), 1);
    }

    #[test]
    fn a_rule_that_is_no_expression_is_noticed() {
        let schema = json!({"type": "object", "x-kubernetes-validations": [{"rule": "self.("}]});
        assert!(CelRules::of(&schema).unwrap().mistake().is_some());
        assert!(CelRules::of(&json!({"type": "object"})).is_none());
    }

    #[test]
    fn an_item_of_a_list_with_keys_is_held_against_the_item_of_its_key() {
        let schema = json!({"type": "object", "properties": {"list": {"type": "array",
            "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "properties": {"name": {"type": "string"},
                "value": {"type": "integer",
                    "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "is immutable"}]}}}}}});
        let rules = CelRules::of(&schema).unwrap();
        let item = |name: &str, value: i32| json!({"name": name, "value": value});
        let old = json!({"list": [item("a", 1), item("b", 2)]});
        let check = |list: Value| rules.check(&json!({"list": list}), Some(&old));
        assert!(check(json!([item("new", 7), item("a", 1), item("b", 2)])).is_empty());
        assert!(check(json!([item("b", 2), item("a", 1)])).is_empty());
        let errors = check(json!([item("new", 7), item("b", 3)]));
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0].field, "list[1].value");
        assert_eq!(errors[0].message, "Invalid value: 3: is immutable");
    }

    #[test]
    fn what_stands_in_a_map_is_held_against_what_stood_there() {
        let schema = json!({"type": "object", "properties": {"ports": {"type": "object",
            "additionalProperties": {"type": "integer",
                "x-kubernetes-validations": [{"rule": "self >= oldSelf", "message": "must not go back"}]}}}});
        let rules = CelRules::of(&schema).unwrap();
        let old = json!({"ports": {"http": 80}});
        let check = |ports: Value| rules.check(&json!({"ports": ports}), Some(&old));
        assert!(check(json!({"dns": 53, "http": 81})).is_empty());
        assert_eq!(check(json!({"http": 79}))[0].field, "ports[http]");
    }

    #[test]
    fn a_rule_about_the_old_state_holds_for_what_stays_as_it_was() {
        let schema = json!({"type": "object", "properties": {"count": {"type": "integer",
            "x-kubernetes-validations": [{"rule": "self > oldSelf"}]}}});
        let rules = CelRules::of(&schema).unwrap();
        let object = |count| json!({"count": count});
        assert_eq!(rules.check(&object(1), Some(&object(1))).len(), 1);
        assert!(rules.check(&object(2), Some(&object(1))).is_empty());
    }

    #[test]
    fn a_rule_about_an_old_state_that_cannot_be_found_is_noticed() {
        let immutable = json!([{"rule": "self == self"}, {"rule": "self == oldSelf"}]);
        let list = |kind: &str| {
            json!({"type": "object", "properties": {"list": {"type": "array",
                "x-kubernetes-list-type": kind, "x-kubernetes-list-map-keys": ["name"],
                "x-kubernetes-validations": immutable,
                "items": {"type": "object", "x-kubernetes-validations": immutable}}}})
        };
        let found = |schema: &Value| {
            let rules = CelRules::of(schema).unwrap();
            rules.uncorrelated(Path::Field(&Path::Root, "openAPIV3Schema"))
        };
        assert!(found(&list("map")).is_empty());
        let errors = found(&list("set"));
        assert_eq!(errors.len(), 1);
        assert_eq!(
            errors[0].field,
            "openAPIV3Schema.properties[list].items.x-kubernetes-validations[1].rule"
        );
        assert!(
            errors[0]
                .message
                .ends_with("within openAPIV3Schema.properties[list]")
        );
        let atomic = json!({"type": "object", "x-kubernetes-map-type": "atomic",
            "properties": {"a": {"type": "string", "x-kubernetes-validations": immutable}}});
        assert_eq!(found(&atomic).len(), 1);
    }

    #[test]
    fn a_rule_reads_what_is_below_it_by_its_schema() {
        let schema = json!({"type": "object", "x-kubernetes-validations": [{"rule": "self.items.all(item, item.wait < duration('2s'))"}],
            "properties": {"items": {"type": "array", "items": {"type": "object",
                "x-kubernetes-validations": [{"rule": "has(self.wait)"}],
                "properties": {"wait": {"type": "string", "format": "duration"}}}}}});
        let rules = CelRules::of(&schema).unwrap();
        let check = |items: Value| rules.check(&json!({"items": items}), None);
        assert!(check(json!([{"wait": "1s"}])).is_empty());
        assert_eq!(check(json!([{"wait": "3s"}]))[0].field, "");
        let errors = check(json!([{}]));
        assert_eq!(errors.last().unwrap().field, "items[0]");
    }
}
