//! What goes with an object that goes, and what stays.

use super::*;

use super::racing::{hold, open_gated};
use crate::kubeapi::Error;
use futures::FutureExt;
use std::sync::atomic::AtomicBool;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

const OWNED: &str = "/api/v1/namespaces/default/configmaps/owned";

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

#[tokio::test(start_paused = true)]
async fn what_follows_a_deletion_is_done_though_another_is_refused() {
    let api = open().await;
    let owner = map(&api, "a", &[], &[]).await;
    map(&api, "b", &[], &[]).await;
    let owned = json!({"metadata": {"name": "s", "ownerReferences": [reference(&owner)]}});
    let secrets = "/api/v1/namespaces/default/secrets";
    send(&api, "POST", secrets, owned).await;
    let only = json!({"preconditions": {"uid": owner["metadata"]["uid"]}});
    let (code, _) = send(&api, "DELETE", MAPS, only).await;
    assert_eq!(code, 409);
    assert!(get(&api, "a").await.is_none() && get(&api, "b").await.is_some());
    assert_eq!(read(&api, &format!("{secrets}/s")).await, None);
}

/// A store that is full after the next commit, when it shall be.
struct Filling {
    memory: store::Memory,
    fills: Arc<AtomicBool>,
}

impl store::Backend for Filling {
    fn load(&mut self) -> Result<store::Loaded, Error> {
        self.memory.load()
    }

    fn commit(&mut self, batch: &[store::Change], forget: u64) -> Result<(), Error> {
        self.memory.commit(batch, forget)?;
        if self.fills.swap(false, Ordering::Relaxed) {
            self.memory.set_full(true);
        }
        Ok(())
    }
}

/// An API whose store can become full.
async fn open_filling() -> (KubeApi, store::Memory, Arc<AtomicBool>) {
    let memory = store::Memory::default();
    let fills = Arc::new(AtomicBool::new(false));
    let backend = Filling {
        memory: memory.clone(),
        fills: Arc::clone(&fills),
    };
    let options = Options {
        backend: Box::new(backend),
        ..options(store::Memory::default())
    };
    (KubeApi::open(options).await.unwrap(), memory, fills)
}

