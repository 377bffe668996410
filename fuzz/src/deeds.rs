//! What a fuzzer does with its bytes: requests to an embedded API, and what must hold of every answer.
//!
//! Each target is used by its program in `fuzz_targets` and, with the inputs kept in `corpus`, by
//! `cargo test`. Writes are dry runs, so that one input cannot change what the next one finds.
#![allow(
    dead_code,
    clippy::allow_attributes,
    clippy::unwrap_used,
    reason = "each program uses one"
)]

use axum::{
    body::Body,
    http::{Request, Uri},
};
use futures::{FutureExt, StreamExt};
use landbridge::kubeapi::{KubeApi, Options};
use serde_json::{Value, json};
use std::{cell::OnceCell, sync::Arc};
use tower::ServiceExt;

const CLUSTERS: &str = "/apis/discovery.lb.test/v1alpha1/lbclusters";

const PATCHES: [&str; 4] = [
    "application/merge-patch+json",
    "application/json-patch+json",
    "application/apply-patch+yaml",
    "application/strategic-merge-patch+json",
];

struct Bench {
    api: KubeApi,
    runtime: tokio::runtime::Runtime,
}

/// What came back.
struct Answer {
    status: u16,
    body: Value,
}

impl Bench {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let definition = include_str!("../../tests/kubeapi/data/definition.yaml");
        let options = Options::in_memory(
            Arc::new(|| jiff::Timestamp::UNIX_EPOCH),
            vec![serde_saphyr::from_str(definition).unwrap()],
        );
        let api = runtime.block_on(KubeApi::open(options)).unwrap();
        let bench = Self { api, runtime };
        let object = json!({"apiVersion": "discovery.lb.test/v1alpha1", "kind": "LbCluster",
            "metadata": {"name": "a", "labels": {"k": "v"}}, "spec": {"authUrl": "https://x"}});
        bench.send(
            "POST",
            CLUSTERS,
            "application/json",
            object.to_string().as_bytes(),
        );
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}});
        let maps = "/api/v1/namespaces/default/configmaps";
        bench.send("POST", maps, "application/json", map.to_string().as_bytes());
        bench
    }

    fn send(&self, method: &str, path: &str, content_type: &str, body: &[u8]) -> Option<Answer> {
        let uri: Uri = path.parse().ok()?;
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header("content-type", content_type)
            .body(Body::from(body.to_vec()))
            .ok()?;
        let answer = self.runtime.block_on(async {
            let response = self.api.clone().oneshot(request).await.unwrap();
            let status = response.status().as_u16();
            let mut pieces = response.into_body().into_data_stream();
            let mut bytes = Vec::new();
            // Only a watch lets anybody wait, and it has no end.
            while let Some(Some(piece)) = pieces.next().now_or_never() {
                bytes.extend_from_slice(&piece.unwrap());
            }
            Answer {
                status,
                body: serde_json::from_slice(&bytes).unwrap_or_default(),
            }
        });
        if answer.status >= 400 && answer.body.is_object() {
            assert_eq!(answer.body["kind"], "Status");
            assert_eq!(answer.body["code"], answer.status);
        }
        let message = answer.body["message"].as_str().unwrap_or_default();
        assert!(
            !message.contains("the log of the daemon"),
            "a panic: {path}"
        );
        Some(answer)
    }
}

fn with(deed: impl FnOnce(&Bench)) {
    thread_local!(static BENCH: OnceCell<Bench> = const { OnceCell::new() });
    BENCH.with(|bench| deed(bench.get_or_init(Bench::new)));
}

/// A method and a path with its query, apart by a space.
pub(crate) fn path(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (method, path) = text.split_once(' ').unwrap_or(("GET", &text));
    // Of a parameter that comes twice the first counts.
    let (place, query) = path.split_once('?').unwrap_or((path, ""));
    let dry = format!("{place}?dryRun=All&{query}");
    with(|bench| {
        let reads = matches!(method, "GET" | "HEAD");
        bench.send(
            method,
            if reads { path } else { &dry },
            "application/json",
            b"{}",
        );
    });
}

/// A byte that chooses the form of the patch, and the patch.
pub(crate) fn patch(input: &[u8]) {
    let Some((form, body)) = input.split_first() else {
        return;
    };
    let form = PATCHES[usize::from(*form) % PATCHES.len()];
    with(|bench| {
        for path in [
            &format!("{CLUSTERS}/a"),
            "/api/v1/namespaces/default/configmaps/a",
        ] {
            let path = format!("{path}?dryRun=All&fieldManager=m");
            let Some(answer) = bench.send("PATCH", &path, form, body) else {
                continue;
            };
            if answer.status == 200 {
                assert_eq!(answer.body["metadata"]["name"], "a");
                assert_eq!(
                    answer.body["metadata"]["resourceVersion"]
                        .as_str()
                        .map(str::is_empty),
                    Some(false)
                );
            }
        }
    });
}

/// A selector of labels and one of fields, apart by a line break.
pub(crate) fn selector(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (labels, fields) = text.split_once('\n').unwrap_or((&text, ""));
    let path = format!(
        "{CLUSTERS}?labelSelector={}&fieldSelector={}",
        encode(labels),
        encode(fields)
    );
    with(|bench| {
        for path in [&path, &format!("{path}&watch=true")] {
            if let Some(answer) = bench.send("GET", path, "", b"") {
                let status = answer.status;
                assert!(matches!(status, 200 | 400), "{path}: {status}");
            }
        }
    });
}

/// An object, as JSON and as YAML.
pub(crate) fn validation(input: &[u8]) {
    with(|bench| {
        let path = format!("{CLUSTERS}?dryRun=All");
        for form in ["application/json", "application/yaml"] {
            if let Some(answer) = bench.send("POST", &path, form, input)
                && answer.status == 201
            {
                // What was taken once is taken again as it was given back.
                let mut again = answer.body;
                for field in ["uid", "creationTimestamp", "managedFields", "generation"] {
                    again["metadata"].as_object_mut().unwrap().remove(field);
                }
                let text = again.to_string();
                let second = bench
                    .send("POST", &path, "application/json", text.as_bytes())
                    .unwrap();
                assert_eq!(second.status, 201, "{text}");
                assert_eq!(second.body["spec"], again["spec"]);
            }
        }
    });
}

fn encode(text: &str) -> String {
    let digits: Vec<String> = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
    digits.concat()
}
