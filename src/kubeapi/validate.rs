//! Checks an object against its schema and names every field that is wrong.

mod format;

use super::{
    bounds::{COMPLAINTS, quote},
    items::{Identity, standing},
    normalise::whole,
    path::Path,
    pattern,
    refusal::FieldError,
    schema::Schema,
};
use serde_json::Value;
use std::collections::BTreeSet;

/// Checks a whole object; the result is empty when it is as the schema wants it. What is as it was
/// in the old state is let be: a schema that has become stricter must not lock what was stored before.
pub(super) fn validate(schema: Schema<'_>, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    check(schema, object, old, Path::Root, &mut errors);
    errors
}

fn check(
    schema: Schema<'_>,
    value: &Value,
    old: Option<&Value>,
    path: Path<'_>,
    errors: &mut Vec<FieldError>,
) {
    if old == Some(value) || errors.len() >= COMPLAINTS || value.is_null() && schema.is_nullable() {
        return;
    }
    if let Some(expected) = schema.kind()
        && !has_type(value, expected)
    {
        errors.push(FieldError::wrong_type(&path, type_of(value), expected));
        return;
    }
    check_choice(schema, value, path, errors);
    check_combination(schema, value, old, path, errors);
    if let Some(text) = value.as_str() {
        check_text(schema, text, path, errors);
    } else if let Some(number) = value.as_f64() {
        check_number(schema, value, number, path, errors);
    } else if let Some(items) = value.as_array() {
        check_list(schema, items, old, path, errors);
    } else if let Some(fields) = value.as_object() {
        for (name, field) in fields {
            if let Some(described) = schema.field(name) {
                let old = old.and_then(|old| old.get(name));
                check(described, field, old, Path::Field(&path, name), errors);
            }
        }
        check_object(schema, fields, path, errors);
    }
}

