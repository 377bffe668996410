//! How deep and how large an object may become, whatever it is made of.

use super::refusal::Refusal;
use serde_json::Value;
use std::fmt::{self, Display, Write};

/// How many levels an object may have. A reader of JSON takes 128, and lists and watches put an
/// object a few levels down.
pub(super) const LEVELS: usize = 100;

/// How many bytes an object may have, about: what etcd takes of a real server (1.5 MiB).
const BYTES: usize = 3 * 512 * 1024;

/// How many unknown, doubled and wrong fields a client is told of at most: a real server stops
/// decoding there.
pub(super) const COMPLAINTS: usize = 100;

/// How many bytes of a value a client is told.
const QUOTED: usize = 1_024;

/// What a value counts for besides its text.
pub(super) const OVERHEAD: usize = 4;

/// Refuses an object that could not be read again, or that takes more room than one may.
pub(super) fn check(object: &Value) -> Result<(), Refusal> {
    let bytes = weigh(object, LEVELS).ok_or_else(Refusal::too_deep)?;
    if bytes > BYTES {
        return Err(Refusal::object_too_large());
    }
    Ok(())
}

/// About how many bytes a value has; none when it has more levels than these.
pub(super) fn weigh(value: &Value, levels: usize) -> Option<usize> {
    let below = || levels.checked_sub(1);
    let content = match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => OVERHEAD,
        Value::String(text) => text.len(),
        Value::Array(items) => {
            let levels = below()?;
            let mut items = items.iter();
            items.try_fold(0, |sum, item| Some(sum + weigh(item, levels)?))?
        }
        Value::Object(fields) => {
            let levels = below()?;
            let mut fields = fields.iter();
            fields.try_fold(0, |sum, (name, field)| {
                Some(sum + OVERHEAD + name.len() + weigh(field, levels)?)
            })?
        }
    };
    Some(OVERHEAD + content)
}

/// A value as a complaint quotes it: a long one only by its beginning.
pub(super) fn quote(value: &impl Display) -> String {
    let mut quoted = Quoted(String::new());
    if write!(quoted, "{value}").is_err() {
        quoted.0.push_str("...");
    }
    quoted.0
}

/// A text that takes no more than is quoted.
struct Quoted(String);

impl Write for Quoted {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = QUOTED - self.0.len();
        let part = text.get(..text.floor_char_boundary(room));
        let part = part.unwrap_or_default();
        self.0.push_str(part);
        if part.len() < text.len() {
            return Err(fmt::Error);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn nested(levels: usize) -> Value {
        (0..levels).fold(json!(1), |inner, level| {
            if level % 2 == 0 {
                json!([inner])
            } else {
                json!({"a": inner})
            }
        })
    }

    #[test]
    fn what_is_too_deep_or_too_large_is_refused() {
        assert!(check(&nested(LEVELS)).is_ok());
        let refusal = check(&nested(LEVELS + 1)).unwrap_err();
        assert_eq!(refusal.status()["code"], 400);
        assert!(check(&json!({"a": "x".repeat(BYTES - 100)})).is_ok());
        let refusal = check(&json!({"a": "x".repeat(BYTES)})).unwrap_err();
        assert_eq!(refusal.status()["code"], 413);
    }

    #[test]
    fn of_a_long_value_the_beginning_is_quoted() {
        assert_eq!(quote(&json!({"a": [1, "x"]})), r#"{"a":[1,"x"]}"#);
        let long = quote(&json!(["ä".repeat(QUOTED)]));
        assert!(long.starts_with("[\"ää") && long.ends_with("ä..."));
        assert!(long.len() <= QUOTED + 3, "{}", long.len());
    }

    #[test]
    fn the_weight_is_near_the_length_of_the_text() {
        let object = json!({"metadata": {"name": "rome", "labels": {"a": "b"}}, "spec": {"join": true, "list": [1, 2]}});
        let weight = weigh(&object, LEVELS).unwrap();
        let length = object.to_string().len();
        assert!(
            weight > length / 2 && weight < 2 * length,
            "{weight} {length}"
        );
    }
}
