//! Label and field selectors: which objects a list or a watch is about.

use super::jsonpath::{JsonPath, plain};
use super::refusal::Refusal;
use serde_json::Value;

/// A field that a field selector may name.
#[derive(Debug, Clone)]
pub(super) struct SelectableField {
    name: String,
    path: JsonPath,
    /// What it counts as where it is missing.
    unset: &'static str,
}

impl SelectableField {
    /// The field at a path, if that can be followed.
    pub(super) fn new(path: &str, unset: &'static str) -> Option<Self> {
        let name = path.trim_start_matches('.');
        Some(Self {
            name: name.to_owned(),
            path: JsonPath::parse(name)?,
            unset,
        })
    }
}

/// What an object must be like to be listed.
#[derive(Debug, Clone, Default)]
pub(super) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<FieldTerm>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Operator {
    Exists,
    Missing,
    In(Vec<String>),
    NotIn(Vec<String>),
    Greater(i64),
    Less(i64),
}

#[derive(Debug, Clone)]
struct FieldTerm {
    field: SelectableField,
    value: String,
    equal: bool,
}

impl Selector {
    /// Parses both selectors; `selectable` names the fields that this kind offers.
    pub(super) fn parse(
        labels: &str,
        fields: &str,
        selectable: &[SelectableField],
    ) -> Result<Self, Refusal> {
        Ok(Self {
            labels: parse_labels(labels)?,
            fields: parse_fields(fields, selectable)?,
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether an object that is selected once is selected as long as it is there.
    pub(super) fn is_lasting(&self) -> bool {
        let lasts =
            |term: &FieldTerm| matches!(&*term.field.name, "metadata.name" | "metadata.namespace");
        self.labels.is_empty() && self.fields.iter().all(lasts)
    }

    /// The one name that it allows, when it does.
    pub(super) fn name(&self) -> Option<&str> {
        self.fields
            .iter()
            .find(|term| term.equal && term.field.name == "metadata.name")
            .map(|term| term.value.as_str())
    }

    pub(super) fn matches(&self, object: &Value) -> bool {
        let labels = object.pointer("/metadata/labels");
        self.labels.iter().all(|requirement| {
            let value = labels
                .and_then(|labels| labels.get(&requirement.key))
                .and_then(Value::as_str);
            requirement.operator.holds(value)
        }) && self.fields.iter().all(|term| {
            let found = term.field.path.find(object).map(plain);
            let found = found.as_deref().unwrap_or(term.field.unset);
            (found == term.value) == term.equal
        })
    }
}

impl Operator {
    fn holds(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match self {
            Self::Exists => value.is_some(),
            Self::Missing => value.is_none(),
            Self::In(values) => value.is_some_and(|value| values.iter().any(|one| one == value)),
            Self::NotIn(values) => value.is_none_or(|value| values.iter().all(|one| one != value)),
            Self::Greater(bound) => number().is_some_and(|number| number > *bound),
            Self::Less(bound) => number().is_some_and(|number| number < *bound),
        }
    }
}

fn parse_labels(text: &str) -> Result<Vec<Requirement>, Refusal> {
    split_outside_parentheses(text)
        .into_iter()
        .map(str::trim)
        .filter(|term| !term.is_empty())
        .map(|term| {
            parse_requirement(term)
                .map_err(|why| Refusal::bad_request(format!("unable to parse requirement: {why}")))
        })
        .collect()
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let mut inside = false;
    text.split(move |letter| {
        if letter == '(' {
            inside = true;
        } else if letter == ')' {
            inside = false;
        }
        letter == ',' && !inside
    })
    .collect()
}

fn parse_requirement(term: &str) -> Result<Requirement, String> {
    if let Some(key) = term.strip_prefix('!') {
        return requirement(key, Operator::Missing);
    }
    if let Some((key, value)) = term.split_once("!=") {
        return requirement(key, Operator::NotIn(vec![word(value)?]));
    }
    if let Some((key, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        return requirement(key, Operator::In(vec![word(value)?]));
    }
    for (sign, greater) in [('>', true), ('<', false)] {
        if let Some((key, value)) = term.split_once(sign) {
            let bound = value.trim().parse().map_err(|_| {
                format!("for 'Gt', 'Lt' operators, the value must be an integer, found '{value}'")
            })?;
            let operator = if greater {
                Operator::Greater(bound)
            } else {
                Operator::Less(bound)
            };
            return requirement(key, operator);
        }
    }
    let Some((key, rest)) = term.split_once(char::is_whitespace) else {
        return requirement(term, Operator::Exists);
    };
    let rest = rest.trim();
    if let Some(values) = rest.strip_prefix("notin") {
        return requirement(key, Operator::NotIn(set(values)?));
    }
    if let Some(values) = rest.strip_prefix("in") {
        return requirement(key, Operator::In(set(values)?));
    }
    let found = rest.split_whitespace().next().unwrap_or_default();
    Err(format!(
        "found '{found}', expected: in, notin, =, ==, !=, gt, lt"
    ))
}

fn requirement(key: &str, operator: Operator) -> Result<Requirement, String> {
    let key = word(key)?;
    if key.is_empty() {
        return Err("found '', expected: identifier".to_owned());
    }
    Ok(Requirement { key, operator })
}

fn word(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.contains(|letter: char| letter.is_whitespace() || "(),=!<>".contains(letter)) {
        return Err(format!("found '{text}', expected: identifier"));
    }
    Ok(text.to_owned())
}

fn set(text: &str) -> Result<Vec<String>, String> {
    text.trim()
        .strip_prefix('(')
        .and_then(|text| text.strip_suffix(')'))
        .ok_or_else(|| format!("found '{text}' expected: '('"))?
        .split(',')
        .map(word)
        .collect()
}

fn parse_fields(text: &str, selectable: &[SelectableField]) -> Result<Vec<FieldTerm>, Refusal> {
    let mut terms = Vec::new();
    for term in text.split(',').filter(|term| !term.trim().is_empty()) {
        let (name, value, equal) = if let Some((name, value)) = term.split_once("!=") {
            (name, value, false)
        } else if let Some((name, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
            (name, value, true)
        } else {
            let why = format!("invalid selector: '{text}'; can't understand '{term}'");
            return Err(Refusal::bad_request(why));
        };
        let field = selectable
            .iter()
            .find(|field| field.name == name.trim())
            .ok_or_else(|| {
                Refusal::bad_request(format!("field label not supported: {}", name.trim()))
            })?;
        terms.push(FieldTerm {
            field: field.clone(),
            value: value.trim().to_owned(),
            equal,
        });
    }
    Ok(terms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn selects(labels: &str, object: &Value) -> bool {
        Selector::parse(labels, "", &[]).unwrap().matches(object)
    }

    #[test]
    fn labels_select_by_equality_and_by_set() {
        let object = json!({"metadata": {"labels": {"a": "b", "n": "5"}}});
        for yes in [
            "",
            "a=b",
            "a==b",
            "a in (b,c),!d",
            "a",
            "x notin (y)",
            "a!=c",
            "n>4",
            "n<6",
        ] {
            assert!(selects(yes, &object), "{yes}");
        }
        for no in ["a=c", "a in (c)", "!a", "d", "a notin (b,c)", "a!=b", "n>5"] {
            assert!(!selects(no, &object), "{no}");
        }
    }

    #[test]
    fn a_selector_that_is_none_is_refused_like_the_real_server_does() {
        let refusal = Selector::parse("a b c", "", &[]).unwrap_err();
        assert_eq!(
            refusal.status()["message"],
            "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"
        );
    }

    #[test]
    fn only_offered_fields_select() {
        let offered = [SelectableField::new(".metadata.name", "").unwrap()];
        let selector = Selector::parse("", "metadata.name=rome", &offered).unwrap();
        assert!(selector.matches(&json!({"metadata": {"name": "rome"}})));
        assert!(!selector.matches(&json!({"metadata": {"name": "milan"}})));
        assert_eq!(selector.name(), Some("rome"));
        assert!(Selector::parse("", "spec.join=true", &offered).is_err());
    }
}
