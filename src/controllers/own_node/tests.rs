//! The own node against an API of canned answers.

use std::sync::Mutex;

use axum::http::{Request, Response, StatusCode};
use kube::client::Body;
use serde_json::Value;

use super::*;

/// Just enough of a Kubernetes API: objects by path, created, read and merged.
#[derive(Debug, Clone, Default)]
struct Kubernetes(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Value>,
    writes: Vec<String>,
}

impl Kubernetes {
    fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = axum::body::to_bytes(axum::body::Body::new(body), 1 << 20).await;
                let body = body.expect("the body is in memory");
                let path = head.uri.path().trim_end_matches("/status").to_owned();
                let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
                let (code, answer) = api.answer(head.method.as_str(), &path, &body);
                let answer = Body::from(serde_json::to_vec(&answer).expect("JSON is JSON"));
                let response = Response::builder().status(code).body(answer);
                response.map_err(kube::Error::HttpError)
            }
        });
        Client::new(service, "default")
    }

    fn answer(&self, method: &str, path: &str, body: &Value) -> (StatusCode, Value) {
        let mut state = self
            .0
            .lock()
            .expect("no test panics while it holds the lock");
        let missing = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
            "message": "not found", "reason": "NotFound", "code": 404});
        if method != "GET" {
            state.writes.push(format!("{method} {path}"));
        }
        if method == "POST" {
            let name = body["metadata"]["name"]
                .as_str()
                .expect("objects are named");
            let mut object = body.clone();
            object["metadata"]["uid"] = json!("11111111-2222-4333-8444-555555555555");
            let parent = path.strip_suffix("/leases");
            if parent.is_some_and(|parent| !state.objects.contains_key(&namespace_of(parent))) {
                return (StatusCode::NOT_FOUND, missing);
            }
            state
                .objects
                .insert(format!("{path}/{name}"), object.clone());
            return (StatusCode::CREATED, object);
        }
        if method == "DELETE" {
            let object = state.objects.remove(path);
            return object.map_or((StatusCode::NOT_FOUND, missing), |it| (StatusCode::OK, it));
        }
        if path == "/api/v1/nodes" {
            let nodes = state
                .objects
                .iter()
                .filter(|(key, _)| key.starts_with(path));
            let items: Vec<_> = nodes.map(|(_, node)| node.clone()).collect();
            let list =
                json!({"kind": "NodeList", "apiVersion": "v1", "metadata": {}, "items": items});
            return (StatusCode::OK, list);
        }
        match state.objects.get_mut(path) {
            None => (StatusCode::NOT_FOUND, missing),
            Some(object) => {
                if method == "PATCH" {
                    json_patch::merge(object, body);
                }
                (StatusCode::OK, object.clone())
            }
        }
    }

    fn object(&self, path: &str) -> Value {
        let state = self
            .0
            .lock()
            .expect("no test panics while it holds the lock");
        state.objects.get(path).cloned().unwrap_or_default()
    }

    fn writes(&self) -> Vec<String> {
        let mut state = self
            .0
            .lock()
            .expect("no test panics while it holds the lock");
        std::mem::take(&mut state.writes)
    }
}

fn namespace_of(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or_default();
    format!("/api/v1/namespaces/{name}")
}

const NODE: &str = "/api/v1/nodes/rome";
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/rome";

