//! How deep and how large an object may become, whatever it is made of.

use super::refusal::Refusal;
use serde_json::Value;

/// How many levels an object may have. A reader of JSON takes 128, and lists and watches put an
/// object a few levels down.
pub(super) const LEVELS: usize = 100;

/// How many bytes an object may have, about: what etcd takes of a real server (1.5 MiB).
const BYTES: usize = 3 * 512 * 1024;

/// What a value counts for besides its text.
const OVERHEAD: usize = 4;

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
