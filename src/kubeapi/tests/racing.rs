//! Writes of the same object that come together.

use super::*;

use crate::kubeapi::Error;
use axum::body::Bytes;
use futures::{FutureExt, future::BoxFuture};
use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::oneshot;

const MAP: &str = "/api/v1/namespaces/default/configmaps/a";

/// A store whose commits wait while the test holds the gate.
pub(super) struct Gated {
    memory: store::Memory,
    gate: Arc<Mutex<()>>,
}

impl store::Backend for Gated {
    fn load(&mut self) -> Result<store::Loaded, Error> {
        self.memory.load()
    }

    fn commit(&mut self, batch: &[store::Change], forget: u64) -> Result<(), Error> {
        let _open = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        self.memory.commit(batch, forget)
    }
}

/// An API that commits nothing while the test holds the gate.
pub(super) async fn open_gated() -> (KubeApi, Arc<Mutex<()>>) {
    let gate = Arc::new(Mutex::new(()));
    let backend = Gated {
        memory: store::Memory::default(),
        gate: Arc::clone(&gate),
    };
    let options = Options {
        backend: Box::new(backend),
        commit: store::Commit::Threaded,
        ..options(store::Memory::default())
    };
    (KubeApi::open(options).await.unwrap(), gate)
}

/// Takes each of these requests to where it waits for a commit, which comes when all of them are there.
pub(super) fn hold(gate: &Mutex<()>, requests: &mut [&mut BoxFuture<'_, (u16, Value)>]) {
    let _closed = gate.lock().unwrap();
    for request in requests {
        assert!(request.now_or_never().is_none());
    }
}

/// Sends these requests so that each has looked at the store before any of them is committed.
async fn together(mut requests: Vec<BoxFuture<'_, (u16, Value)>>, gate: &Mutex<()>) -> Vec<u16> {
    hold(gate, &mut requests.iter_mut().collect::<Vec<_>>());
    let answers = futures::future::join_all(requests).await;
    answers.into_iter().map(|(code, _)| code).collect()
}

fn apply<'a>(api: &'a KubeApi, manager: &str) -> BoxFuture<'a, (u16, Value)> {
    let path = format!("{MAP}?fieldManager={manager}");
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {manager: "x"}});
    async move { send(api, "PATCH", &path, object).await }.boxed()
}

#[tokio::test]
async fn of_two_appliers_that_create_the_same_object_neither_fails() {
    let (api, gate) = open_gated().await;
    let codes = together(vec![apply(&api, "one"), apply(&api, "two")], &gate).await;
    assert_eq!(codes, [201, 200]);
    let both = json!({"one": "x", "two": "x"});
    assert_eq!(read(&api, MAP).await.unwrap()["data"], both);
}

#[tokio::test]
async fn an_object_that_goes_while_it_is_applied_comes_back() {
    let (api, gate) = open_gated().await;
    apply(&api, "one").await;
    let deletion = send(&api, "DELETE", MAP, Value::Null).boxed();
    let codes = together(vec![deletion, apply(&api, "two")], &gate).await;
    assert_eq!(codes, [200, 201]);
    assert_eq!(read(&api, MAP).await.unwrap()["data"], json!({"two": "x"}));
}

#[tokio::test]
async fn an_object_that_goes_while_it_is_applied_by_its_uid_stays_away() {
    let (api, gate) = open_gated().await;
    apply(&api, "one").await;
    let uid = read(&api, MAP).await.unwrap()["metadata"]["uid"].clone();
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"uid": uid}, "data": {"two": "x"}});
    let path = format!("{MAP}?fieldManager=two");
    let deletion = send(&api, "DELETE", MAP, Value::Null).boxed();
    let applied = send(&api, "PATCH", &path, object.clone()).boxed();
    assert_eq!(together(vec![deletion, applied], &gate).await, [200, 409]);
    assert_eq!(read(&api, MAP).await, None);
    let (_, told) = send(&api, "PATCH", &path, object).await;
    let wanted = format!(
        "Operation cannot be fulfilled on configmaps \"a\": uid mismatch: the provided object specified uid {}, and no existing object was found",
        uid.as_str().unwrap()
    );
    assert_eq!(told["message"], wanted);
}

