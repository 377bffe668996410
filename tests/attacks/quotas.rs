//! An accepted peer that wants more than its share: objects, bytes, changes, watches.

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use futures::TryStreamExt as _;
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams, PostParams, WatchParams},
};
use landbridge::{
    api::{PeeringRequest, identity::ClusterId, peering_request::PeeringRequestSpec},
    peer::{auth::Session, certificates::Proven, client::Http},
};
use serde_json::json;
use tower::ServiceExt as _;

use crate::rig::Cluster;

const COLLECTION: &str = "/apis/discovery.liqo.io/v1alpha1/peeringrequests";

#[tokio::test]
async fn ten_thousand_objects_are_one_and_others_are_served_meanwhile() {
    let rome = Cluster::start().await;
    let (greedy, other) = (accepted(&rome, "greedy"), accepted(&rome, "other"));
    let mine = api(&rome, &other);
    create(&mine, &other).await.unwrap();
    let http = http(&rome, &greedy);
    for index in 0..10_000 {
        let name = match index {
            0 => greedy.to_string(),
            index => ClusterId::from_spki(format!("{index}").as_bytes()).to_string(),
        };
        let code = post(&http, &object(&name, "liqo")).await;
        let expected = if index == 0 {
            vec![201]
        } else {
            vec![403, 429]
        };
        assert!(expected.contains(&code.as_u16()), "{index}: {code}");
        if index % 250 == 0 {
            // Forty changes of somebody else, in the very same time.
            let change = Patch::Merge(json!({"spec": {"namespace": format!("n{index}")}}));
            let parameters = PatchParams::default();
            mine.patch(other.as_str(), &parameters, &change)
                .await
                .unwrap();
        }
    }
    let local: Api<PeeringRequest> = Api::all(rome.objects.client());
    let all = local.list(&ListParams::default()).await.unwrap();
    assert_eq!(all.items.len(), 2);
}

#[tokio::test]
async fn a_megabyte_is_refused_before_it_is_read() {
    let rome = Cluster::start().await;
    let greedy = accepted(&rome, "greedy");
    let http = http(&rome, &greedy);
    let large = object(greedy.as_str(), &"n".repeat(1 << 20));
    assert_eq!(post(&http, &large).await, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(rome.stored(&greedy).await, None);
    assert_eq!(
        post(&http, &object(greedy.as_str(), "liqo")).await,
        StatusCode::CREATED
    );
    let change = Request::patch(format!("{COLLECTION}/{greedy}"))
        .header("content-type", "application/merge-patch+json")
        .body(Body::from(large))
        .unwrap();
    let answer = http.oneshot(change).await.unwrap();
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn a_peer_has_few_watches_and_another_has_its_own() {
    let rome = Cluster::start().await;
    let (greedy, other) = (accepted(&rome, "greedy"), accepted(&rome, "other"));
    let mut open = Vec::new();
    for _ in 0..8 {
        open.push(watch(&api(&rome, &greedy)).await.unwrap());
    }
    for _ in 0..100 {
        let code = code(watch(&api(&rome, &greedy)).await);
        assert_eq!(code, Some(429));
    }
    assert!(watch(&api(&rome, &other)).await.is_ok());
    drop(open);
    assert!(
        watch(&api(&rome, &greedy)).await.is_ok(),
        "places come back"
    );
}

type Events = futures::stream::BoxStream<
    'static,
    Result<kube::core::WatchEvent<PeeringRequest>, kube::Error>,
>;

/// Begins a watch and waits until it stands.
async fn watch(api: &Api<PeeringRequest>) -> Result<Events, kube::Error> {
    let events = api.watch(&WatchParams::default(), "0").await?;
    Ok(Box::pin(events.into_stream()))
}

async fn create(api: &Api<PeeringRequest>, id: &ClusterId) -> Result<PeeringRequest, kube::Error> {
    let object = PeeringRequest::new(id.as_str(), PeeringRequestSpec::default());
    api.create(&PostParams::default(), &object).await
}

fn accepted(rome: &Cluster, seed: &str) -> ClusterId {
    let id = ClusterId::from_spki(seed.as_bytes());
    rome.accept(&id);
    id
}

fn http(rome: &Cluster, peer: &ClusterId) -> Http {
    rome.endpoint.in_session(Session {
        peer: Some(Proven {
            cluster_id: peer.clone(),
            fingerprint: landbridge::api::Fingerprint::from_spki(peer.as_str().as_bytes()),
        }),
        exporter: [0; 32],
        address: None,
    })
}

fn api(rome: &Cluster, peer: &ClusterId) -> Api<PeeringRequest> {
    let http =
        http(rome, peer).map_request(|request: Request<kube::client::Body>| request.map(Body::new));
    Api::all(kube::Client::new(http, "default"))
}

fn object(name: &str, namespace: &str) -> String {
    json!({
        "apiVersion": "discovery.liqo.io/v1alpha1",
        "kind": "PeeringRequest",
        "metadata": {"name": name},
        "spec": {"clusterIdentity": {"clusterID": ""}, "namespace": namespace, "authUrl": ""},
    })
    .to_string()
}

async fn post(http: &Http, body: &str) -> StatusCode {
    let request = Request::post(COLLECTION)
        .header("content-type", "application/json")
        .body(Body::from(body.to_owned()))
        .unwrap();
    http.clone().oneshot(request).await.unwrap().status()
}

fn code<T>(result: Result<T, kube::Error>) -> Option<u16> {
    match result {
        Err(kube::Error::Api(status)) => Some(status.code),
        Err(_) | Ok(_) => None,
    }
}
