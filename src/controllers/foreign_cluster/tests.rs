//! A peer with which no plan comes to rest.

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::{
    body::Body,
    http::{Method, Request, Response},
};
use futures::stream;
use kube::api::PostParams;
use tower::util::BoxCloneSyncService;

use super::*;
use crate::{
    api::{
        ClusterId, ClusterName, Fingerprint, ForeignClusterSpec,
        foreign_cluster::{ClusterIdentity, TrustMode},
        peering_request::PeeringRequestSpec,
    },
    controllers::enrolment::context,
    engine::peering::Connected,
    peer::{certificates::Proven, client::Connection},
};

const URL: &str = "https://10.0.0.2:5870";

#[tokio::test(start_paused = true)]
async fn a_peer_that_keeps_something_else_is_told_ever_less_often() {
    let (context, told) = (context().await, Arc::new(AtomicUsize::new(0)));
    let connection = stubborn_peer(context.own.cluster_id.clone(), &told);
    let spec = ForeignClusterSpec {
        cluster_identity: Some(ClusterIdentity {
            cluster_id: connection.proven.cluster_id.to_string(),
            cluster_name: None,
        }),
        join: true,
        auth_url: URL.to_owned(),
        trust_mode: TrustMode::Trusted,
        ..ForeignClusterSpec::default()
    };
    let api: Api<ForeignCluster> = Api::all(context.client.clone());
    let object = ForeignCluster::new("milan", spec);
    api.create(&PostParams::default(), &object).await.unwrap();
    let connected = Connected {
        url: URL.to_owned(),
        address: None,
        cluster_id: connection.proven.cluster_id.clone(),
        cluster_name: ClusterName::default(),
        fingerprint: connection.proven.fingerprint.clone(),
    };
    context
        .links
        .adopt("milan", connected, Arc::new(connection));
    let stop = CancellationToken::new();
    let running = tokio::spawn(run(context, stop.clone()));
    tokio::time::sleep(Duration::from_mins(1)).await;
    let before = told.load(Ordering::SeqCst);
    assert!(before > 0, "it is told");
    tokio::time::sleep(Duration::from_mins(10)).await;
    let after = told.load(Ordering::SeqCst) - before;
    assert!((1..1000).contains(&after), "told {after} times");
    stop.cancel();
    running.await.unwrap();
}

/// A peer that accepts us, says every two seconds that it lives, and never keeps what it is told.
fn stubborn_peer(own_id: ClusterId, told: &Arc<AtomicUsize>) -> Connection {
    let told = Arc::clone(told);
    let service = tower::service_fn(move |request: Request<Body>| {
        let object = json!({
            "apiVersion": "discovery.liqo.io/v1alpha1",
            "kind": "PeeringRequest",
            "metadata": {"name": own_id, "resourceVersion": "1"},
            "spec": PeeringRequestSpec::default(),
        });
        let is_watch = request.uri().query().unwrap_or_default().contains("watch");
        let (status, body) = if request.uri().path() == "/identity" {
            (201, Body::from(json!({"decision": "Accepted"}).to_string()))
        } else if is_watch {
            let line = format!("{}\n", json!({"type": "MODIFIED", "object": object}));
            let lines = stream::repeat(line).then(|line| async {
                tokio::time::sleep(Duration::from_secs(2)).await;
                Ok::<_, std::io::Error>(line)
            });
            (200, Body::from_stream(lines))
        } else {
            let is_told = request.method() == Method::PATCH;
            told.fetch_add(usize::from(is_told), Ordering::SeqCst);
            (200, Body::from(object.to_string()))
        };
        async move { Ok(Response::builder().status(status).body(body).unwrap()) }
    });
    let proven = Proven {
        cluster_id: ClusterId::from_spki(b"peer"),
        fingerprint: Fingerprint::from_spki(b"peer"),
    };
    Connection::new(proven, [0; 32], None, BoxCloneSyncService::new(service))
}
