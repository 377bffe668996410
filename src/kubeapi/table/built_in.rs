//! The columns that kubectl prints for the built-in kinds.

use super::Column;
use crate::kubeapi::tree::Tree;
use serde_json::{Value, json};

pub(in crate::kubeapi) fn namespaces() -> Vec<Column> {
    vec![
        Column::path("Status", "string", ".status.phase"),
        Column::age(),
    ]
}

pub(in crate::kubeapi) fn nodes() -> Vec<Column> {
    vec![
        Column::computed("Status", "string", node_status),
        Column::computed("Roles", "string", node_roles),
        Column::age(),
        Column::path("Version", "string", ".status.nodeInfo.kubeletVersion"),
        Column::computed("Internal-IP", "string", |node| address(node, "InternalIP")).wide(),
        Column::computed("External-IP", "string", |node| address(node, "ExternalIP")).wide(),
        Column::computed("OS-Image", "string", |node| info(node, "osImage")).wide(),
        Column::computed("Kernel-Version", "string", |node| {
            info(node, "kernelVersion")
        })
        .wide(),
        Column::computed("Container-Runtime", "string", |node| {
            info(node, "containerRuntimeVersion")
        })
        .wide(),
    ]
}

pub(in crate::kubeapi) fn secrets() -> Vec<Column> {
    vec![
        Column::path("Type", "string", ".type"),
        Column::computed("Data", "string", |secret| json!(size(secret.field("data")))),
        Column::age(),
    ]
}

pub(in crate::kubeapi) fn config_maps() -> Vec<Column> {
    vec![
        Column::computed("Data", "string", |map| {
            json!(size(map.field("data")) + size(map.field("binaryData")))
        }),
        Column::age(),
    ]
}

pub(in crate::kubeapi) fn service_accounts() -> Vec<Column> {
    vec![
        Column::computed("Secrets", "string", |account| {
            json!(account.field("secrets").as_array().map_or(0, Vec::len))
        }),
        Column::age(),
    ]
}

pub(in crate::kubeapi) fn roles() -> Vec<Column> {
    vec![Column::computed("Created At", "date", |role| {
        role.field("metadata").field("creationTimestamp").clone()
    })]
}

pub(in crate::kubeapi) fn bindings() -> Vec<Column> {
    vec![
        Column::computed("Role", "string", |binding| {
            let role = binding.field("roleRef");
            json!(format!("{}/{}", role.text("kind"), role.text("name")))
        }),
        Column::age(),
    ]
}

pub(in crate::kubeapi) fn events() -> Vec<Column> {
    vec![
        Column::since("Last Seen", last_seen),
        Column::path("Type", "string", ".type"),
        Column::path("Reason", "string", ".reason"),
        Column::computed("Object", "string", |event| {
            involved(event.field("involvedObject"))
        }),
        Column::path("Subobject", "string", ".involvedObject.fieldPath").wide(),
        Column::computed("Source", "string", |event| {
            json!(either(
                event.field("source").field("component"),
                event.field("reportingComponent")
            ))
        })
        .wide(),
        Column::computed("Message", "string", |event| {
            json!(event.text("message").trim())
        }),
        Column::since("First Seen", first_seen).wide(),
        Column::computed("Count", "string", count).wide(),
    ]
}

pub(in crate::kubeapi) fn new_events() -> Vec<Column> {
    vec![
        Column::since("Last Seen", last_seen),
        Column::path("Type", "string", ".type"),
        Column::path("Reason", "string", ".reason"),
        Column::computed("Object", "string", |event| {
            involved(event.field("regarding"))
        }),
        Column::path("Message", "string", ".note"),
    ]
}

pub(in crate::kubeapi) fn leases() -> Vec<Column> {
    vec![
        Column::path("Holder", "string", ".spec.holderIdentity"),
        Column::age(),
    ]
}

pub(in crate::kubeapi) fn pods() -> Vec<Column> {
    vec![
        Column::computed("Ready", "string", ready_containers),
        Column::path("Status", "string", ".status.phase"),
        Column::computed("Restarts", "string", restarts),
        Column::age(),
    ]
}

