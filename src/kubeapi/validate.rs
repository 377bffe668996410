//! Checks an object against its schema and names every field that is wrong.

use super::{path::Path, pattern, refusal::FieldError, schema::Schema};
use crate::kubeapi::tree::Tree;
use serde_json::Value;

/// Checks a whole object; the result is empty when it is as the schema wants it.
pub(super) fn validate(schema: Schema<'_>, object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    check(schema, object, Path::Root, &mut errors);
    errors
}

fn check(schema: Schema<'_>, value: &Value, path: Path<'_>, errors: &mut Vec<FieldError>) {
    if value.is_null() && schema.flag("nullable") {
        return;
    }
    if let Some(expected) = schema.kind()
        && !has_type(value, expected)
    {
        errors.push(FieldError::wrong_type(&path, type_of(value), expected));
        return;
    }
    check_choice(schema, value, path, errors);
    check_combination(schema, value, path, errors);
    if let Some(text) = value.as_str() {
        check_text(schema, text, path, errors);
    } else if let Some(number) = value.as_f64() {
        check_number(schema, value, number, path, errors);
    } else if let Some(items) = value.as_array() {
        check_list(schema, items, path, errors);
    } else if let Some(fields) = value.as_object() {
        for (name, field) in fields {
            if let Some(described) = schema.field(name) {
                check(described, field, Path::Field(&path, name), errors);
            }
        }
        check_object(schema, fields, path, errors);
    }
}

fn has_type(value: &Value, expected: &str) -> bool {
    match expected {
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => {
            value.is_i64()
                || value.is_u64()
                || value.as_f64().is_some_and(|number| number.fract() == 0.0)
        }
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => true,
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn check_choice(schema: Schema<'_>, value: &Value, path: Path<'_>, errors: &mut Vec<FieldError>) {
    if schema.flag("x-kubernetes-int-or-string") && !(value.is_string() || value.is_number()) {
        errors.push(FieldError::wrong_type(
            &path,
            type_of(value),
            "integer,string",
        ));
    }
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        let supported: Vec<String> = allowed.iter().map(ToString::to_string).collect();
        errors.push(FieldError::unsupported(
            &path,
            &value.to_string(),
            &supported,
        ));
    }
}

fn check_combination(
    schema: Schema<'_>,
    value: &Value,
    path: Path<'_>,
    errors: &mut Vec<FieldError>,
) {
    let holds = |part: Schema<'_>| {
        let mut found = Vec::new();
        check(part, value, path, &mut found);
        found.is_empty()
    };
    if let Some(parts) = schema.alternatives("allOf") {
        for part in parts {
            check(part, value, path, errors);
        }
    }
    if let Some(mut parts) = schema.alternatives("anyOf")
        && !parts.any(holds)
    {
        let why = format!("{path} in body must validate at least one schema (anyOf)");
        errors.push(FieldError::invalid(&path, value, why));
    }
    if let Some(parts) = schema.alternatives("oneOf")
        && parts.filter(|part| holds(*part)).count() != 1
    {
        let why = format!("{path} in body must validate one and only one schema (oneOf)");
        errors.push(FieldError::invalid(&path, value, why));
    }
}

fn check_text(schema: Schema<'_>, text: &str, path: Path<'_>, errors: &mut Vec<FieldError>) {
    let mut wrong = |why: String| {
        let value = Value::String(text.to_owned());
        errors.push(FieldError::invalid(
            &path,
            &value,
            format!("{path} in body {why}"),
        ));
    };
    let length = text.chars().count();
    if let Some(minimum) = schema
        .count("minLength")
        .filter(|minimum| length < *minimum)
    {
        wrong(format!("should be at least {minimum} chars long"));
    }
    if let Some(maximum) = schema
        .count("maxLength")
        .filter(|maximum| length > *maximum)
    {
        wrong(format!("should be at most {maximum} chars long"));
    }
    if let Some(pattern) = schema.get("pattern").and_then(Value::as_str)
        && !pattern::matches(pattern, text)
    {
        wrong(format!("should match '{pattern}'"));
    }
    if schema.get("format").and_then(Value::as_str) == Some("date-time")
        && text.parse::<jiff::Timestamp>().is_err()
    {
        wrong(format!("must be of type date-time: \"{text}\""));
    }
}

fn check_number(
    schema: Schema<'_>,
    value: &Value,
    number: f64,
    path: Path<'_>,
    errors: &mut Vec<FieldError>,
) {
    let mut wrong = |why: String| {
        errors.push(FieldError::invalid(
            &path,
            value,
            format!("{path} in body {why}"),
        ));
    };
    if let Some(minimum) = schema.number("minimum") {
        let exclusive = schema.flag("exclusiveMinimum");
        if number < minimum || (exclusive && number <= minimum) {
            let relation = if exclusive { "" } else { " or equal to" };
            wrong(format!("should be greater than{relation} {minimum}"));
        }
    }
    if let Some(maximum) = schema.number("maximum") {
        let exclusive = schema.flag("exclusiveMaximum");
        if number > maximum || (exclusive && number >= maximum) {
            let relation = if exclusive { "" } else { " or equal to" };
            wrong(format!("should be less than{relation} {maximum}"));
        }
    }
    if let Some(factor) = schema.number("multipleOf").filter(|factor| *factor > 0.0)
        && (number / factor).fract() != 0.0
    {
        wrong(format!("should be a multiple of {factor}"));
    }
    if schema.get("format").and_then(Value::as_str) == Some("int32")
        && !(f64::from(i32::MIN)..=f64::from(u32::MAX)).contains(&number)
    {
        wrong(format!("must be of type int32: \"{value}\""));
    }
}

