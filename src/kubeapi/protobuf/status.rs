//! A Status as protobuf, for clients that accept nothing else: the only message that is written.

use super::MAGIC;
use crate::kubeapi::tree::Tree;
use serde_json::Value;

/// Encodes a Status object in its envelope, as the generated code of Kubernetes does: empty texts are written.
pub(in crate::kubeapi) fn encode_status(status: &Value) -> Vec<u8> {
    let mut kind = texts(status, &[(1, "apiVersion"), (2, "kind")]);
    let mut message = field(1, &[field(1, b""), field(2, b""), field(3, b"")].concat());
    message.extend(texts(
        status,
        &[(2, "status"), (3, "message"), (4, "reason")],
    ));
    if status.get("details").is_some() {
        message.extend(field(5, &details(status.field("details"))));
    }
    message.extend(integer(6, status.field("code")));
    kind = field(1, &kind);
    [
        MAGIC,
        &kind,
        &field(2, &message),
        &field(3, b""),
        &field(4, b""),
    ]
    .concat()
}

fn details(details: &Value) -> Vec<u8> {
    let mut message = texts(details, &[(1, "name"), (2, "group"), (3, "kind")]);
    for cause in details.field("causes").as_array().into_iter().flatten() {
        let cause = texts(cause, &[(1, "reason"), (2, "message"), (3, "field")]);
        message.extend(field(4, &cause));
    }
    message.extend(integer(5, details.field("retryAfterSeconds")));
    message.extend(texts(details, &[(6, "uid")]));
    message
}

fn texts(object: &Value, fields: &[(u8, &str)]) -> Vec<u8> {
    fields
        .iter()
        .flat_map(|(number, name)| field(*number, object.text(name).as_bytes()))
        .collect()
}

fn integer(number: u8, value: &Value) -> Vec<u8> {
    let mut bytes = vec![number << 3];
    bytes.extend(varint(value.as_u64().unwrap_or(0)));
    bytes
}

/// A field with a length; all numbers of fields here fit into one byte.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let length = u64::try_from(content.len()).unwrap_or(u64::MAX);
    let mut bytes = vec![number << 3 | 2];
    bytes.extend(varint(length));
    bytes.extend_from_slice(content);
    bytes
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let low = u8::try_from(number & 0x7f).unwrap_or(0x7f)
        && number > 0x7f
    {
        bytes.push(low | 0x80);
        number >>= 7;
    }
    bytes.push(u8::try_from(number).unwrap_or(0x7f));
    bytes
}

#[cfg(test)]
mod tests {
    use super::{super::*, *};

    #[test]
    fn a_status_is_read_back_as_it_was_written() {
        let cause: &Message = &[
            (1, "reason", Type::Text),
            (2, "message", Type::Text),
            (3, "field", Type::Text),
        ];
        let details: &Message = &[
            (1, "name", Type::Text),
            (2, "group", Type::Text),
            (3, "kind", Type::Text),
            (4, "causes", Type::Objects(leak(cause))),
            (5, "retryAfterSeconds", Type::Integer),
        ];
        let message: &Message = &[
            (2, "status", Type::Text),
            (3, "message", Type::Text),
            (4, "reason", Type::Text),
            (5, "details", Type::Object(leak(details))),
            (6, "code", Type::Integer),
        ];
        let long = "x".repeat(300);
        let status = json!({"apiVersion": "v1", "kind": "Status", "status": "Failure",
            "message": long, "reason": "Timeout", "code": 504,
            "details": {"name": "a", "group": "b", "kind": "c", "retryAfterSeconds": 1,
                "causes": [{"reason": "r", "message": "m", "field": "f"}]}});
        assert_eq!(decode(&encode_status(&status), message).unwrap(), status);
    }

    fn leak(message: &Message) -> &'static Message {
        Box::leak(message.to_vec().into_boxed_slice())
    }
}