fn rome() -> Machine {
    Machine {
        hostname: "Rome".to_owned(),
        cpu_milli: 1500,
        memory_bytes: 2 << 30,
        storage_bytes: 10 << 30,
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("tests use small numbers")
}

#[tokio::test]
async fn the_first_round_makes_the_node_the_namespace_and_the_lease() {
    let api = Kubernetes::default();
    keep(&api.client(), &rome(), at(1000))
        .await
        .expect("the API is well");
    let node = api.object(NODE);
    assert_eq!(node["metadata"]["labels"]["kubernetes.io/hostname"], "rome");
    assert_eq!(node["status"]["capacity"]["cpu"], "1500m");
    assert_eq!(node["status"]["allocatable"]["memory"], "2097152Ki");
    assert_eq!(
        node["status"]["allocatable"]["ephemeral-storage"],
        "10485760Ki"
    );
    assert_eq!(node["status"]["conditions"][0]["status"], "True");
    let lease = api.object(LEASE);
    assert_eq!(lease["spec"]["holderIdentity"], "rome");
    assert_eq!(lease["spec"]["leaseDurationSeconds"], 40);
    assert_eq!(lease["metadata"]["ownerReferences"][0]["kind"], "Node");
}

#[tokio::test]
async fn later_rounds_renew_the_lease_and_leave_the_node_alone() {
    let api = Kubernetes::default();
    keep(&api.client(), &rome(), at(1000))
        .await
        .expect("the API is well");
    let first = api.object(LEASE)["spec"]["renewTime"].clone();
    api.writes();
    keep(&api.client(), &rome(), at(1010))
        .await
        .expect("the API is well");
    assert_eq!(api.writes(), [format!("PATCH {LEASE}")]);
    assert_ne!(api.object(LEASE)["spec"]["renewTime"], first);
}

#[tokio::test]
async fn a_change_of_the_machine_is_written_and_what_others_wrote_is_kept() {
    let api = Kubernetes::default();
    keep(&api.client(), &rome(), at(1000))
        .await
        .expect("the API is well");
    let since = api.object(NODE)["status"]["conditions"][0]["lastTransitionTime"].clone();
    let theirs = json!({"status": {
        "capacity": {"example.com/gpu": "1"},
        "conditions": [{"type": "Weather", "status": "True"},
            api.object(NODE)["status"]["conditions"][0]]}});
    api.answer("PATCH", NODE, &theirs);
    let mut grown = rome();
    grown.cpu_milli = 4000;
    keep(&api.client(), &grown, at(1010))
        .await
        .expect("the API is well");
    let status = api.object(NODE)["status"].clone();
    assert_eq!(status["capacity"]["cpu"], "4");
    assert_eq!(status["capacity"]["example.com/gpu"], "1");
    assert_eq!(status["conditions"][0]["type"], "Weather");
    assert_eq!(status["conditions"][1]["lastTransitionTime"], since);
}

#[tokio::test]
async fn a_machine_with_another_name_is_one_node_and_nodes_of_others_stay() {
    let api = Kubernetes::default();
    keep(&api.client(), &rome(), at(1000))
        .await
        .expect("the API is well");
    let others = json!({"metadata": {"name": "paris"}, "status": {
        "nodeInfo": {"kubeletVersion": "v1.33.0"},
        "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]}});
    api.answer("POST", "/api/v1/nodes", &others);
    let renamed = Machine {
        hostname: "milan".to_owned(),
        ..rome()
    };
    keep(&api.client(), &renamed, at(1010))
        .await
        .expect("the API is well");
    assert_eq!(api.object(NODE), Value::Null);
    assert_eq!(api.object(LEASE), Value::Null);
    let ready = |name: &str| {
        let node = api.object(&format!("/api/v1/nodes/{name}"));
        node["status"]["conditions"][0]["status"].clone()
    };
    assert_eq!([ready("milan"), ready("paris")], ["True", "True"]);
}

#[tokio::test]
async fn labels_that_somebody_removed_come_back() {
    let api = Kubernetes::default();
    keep(&api.client(), &rome(), at(1000))
        .await
        .expect("the API is well");
    let removal = json!({"metadata": {"labels": {"kubernetes.io/os": null, "mine": "1"}}});
    api.answer("PATCH", NODE, &removal);
    keep(&api.client(), &rome(), at(1010))
        .await
        .expect("the API is well");
    let labels = api.object(NODE)["metadata"]["labels"].clone();
    assert_eq!(labels["kubernetes.io/os"], "linux");
    assert_eq!(labels["mine"], "1");
}

#[tokio::test(start_paused = true)]
async fn a_broken_api_is_tried_again_until_the_shutdown() {
    let api = Kubernetes::default();
    let broken = Arc::new(Mutex::new(3_u32));
    let (countdown, well) = (Arc::clone(&broken), api.clone());
    let service = tower::service_fn(move |request: Request<Body>| {
        let mut left = countdown.lock().expect("nobody panics with the lock");
        let fails = *left > 0;
        *left = left.saturating_sub(1);
        drop(left);
        let client = well.client();
        async move {
            if fails {
                let response = Response::builder().status(500).body(Body::empty());
                return response.map_err(kube::Error::HttpError);
            }
            client.send(request).await
        }
    });
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(run(
        Client::new(service, "default"),
        Arc::new(rome),
        Arc::new(|| at(1000)),
        shutdown.clone(),
    ));
    while api.object(LEASE).is_null() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(*broken.lock().expect("nobody panics with the lock"), 0);
    shutdown.cancel();
    task.await.expect("the task ends by itself");
}
