//! The part of JSONPath that printer columns use: fields, indices, slices, wildcards and equality filters.

use serde_json::Value;

/// A parsed path such as `.status.conditions[?(@.type=="Ready")].status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct JsonPath(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Field(String),
    /// An item, from the end when it is negative.
    Index(i64),
    /// The items from the first up to the second, either from the end when it is negative.
    Slice(i64, i64),
    All,
    Where(JsonPath, String),
}

impl JsonPath {
    /// Parses a path; `None` when it is not of the understood part.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim().trim_start_matches('{').trim_end_matches('}');
        let mut rest = text.trim_start_matches('$');
        let mut steps = Vec::new();
        while !rest.is_empty() {
            let (step, after) = if let Some(inner) = rest.strip_prefix('[') {
                let end = closing(inner)?;
                let (content, after) = inner.split_at_checked(end)?;
                (bracket(content)?, after.strip_prefix(']')?)
            } else {
                let (name, after) = field(rest.strip_prefix('.').unwrap_or(rest));
                let step = if name == "*" {
                    Step::All
                } else {
                    Step::Field(name)
                };
                (step, after)
            };
            if step != Step::Field(String::new()) {
                steps.push(step);
            }
            rest = after;
        }
        Some(Self(steps))
    }

    /// The first value at this path.
    pub(super) fn find<'a>(&self, root: &'a Value) -> Option<&'a Value> {
        let mut found = vec![root];
        for step in &self.0 {
            found = found
                .into_iter()
                .flat_map(|value| step.apply(value))
                .collect();
        }
        found.into_iter().next()
    }
}

impl Step {
    fn apply<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match self {
            Self::Field(name) => value.get(name).into_iter().collect(),
            Self::Index(index) => {
                let item = |items: &'a Vec<Value>| items.get(place(*index, items.len())?);
                value.as_array().and_then(item).into_iter().collect()
            }
            Self::Slice(first, end) => {
                let items = value.as_array().map_or(&[][..], Vec::as_slice);
                let place = |index: i64| place(index, items.len()).unwrap_or(0);
                let taken = items.iter().take(place(*end)).skip(place(*first));
                taken.collect()
            }
            Self::All => match value {
                Value::Array(items) => items.iter().collect(),
                Value::Object(fields) => fields.values().collect(),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
            },
            Self::Where(path, wanted) => value
                .as_array()
                .into_iter()
                .flatten()
                .filter(|item| path.find(item).is_some_and(|found| plain(found) == *wanted))
                .collect(),
        }
    }
}

/// A value as text, without the quotes of a string.
pub(super) fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// Where an index leads in a list of this length, if that is not before its beginning.
fn place(index: i64, length: usize) -> Option<usize> {
    let distance = usize::try_from(index.unsigned_abs()).ok()?;
    if index < 0 {
        length.checked_sub(distance)
    } else {
        Some(distance)
    }
}

fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    for (index, letter) in text.char_indices() {
        match (quote, letter) {
            (None, '"' | '\'') => quote = Some(letter),
            (None, ']') => return Some(index),
            (Some(open), letter) if open == letter => quote = None,
            _ => {}
        }
    }
    None
}

fn bracket(content: &str) -> Option<Step> {
    let content = content.trim();
    if content == "*" {
        return Some(Step::All);
    }
    if let Ok(index) = content.parse() {
        return Some(Step::Index(index));
    }
    if let Some((first, end)) = content.split_once(':')
        && let Some(first) = bound(first, 0)
        && let Some(end) = bound(end, i64::MAX)
    {
        return Some(Step::Slice(first, end));
    }
    if let Some(condition) = content
        .strip_prefix("?(@")
        .and_then(|rest| rest.strip_suffix(')'))
    {
        let (path, wanted) = condition.split_once("==")?;
        let wanted = wanted.trim().trim_matches(['"', '\'']).to_owned();
        return Some(Step::Where(JsonPath::parse(path)?, wanted));
    }
    let name = content.trim_matches(['"', '\'']);
    (name.len() + 2 == content.len()).then(|| Step::Field(name.to_owned()))
}

/// A bound of a slice, or the usual one where it is left out.
fn bound(text: &str, usual: i64) -> Option<i64> {
    let text = text.trim();
    if text.is_empty() {
        return Some(usual);
    }
    text.parse().ok()
}

fn field(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut letters = text.char_indices();
    while let Some((index, letter)) = letters.next() {
        if letter == '\\' {
            name.extend(letters.next().map(|(_, escaped)| escaped));
        } else if matches!(letter, '.' | '[') {
            return (name, text.split_at(index).1);
        } else {
            name.push(letter);
        }
    }
    (name, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(path: &str, value: &Value) -> Option<Value> {
        JsonPath::parse(path)?.find(value).cloned()
    }

    #[test]
    fn fields_indices_and_filters_are_followed() {
        let value = json!({"status": {"conditions": [
            {"type": "A", "status": "False"}, {"type": "Ready", "status": "True"}]},
            "metadata": {"annotations": {"a.b/c": "x"}}});
        assert_eq!(
            at(".status.conditions[?(@.type==\"Ready\")].status", &value),
            Some(json!("True"))
        );
        assert_eq!(at(".status.conditions[0].type", &value), Some(json!("A")));
        assert_eq!(
            at(".metadata.annotations['a.b/c']", &value),
            Some(json!("x"))
        );
        assert_eq!(
            at(r".metadata.annotations.a\.b/c", &value),
            Some(json!("x"))
        );
        assert_eq!(at(".status.nothing", &value), None);
    }

    #[test]
    fn items_are_counted_from_the_end_too() {
        let value = json!({"list": [1, 2, 3, 4]});
        for (path, first) in [
            (".list[-1]", Some(4)),
            (".list[-1:]", Some(4)),
            (".list[1:]", Some(2)),
            (".list[:2]", Some(1)),
            (".list[-3:-1]", Some(2)),
            (".list[-9:]", Some(1)),
            (".list[-5]", None),
            (".list[4]", None),
            (".list[3:1]", None),
        ] {
            assert_eq!(at(path, &value), first.map(|first| json!(first)), "{path}");
        }
    }

    #[test]
    fn a_path_without_an_end_is_not_understood() {
        assert_eq!(JsonPath::parse(".a[0"), None);
        assert_eq!(JsonPath::parse(".a[b]"), None);
    }
}
