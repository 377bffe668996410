//! Reads request bodies: JSON with its duplicate keys noticed, YAML and the protobuf of kubectl.

use super::{
    bounds::COMPLAINTS,
    catalog::Resource,
    path::Path,
    protobuf::{self, Message},
    refusal::Refusal,
};
use crate::kubeapi::tree::Tree;
use axum::body::{Body, Bytes};
use futures::StreamExt;
use serde::{
    Deserializer,
    de::{DeserializeSeed, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};
use std::{
    cell::RefCell,
    fmt::{self, Write},
    time::Duration,
};
use tokio::time::timeout;

const LARGEST: usize = 3 * 1024 * 1024;

/// How much of a body that is too large is read and thrown away: many clients look at an answer only
/// when they have sent everything.
const HEARD_OUT: usize = 32 * 1024 * 1024;

/// How many bytes of a body that makes no sense are quoted.
const QUOTED: usize = 30;

/// How long a body may take to arrive, as long as a real server takes for a whole request.
const PATIENCE: Duration = Duration::from_mins(1);

/// Reads a whole body, up to the size that a real server takes.
pub(super) async fn read(body: Body) -> Result<Bytes, Refusal> {
    timeout(PATIENCE, collect(body))
        .await
        .map_err(|_| Refusal::too_slow())?
}

async fn collect(body: Body) -> Result<Bytes, Refusal> {
    let mut body = body.into_data_stream();
    let mut collected = Vec::new();
    let mut length = 0;
    while let Some(part) = body.next().await {
        let part = part.map_err(|error| {
            Refusal::bad_request(format!("the body of the request broke off: {error}"))
        })?;
        length += part.len();
        if length <= LARGEST {
            collected.extend_from_slice(&part);
        } else if length <= HEARD_OUT {
            collected = Vec::new();
        } else {
            break;
        }
    }
    if length <= LARGEST {
        Ok(Bytes::from(collected))
    } else {
        Err(Refusal::too_large())
    }
}

/// How a body begins, as a real server quotes it: as text if it may be JSON, or else in hex.
fn beginning(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "<empty>".to_owned();
    }
    let start: Vec<u8> = bytes.iter().copied().take(QUOTED).collect();
    let text = if start.first() == Some(&b'{') {
        String::from_utf8_lossy(&start).into_owned()
    } else {
        start.iter().fold(String::new(), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    };
    let more = if bytes.len() > QUOTED { " ..." } else { "" };
    format!("{text}{more}")
}

/// An object as it was sent, and the keys that stood twice in it.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) object: Value,
    pub(super) duplicates: Vec<String>,
}

/// Reads an object of this resource, as its content type says (JSON when it says nothing).
pub(super) fn parse_for(
    resource: &Resource,
    content_type: &str,
    bytes: &[u8],
) -> Result<Parsed, Refusal> {
    let version = resource.is_built_in().then(|| resource.api_version());
    parse(
        content_type,
        bytes,
        &resource.kind,
        version.as_deref(),
        resource.message,
    )
}

/// Reads an object; one of a built-in kind of this version need not say what it is.
fn parse(
    content_type: &str,
    bytes: &[u8],
    kind: &str,
    version: Option<&str>,
    message: Option<&'static Message>,
) -> Result<Parsed, Refusal> {
    let unrecognised = |why: String| {
        let begin = beginning(bytes);
        Refusal::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): {why} ({begin})"
        ))
    };
    let media = content_type.split(';').next().unwrap_or_default().trim();
    let mut parsed = match (media, message) {
        ("" | "application/json" | "application/x-www-form-urlencoded", _) => {
            json(bytes).map_err(|error| {
                let why = if error.is_eof() {
                    "unexpected end of JSON input".to_owned()
                } else {
                    error.to_string()
                };
                unrecognised(format!(
                    "couldn't get version/kind; json parse error: {why}"
                ))
            })?
        }
        ("application/yaml", _) => Parsed {
            object: yaml(bytes).map_err(unrecognised)?,
            duplicates: Vec::new(),
        },
        (protobuf::MEDIA_TYPE, Some(message)) => Parsed {
            object: protobuf::decode(bytes, message)
                .map_err(|error| unrecognised(error.to_string()))?,
            duplicates: Vec::new(),
        },
        // A real server names all three, also for kinds that it does not read as protobuf.
        _ => {
            return Err(Refusal::unsupported_media(&[
                "application/json",
                "application/yaml",
                protobuf::MEDIA_TYPE,
            ]));
        }
    };
    if let (Some(version), Some(fields)) = (version, parsed.object.as_object_mut()) {
        for (field, value) in [("apiVersion", version), ("kind", kind)] {
            fields.entry(field).or_insert_with(|| Value::from(value));
        }
    }
    if parsed
        .object
        .field("kind")
        .as_str()
        .is_none_or(str::is_empty)
    {
        let text = String::from_utf8_lossy(bytes);
        return Err(unrecognised(format!(
            "Object 'Kind' is missing in '{text}'"
        )));
    }
    Ok(parsed)
}

