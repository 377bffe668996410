//! Objects: how they come, change and go.

use super::*;

use super::racing::open_gated;
use crate::kubeapi::{KubeApi, store};
use futures::FutureExt;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace, Node};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;
use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

#[tokio::test(start_paused = true)]
async fn a_created_object_has_its_defaults_and_a_generation() {
    let api = open().await;
    let made = clusters(&api)
        .create(&PostParams::default(), &cluster("rome"))
        .await
        .unwrap();
    assert_eq!(
        made.data["spec"],
        json!({"authUrl": "https://x", "join": false})
    );
    assert_eq!(made.metadata.generation, Some(1));
    assert!(made.metadata.uid.is_some() && made.metadata.creation_timestamp.is_some());
    let again = clusters(&api)
        .create(&PostParams::default(), &cluster("rome"))
        .await
        .unwrap_err();
    assert_eq!(status_of(again).0, 409);
}

#[tokio::test(start_paused = true)]
async fn a_merge_patch_changes_and_one_without_effect_does_not() {
    let api = open().await;
    let clusters = clusters(&api);
    clusters
        .create(&PostParams::default(), &cluster("rome"))
        .await
        .unwrap();
    let patch = Patch::Merge(json!({"spec": {"join": true}}));
    let first = clusters
        .patch("rome", &PatchParams::default(), &patch)
        .await
        .unwrap();
    let second = clusters
        .patch("rome", &PatchParams::default(), &patch)
        .await
        .unwrap();
    assert_eq!(first.data["spec"]["join"], true);
    assert_eq!(first.metadata.generation, Some(2));
    assert_eq!(first.resource_version(), second.resource_version());
}

