//! Owners and dependents, and rules in CEL, through the API.

use crate::rig::{Server, merge, post, send};
use kube::Client;
use serde_json::{Value, json};

/// More than what fits on a stack, one in the other.
const LINE: usize = 1_000;

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
    merge(&admin, &held, &patch).await;
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
async fn objects_that_own_each_other_do_not_wait_for_each_other_for_ever() {
    let server = Server::start().await;
    let admin = server.client("admin", &[]).await;
    for names in [&["self"][..], &["a", "b"], &["x", "y", "z"]] {
        let mut made = Vec::new();
        for name in names {
            made.push(map(&admin, name, made.last(), false).await);
        }
        let (first, last) = (&made[0], &made[names.len() - 1]);
        let owners = json!([{"apiVersion": "v1", "kind": "ConfigMap", "blockOwnerDeletion": true,
            "name": last["metadata"]["name"], "uid": last["metadata"]["uid"]}]);
        let path = format!("{MAPS}/{}", names[0]);
        merge(
            &admin,
            &path,
            &json!({"metadata": {"ownerReferences": owners}}),
        )
        .await;
        delete(&admin, names[0], "Foreground").await;
        for name in names {
            let left = get(&admin, name).await;
            assert!(left.is_none(), "{name} of {first} is left: {left:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dependent_without_its_owner_does_not_stay() {
    let server = Server::start().await;
    let admin = server.client("admin", &[]).await;
    let owner = map(&admin, "owner", None, false).await;
    let other = map(&admin, "other", None, false).await;
    delete(&admin, "owner", "Background").await;
    map(&admin, "late", Some(&owner), false).await;
    assert!(get(&admin, "late").await.is_none());
    map(&admin, "owned", Some(&other), false).await;
    assert!(get(&admin, "owned").await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_line_of_owners_goes_with_its_first() {
    let server = Server::start().await;
    let admin = server.client("admin", &[]).await;
    for policy in ["Background", "Foreground"] {
        let mut last = map(&admin, "m0", None, false).await;
        for number in 1..LINE {
            last = map(&admin, &format!("m{number}"), Some(&last), false).await;
        }
        delete(&admin, "m0", policy).await;
        for number in [0, 1, LINE / 2, LINE - 1] {
            let left = get(&admin, &format!("m{number}")).await;
            assert!(left.is_none(), "{policy}: {left:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_goes_with_thousands_of_objects() {
    let server = Server::start().await;
    let admin = server.client("admin", &[]).await;
    let spaces = "/api/v1/namespaces";
    post(&admin, spaces, &json!({"metadata": {"name": "team"}})).await;
    let maps = format!("{spaces}/team/configmaps");
    for number in 0..LINE {
        let map = json!({"metadata": {"name": format!("m{number}")}});
        post(&admin, &maps, &map).await;
    }
    send(&admin, "DELETE", &format!("{spaces}/team"), &[], "").await;
    let left = send(&admin, "GET", &format!("{spaces}/team"), &[], "").await;
    assert_eq!(left.status, 404, "{left:?}");
    let left = send(&admin, "GET", &maps, &[], "").await.json();
    assert_eq!(left["items"], json!([]));
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
