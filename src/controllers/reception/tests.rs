//! What a peer costs that is accepted, and how many may come.

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
    api::{
        ForeignClusterSpec,
        foreign_cluster::{ClusterIdentity, IncomingPeering, TrustMode},
    },
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

#[tokio::test]
async fn of_two_objects_of_a_cluster_it_is_not_the_better_one_that_lets_it_in() {
    let (context, id) = (context().await, ClusterId::from_spki(b"peer"));
    for (name, incoming) in [("allowed", "Auto"), ("denied", "No")] {
        let mut object = visitor(name, &id);
        object.spec.trust_mode = TrustMode::Trusted;
        object.spec.incoming_peering_enabled = serde_json::from_value(json!(incoming)).unwrap();
        create(&context, object).await;
    }
    let desk = FrontDesk::new(Arc::clone(&context));
    let stop = CancellationToken::new();
    let running = tokio::spawn(foreign_cluster::run(Arc::clone(&context), stop.clone()));
    let sees_both = || {
        let seen = context.seen.get();
        seen.is_some_and(|seen| seen.state().len() == 2)
    };
    while !sees_both() {
        tokio::task::yield_now().await;
    }
    assert_eq!(desk.accepted(&id).await, Ok(false));
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn only_so_many_clusters_may_wait_and_who_does_not_wait_takes_no_place() {
    let context = context().await;
    let objects: Vec<ForeignCluster> = (0..64).map(numbered).collect();
    assert!(is_crowded(&context, &objects));
    assert!(!is_crowded(&context, &objects[1..]));
    let ways: [fn(&mut ForeignCluster); 4] = [
        |object| object.spec.incoming_peering_enabled = IncomingPeering::No,
        |object| object.spec.incoming_peering_enabled = IncomingPeering::Yes,
        |object| object.spec.trust_mode = TrustMode::Trusted,
        |object| object.spec.discovery_type = DiscoveryType::Lan,
    ];
    for way in ways {
        let mut objects = objects.clone();
        way(&mut objects[0]);
        assert!(!is_crowded(&context, &objects));
    }
}

#[tokio::test]
async fn a_crowd_keeps_strangers_out_and_not_who_is_accepted_unseen() {
    for (number, open, expected) in [
        (STRANGERS, false, Decision::Refused),
        (STRANGERS - 1, false, Decision::Waiting),
        (STRANGERS, true, Decision::Accepted),
        (VISITORS, true, Decision::Refused),
    ] {
        let mut context = Arc::into_inner(context().await).unwrap();
        let mut config = context.policy();
        config.auth_config.allow_empty_token = open;
        context.config = tokio::sync::watch::channel(config).1;
        let context = Arc::new(context);
        for index in 0..number {
            create(&context, numbered(index)).await;
        }
        let desk = FrontDesk::new(context);
        let id = ClusterId::from_spki(b"peer");
        let fingerprint = crate::api::Fingerprint::from_spki(b"peer");
        let session = Session {
            peer: Some(Proven {
                cluster_id: id.clone(),
                fingerprint,
            }),
            exporter: [0; 32],
            address: None,
        };
        let asked = json!({"clusterID": id, "clusterName": "milan"});
        let asked: IdentityRequest = serde_json::from_value(asked).unwrap();
        let answer = desk.identify(&session, asked).await.unwrap();
        assert_eq!(answer.decision, expected, "{number} {}", answer.message);
    }
}

/// A cluster that came to us and waits.
fn numbered(index: usize) -> ForeignCluster {
    let name = format!("visitor-{index}");
    visitor(&name, &ClusterId::from_spki(name.as_bytes()))
}

fn visitor(name: &str, id: &ClusterId) -> ForeignCluster {
    let spec = ForeignClusterSpec {
        cluster_identity: Some(ClusterIdentity {
            cluster_id: id.to_string(),
            cluster_name: None,
        }),
        discovery_type: DiscoveryType::IncomingPeering,
        trust_mode: TrustMode::Untrusted,
        ..ForeignClusterSpec::default()
    };
    ForeignCluster::new(name, spec)
}

async fn create(context: &Context, object: ForeignCluster) {
    let api: Api<ForeignCluster> = Api::all(context.client.clone());
    api.create(&PostParams::default(), &object).await.unwrap();
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