#[tokio::test]
async fn an_object_that_comes_while_its_namespace_begins_to_end_goes_with_it() {
    let (api, gate) = open_gated().await;
    let team = "/api/v1/namespaces/team";
    let named = |name: &str| json!({"metadata": {"name": name}});
    send(&api, "POST", "/api/v1/namespaces", named("team")).await;
    let mut deletion = send(&api, "DELETE", team, Value::Null).boxed();
    let maps = "/api/v1/namespaces/team/configmaps";
    let mut creation = send(&api, "POST", maps, named("a")).boxed();
    hold(&gate, &mut [&mut deletion, &mut creation]);
    // Nobody has asked yet what became of the deletion.
    assert_eq!(creation.await.0, 201);
    assert_eq!(read(&api, team).await, None);
}

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

const BOATS: &str = "/apis/sea.test/v1/boats";

fn boats() -> Value {
    json!({"metadata": {"name": "boats.sea.test"}, "spec": {"group": "sea.test",
        "scope": "Cluster", "names": {"kind": "Boat", "plural": "boats"}, "versions": [
            {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]}})
}

/// Waits until something is committed after this revision.
async fn committed_after(api: &KubeApi, before: u64) {
    let told = async {
        while api.revision() == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let told = tokio::time::timeout(Duration::from_secs(30), told);
    told.await.expect("nothing is committed");
}

#[tokio::test]
async fn whoever_hears_of_a_definition_finds_its_kind() {
    let (api, gate) = open_gated().await;
    let before = api.revision();
    let mut creation = send(&api, "POST", DEFINITIONS, boats()).boxed();
    hold(&gate, &mut [&mut creation]);
    committed_after(&api, before).await;
    let boats = read(&api, BOATS);
    let (found, (code, _)) = tokio::join!(boats, creation);
    assert_eq!((found.is_some(), code), (true, 201));
}

/// Asks for a boat to be made, whose description comes when the word is given.
fn late_boat(api: &KubeApi) -> (oneshot::Sender<()>, BoxFuture<'static, u16>) {
    let (word, given) = oneshot::channel();
    let boat = json!({"apiVersion": "sea.test/v1", "kind": "Boat", "metadata": {"name": "a"}});
    let body = async move { given.await.map(|()| Bytes::from(boat.to_string())) };
    let body = Body::from_stream(futures::stream::once(body));
    let request = Request::post(BOATS).header("content-type", "application/json");
    let answer = tower::Service::call(&mut api.clone(), request.body(body).unwrap());
    let code = answer.map(|answer| answer.unwrap().status().as_u16());
    (word, code.boxed())
}

/// Whether there are boats once their kind is there again.
async fn boats_are_left(api: &KubeApi) -> bool {
    let (code, told) = send(api, "POST", DEFINITIONS, boats()).await;
    assert_eq!(code, 201, "{told}");
    read(api, BOATS).await.unwrap()["items"] != json!([])
}

#[tokio::test]
async fn nothing_is_made_of_a_kind_that_is_gone_when_its_description_comes() {
    let (api, _gate) = open_gated().await;
    send(&api, "POST", DEFINITIONS, boats()).await;
    let (word, mut creation) = late_boat(&api);
    assert!((&mut creation).now_or_never().is_none());
    let path = format!("{DEFINITIONS}/boats.sea.test");
    assert_eq!(send(&api, "DELETE", &path, Value::Null).await.0, 200);
    word.send(()).unwrap();
    assert_eq!(creation.await, 404);
    assert!(!boats_are_left(&api).await);
}

#[tokio::test]
async fn nothing_is_left_of_a_kind_that_goes_while_it_is_stored() {
    let (api, gate) = open_gated().await;
    send(&api, "POST", DEFINITIONS, boats()).await;
    let (word, mut creation) = late_boat(&api);
    assert!((&mut creation).now_or_never().is_none());
    let path = format!("{DEFINITIONS}/boats.sea.test");
    let before = api.revision();
    let mut deletion = send(&api, "DELETE", &path, Value::Null).boxed();
    hold(&gate, &mut [&mut deletion]);
    committed_after(&api, before).await;
    let closed = gate.lock().unwrap();
    // The kind is served until the deletion goes on, which then finds no boat.
    word.send(()).unwrap();
    assert!((&mut creation).now_or_never().is_none());
    while (&mut deletion).now_or_never().is_none() {
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(closed);
    assert_eq!(creation.await, 404);
    assert!(!boats_are_left(&api).await);
}
