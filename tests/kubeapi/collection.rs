//! Owners and dependents, and rules in CEL, through the API.

use crate::rig::{Server, post, send};
use kube::Client;
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn map(client: &Client, name: &str, owner: Option<&Value>, finalizer: bool) -> Value {
    let mut object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    if let Some(owner) = owner {
        object["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "ConfigMap",
            "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"], "blockOwnerDeletion": true}]);
    }
    if finalizer {
        object["metadata"]["finalizers"] = json!(["lb.test/hold"]);
    }
    let answer = post(client, MAPS, &object).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json()
}

async fn get(client: &Client, name: &str) -> Option<Value> {
    let answer = send(client, "GET", &format!("{MAPS}/{name}"), &[], "").await;
    (answer.status == 200).then(|| answer.json())
}

async fn delete(client: &Client, name: &str, policy: &str) -> Value {
    let path = format!("{MAPS}/{name}?propagationPolicy={policy}");
    send(client, "DELETE", &path, &[], "").await.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_deleted_in_the_foreground_waits_for_its_dependents() {
    let server = Server::start().await;
    let admin = server.client("admin", &[]).await;
    let owner = map(&admin, "owner", None, false).await;
    map(&admin, "held", Some(&owner), true).await;
    map(&admin, "free", Some(&owner), false).await;
    let answer = delete(&admin, "owner", "Foreground").await;
    assert_eq!(
        answer["metadata"]["finalizers"],
        json!(["foregroundDeletion"])
    );
    assert!(get(&admin, "free").await.is_none());
    assert!(get(&admin, "owner").await.is_some());
    let held = format!("{MAPS}/held");
    let patch = json!({"metadata": {"finalizers": null}});
    crate::rig::merge(&admin, &held, &patch).await;
    assert!(get(&admin, "held").await.is_none());
    assert!(get(&admin, "owner").await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orphaned_dependent_stays_without_its_owner() {
    let server = Server::start().await;
    let admin = server.client("admin", &[]).await;
    let owner = map(&admin, "owner", None, false).await;
    map(&admin, "child", Some(&owner), false).await;
    delete(&admin, "owner", "Orphan").await;
    assert!(get(&admin, "owner").await.is_none());
    let child = get(&admin, "child").await.unwrap();
    assert_eq!(child["metadata"].get("ownerReferences"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_of_a_definition_is_enforced_as_soon_as_it_is_there() {
    let server = Server::start().await;
    let admin = server.client("admin", &[]).await;
    let mut definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "ranges.lb.test"},
        "spec": {"group": "lb.test", "scope": "Cluster", "names": {"kind": "Range", "plural": "ranges"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema":
                {"type": "object", "properties": {"spec": {"type": "object",
                    "properties": {"low": {"type": "integer"}, "high": {"type": "integer"}},
                    "x-kubernetes-validations": [{"rule": "self.low <= self.high", "message": "low is above high"}]}}}}}]}});
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    assert_eq!(post(&admin, path, &definition).await.status, 201);
    let mut range = json!({"apiVersion": "lb.test/v1", "kind": "Range", "metadata": {"name": "a"}, "spec": {"low": 2, "high": 1}});
    let refused = post(&admin, "/apis/lb.test/v1/ranges", &range).await;
    assert_eq!(refused.status, 422);
    assert_eq!(
        refused.json()["message"],
        "Range.lb.test \"a\" is invalid: spec: Invalid value: \"object\": low is above high"
    );
    range["spec"]["high"] = json!(3);
    assert_eq!(
        post(&admin, "/apis/lb.test/v1/ranges", &range).await.status,
        201
    );
    definition["metadata"]["name"] = json!("others.lb.test");
    definition["spec"]["names"] = json!({"kind": "Other", "plural": "others"});
    let rules =
        "/spec/versions/0/schema/openAPIV3Schema/properties/spec/x-kubernetes-validations/0/rule";
    *definition.pointer_mut(rules).unwrap() = json!("self.(");
    assert_eq!(post(&admin, path, &definition).await.status, 422);
}
