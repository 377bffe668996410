//! What a peer costs that is accepted.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use axum::http::Request;
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
    client::Body,
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    api::{ForeignClusterSpec, foreign_cluster::ClusterIdentity},
    controllers::{enrolment::context, foreign_cluster},
};

#[tokio::test(start_paused = true)]
async fn a_heartbeat_of_an_accepted_peer_asks_the_api_nothing_and_its_end_is_seen() {
    let asked = Arc::new(AtomicUsize::new(0));
    let mut context = Arc::into_inner(context().await).unwrap();
    context.client = counting(context.client.clone(), &asked);
    let (context, id) = (Arc::new(context), ClusterId::from_spki(b"peer"));
    let spec = ForeignClusterSpec {
        cluster_identity: Some(ClusterIdentity {
            cluster_id: id.to_string(),
            cluster_name: None,
        }),
        trust_mode: TrustMode::Trusted,
        ..ForeignClusterSpec::default()
    };
    let api: Api<ForeignCluster> = Api::all(context.client.clone());
    let object = ForeignCluster::new("milan", spec);
    api.create(&PostParams::default(), &object).await.unwrap();
    let desk = FrontDesk::new(Arc::clone(&context));
    assert_eq!(desk.accepted(&id).await, Ok(true), "before it is seen");
    let stop = CancellationToken::new();
    let running = tokio::spawn(foreign_cluster::run(context, stop.clone()));
    tokio::time::sleep(Duration::from_secs(10)).await;
    let before = asked.load(Ordering::SeqCst);
    for _ in 0..100 {
        assert_eq!(desk.accepted(&id).await, Ok(true));
    }
    assert_eq!(asked.load(Ordering::SeqCst), before);
    let no = Patch::Merge(json!({"spec": {"incomingPeeringEnabled": "No"}}));
    api.patch("milan", &PatchParams::default(), &no)
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(desk.accepted(&id).await, Ok(false));
    stop.cancel();
    running.await.unwrap();
}

/// The same client, which counts the requests.
fn counting(client: Client, asked: &Arc<AtomicUsize>) -> Client {
    let asked = Arc::clone(asked);
    let service = tower::service_fn(move |request: Request<Body>| {
        asked.fetch_add(1, Ordering::SeqCst);
        let client = client.clone();
        async move { client.send(request).await }
    });
    Client::new(service, labels::NAMESPACE)
}
