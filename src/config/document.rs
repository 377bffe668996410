//! A YAML file as a JSON value that knows the line of each key.

use std::{collections::BTreeMap, fmt};

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;

use super::{Error, keys};

/// What a file says.
#[derive(Debug)]
pub(super) struct Document {
    /// The file's name, for messages.
    pub(super) file: String,
    /// The content; an empty file is an empty mapping, and an empty value is no value.
    pub(super) value: Value,
    /// The line of each key, by its dotted path.
    pub(super) lines: BTreeMap<String, u64>,
}

impl Document {
    /// Returns file and line of a key, or of the nearest section around it.
    pub(super) fn place(&self, key: &str) -> String {
        let mut path = key;
        loop {
            if let Some(line) = self.lines.get(path) {
                return format!("{}:{line}", self.file);
            }
            match path.rsplit_once('.') {
                Some((section, _)) => path = section,
                None => return self.file.clone(),
            }
        }
    }
}

/// Reads a file's text. Booleans are `true` and `false` only, so that a cluster may be called `no`.
pub(super) fn parse(file: &str, text: &str) -> Result<Document, Error> {
    let options = serde_saphyr::options! { strict_booleans: true };
    let tree: Option<Tree> =
        serde_saphyr::from_str_with_options(text, options).map_err(|error| syntax(file, &error))?;
    let mut lines = BTreeMap::new();
    let value = match tree {
        None | Some(Tree::Null) => Value::Object(Map::new()),
        Some(tree @ Tree::Mapping(_)) => tree.flatten("", &mut lines),
        Some(Tree::Sequence(_) | Tree::Scalar(_)) => {
            return Err(Error::Syntax {
                place: file.to_owned(),
                message: "expected keys like cluster: or dataDir:".to_owned(),
            });
        }
    };
    Ok(Document {
        file: file.to_owned(),
        value,
        lines,
    })
}

fn syntax(file: &str, error: &serde_saphyr::Error) -> Error {
    let place = match error.location() {
        Some(location) if location.line() > 0 => format!("{file}:{}", location.line()),
        Some(_) | None => file.to_owned(),
    };
    let text = error.without_snippet().to_string();
    let first = text.lines().find(|line| !line.trim().is_empty());
    Error::Syntax {
        place,
        message: format!("not valid YAML: {}", first.unwrap_or("unreadable").trim()),
    }
}

/// A YAML node that keeps the place of each key.
enum Tree {
    Null,
    Scalar(Value),
    Sequence(Vec<Self>),
    Mapping(Vec<(Spanned<String>, Self)>),
}

impl Tree {
    fn flatten(self, path: &str, lines: &mut BTreeMap<String, u64>) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Scalar(value) => value,
            Self::Sequence(items) => Value::Array(
                items
                    .into_iter()
                    .map(|item| item.flatten(path, lines))
                    .collect(),
            ),
            Self::Mapping(entries) => {
                let mut map = Map::new();
                for (key, value) in entries {
                    let path = keys::join(path, &key.value);
                    lines.insert(path.clone(), key.referenced.line());
                    let value = value.flatten(&path, lines);
                    if !value.is_null() {
                        map.insert(key.value, value);
                    }
                }
                Value::Object(map)
            }
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a YAML value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        Tree::deserialize(deserializer)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::Bool(value)))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::from(value)))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::from(value)))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Tree, E> {
        let number = Number::from_f64(value);
        Ok(Tree::Scalar(number.map_or(Value::Null, Value::Number)))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::from(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = sequence.next_element()? {
            items.push(item);
        }
        Ok(Tree::Sequence(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut mapping: A) -> Result<Tree, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = mapping.next_entry()? {
            entries.push(entry);
        }
        Ok(Tree::Mapping(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_knows_its_line() {
        let text = "cluster:\n  name: no\n\ntunnel:\n  {port: 7, mode: off}\n";
        let document = parse("f.yaml", text).expect("valid");
        assert_eq!(
            document.value,
            serde_json::json!({"cluster": {"name": "no"}, "tunnel": {"port": 7, "mode": "off"}})
        );
        assert_eq!(document.place("cluster.name"), "f.yaml:2");
        assert_eq!(document.place("tunnel"), "f.yaml:4");
        assert_eq!(document.place("tunnel.port"), "f.yaml:5");
        assert_eq!(document.place("peer.listen"), "f.yaml");
    }

    #[test]
    fn an_empty_file_and_empty_sections_say_nothing() {
        for text in ["", "# nothing\n", "cluster:\n", "---\n"] {
            assert_eq!(
                parse("f.yaml", text).expect("valid").value,
                serde_json::json!({}),
                "{text:?}"
            );
        }
    }

    #[test]
    fn broken_yaml_is_one_line_with_its_place() {
        for text in [
            "cluster: {name: [",
            "a: b: c",
            "- a\n",
            "cluster: {}\ncluster: {}\n",
        ] {
            let message = parse("f.yaml", text).expect_err(text).to_string();
            assert!(message.starts_with("f.yaml"), "{message}");
            assert!(!message.contains('\n'), "{message}");
        }
    }
}
