//! The API through a real kube client in this process, on paused time and without threads.

mod applying;
mod built_in;
mod collecting;
mod defining;
mod racing;
mod watching;
mod writing;

use super::{KubeApi, Options, store};
use axum::{body::Body, http::Request};
use k8s_openapi::{
    api::core::v1::ConfigMap,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, ResourceExt,
    api::{DynamicObject, WatchEvent},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};
use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

pub(super) fn options(memory: store::Memory) -> Options {
    Options {
        backend: Box::new(memory),
        commit: store::Commit::Inline,
        clock: Arc::new(|| "2026-11-21T00:00:00Z".parse().unwrap()),
        crds: vec![definition()],
    }
}

/// An API whose clock shows what the test sets.
pub(super) async fn open_at(moment: &Arc<AtomicI64>) -> KubeApi {
    let moment = Arc::clone(moment);
    let clock = move || jiff::Timestamp::from_second(moment.load(Ordering::Relaxed)).unwrap();
    let options = Options {
        clock: Arc::new(clock),
        ..options(store::Memory::default())
    };
    KubeApi::open(options).await.unwrap()
}

pub(super) async fn open() -> KubeApi {
    KubeApi::open(options(store::Memory::default()))
        .await
        .unwrap()
}

/// Sends a request as it is; what a body is, its method says.
pub(super) async fn send(api: &KubeApi, method: &str, path: &str, body: Value) -> (u16, Value) {
    let (code, told) = exchange(api, method, path, body).await;
    (code, serde_json::from_str(&told).unwrap_or_default())
}

/// The lines that a watch tells until its end.
pub(super) async fn lines(api: &KubeApi, path: &str) -> Vec<Value> {
    let (_, told) = exchange(api, "GET", path, Value::Null).await;
    let lines = told.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().unwrap()
}

async fn exchange(api: &KubeApi, method: &str, path: &str, body: Value) -> (u16, String) {
    let content = match method {
        "PATCH" if path.contains("fieldManager") => "application/apply-patch+yaml",
        "PATCH" => "application/merge-patch+json",
        _ => "application/json",
    };
    let body = if body.is_null() {
        Body::empty()
    } else {
        Body::from(body.to_string())
    };
    let request = Request::builder().method(method).uri(path);
    let request = request.header("content-type", content).body(body).unwrap();
    let answer = tower::Service::call(&mut api.clone(), request).await;
    let (parts, body) = answer.unwrap().into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let told = String::from_utf8(bytes.to_vec()).unwrap();
    (parts.status.as_u16(), told)
}

pub(super) async fn read(api: &KubeApi, path: &str) -> Option<Value> {
    let (code, object) = send(api, "GET", path, Value::Null).await;
    (code == 200).then_some(object)
}

pub(super) fn definition() -> CustomResourceDefinition {
    serde_json::from_value(json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "clusters.lb.test"},
        "spec": {"group": "lb.test", "scope": "Cluster",
            "names": {"kind": "Cluster", "plural": "clusters", "shortNames": ["cl"]},
            "versions": [{"name": "v1alpha1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "required": ["authUrl"], "properties": {
                        "authUrl": {"type": "string"},
                        "join": {"type": "boolean", "default": false}}},
                    "status": {"type": "object", "properties": {"authStatus": {"type": "string"}}}
                }}}}]}
    }))
    .unwrap()
}

pub(super) fn clusters(api: &KubeApi) -> Api<DynamicObject> {
    Api::all_with(api.client(), &resource())
}

pub(super) fn resource() -> ApiResource {
    ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk("lb.test", "v1alpha1", "Cluster"),
        "clusters",
    )
}

pub(super) fn cluster(name: &str) -> DynamicObject {
    DynamicObject::new(name, &resource()).data(json!({"spec": {"authUrl": "https://x"}}))
}

pub(super) fn config_map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}, "data": {"k": "v"}})).unwrap()
}

pub(super) fn word(event: &WatchEvent<DynamicObject>) -> String {
    match event {
        WatchEvent::Added(object) => format!("ADDED {}", object.name_any()),
        WatchEvent::Modified(object) => format!("MODIFIED {}", object.name_any()),
        WatchEvent::Deleted(object) => format!("DELETED {}", object.name_any()),
        WatchEvent::Bookmark(mark) => format!("BOOKMARK {}", mark.metadata.resource_version),
        WatchEvent::Error(status) => format!("ERROR {}", status.code),
    }
}

pub(super) fn status_of(error: kube::Error) -> (u16, String) {
    let kube::Error::Api(status) = error else {
        panic!("{error}");
    };
    (status.code, status.reason.clone())
}