/// Reads YAML, with the booleans of YAML 1.1 as kubectl has them.
pub(super) fn yaml(bytes: &[u8]) -> Result<Value, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    serde_saphyr::from_str(text).map_err(|error| format!("yaml parse error: {error}"))
}

/// Reads JSON, of whatever it is.
pub(super) fn json(bytes: &[u8]) -> serde_json::Result<Parsed> {
    let duplicates = RefCell::new(Vec::new());
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let object = Node {
        path: Path::Root,
        duplicates: &duplicates,
    }
    .deserialize(&mut deserializer)?;
    deserializer.end()?;
    let mut duplicates = duplicates.into_inner();
    duplicates.sort_unstable();
    duplicates.dedup();
    Ok(Parsed { object, duplicates })
}

struct Node<'a> {
    path: Path<'a>,
    /// One for each time that is noted, so that one key cannot be written out half a million times.
    duplicates: &'a RefCell<Vec<String>>,
}

impl Node<'_> {
    fn note(&self, path: Path<'_>) {
        let mut duplicates = self.duplicates.borrow_mut();
        if duplicates.len() < COMPLAINTS {
            duplicates.push(path.to_string());
        }
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Node {
            path: Path::Item(&self.path, list.len()),
            duplicates: self.duplicates,
        })? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(name) = entries.next_key::<String>()? {
            let path = Path::Field(&self.path, &name);
            if fields.contains_key(&name) {
                self.note(path);
            }
            let value = entries.next_value_seed(Node {
                path,
                duplicates: self.duplicates,
            })?;
            fields.insert(name, value);
        }
        Ok(Value::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_body_that_makes_no_sense_only_the_beginning_is_quoted() {
        assert_eq!(beginning(b""), "<empty>");
        assert_eq!(beginning(b"{\"a\":"), "{\"a\":");
        assert_eq!(beginning(b"\xff\x00"), "ff00");
        let long = format!("{{{}", "x".repeat(1_000_000));
        assert_eq!(
            beginning(long.as_bytes()),
            format!("{{{} ...", "x".repeat(29))
        );
    }

    #[test]
    fn duplicate_keys_are_noticed_with_their_path() {
        let parsed =
            json(br#"{"kind": "A", "spec": {"url": "x", "url": "y", "n": [1, 2.5, null]}}"#)
                .unwrap();
        assert_eq!(parsed.duplicates, ["spec.url"]);
        assert_eq!(parsed.object["spec"]["url"], "y");
    }

    #[test]
    fn of_many_duplicate_keys_below_a_long_one_little_is_kept() {
        let long = "x".repeat(100_000);
        let twice: Vec<String> = (0..1_000)
            .map(|number| format!(r#""{number}":0,"{number}":0"#))
            .collect();
        let body = format!(r#"{{"kind":"A","{long}":{{{}}}}}"#, twice.join(","));
        let duplicates = json(body.as_bytes()).unwrap().duplicates;
        assert_eq!(duplicates.len(), COMPLAINTS);
        assert!(duplicates.concat().len() < 100_000);
    }

    #[test]
    fn of_a_key_that_stands_there_very_often_little_is_made() {
        let often = r#","a":0"#.repeat(1_000);
        let body = format!(r#"{{"kind":"A","a":0{often},"b":0,"b":0}}"#);
        assert_eq!(json(body.as_bytes()).unwrap().duplicates, ["a"]);
    }

    #[test]
    fn yaml_and_no_content_type_are_understood() {
        let yaml = parse(
            "application/yaml",
            b"kind: A\nmetadata: {name: x}\n",
            "A",
            None,
            None,
        )
        .unwrap();
        assert_eq!(yaml.object["metadata"]["name"], "x");
        let json = parse("", br#"{"kind": "A"}"#, "A", None, None).unwrap();
        assert_eq!(json.object["kind"], "A");
    }

    #[test]
    fn an_object_of_a_built_in_kind_need_not_say_so() {
        let parsed = parse("", br#"{"metadata": {}}"#, "A", Some("v1"), None).unwrap();
        assert_eq!(parsed.object["kind"], "A");
        assert_eq!(parsed.object["apiVersion"], "v1");
    }

    #[test]
    fn an_object_without_a_kind_is_refused() {
        assert!(parse("application/json", br#"{"metadata": {}}"#, "A", None, None).is_err());
        assert!(parse("text/plain", br#"{"kind": "A"}"#, "A", None, None).is_err());
    }
}