fn has_type(value: &Value, expected: &str) -> bool {
    match expected {
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64() || whole(value).is_some(),
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
    // A quantity may be a number of any kind.
    let is_number = || {
        let kind = if schema.has_format("quantity") {
            "number"
        } else {
            "integer"
        };
        has_type(value, kind)
    };
    if schema.flag("x-kubernetes-int-or-string") && !(value.is_string() || is_number()) {
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
        errors.push(FieldError::unsupported(&path, &quote(value), &supported));
    }
}

fn check_combination(
    schema: Schema<'_>,
    value: &Value,
    old: Option<&Value>,
    path: Path<'_>,
    errors: &mut Vec<FieldError>,
) {
    let holds = |part: Schema<'_>| {
        let mut found = Vec::new();
        check(part, value, None, path, &mut found);
        found.is_empty()
    };
    if let Some(parts) = schema.alternatives("allOf") {
        for part in parts {
            check(part, value, old, path, errors);
        }
    }
    if let Some(mut parts) = schema.alternatives("anyOf")
        && !parts.any(holds)
    {
        let why = format!("{path} in body must validate at least one schema (anyOf)");
        errors.push(FieldError::invalid(&path, value, why));
    }
    if schema.forbidden().is_some_and(holds) {
        let why = format!("{path} in body must not validate the schema (not)");
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
    let format = schema.get("format").and_then(Value::as_str);
    if let Some(format) = format.filter(|format| !format::has(format, text)) {
        wrong(format!("must be of type {format}: \"{}\"", quote(&text)));
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
    let format = schema.get("format").and_then(Value::as_str);
    let fits = match format {
        Some("int32") => (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&number),
        Some("uint32") => (0.0..=f64::from(u32::MAX)).contains(&number),
        Some("int64") => value.is_i64() || whole(value).is_some(),
        Some("uint64") => value.is_u64() || whole(value).is_some_and(|whole| whole >= 0),
        _ => true,
    };
    if let Some(format) = format.filter(|_| !fits) {
        wrong(format!("must be of type {format}: \"{value}\""));
    }
}

fn check_list(
    schema: Schema<'_>,
    items: &[Value],
    old: Option<&Value>,
    path: Path<'_>,
    errors: &mut Vec<FieldError>,
) {
    if let Some(described) = schema.items() {
        let identity = Identity::of(|keyword| schema.get(keyword));
        let standing = standing(identity.as_ref(), old);
        for (index, item) in items.iter().enumerate() {
            let path = Path::Item(&path, index);
            check(described, item, standing(item), path, errors);
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
    // Of built-in kinds these keywords say who owns what, and no more.
    let identity = Identity::of(|keyword| schema.get(keyword));
    let Some(identity) = identity.filter(|_| schema.is_structural()) else {
        return;
    };
    let mut seen = BTreeSet::new();
    for (index, item) in items.iter().enumerate() {
        let name = identity.name(item);
        // Equal values are written alike.
        if !seen.insert(name.to_string()) && errors.len() < COMPLAINTS {
            errors.push(FieldError {
                field: format!("{path}[{index}]"),
                reason: "FieldValueDuplicate",
                message: format!("Duplicate value: {}", quote(&name)),
            });
        }
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
        if !fields.contains_key(name) && errors.len() < COMPLAINTS {
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
    use crate::kubeapi::schema::{Components, Node};
    use serde_json::json;

    fn errors(schema: &Value, object: &Value) -> Vec<(String, &'static str, String)> {
        let (node, components) = (Node::read(schema), Components::default());
        validate(Schema::new(&node, &components), object, None)
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
    fn numbers_fit_into_the_type_that_clients_read_them_as() {
        let most = json!(u64::MAX);
        for (format, good, bad) in [
            ("int32", json!(i32::MIN), json!(i64::from(i32::MAX) + 1)),
            ("uint32", json!(u32::MAX), json!(-1)),
            ("int64", json!(i64::MIN), most.clone()),
            ("int64", json!(5.0), json!(1e19)),
            ("uint64", most, json!(-1)),
        ] {
            let schema = json!({"type": "integer", "format": format});
            assert!(errors(&schema, &good).is_empty(), "{format} {good}");
            assert_eq!(errors(&schema, &bad).len(), 1, "{format} {bad}");
        }
        let schema = json!({"x-kubernetes-int-or-string": true});
        for (value, wrong) in [
            (json!(5), 0),
            (json!("5%"), 0),
            (json!(1.5), 1),
            (json!(true), 1),
        ] {
            assert_eq!(errors(&schema, &value).len(), wrong, "{value}");
        }
    }

    #[test]
    fn texts_have_the_form_that_their_format_names() {
        for (format, good, bad) in [
            ("ipv4", "10.0.0.1", "abc"),
            ("ipv6", "fd00::1", "10.0.0.1"),
            ("cidr", "10.0.0.0/8", "10.0.0.0"),
            ("mac", "01:23:45:67:89:ab", "01:23:45"),
            ("uuid", "123e4567-e89b-12d3-a456-426614174000", "123e4567"),
            ("date", "2024-02-29", "2023-02-29"),
            ("date", "2024-02-28", "2024-02-28T00:00:00"),
            ("date-time", "2024-02-29T00:00:00Z", "2024-02-29"),
            ("duration", "1h30m", "soon"),
            ("duration", "1.5s", "5"),
            ("duration", "3 days", ""),
            ("uri", "https://a.b/c?d", "a.b"),
            ("uri", "/a", ""),
            ("byte", "YQ==", "?"),
        ] {
            let schema = json!({"type": "string", "format": format});
            assert_eq!(errors(&schema, &json!(good)), [], "{format} {good}");
            let found = errors(&schema, &json!(bad));
            assert_eq!(found.len(), 1, "{format} {bad}");
            let wanted = format!("must be of type {format}: {bad:?}");
            assert!(found[0].2.ends_with(&wanted), "{found:?}");
        }
    }

    #[test]
    fn texts_keep_their_pattern_and_length() {
        let schema = json!({"type": "string", "pattern": "^[0-9.]+/[0-9]+$", "maxLength": 12});
        assert!(errors(&schema, &json!("10.0.0.0/16")).is_empty());
        assert_eq!(errors(&schema, &json!("rome")).len(), 1);
        assert_eq!(errors(&schema, &json!("10.100.100.100/16")).len(), 1);
    }

    #[test]
    fn what_was_wrong_before_may_stay_and_what_changes_may_not_be_wrong() {
        let schema = json!({"type": "object", "properties": {
            "a": {"type": "string", "maxLength": 1},
            "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["key"],
                "items": {"type": "object", "properties": {"key": {"type": "string"}, "n": {"type": "integer"}}}}
        }});
        let (node, components) = (Node::read(&schema), Components::default());
        let schema = Schema::new(&node, &components);
        let old = json!({"a": "long", "b": 1, "list": [{"key": "x", "n": "one"}]});
        let fields = |object: &Value| -> Vec<String> {
            let errors = validate(schema, object, Some(&old)).into_iter();
            errors.map(|error| error.field).collect()
        };
        let others = json!({"a": "long", "b": 2, "list": [{"key": "y"}, {"key": "x", "n": "one"}]});
        assert_eq!(fields(&others), [""; 0]);
        let worse = json!({"a": "longer", "list": [{"key": "y"}, {"key": "x", "n": "two"}]});
        assert_eq!(fields(&worse), ["a", "list[1].n"]);
    }

    #[test]
    fn data_of_bytes_is_base64() {
        let schema = json!({"type": "string", "format": "byte"});
        assert!(errors(&schema, &json!("cm9tZQ==")).is_empty());
        assert_eq!(errors(&schema, &json!("%%%")).len(), 1);
    }

    #[test]
    fn of_many_errors_a_client_is_told_some() {
        let schema =
            json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "integer"}});
        let list: Value = (0..1_000).map(|number| json!(number.to_string())).collect();
        assert_eq!(errors(&schema, &list).len(), COMPLAINTS);
        let list: Value = (0..1_000).map(|_| json!(1)).collect();
        assert_eq!(errors(&schema, &list).len(), COMPLAINTS);
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
