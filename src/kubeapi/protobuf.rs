//! The protobuf bodies that kubectl 1.32 and newer sends for a few built-in kinds, and refusals in protobuf.

mod status;

pub(super) use status::encode_status;

use base64::Engine;
use serde_json::{Map, Value, json};

/// The content type of these bodies.
pub(super) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

const MAGIC: &[u8] = b"k8s\0";

/// The fields of a message that are understood: number, JSON name, type.
pub(super) type Message = [(u64, &'static str, Type)];

/// How a field is encoded, and what it becomes in JSON.
#[derive(Debug, Clone, Copy)]
pub(super) enum Type {
    Text,
    Texts,
    Integer,
    Boolean,
    Object(&'static Message),
    Objects(&'static Message),
    /// `map<string, string>`.
    TextMap,
    /// `map<string, bytes>`, as base64.
    BytesMap,
    /// A time as seconds and nanoseconds.
    Time,
}

const OWNER: &Message = &[
    (5, "apiVersion", Type::Text),
    (1, "kind", Type::Text),
    (3, "name", Type::Text),
    (4, "uid", Type::Text),
    (6, "controller", Type::Boolean),
    (7, "blockOwnerDeletion", Type::Boolean),
];

const METADATA: &Message = &[
    (1, "name", Type::Text),
    (2, "generateName", Type::Text),
    (3, "namespace", Type::Text),
    (5, "uid", Type::Text),
    (6, "resourceVersion", Type::Text),
    (8, "creationTimestamp", Type::Time),
    (11, "labels", Type::TextMap),
    (12, "annotations", Type::TextMap),
    (13, "ownerReferences", Type::Objects(OWNER)),
    (14, "finalizers", Type::Texts),
];

/// core/v1 Namespace.
pub(super) const NAMESPACE: &Message = &[
    (1, "metadata", Type::Object(METADATA)),
    (2, "spec", Type::Object(&[(1, "finalizers", Type::Texts)])),
];

/// core/v1 ConfigMap.
pub(super) const CONFIG_MAP: &Message = &[
    (1, "metadata", Type::Object(METADATA)),
    (2, "data", Type::TextMap),
    (3, "binaryData", Type::BytesMap),
    (4, "immutable", Type::Boolean),
];

/// core/v1 Secret.
pub(super) const SECRET: &Message = &[
    (1, "metadata", Type::Object(METADATA)),
    (2, "data", Type::BytesMap),
    (3, "type", Type::Text),
    (4, "stringData", Type::TextMap),
    (5, "immutable", Type::Boolean),
];

const RULE: &Message = &[
    (1, "verbs", Type::Texts),
    (2, "apiGroups", Type::Texts),
    (3, "resources", Type::Texts),
    (4, "resourceNames", Type::Texts),
    (5, "nonResourceURLs", Type::Texts),
];

const LABEL_SELECTOR: &Message = &[
    (1, "matchLabels", Type::TextMap),
    (
        2,
        "matchExpressions",
        Type::Objects(&[
            (1, "key", Type::Text),
            (2, "operator", Type::Text),
            (3, "values", Type::Texts),
        ]),
    ),
];

/// rbac.authorization.k8s.io/v1 Role and ClusterRole, of which only the latter has the last field.
pub(super) const ROLE: &Message = &[
    (1, "metadata", Type::Object(METADATA)),
    (2, "rules", Type::Objects(RULE)),
    (
        3,
        "aggregationRule",
        Type::Object(&[(1, "clusterRoleSelectors", Type::Objects(LABEL_SELECTOR))]),
    ),
];

/// rbac.authorization.k8s.io/v1 RoleBinding and ClusterRoleBinding.
pub(super) const BINDING: &Message = &[
    (1, "metadata", Type::Object(METADATA)),
    (
        2,
        "subjects",
        Type::Objects(&[
            (1, "kind", Type::Text),
            (2, "apiGroup", Type::Text),
            (3, "name", Type::Text),
            (4, "namespace", Type::Text),
        ]),
    ),
    (
        3,
        "roleRef",
        Type::Object(&[
            (1, "apiGroup", Type::Text),
            (2, "kind", Type::Text),
            (3, "name", Type::Text),
        ]),
    ),
];

/// core/v1 ObjectReference.
const OBJECT: &Message = &[
    (1, "kind", Type::Text),
    (2, "namespace", Type::Text),
    (3, "name", Type::Text),
    (4, "uid", Type::Text),
    (5, "apiVersion", Type::Text),
    (6, "resourceVersion", Type::Text),
    (7, "fieldPath", Type::Text),
];

/// core/v1 ServiceAccount.
pub(super) const SERVICE_ACCOUNT: &Message = &[
    (1, "metadata", Type::Object(METADATA)),
    (2, "secrets", Type::Objects(OBJECT)),
    (
        3,
        "imagePullSecrets",
        Type::Objects(&[(1, "name", Type::Text)]),
    ),
    (4, "automountServiceAccountToken", Type::Boolean),
];

/// authorization.k8s.io/v1 SelfSubjectAccessReview.
pub(super) const ACCESS_REVIEW: &Message = &[(
    2,
    "spec",
    Type::Object(&[
        (
            1,
            "resourceAttributes",
            Type::Object(&[
                (1, "namespace", Type::Text),
                (2, "verb", Type::Text),
                (3, "group", Type::Text),
                (4, "version", Type::Text),
                (5, "resource", Type::Text),
                (6, "subresource", Type::Text),
                (7, "name", Type::Text),
            ]),
        ),
        (
            2,
            "nonResourceAttributes",
            Type::Object(&[(1, "path", Type::Text), (2, "verb", Type::Text)]),
        ),
    ]),
)];

/// authorization.k8s.io/v1 SelfSubjectRulesReview.
pub(super) const RULES_REVIEW: &Message =
    &[(2, "spec", Type::Object(&[(1, "namespace", Type::Text)]))];

/// authentication.k8s.io/v1 SelfSubjectReview.
pub(super) const SUBJECT_REVIEW: &Message = &[];

/// meta/v1 DeleteOptions.
pub(super) const DELETE_OPTIONS: &Message = &[
    (1, "gracePeriodSeconds", Type::Integer),
    (
        2,
        "preconditions",
        Type::Object(&[(1, "uid", Type::Text), (2, "resourceVersion", Type::Text)]),
    ),
    (3, "orphanDependents", Type::Boolean),
    (4, "propagationPolicy", Type::Text),
    (5, "dryRun", Type::Texts),
];

/// Tells why a body is no protobuf object.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum Malformed {
    #[error("the protobuf body does not begin with k8s")]
    Magic,
    #[error("the protobuf body ends in the middle of a field")]
    Short,
    #[error("the protobuf body has a field of an unknown type")]
    Wire,
    #[error("the protobuf body has a text that is not UTF-8")]
    Text,
}

/// Decodes an object in its envelope, which says its apiVersion and kind.
pub(super) fn decode(bytes: &[u8], message: &Message) -> Result<Value, Malformed> {
    let envelope = bytes.strip_prefix(MAGIC).ok_or(Malformed::Magic)?;
    let mut header = Map::new();
    let mut raw: &[u8] = &[];
    each_field(envelope, |number, field| {
        match (number, field) {
            (1, Field::Bytes(bytes)) => {
                let names: &Message = &[(1, "apiVersion", Type::Text), (2, "kind", Type::Text)];
                header = object(bytes, names)?;
            }
            (2, Field::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
        Ok(())
    })?;
    let mut decoded = object(raw, message)?;
    decoded.append(&mut header);
    Ok(Value::Object(decoded))
}

enum Field<'a> {
    Integer(u64),
    Bytes(&'a [u8]),
}

fn object(bytes: &[u8], message: &Message) -> Result<Map<String, Value>, Malformed> {
    let mut decoded = Map::new();
    each_field(bytes, |number, field| {
        if let Some((_, name, kind)) = message.iter().find(|(known, ..)| *known == number) {
            put(&mut decoded, name, *kind, &field)?;
        }
        Ok(())
    })?;
    Ok(decoded)
}

fn put(
    decoded: &mut Map<String, Value>,
    name: &str,
    kind: Type,
    field: &Field<'_>,
) -> Result<(), Malformed> {
    let value = match (kind, field) {
        (Type::Text | Type::Texts, Field::Bytes(bytes)) => json!(text(bytes)?),
        (Type::Integer, Field::Integer(number)) => json!(number.cast_signed()),
        (Type::Boolean, Field::Integer(number)) => json!(*number != 0),
        (Type::Object(message) | Type::Objects(message), Field::Bytes(bytes)) => {
            Value::Object(object(bytes, message)?)
        }
        (Type::TextMap, Field::Bytes(bytes)) => {
            let (key, value) = entry(bytes)?;
            json!({ text(key)?: text(value)? })
        }
        (Type::BytesMap, Field::Bytes(bytes)) => {
            let (key, value) = entry(bytes)?;
            json!({ text(key)?: base64::engine::general_purpose::STANDARD.encode(value) })
        }
        (Type::Time, Field::Bytes(bytes)) => match time(bytes)? {
            Some(time) => time,
            None => return Ok(()),
        },
        _ => return Err(Malformed::Wire),
    };
    match (kind, decoded.get_mut(name), value) {
        (Type::Texts | Type::Objects(_), Some(Value::Array(list)), value) => list.push(value),
        (Type::Texts | Type::Objects(_), _, value) => {
            decoded.insert(name.to_owned(), Value::Array(vec![value]));
        }
        (Type::TextMap | Type::BytesMap, Some(Value::Object(map)), Value::Object(mut value)) => {
            map.append(&mut value);
        }
        (_, _, value) if value == "" => {}
        (_, _, value) => {
            decoded.insert(name.to_owned(), value);
        }
    }
    Ok(())
}

fn entry(bytes: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let mut pair: (&[u8], &[u8]) = (&[], &[]);
    each_field(bytes, |number, field| {
        if let Field::Bytes(bytes) = field {
            if number == 1 {
                pair.0 = bytes;
            } else if number == 2 {
                pair.1 = bytes;
            }
        }
        Ok(())
    })?;
    Ok(pair)
}

fn time(bytes: &[u8]) -> Result<Option<Value>, Malformed> {
    let mut seconds = None;
    each_field(bytes, |number, field| {
        if let (1, Field::Integer(value)) = (number, field) {
            seconds = Some(value.cast_signed());
        }
        Ok(())
    })?;
    Ok(seconds
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
        .map(|time| json!(time.to_string())))
}

fn text(bytes: &[u8]) -> Result<String, Malformed> {
    let text = std::str::from_utf8(bytes).map_err(|_| Malformed::Text)?;
    Ok(text.to_owned())
}

fn each_field<'a>(
    mut rest: &'a [u8],
    mut visit: impl FnMut(u64, Field<'a>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    while !rest.is_empty() {
        let (tag, after) = varint(rest)?;
        rest = after;
        let field = match tag & 7 {
            0 => {
                let (number, after) = varint(rest)?;
                rest = after;
                Field::Integer(number)
            }
            2 => {
                let (length, after) = varint(rest)?;
                let length = usize::try_from(length).map_err(|_| Malformed::Short)?;
                let (bytes, after) = after.split_at_checked(length).ok_or(Malformed::Short)?;
                rest = after;
                Field::Bytes(bytes)
            }
            1 => {
                rest = rest.split_at_checked(8).ok_or(Malformed::Short)?.1;
                continue;
            }
            5 => {
                rest = rest.split_at_checked(4).ok_or(Malformed::Short)?.1;
                continue;
            }
            _ => return Err(Malformed::Wire),
        };
        visit(tag >> 3, field)?;
    }
    Ok(())
}

fn varint(bytes: &[u8]) -> Result<(u64, &[u8]), Malformed> {
    let mut number = 0_u64;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        number |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let (_, rest) = bytes.split_at_checked(index + 1).ok_or(Malformed::Short)?;
            return Ok((number, rest));
        }
    }
    Err(Malformed::Short)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let length = u8::try_from(content.len()).unwrap();
        [&[number << 3 | 2, length], content].concat()
    }

    fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let header = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
        [MAGIC, &field(1, &header), &field(2, raw)].concat()
    }

    #[test]
    fn a_secret_is_decoded_with_its_data_as_base64() {
        let metadata = [field(1, b"token"), field(3, b"")].concat();
        let entry = [field(1, b"key"), field(2, b"value")].concat();
        let raw = [field(1, &metadata), field(2, &entry), field(3, b"Opaque")].concat();
        let decoded = decode(&envelope("v1", "Secret", &raw), SECRET).unwrap();
        assert_eq!(
            decoded,
            json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque",
                "metadata": {"name": "token"}, "data": {"key": "dmFsdWU="}})
        );
    }

    #[test]
    fn a_cluster_role_is_decoded_with_what_it_gathers() {
        let label = [field(1, b"team"), field(2, b"red")].concat();
        let term = [field(1, b"k"), field(2, b"In"), field(3, b"v")].concat();
        let selector = [field(1, &label), field(2, &term)].concat();
        let raw = field(3, &field(1, &selector));
        let decoded = decode(&envelope("v1", "ClusterRole", &raw), ROLE).unwrap();
        assert_eq!(
            decoded["aggregationRule"],
            json!({"clusterRoleSelectors": [{"matchLabels": {"team": "red"},
                "matchExpressions": [{"key": "k", "operator": "In", "values": ["v"]}]}]})
        );
    }

    #[test]
    fn a_body_that_is_cut_off_is_refused_or_lacks_its_end() {
        let metadata = field(1, b"team");
        let whole = envelope("v1", "Namespace", &field(1, &metadata));
        for length in 0..whole.len() {
            let decoded = decode(&whole[..length], NAMESPACE);
            assert!(decoded.is_err() || decoded.unwrap()["metadata"]["name"] != "team");
        }
    }
}
