//! Server-side apply: a sequence whose answers by a real server were recorded.

use crate::rig::{self, Answer, CLUSTERS, Server, merge};
use kube::Client;
use serde_json::{Value, json};

async fn apply(client: &Client, manager: &str, mut object: Value) -> Answer {
    object["apiVersion"] = json!("discovery.lb.test/v1alpha1");
    object["kind"] = json!("LbCluster");
    object["metadata"]["name"] = json!("s1");
    let path = format!("{CLUSTERS}/s1?fieldManager={manager}");
    let headers = [("content-type", "application/apply-patch+yaml")];
    rig::send(client, "PATCH", &path, &headers, object.to_string()).await
}

/// Who owns what: manager, operation, fields.
fn owners(answer: &Answer) -> Value {
    let object = answer.json();
    let entries = object["metadata"]["managedFields"].as_array().cloned();
    let entries = entries.unwrap_or_default().into_iter();
    entries
        .map(|entry| json!([entry["manager"], entry["operation"], entry["fieldsV1"]]))
        .collect()
}

fn metadata(label: &str, finalizer: &str) -> Value {
    json!({"labels": {label: if label == "x" { "1" } else { "2" }}, "finalizers": [finalizer]})
}

#[tokio::test(flavor = "multi_thread")]
async fn appliers_share_take_and_give_up_fields() {
    let server = Server::start().await;
    let admin = server.client("admin", &[]).await;
    let spec = json!({"authUrl": "https://x", "join": true});
    let first = apply(
        &admin,
        "a",
        json!({"metadata": metadata("x", "f/a"), "spec": spec}),
    )
    .await;
    assert_eq!(first.status, 201);
    let a = json!(["a", "Apply", {"f:metadata": {"f:finalizers": {"v:\"f/a\"": {}}, "f:labels": {"f:x": {}}},
        "f:spec": {"f:authUrl": {}, "f:join": {}}}]);
    assert_eq!(owners(&first), json!([a]));
    let b = json!(["b", "Apply", {"f:metadata": {"f:finalizers": {"v:\"f/b\"": {}}, "f:labels": {"f:y": {}}},
        "f:spec": {"f:join": {}}}]);
    let second = apply(
        &admin,
        "b",
        json!({"metadata": metadata("y", "f/b"), "spec": {"join": true}}),
    )
    .await;
    assert_eq!(owners(&second), json!([a, b]));
    assert_eq!(
        second.json()["metadata"]["finalizers"],
        json!(["f/a", "f/b"])
    );
    let third = apply(&admin, "a", json!({"spec": {"authUrl": "https://x"}})).await;
    let a = json!(["a", "Apply", {"f:spec": {"f:authUrl": {}}}]);
    assert_eq!(owners(&third), json!([a, b]));
    let object = third.json();
    assert_eq!(object["metadata"]["labels"], json!({"y": "2"}));
    assert_eq!(object["metadata"]["finalizers"], json!(["f/b"]));
    assert_eq!(object["spec"]["join"], true);
    let path = format!("{CLUSTERS}/s1?fieldManager=c");
    let fourth = merge(&admin, &path, &json!({"spec": {"join": false}})).await;
    let b = json!(["b", "Apply", {"f:metadata": {"f:finalizers": {"v:\"f/b\"": {}}, "f:labels": {"f:y": {}}}}]);
    let c = json!(["c", "Update", {"f:spec": {"f:join": {}}}]);
    assert_eq!(owners(&fourth), json!([a, b, c]));
    conflicts(&admin).await;
    let tenth = apply(&admin, "b", json!({})).await;
    let c =
        json!(["c", "Update", {"f:metadata": {"f:labels": {"f:y": {}}}, "f:spec": {"f:join": {}}}]);
    assert_eq!(owners(&tenth), json!([a, c]));
    assert_eq!(tenth.json()["metadata"].get("finalizers"), None);
    last(&admin, &a, &c).await;
}

async fn conflicts(admin: &Client) {
    let fifth = apply(
        admin,
        "b",
        json!({"metadata": metadata("y", "f/b"), "spec": {"join": true}}),
    )
    .await;
    let status = fifth.json();
    assert_eq!(fifth.status, 409);
    assert_eq!(
        status["message"],
        "Apply failed with 1 conflict: conflict with \"c\" using discovery.lb.test/v1alpha1: .spec.join"
    );
    assert_eq!(
        status["details"]["causes"],
        json!([{"reason": "FieldManagerConflict", "field": ".spec.join",
            "message": "conflict with \"c\" using discovery.lb.test/v1alpha1"}])
    );
    let path = format!("{CLUSTERS}/s1?fieldManager=c");
    merge(admin, &path, &json!({"metadata": {"labels": {"y": "3"}}})).await;
    let sixth = apply(
        admin,
        "b",
        json!({"metadata": metadata("y", "f/b"), "spec": {"join": true}}),
    )
    .await;
    assert_eq!(
        sixth.json()["message"],
        "Apply failed with 2 conflicts: conflicts with \"c\" using discovery.lb.test/v1alpha1:\n- .metadata.labels.y\n- .spec.join"
    );
    let seventh = apply(admin, "b", json!({"spec": {"bogus": 1}})).await;
    assert_eq!(seventh.status, 500);
    assert_eq!(
        seventh.json()["message"],
        "failed to create typed patch object (/s1; discovery.lb.test/v1alpha1, Kind=LbCluster): .spec.bogus: field not declared in schema"
    );
    let eighth = apply(admin, "b", json!({"spec": {"join": "yes"}})).await;
    assert_eq!(
        eighth.json()["message"],
        "failed to create typed patch object (/s1; discovery.lb.test/v1alpha1, Kind=LbCluster): .spec.join: expected boolean, got &{yes}"
    );
}

async fn last(admin: &Client, a: &Value, c: &Value) {
    let yaml = "apiVersion: discovery.lb.test/v1alpha1\nkind: LbCluster\nmetadata: {name: s1}\nspec: {trustMode: Trusted}\n";
    let path = format!("{CLUSTERS}/s1?fieldManager=y");
    let headers = [("content-type", "application/apply-patch+yaml")];
    let twelfth = rig::send(admin, "PATCH", &path, &headers, yaml).await;
    let y = json!(["y", "Apply", {"f:spec": {"f:trustMode": {}}}]);
    assert_eq!(owners(&twelfth), json!([a, y, c]));
    assert_eq!(twelfth.json()["metadata"]["generation"], 3);
    let before = twelfth.json()["metadata"]["resourceVersion"].clone();
    let again = rig::send(admin, "PATCH", &path, &headers, yaml).await;
    assert_eq!(again.json()["metadata"]["resourceVersion"], before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_takes_a_field_from_all_who_own_it() {
    let server = Server::start().await;
    let admin = server.client("admin", &[]).await;
    let spec = json!({"spec": {"authUrl": "https://x", "join": true}});
    apply(&admin, "a", spec.clone()).await;
    let both = apply(&admin, "b", spec).await;
    let of = |manager: &str, fields: Value| json!([manager, "Apply", {"f:spec": fields}]);
    let all = json!({"f:authUrl": {}, "f:join": {}});
    assert_eq!(owners(&both), json!([of("a", all.clone()), of("b", all)]));
    let path = format!("{CLUSTERS}/s1?fieldManager=c");
    let taken = merge(&admin, &path, &json!({"spec": {"join": false}})).await;
    let rest = json!({"f:authUrl": {}});
    let c = json!(["c", "Update", {"f:spec": {"f:join": {}}}]);
    let expected = json!([of("a", rest.clone()), of("b", rest), c]);
    assert_eq!(owners(&taken), expected);
}