#[tokio::test(start_paused = true)]
async fn a_write_from_an_old_state_is_a_conflict() {
    let api = open().await;
    let clusters = clusters(&api);
    let old = clusters
        .create(&PostParams::default(), &cluster("rome"))
        .await
        .unwrap();
    let patch = Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}}));
    clusters
        .patch("rome", &PatchParams::default(), &patch)
        .await
        .unwrap();
    let refusal = clusters
        .replace("rome", &PostParams::default(), &old)
        .await
        .unwrap_err();
    assert_eq!(status_of(refusal), (409, "Conflict".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_wrong_object_is_refused_with_causes() {
    let api = open().await;
    let mut wrong = cluster("rome");
    wrong.data = json!({"spec": {"join": "yes"}});
    let refusal = clusters(&api)
        .create(&PostParams::default(), &wrong)
        .await
        .unwrap_err();
    assert_eq!(status_of(refusal), (422, "Invalid".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn an_event_is_forgotten_after_an_hour() {
    let moment = Arc::new(AtomicI64::new(0));
    let api = open_at(&moment).await;
    let events: Api<Event> = Api::default_namespaced(api.client());
    for (name, seconds) in [("old", 0), ("younger", 3_000), ("new", 4_000)] {
        moment.store(seconds, Ordering::Relaxed);
        let event = json!({"metadata": {"name": name}, "involvedObject": {"name": "rome"}});
        let event = serde_json::from_value(event).unwrap();
        events.create(&PostParams::default(), &event).await.unwrap();
    }
    let left = events.list(&ListParams::default()).await.unwrap();
    let names: Vec<String> = left.items.iter().map(ResourceExt::name_any).collect();
    assert_eq!(names, ["new", "younger"]);
}

#[tokio::test]
async fn a_deletion_goes_on_when_the_client_hangs_up() {
    let (mut api, gate) = open_gated().await;
    let maps: Api<ConfigMap> = Api::namespaced(api.client(), "gone");
    let namespaces: Api<Namespace> = Api::all(api.client());
    let gone = serde_json::from_value(json!({"metadata": {"name": "gone"}})).unwrap();
    let params = PostParams::default();
    namespaces.create(&params, &gone).await.unwrap();
    maps.create(&params, &config_map("a")).await.unwrap();
    let request = Request::delete("/api/v1/namespaces/gone")
        .body(Body::empty())
        .unwrap();
    let mut answer = tower::Service::call(&mut api, request);
    let closed = gate.lock().unwrap();
    // Asked once, and then never again: the client is gone.
    assert!((&mut answer).now_or_never().is_none());
    drop(answer);
    drop(closed);
    let emptied = async {
        while namespaces.get_opt("gone").await.unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let emptied = tokio::time::timeout(Duration::from_secs(30), emptied);
    emptied.await.expect("half a deletion is left");
}

#[tokio::test(start_paused = true)]
async fn a_finalizer_holds_an_object_until_it_is_removed() {
    let api = open().await;
    let clusters = clusters(&api);
    let mut held = cluster("rome");
    held.metadata.finalizers = Some(vec!["a.b/c".to_owned()]);
    clusters
        .create(&PostParams::default(), &held)
        .await
        .unwrap();
    let waiting = clusters
        .delete("rome", &DeleteParams::default())
        .await
        .unwrap();
    let waiting = waiting.left().unwrap();
    assert!(waiting.metadata.deletion_timestamp.is_some());
    assert_eq!(waiting.metadata.generation, Some(2));
    let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    clusters
        .patch("rome", &PatchParams::default(), &patch)
        .await
        .unwrap();
    assert!(clusters.get_opt("rome").await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn what_is_owned_goes_with_its_last_owner() {
    let api = open().await;
    let clusters = clusters(&api);
    let owner = clusters
        .create(&PostParams::default(), &cluster("rome"))
        .await
        .unwrap();
    let mut owned = config_map("settings");
    owned.metadata.owner_references =
        Some(vec![serde_json::from_value(json!({
        "apiVersion": "lb.test/v1alpha1", "kind": "Cluster", "name": "rome", "uid": owner.uid()
    })).unwrap()]);
    let maps: Api<ConfigMap> = Api::default_namespaced(api.client());
    maps.create(&PostParams::default(), &owned).await.unwrap();
    clusters
        .delete("rome", &DeleteParams::default())
        .await
        .unwrap();
    assert!(maps.get_opt("settings").await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_namespace_takes_its_content_with_it() {
    let api = open().await;
    let namespaces: Api<Namespace> = Api::all(api.client());
    let maps: Api<ConfigMap> = Api::namespaced(api.client(), "team");
    let missing = maps
        .create(&PostParams::default(), &config_map("a"))
        .await
        .unwrap_err();
    assert_eq!(status_of(missing), (404, "NotFound".to_owned()));
    let team: Namespace = serde_json::from_value(json!({"metadata": {"name": "team"}})).unwrap();
    namespaces
        .create(&PostParams::default(), &team)
        .await
        .unwrap();
    maps.create(&PostParams::default(), &config_map("a"))
        .await
        .unwrap();
    namespaces
        .delete("team", &DeleteParams::default())
        .await
        .unwrap();
    assert!(namespaces.get_opt("team").await.unwrap().is_none());
    assert!(maps.get_opt("a").await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn node_status_is_written_only_through_its_subresource() {
    let api = open().await;
    let nodes: Api<Node> = Api::all(api.client());
    let node: Node = serde_json::from_value(json!({"metadata": {"name": "liqo-1"}})).unwrap();
    nodes.create(&PostParams::default(), &node).await.unwrap();
    let ready =
        Patch::Strategic(json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}));
    let main = nodes
        .patch("liqo-1", &PatchParams::default(), &ready)
        .await
        .unwrap();
    assert!(main.status.is_none());
    let status = nodes
        .patch_status("liqo-1", &PatchParams::default(), &ready)
        .await
        .unwrap();
    assert_eq!(status.status.unwrap().conditions.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_event_is_one_object_in_both_groups() {
    let api = open().await;
    let recorder = kube::runtime::events::Recorder::new(api.client(), "landbridge".into());
    let about = k8s_openapi::api::core::v1::ObjectReference {
        kind: Some("Cluster".to_owned()),
        name: Some("rome".to_owned()),
        uid: Some("1".to_owned()),
        ..Default::default()
    };
    let event = kube::runtime::events::Event {
        type_: kube::runtime::events::EventType::Normal,
        reason: "PeerDiscovered".to_owned(),
        note: Some("found".to_owned()),
        action: "Discover".to_owned(),
        secondary: None,
    };
    recorder.publish(&event, &about).await.unwrap();
    recorder.publish(&event, &about).await.unwrap();
    let events: Api<Event> = Api::all(api.client());
    let found = events
        .list(&ListParams::default().fields("involvedObject.name=rome"))
        .await
        .unwrap();
    assert_eq!(found.items.len(), 1);
    assert_eq!(found.items[0].message.as_deref(), Some("found"));
    assert_eq!(found.items[0].series.as_ref().unwrap().count, Some(2));
}

#[tokio::test(start_paused = true)]
async fn long_lists_come_in_pages() {
    let api = open().await;
    let clusters = clusters(&api);
    for number in 0..5 {
        clusters
            .create(&PostParams::default(), &cluster(&format!("c{number}")))
            .await
            .unwrap();
    }
    let first = clusters
        .list(&ListParams::default().limit(2))
        .await
        .unwrap();
    assert_eq!(first.metadata.remaining_item_count, Some(3));
    let token = first.metadata.continue_.unwrap();
    let rest = clusters
        .list(&ListParams::default().limit(9).continue_token(&token))
        .await
        .unwrap();
    assert_eq!(rest.items.first().unwrap().name_any(), "c2");
    assert_eq!(rest.items.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_continues_is_of_the_revision_that_it_began_with() {
    let api = open().await;
    let path = "/api/v1/namespaces?limit=1";
    let (_, page) = send(&api, "GET", path, Value::Null).await;
    let rest = format!(
        "{path}&continue={}",
        page["metadata"]["continue"].as_str().unwrap()
    );
    for (revision, code) in [("", 200), ("0", 200), ("1", 400)] {
        let path = format!("{rest}&resourceVersion={revision}");
        assert_eq!(
            send(&api, "GET", &path, Value::Null).await.0,
            code,
            "{revision}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_does_not_continue_in_the_future() {
    let api = open().await;
    // {"v":"meta.k8s.io/v1","rv":999999,"start":"/namespaces//a"}
    let token = "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6OTk5OTk5LCJzdGFydCI6Ii9uYW1lc3BhY2VzLy9hIn0";
    let path = format!("/api/v1/namespaces?continue={token}");
    let (code, told) = send(&api, "GET", &path, Value::Null).await;
    assert_eq!(code, 504, "{told}");
}

#[tokio::test(start_paused = true)]
async fn everything_is_there_again_after_a_restart() {
    let memory = store::Memory::default();
    let first = KubeApi::open(options(memory.clone())).await.unwrap();
    let made = clusters(&first)
        .create(&PostParams::default(), &cluster("rome"))
        .await
        .unwrap();
    let revision = first.revision();
    drop(first);
    let second = KubeApi::open(options(memory)).await.unwrap();
    assert_eq!(second.revision(), revision);
    let found = clusters(&second).get("rome").await.unwrap();
    assert_eq!(found, made);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_cannot_be_stored_is_not_visible() {
    let memory = store::Memory::default();
    let api = KubeApi::open(options(memory.clone())).await.unwrap();
    let revision = api.revision();
    memory.set_full(true);
    let refusal = clusters(&api)
        .create(&PostParams::default(), &cluster("rome"))
        .await
        .unwrap_err();
    assert_eq!(status_of(refusal).0, 507);
    assert_eq!(api.revision(), revision);
    memory.set_full(false);
    assert!(clusters(&api).get_opt("rome").await.unwrap().is_none());
    clusters(&api)
        .create(&PostParams::default(), &cluster("rome"))
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_oldest_of_many_updaters_become_one() {
    let moment = Arc::new(AtomicI64::new(0));
    let api = open_at(&moment).await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let mut map = json!({"metadata": {"name": "a"}, "data": {}});
    for number in 0..13 {
        moment.store(number, Ordering::Relaxed);
        map["data"][format!("k{number}")] = json!("v");
        let (method, path) = match number {
            0 => ("POST", maps.to_owned()),
            _ => ("PUT", format!("{maps}/a")),
        };
        let path = format!("{path}?fieldManager=m{number}");
        let (_, told) = send(&api, method, &path, map.clone()).await;
        assert_eq!(told["data"], map["data"], "{told}");
    }
    let kept = read(&api, &format!("{maps}/a")).await.unwrap();
    let managers = kept["metadata"]["managedFields"].as_array().unwrap();
    let names: Vec<&str> = managers
        .iter()
        .filter_map(|one| one["manager"].as_str())
        .collect();
    let wanted = [
        "ancient-changes",
        "m4",
        "m5",
        "m6",
        "m7",
        "m8",
        "m9",
        "m10",
        "m11",
        "m12",
    ];
    assert_eq!(names, wanted);
    let ancient = managers[0]["fieldsV1"]["f:data"].as_object().unwrap();
    let fields: Vec<&str> = ancient.keys().map(String::as_str).collect();
    assert_eq!(fields, [".", "f:k0", "f:k1", "f:k2", "f:k3"]);
}

#[tokio::test(start_paused = true)]
async fn a_page_of_a_revision_shows_that_revision() {
    let api = open().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let mut first = String::new();
    for name in ["a", "b", "c"] {
        let (_, made) = send(&api, "POST", maps, json!({"metadata": {"name": name}})).await;
        if first.is_empty() {
            made["metadata"]["resourceVersion"]
                .as_str()
                .unwrap()
                .clone_into(&mut first);
        }
    }
    for (parameters, revision, count) in [
        ("limit=10", first.as_str(), 1),
        ("limit=10&resourceVersionMatch=NotOlderThan", &first, 3),
        ("limit=10", "0", 3),
        ("limit=0", &first, 3),
    ] {
        let path = format!("{maps}?{parameters}&resourceVersion={revision}");
        let list = read(&api, &path).await.unwrap();
        let found = list["items"].as_array().unwrap().len();
        assert_eq!(found, count, "{path}");
        let told = &list["metadata"]["resourceVersion"];
        assert_eq!(told == first.as_str(), count == 1, "{path}");
    }
}

/// Sends a body as it is; returns the code, the message of a refusal and the warnings.
async fn send_text(api: &KubeApi, path: &str, media: &str, body: &str) -> (u16, String, String) {
    let request = Request::patch(path).header("content-type", media);
    let request = request.body(Body::from(body.to_owned())).unwrap();
    let answer = tower::Service::call(&mut api.clone(), request).await;
    let (parts, body) = answer.unwrap().into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let told: Value = serde_json::from_slice(&bytes).unwrap();
    let warning = parts
        .headers
        .get("warning")
        .map(|warning| warning.to_str().unwrap());
    let message = told["message"].as_str().unwrap_or_default();
    (
        parts.status.as_u16(),
        message.to_owned(),
        warning.unwrap_or_default().to_owned(),
    )
}

#[tokio::test(start_paused = true)]
async fn a_key_that_stands_twice_in_a_patch_is_refused_or_warned_of() {
    let api = open().await;
    let map = "/api/v1/namespaces/default/configmaps/a";
    let apply = "application/apply-patch+yaml";
    let twice = r#"{"apiVersion": "v1", "kind": "ConfigMap", "data": {"k": "1", "k": "2"}}"#;
    let path = |strictness: &str| format!("{map}?fieldManager=m&fieldValidation={strictness}");
    let (code, message, _) = send_text(&api, &path("Strict"), apply, twice).await;
    assert_eq!(code, 400, "{message}");
    assert!(
        message.starts_with("error strict decoding YAML: "),
        "{message}"
    );
    let (code, message, warning) = send_text(&api, &path("Warn"), apply, twice).await;
    assert_eq!(code, 201, "{message}");
    assert!(warning.contains("data.k"), "{warning}");
    for media in ["merge", "strategic-merge"] {
        let media = format!("application/{media}-patch+json");
        let twice = r#"{"data": {"k": "3", "k": "4"}}"#;
        let (code, message, _) = send_text(&api, &path("Strict"), &media, twice).await;
        assert_eq!(code, 400, "{message}");
        assert!(message.contains("duplicate field \"data.k\""), "{message}");
        let (code, message, warning) = send_text(&api, map, &media, twice).await;
        assert_eq!(code, 200, "{message}");
        assert!(warning.contains("data.k"), "{warning}");
        let (_, _, warning) = send_text(&api, &path("Ignore"), &media, twice).await;
        assert_eq!(warning, "");
    }
}

/// Makes one name eight times, and then another.
fn unlucky() -> String {
    static MADE: AtomicI64 = AtomicI64::new(0);
    let made = MADE.fetch_add(1, Ordering::Relaxed);
    if made < 8 { "first" } else { "other" }.to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_taken_is_made_again() {
    let mut api = open().await;
    Arc::get_mut(&mut api.server).unwrap().suffix = unlucky;
    let maps = "/api/v1/namespaces/default/configmaps";
    let map = json!({"metadata": {"generateName": "map-"}});
    for wanted in ["map-first", "map-other"] {
        let (code, made) = send(&api, "POST", maps, map.clone()).await;
        assert_eq!(code, 201, "{made}");
        assert_eq!(made["metadata"]["name"], wanted);
    }
    let (code, told) = send(&api, "POST", maps, map).await;
    assert_eq!(code, 409, "{told}");
}