#[tokio::test(start_paused = true)]
async fn what_a_full_disk_left_half_done_is_done_once_there_is_room() {
    let (api, memory, fills) = open_filling().await;
    let owner = map(&api, "owner", &[], &[]).await;
    map(&api, "owned", &[&owner], &[]).await;
    fills.store(true, Ordering::Relaxed);
    let (code, told) = delete(&api, "owner", "Background").await;
    assert_eq!(code, 200, "the owner is gone: {told}");
    assert!(get(&api, "owned").await.is_some());
    memory.set_full(false);
    map(&api, "other", &[], &[]).await;
    assert!(get(&api, "owned").await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_must_stay_may_name_an_owner_that_is_gone() {
    let memory = store::Memory::default();
    let api = KubeApi::open(options(memory.clone())).await.unwrap();
    let gone = json!({"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "1"});
    let patch = json!({"metadata": {"ownerReferences": [gone]}});
    let path = "/api/v1/namespaces/default";
    let (code, _) = send(&api, "PATCH", path, patch).await;
    assert_eq!(code, 200);
    drop(api);
    let api = KubeApi::open(options(memory)).await.unwrap();
    assert!(read(&api, path).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_change_of_owners_is_followed() {
    let api = open().await;
    let owner = map(&api, "owner", &[], &[]).await;
    map(&api, "freed", &[&owner], &["a.b/c"]).await;
    delete(&api, "owner", "Foreground").await;
    assert!(get(&api, "owner").await.is_some());
    patch(&api, "freed", json!({"ownerReferences": null})).await;
    assert!(get(&api, "owner").await.is_none());
    let second = map(&api, "second", &[], &[]).await;
    map(&api, "gone", &[&second], &["a.b/c"]).await;
    delete(&api, "second", "Foreground").await;
    let freed = json!({"ownerReferences": null, "finalizers": null});
    patch(&api, "gone", freed).await;
    assert!(get(&api, "second").await.is_none());
    map(&api, "late", &[], &[]).await;
    patch(
        &api,
        "late",
        json!({"ownerReferences": [reference(&owner)]}),
    )
    .await;
    assert!(get(&api, "late").await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_second_deletion_may_ask_for_another_policy() {
    let api = open().await;
    let owner = map(&api, "owner", &[], &[]).await;
    map(&api, "held", &[&owner], &["a.b/c"]).await;
    delete(&api, "owner", "Foreground").await;
    let path = format!("{MAPS}/owner");
    let (_, waiting) = send(&api, "DELETE", &path, Value::Null).await;
    let finalizers = &waiting["metadata"]["finalizers"];
    assert_eq!(*finalizers, json!(["foregroundDeletion"]));
    delete(&api, "owner", "Background").await;
    assert!(get(&api, "owner").await.is_none());
    let held = get(&api, "held").await.unwrap();
    assert!(held["metadata"]["deletionTimestamp"].is_string());
}

/// Deletes `owner`, and gives `owned`, which it owns, these owners just before that is collected;
/// without owners it is made anew.
async fn collect_late(policy: &str, owners: fn(&Value, &Value) -> Option<Value>) -> KubeApi {
    let (api, gate) = open_gated().await;
    let owner = map(&api, "owner", &[], &[]).await;
    map(&api, "owned", &[&owner], &[]).await;
    let mut deletion = delete(&api, "owner", policy).boxed();
    hold(&gate, &mut [&mut deletion]);
    // When this is stored, the first step of the deletion is.
    let other = map(&api, "other", &[], &[]).await;
    let owners = owners(&owner, &other);
    let patch = json!({"metadata": {"ownerReferences": owners}});
    let mut change = match owners {
        Some(_) => send(&api, "PATCH", OWNED, patch).boxed(),
        None => send(&api, "DELETE", OWNED, Value::Null).boxed(),
    };
    hold(&gate, &mut [&mut change, &mut deletion]);
    assert_eq!(change.await.0, 200);
    if owners.is_none() {
        map(&api, "owned", &[], &[]).await;
    }
    deletion.await;
    api
}

#[tokio::test]
async fn what_changes_owners_or_is_made_anew_while_its_owner_goes_stays() {
    let changes: [fn(&Value, &Value) -> Option<Value>; 3] = [
        |_, _| Some(json!([])),
        |owner, other| Some(json!([reference(owner), reference(other)])),
        |_, _| None,
    ];
    for policy in ["Background", "Foreground"] {
        for (number, owners) in changes.into_iter().enumerate() {
            let api = collect_late(policy, owners).await;
            let left = [get(&api, "owned").await, get(&api, "owner").await];
            let there = left.map(|object| object.is_some());
            assert_eq!(there, [true, false], "{policy} {number}");
        }
    }
}

#[tokio::test]
async fn a_namespace_that_is_made_anew_keeps_what_comes_into_it() {
    let (api, gate) = open_gated().await;
    let (spaces, team) = ("/api/v1/namespaces", "/api/v1/namespaces/team");
    let (maps, one) = (format!("{team}/configmaps"), format!("{team}/configmaps/a"));
    let fill = async || {
        for (path, name) in [(spaces, "team"), (&maps, "a")] {
            let (code, _) = send(&api, "POST", path, json!({"metadata": {"name": name}})).await;
            assert_eq!(code, 201);
        }
    };
    fill().await;
    let mut slow = send(&api, "DELETE", team, Value::Null).boxed();
    hold(&gate, &mut [&mut slow]);
    map(&api, "other", &[], &[]).await;
    let mut deletion = send(&api, "DELETE", &one, Value::Null).boxed();
    hold(&gate, &mut [&mut deletion, &mut slow]);
    deletion.await;
    send(&api, "DELETE", team, Value::Null).await;
    assert_eq!(read(&api, team).await, None);
    fill().await;
    // The first deletion has not looked at secrets yet.
    let secrets = format!("{team}/secrets");
    send(&api, "POST", &secrets, json!({"metadata": {"name": "s"}})).await;
    slow.await;
    assert!(read(&api, &one).await.is_some());
    assert!(read(&api, &format!("{secrets}/s")).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn owners_and_finalizers_have_names() {
    let api = open().await;
    let mut owners = Vec::new();
    for (name, controls) in [("one", true), ("two", false)] {
        let mut owner = reference(&map(&api, name, &[], &[]).await);
        owner["controller"] = json!(controls);
        owners.push(owner);
    }
    let post = |owners: Value| {
        let object = json!({"metadata": {"name": "owned", "ownerReferences": owners}});
        send(&api, "POST", MAPS, object)
    };
    let mut wrong = Vec::new();
    for (field, why) in [
        ("apiVersion", "version must not be empty"),
        ("kind", "must not be empty"),
        ("name", "must not be empty"),
        ("uid", "must not be empty"),
    ] {
        let mut owners = json!(owners);
        owners[1][field] = json!("");
        let wanted = format!("metadata.ownerReferences.{field}: Invalid value: \"\": {why}");
        wrong.push((owners, wanted));
    }
    let mut two = json!(owners);
    two[1]["controller"] = json!(true);
    let wanted = "Only one reference can have Controller set to true. Found \"true\" in references for ConfigMap/one and ConfigMap/two";
    wrong.push((two, wanted.to_owned()));
    for (owners, wanted) in wrong {
        let (code, told) = post(owners).await;
        let found = told["message"].as_str().unwrap();
        assert!(code == 422 && found.contains(&wanted), "{wanted}: {found}");
    }
    assert_eq!(post(json!(owners)).await.0, 201);
    let held = json!({"metadata": {"name": "held", "finalizers": ["a b"]}});
    let (code, told) = send(&api, "POST", MAPS, held).await;
    let wanted = "metadata.finalizers: Invalid value: \"a b\": name part must";
    let found = told["message"].as_str().unwrap();
    assert!(code == 422 && found.contains(wanted), "{found}");
}

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// Defines boats, by this plural.
async fn define(api: &KubeApi, plural: &str) {
    let version = json!({"name": "v1", "served": true, "storage": true,
        "schema": {"openAPIV3Schema": {"type": "object"}}});
    let definition = json!({"metadata": {"name": format!("{plural}.sea.test")}, "spec": {
        "group": "sea.test", "scope": "Cluster", "names": {"kind": "Boat", "plural": plural},
        "versions": [version]}});
    let (code, told) = send(api, "POST", DEFINITIONS, definition).await;
    assert_eq!(code, 201, "{told}");
}

/// Makes the boat `a`, among those of this plural.
async fn launch(api: &KubeApi, plural: &str, finalizers: &[&str]) -> Value {
    let boat = json!({"apiVersion": "sea.test/v1", "kind": "Boat",
        "metadata": {"name": "a", "finalizers": finalizers}});
    let path = format!("/apis/sea.test/v1/{plural}");
    let (code, made) = send(api, "POST", &path, boat).await;
    assert_eq!(code, 201, "{made}");
    made
}

#[tokio::test(start_paused = true)]
async fn an_owner_may_be_of_any_kind_of_that_name() {
    let api = open().await;
    for plural in ["boats", "ships"] {
        define(&api, plural).await;
    }
    let boat = launch(&api, "ships", &[]).await;
    let mut owner = reference(&boat);
    owner["apiVersion"] = json!("sea.test/v1");
    owner["kind"] = json!("Boat");
    let owned = json!({"metadata": {"name": "owned", "ownerReferences": [owner]}});
    assert_eq!(send(&api, "POST", MAPS, owned).await.0, 201);
    assert!(get(&api, "owned").await.is_some());
    patch(&api, "owned", json!({"finalizers": ["a.b/c"]})).await;
    let path = "/apis/sea.test/v1/ships/a";
    let foreground = format!("{path}?propagationPolicy=Foreground");
    send(&api, "DELETE", &foreground, Value::Null).await;
    assert!(read(&api, path).await.is_some());
    patch(&api, "owned", json!({"finalizers": null})).await;
    assert!(read(&api, path).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn the_objects_of_a_kind_that_went_do_not_come_back() {
    let (api, memory, fills) = open_filling().await;
    define(&api, "boats").await;
    launch(&api, "boats", &["a.b/c"]).await;
    let definition = format!("{DEFINITIONS}/boats.sea.test");
    send(&api, "DELETE", &definition, Value::Null).await;
    fills.store(true, Ordering::Relaxed);
    let freed = json!({"metadata": {"finalizers": null}});
    assert_eq!(send(&api, "PATCH", &definition, freed).await.0, 200);
    assert_eq!(read(&api, &definition).await, None);
    memory.set_full(false);
    map(&api, "other", &[], &[]).await;
    define(&api, "boats").await;
    assert_eq!(read(&api, "/apis/sea.test/v1/boats/a").await, None);
}
