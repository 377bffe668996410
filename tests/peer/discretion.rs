//! What goes wrong inside of a cluster is told to nobody outside.

use std::sync::Arc;

use axum::{
    body::{Body, Bytes},
    http::{Request, Response},
};
use landbridge::peer::auth::{PeerEndpoint, Reception as _, Undecided};
use serde_json::json;
use tower::ServiceExt as _;

use crate::{
    front_desk::{Rome, TOKEN, Visitor},
    rig::Cluster,
};

/// What the API behind the endpoint says, and nobody else is to hear.
const SECRET_PATH: &str = "/var/lib/landbridge/secret path";

#[tokio::test]
async fn a_stranger_does_not_hear_why_it_cannot_be_received() {
    let rome = Rome::over(broken());
    let visitor = Visitor::new(1);
    let request = visitor.request(rome.id(), TOKEN);
    let answer = rome
        .desk
        .identify(&visitor.session(), request.clone())
        .await;
    assert_eq!(answer, Err(Undecided));
    let body = serde_json::to_vec(&request).unwrap();
    let http = rome.endpoint.in_session(visitor.session());
    for request in [
        Request::post("/identity").body(Body::from(body)).unwrap(),
        Request::get("/ids").body(Body::empty()).unwrap(),
        Request::get("/apis/discovery.liqo.io/v1alpha1/peeringrequests")
            .body(Body::empty())
            .unwrap(),
    ] {
        let said = whole(http.clone().oneshot(request).await.unwrap()).await;
        assert!(!said.contains("secret path"), "{said}");
    }
}

#[tokio::test]
async fn an_accepted_peer_does_not_hear_it_either() {
    let rome = Cluster::start().await;
    let milan = Visitor::new(1);
    let desk = Arc::<crate::rig::Desk>::clone(&rome.desk);
    rome.accept(&milan.id);
    let http = PeerEndpoint::new(desk, broken()).in_session(milan.session());
    let collection = "/apis/discovery.liqo.io/v1alpha1/peeringrequests";
    let own = format!("{collection}/{}", milan.id);
    let wish = json!({
        "apiVersion": "discovery.liqo.io/v1alpha1",
        "kind": "PeeringRequest",
        "metadata": {"name": milan.id},
        "spec": {"clusterIdentity": {"clusterID": milan.id}, "namespace": "liqo", "authUrl": ""},
    });
    let requests = [
        ("GET", &own, Body::empty()),
        ("DELETE", &own, Body::empty()),
        ("POST", &collection.to_owned(), Body::from(wish.to_string())),
    ];
    for (method, path, body) in requests {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json")
            .body(body);
        let answer = http.clone().oneshot(request.unwrap()).await.unwrap();
        let status = answer.status();
        let said = whole(answer).await;
        assert_eq!(status, 503, "{method} {path}: {said}");
        assert!(!said.contains("secret path"), "{said}");
    }
}

/// A client of an API that fails, and says too much.
fn broken() -> kube::Client {
    let service = tower::service_fn(|_: Request<kube::client::Body>| async {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
            "message": SECRET_PATH, "reason": "InternalError", "code": 500});
        let answer = Response::builder()
            .status(500)
            .body(Body::from(status.to_string()));
        Ok::<_, std::convert::Infallible>(answer.unwrap())
    });
    kube::Client::new(service, "liqo")
}

async fn whole(answer: Response<Body>) -> String {
    let bytes: Bytes = axum::body::to_bytes(answer.into_body(), 1 << 20)
        .await
        .unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}