pub(in crate::kubeapi) fn definitions() -> Vec<Column> {
    vec![Column::path(
        "Created At",
        "string",
        ".metadata.creationTimestamp",
    )]
}

fn node_status(node: &Value) -> Value {
    let conditions = node.field("status").field("conditions").as_array();
    let ready = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition.field("type") == "Ready")
        .map(|condition| condition.field("status") == "True");
    let mut words = vec![match ready {
        Some(true) => "Ready",
        Some(false) => "NotReady",
        None => "Unknown",
    }];
    if node.field("spec").field("unschedulable") == true {
        words.push("SchedulingDisabled");
    }
    json!(words.join(","))
}

fn node_roles(node: &Value) -> Value {
    let labels = node.field("metadata").field("labels").as_object();
    let roles: Vec<&str> = labels
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| {
            if key == "kubernetes.io/role" {
                value.as_str()
            } else {
                key.strip_prefix("node-role.kubernetes.io/")
            }
        })
        .filter(|role| !role.is_empty())
        .collect();
    if roles.is_empty() {
        json!("<none>")
    } else {
        json!(roles.join(","))
    }
}

fn address(node: &Value, kind: &str) -> Value {
    let addresses = node.field("status").field("addresses").as_array();
    addresses
        .into_iter()
        .flatten()
        .find(|address| address.field("type") == kind)
        .map_or_else(
            || json!("<none>"),
            |address| address.field("address").clone(),
        )
}

fn info(node: &Value, field: &str) -> Value {
    match node.field("status").field("nodeInfo").field(field).as_str() {
        Some(text) if !text.is_empty() => json!(text),
        _ => json!("<unknown>"),
    }
}

fn container_statuses(pod: &Value) -> &[Value] {
    let statuses = pod.field("status").field("containerStatuses").as_array();
    statuses.map_or(&[], Vec::as_slice)
}

fn ready_containers(pod: &Value) -> Value {
    let containers = pod.field("spec").field("containers").as_array();
    let ready = container_statuses(pod).iter();
    let ready = ready.filter(|status| status.field("ready") == true).count();
    json!(format!("{ready}/{}", containers.map_or(0, Vec::len)))
}

fn restarts(pod: &Value) -> Value {
    let statuses = container_statuses(pod).iter();
    let restarts = statuses.filter_map(|status| status.field("restartCount").as_u64());
    json!(restarts.sum::<u64>().to_string())
}

fn size(map: &Value) -> usize {
    map.as_object().map_or(0, serde_json::Map::len)
}

fn involved(reference: &Value) -> Value {
    let kind = reference.text("kind").to_lowercase();
    let name = reference.text("name");
    if kind.is_empty() {
        json!(name)
    } else {
        json!(format!("{kind}/{name}"))
    }
}

fn either<'a>(first: &'a Value, second: &'a Value) -> &'a Value {
    if first.as_str().is_some_and(|text| !text.is_empty()) {
        first
    } else {
        second
    }
}

fn count(event: &Value) -> Value {
    let count = event
        .field("series")
        .field("count")
        .as_i64()
        .or_else(|| event.field("count").as_i64())
        .unwrap_or(1);
    json!(count.max(1))
}

fn first_of<'a>(event: &'a Value, paths: &[&str]) -> Option<&'a Value> {
    paths
        .iter()
        .filter_map(|path| event.pointer(path))
        .find(|time| !time.is_null())
}

fn last_seen(event: &Value) -> Option<&Value> {
    first_of(
        event,
        &[
            "/series/lastObservedTime",
            "/lastTimestamp",
            "/deprecatedLastTimestamp",
            "/eventTime",
            "/metadata/creationTimestamp",
        ],
    )
}

fn first_seen(event: &Value) -> Option<&Value> {
    first_of(
        event,
        &[
            "/firstTimestamp",
            "/deprecatedFirstTimestamp",
            "/eventTime",
            "/metadata/creationTimestamp",
        ],
    )
}
