//! Reads and writes fields of JSON trees; what is not there is null, and nothing panics.

use serde_json::{Map, Value};

static NULL: Value = Value::Null;

/// Access to a JSON tree of which nothing is known yet.
pub(super) trait Tree {
    /// The field of this name, or null.
    fn field(&self, name: &str) -> &Value;

    /// The text of the field of this name, or an empty one.
    fn text(&self, name: &str) -> &str;

    /// Puts a value at the end of a path; what is in its way gives way.
    fn set(&mut self, path: &[&str], value: Value);
}

impl Tree for Value {
    fn field(&self, name: &str) -> &Value {
        self.get(name).unwrap_or(&NULL)
    }

    fn text(&self, name: &str) -> &str {
        self.field(name).as_str().unwrap_or_default()
    }

    fn set(&mut self, path: &[&str], value: Value) {
        let Some((name, rest)) = path.split_first() else {
            *self = value;
            return;
        };
        if !self.is_object() {
            *self = Self::Object(Map::new());
        }
        if let Some(fields) = self.as_object_mut() {
            fields.entry(*name).or_insert(Self::Null).set(rest, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_in_the_way_of_a_path_gives_way() {
        let mut tree = json!({"metadata": {"labels": "none"}});
        tree.set(&["metadata", "labels", "a"], json!("b"));
        assert_eq!(tree, json!({"metadata": {"labels": {"a": "b"}}}));
        assert_eq!(tree.field("metadata").field("labels").text("a"), "b");
        assert_eq!(tree.field("spec").field("join"), &Value::Null);
    }
}