fn check_list(schema: Schema<'_>, items: &[Value], path: Path<'_>, errors: &mut Vec<FieldError>) {
    if let Some(described) = schema.items() {
        for (index, item) in items.iter().enumerate() {
            check(described, item, Path::Item(&path, index), errors);
        }
    }
    if let Some(minimum) = schema
        .count("minItems")
        .filter(|count| items.len() < *count)
    {
        let why = format!("{path} in body should have at least {minimum} items");
        errors.push(FieldError::invalid(&path, &Value::from(items.len()), why));
    }
    if let Some(maximum) = schema
        .count("maxItems")
        .filter(|count| items.len() > *count)
    {
        errors.push(FieldError {
            field: path.to_string(),
            reason: "FieldValueTooMany",
            message: format!(
                "Too many: {}: must have at most {maximum} items",
                items.len()
            ),
        });
    }
    check_unique(schema, items, path, errors);
}

fn check_unique(schema: Schema<'_>, items: &[Value], path: Path<'_>, errors: &mut Vec<FieldError>) {
    let identity: Box<dyn Fn(&Value) -> Value> =
        match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
            Some("set") => Box::new(Value::clone),
            Some("map") => {
                let keys = schema.get("x-kubernetes-list-map-keys").cloned();
                Box::new(move |item| {
                    let keys = keys.iter().filter_map(Value::as_array).flatten();
                    keys.filter_map(Value::as_str)
                        .map(|key| (key.to_owned(), item.field(key).clone()))
                        .collect()
                })
            }
            _ => return,
        };
    let mut seen = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let identity = identity(item);
        if seen.contains(&identity) {
            errors.push(FieldError {
                field: format!("{path}[{index}]"),
                reason: "FieldValueDuplicate",
                message: format!("Duplicate value: {identity}"),
            });
        }
        seen.push(identity);
    }
}

fn check_object(
    schema: Schema<'_>,
    fields: &serde_json::Map<String, Value>,
    path: Path<'_>,
    errors: &mut Vec<FieldError>,
) {
    let required = schema.get("required").and_then(Value::as_array);
    for name in required.into_iter().flatten().filter_map(Value::as_str) {
        if !fields.contains_key(name) {
            errors.push(FieldError::required(&Path::Field(&path, name), ""));
        }
    }
    let count = fields.len();
    if let Some(minimum) = schema.count("minProperties").filter(|limit| count < *limit) {
        let why = format!("{path} in body should have at least {minimum} properties");
        errors.push(FieldError::invalid(&path, &Value::from(count), why));
    }
    if let Some(maximum) = schema.count("maxProperties").filter(|limit| count > *limit) {
        let why = format!("{path} in body should have at most {maximum} properties");
        errors.push(FieldError::invalid(&path, &Value::from(count), why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubeapi::schema::Components;
    use serde_json::json;

    fn errors(schema: &Value, object: &Value) -> Vec<(String, &'static str, String)> {
        let components = Components::new();
        validate(Schema::new(schema, &components), object)
            .into_iter()
            .map(|error| (error.field, error.reason, error.message))
            .collect()
    }

    #[test]
    fn every_wrong_field_is_named_like_the_real_server_names_it() {
        let schema = json!({"type": "object", "properties": {"spec": {
        "type": "object", "required": ["authUrl"], "properties": {
            "authUrl": {"type": "string"},
            "join": {"type": "boolean"},
            "discoveryType": {"type": "string", "enum": ["LAN", "WAN"]}
        }}}});
        let found = errors(
            &schema,
            &json!({"spec": {"join": "yes", "discoveryType": "MOON"}}),
        );
        let expected = [
            (
                "spec.discoveryType",
                "FieldValueNotSupported",
                "Unsupported value: \"MOON\": supported values: \"LAN\", \"WAN\"",
            ),
            (
                "spec.join",
                "FieldValueTypeInvalid",
                "Invalid value: \"string\": spec.join in body must be of type boolean: \"string\"",
            ),
            ("spec.authUrl", "FieldValueRequired", "Required value"),
        ];
        let expected: Vec<_> = expected
            .map(|(field, reason, message)| (field.to_owned(), reason, message.to_owned()))
            .into();
        assert_eq!(found, expected);
    }

    #[test]
    fn numbers_keep_their_bounds() {
        let schema = json!({"type": "integer", "minimum": 30, "maximum": 40});
        assert!(errors(&schema, &json!(30)).is_empty());
        assert_eq!(errors(&schema, &json!(29)).len(), 1);
        assert_eq!(errors(&schema, &json!(41)).len(), 1);
        assert_eq!(errors(&schema, &json!(30.5)).len(), 1);
    }

    #[test]
    fn texts_keep_their_pattern_and_length() {
        let schema = json!({"type": "string", "pattern": "^[0-9.]+/[0-9]+$", "maxLength": 12});
        assert!(errors(&schema, &json!("10.0.0.0/16")).is_empty());
        assert_eq!(errors(&schema, &json!("rome")).len(), 1);
        assert_eq!(errors(&schema, &json!("10.100.100.100/16")).len(), 1);
    }

    #[test]
    fn a_list_that_is_a_map_has_each_key_once() {
        let schema = json!({"type": "array", "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"], "items": {"type": "object"}});
        let twice = json!([{"type": "Ready", "n": 1}, {"type": "Ready", "n": 2}]);
        assert_eq!(errors(&schema, &twice)[0].1, "FieldValueDuplicate");
        assert!(errors(&schema, &json!([{"type": "A"}, {"type": "B"}])).is_empty());
    }
}
