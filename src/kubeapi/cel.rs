//! The rules of a schema in CEL (`x-kubernetes-validations`), compiled once for each kind.

use super::{bounds::quote, refusal::FieldError, tree::Tree};
use kube::core::cel::{CompiledSchema, Validator, compile_schema};
use serde_json::Value;

const KEYWORD: &str = "x-kubernetes-validations";

/// The compiled rules of one kind.
#[derive(Debug)]
pub(super) struct CelRules {
    schema: CompiledSchema,
    /// The rules that name a field below what they are about: rule and field.
    pointed: Vec<(String, String)>,
}

impl CelRules {
    /// The rules of a schema, if it has any.
    pub(super) fn of(schema: &Value) -> Option<Self> {
        let mut pointed = Vec::new();
        has_rules(schema, &mut pointed).then(|| Self {
            schema: compile_schema(schema),
            pointed,
        })
    }

    /// Why a rule cannot be evaluated, if one cannot.
    pub(super) fn mistake(&self) -> Option<String> {
        mistake(&self.schema)
    }

    /// What is wrong with an object, after its old state if it has one. As with the rest of a schema,
    /// what is as it was is let be.
    pub(super) fn check(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let Err(errors) = Validator::new().validate_compiled(&self.schema, object, old) else {
            return Vec::new();
        };
        errors
            .into_vec()
            .into_iter()
            .filter(|error| {
                let scope = self.scope(&error.rule, &error.field_path);
                let now = at(object, scope);
                now.is_null() || old.is_none_or(|old| at(old, scope) != now)
            })
            .map(|error| {
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
                    _ => format!("Invalid value: {}", shown(object, &error.field_path)),
                };
                FieldError {
                    field: error.field_path,
                    reason,
                    message: format!("{start}: {}", error.message),
                }
            })
            .collect()
    }

    /// The path of what a rule is about, as far as it can be told: of what is in a list, the list.
    fn scope<'a>(&self, rule: &str, named: &'a str) -> &'a str {
        let fields = self.pointed.iter().filter(|(known, _)| known == rule);
        let scope = fields
            .filter_map(|(_, field)| named.strip_suffix(field.trim_start_matches('.')))
            .min_by_key(|scope| scope.len())
            .unwrap_or(named);
        scope.split('[').next().unwrap_or_default()
    }
}

/// A value as refusals show it: maps and lists only by their type.
fn shown(object: &Value, path: &str) -> String {
    match at(object, path) {
        Value::Object(_) | Value::Null => "\"object\"".to_owned(),
        Value::Array(_) => "\"array\"".to_owned(),
        value @ (Value::Bool(_) | Value::Number(_) | Value::String(_)) => quote(value),
    }
}

/// The value at a path, or null; of an item of a list it is not known.
fn at<'a>(object: &'a Value, path: &str) -> &'a Value {
    path.split('.')
        .filter(|name| !name.is_empty())
        .fold(object, |value, name| value.field(name))
}

/// Whether there are rules in a schema; finds those that name a field, too.
fn has_rules(schema: &Value, pointed: &mut Vec<(String, String)>) -> bool {
    let mut below = |found: bool, part: &Value| has_rules(part, pointed) || found;
    match schema {
        Value::Object(fields) => {
            let found = fields.values().fold(false, &mut below);
            let rules = fields.get(KEYWORD).and_then(Value::as_array);
            for rule in rules.into_iter().flatten() {
                if let Some(field) = rule.get("fieldPath").and_then(Value::as_str) {
                    pointed.push((rule.text("rule").to_owned(), field.to_owned()));
                }
            }
            found || rules.is_some()
        }
        Value::Array(items) => items.iter().fold(false, below),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
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
}
