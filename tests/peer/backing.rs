//! The smallest API that can keep PeeringRequests: what the gateway needs of a real one.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use axum::{
    body::{Body, Bytes},
    http::{Method, Request, Response},
};
use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::sync::broadcast;

const COLLECTION: &str = "/apis/discovery.liqo.io/v1alpha1/peeringrequests";

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    revision: u64,
}

/// The objects, and everything that was asked of them.
#[derive(Clone)]
pub(crate) struct Backing {
    state: Arc<Mutex<State>>,
    events: broadcast::Sender<Value>,
}

impl Backing {
    pub(crate) fn new() -> Self {
        Self {
            state: Arc::default(),
            events: broadcast::channel(64).0,
        }
    }

    pub(crate) fn client(&self) -> kube::Client {
        let backing = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let backing = backing.clone();
            async move { Ok::<_, Infallible>(backing.answer(request.map(Body::new)).await) }
        });
        kube::Client::new(service, "default")
    }

    pub(crate) fn object(&self, name: &str) -> Option<Value> {
        self.state.lock().unwrap().objects.get(name).cloned()
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        let query = head.uri.query().unwrap_or_default().to_owned();
        let name = head.uri.path().strip_prefix(COLLECTION).unwrap();
        let name = name.trim_start_matches('/').to_owned();
        if name.is_empty() && head.method == Method::GET && query.contains("watch=true") {
            return self.watch();
        }
        let (code, value) = if name.is_empty() && head.method == Method::GET {
            (200, self.list(&query))
        } else {
            self.act(&head.method, &name, &body)
        };
        Response::builder()
            .status(code)
            .body(Body::from(value.to_string()))
            .unwrap()
    }

    fn list(&self, query: &str) -> Value {
        let state = self.state.lock().unwrap();
        let named = |name: &str| query.contains(&format!("metadata.name%3D{name}"));
        let selected = state.objects.iter().filter(|(name, _)| named(name));
        let items: Vec<_> = selected.map(|(_, object)| object.clone()).collect();
        json!({
            "apiVersion": "discovery.liqo.io/v1alpha1",
            "kind": "PeeringRequestList",
            "metadata": {"resourceVersion": state.revision.to_string()},
            "items": items,
        })
    }

    fn act(&self, method: &Method, name: &str, body: &Bytes) -> (u16, Value) {
        let mut state = self.state.lock().unwrap();
        let present = state.objects.get(name).cloned();
        match (method.as_str(), present) {
            ("GET", Some(object)) => (200, object),
            ("POST", _) => {
                let object: Value = serde_json::from_slice(body).unwrap();
                let name = object["metadata"]["name"].as_str().unwrap().to_owned();
                if state.objects.contains_key(&name) {
                    return (409, status(409, "AlreadyExists"));
                }
                (201, self.keep(&mut state, &name, object, "ADDED"))
            }
            ("PATCH", Some(mut object)) => {
                match serde_json::from_slice::<json_patch::Patch>(body) {
                    Ok(patch) => {
                        if json_patch::patch(&mut object, &patch).is_err() {
                            return (422, status(422, "Invalid"));
                        }
                    }
                    Err(_) => {
                        json_patch::merge(&mut object, &serde_json::from_slice(body).unwrap());
                    }
                }
                (200, self.keep(&mut state, name, object, "MODIFIED"))
            }
            ("DELETE", Some(object)) => {
                self.keep(&mut state, name, object, "DELETED");
                state.objects.remove(name);
                (
                    200,
                    json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}),
                )
            }
            _ => (404, status(404, "NotFound")),
        }
    }

    fn keep(&self, state: &mut State, name: &str, mut object: Value, kind: &str) -> Value {
        state.revision += 1;
        object["metadata"]["resourceVersion"] = json!(state.revision.to_string());
        state.objects.insert(name.to_owned(), object.clone());
        let _ = self.events.send(json!({"type": kind, "object": object}));
        object
    }

    fn watch(&self) -> Response<Body> {
        let events = self.events.subscribe();
        let lines = futures::stream::unfold(events, |mut events| async move {
            let event = events.recv().await.ok()?;
            Some((Ok::<_, Infallible>(format!("{event}\n")), events))
        });
        Response::new(Body::from_stream(lines.boxed()))
    }
}

fn status(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
           "reason": reason, "message": reason})
}
