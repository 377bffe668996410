//! What goes with an object that goes, and what stays.

use super::*;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn reference(owner: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "blockOwnerDeletion": true,
        "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"]})
}

/// Makes a map with these owners and finalizers.
async fn map(api: &KubeApi, name: &str, owners: &[&Value], finalizers: &[&str]) -> Value {
    let owners: Vec<Value> = owners.iter().map(|owner| reference(owner)).collect();
    let metadata = json!({"name": name, "ownerReferences": owners, "finalizers": finalizers});
    let object = json!({"metadata": metadata});
    let (code, made) = send(api, "POST", MAPS, object).await;
    assert_eq!(code, 201, "{made}");
    made
}

async fn get(api: &KubeApi, name: &str) -> Option<Value> {
    read(api, &format!("{MAPS}/{name}")).await
}

async fn patch(api: &KubeApi, name: &str, metadata: Value) {
    let path = format!("{MAPS}/{name}");
    let (code, told) = send(api, "PATCH", &path, json!({"metadata": metadata})).await;
    assert_eq!(code, 200, "{told}");
}

async fn delete(api: &KubeApi, name: &str, policy: &str) -> (u16, Value) {
    let path = format!("{MAPS}/{name}?propagationPolicy={policy}");
    send(api, "DELETE", &path, Value::Null).await
}

#[tokio::test(start_paused = true)]
async fn a_dependent_stays_in_the_foreground_while_it_has_another_owner() {
    let api = open().await;
    let (a, b) = (
        map(&api, "a", &[], &[]).await,
        map(&api, "b", &[], &[]).await,
    );
    map(&api, "shared", &[&a, &b], &[]).await;
    delete(&api, "a", "Foreground").await;
    assert!(get(&api, "a").await.is_none());
    let shared = get(&api, "shared").await.unwrap();
    assert_eq!(
        shared["metadata"]["ownerReferences"],
        json!([reference(&b)])
    );
    delete(&api, "b", "Foreground").await;
    assert!(get(&api, "shared").await.is_none());
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_waits_for_its_dependents_keeps_none_of_them() {
    let api = open().await;
    let (a, b) = (
        map(&api, "a", &[], &[]).await,
        map(&api, "b", &[], &[]).await,
    );
    map(&api, "held", &[&a], &["a.b/c"]).await;
    delete(&api, "a", "Foreground").await;
    map(&api, "shared", &[&a, &b], &[]).await;
    delete(&api, "b", "Background").await;
    assert!(get(&api, "shared").await.is_none());
    assert!(get(&api, "a").await.is_some());
}

#[tokio::test(start_paused = true)]
async fn an_object_of_no_namespace_stays_whatever_owner_in_one_it_names() {
    let memory = store::Memory::default();
    let api = KubeApi::open(options(memory.clone())).await.unwrap();
    let owner = map(&api, "a", &[], &[]).await;
    let object = json!({"metadata": {"name": "n", "ownerReferences": [reference(&owner)]}});
    let (code, _) = send(&api, "POST", "/api/v1/nodes", object).await;
    assert_eq!(code, 201);
    drop(api);
    let api = KubeApi::open(options(memory)).await.unwrap();
    delete(&api, "a", "Background").await;
    assert!(read(&api, "/api/v1/nodes/n").await.is_some());
}
