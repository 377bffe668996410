//! What a cluster says about itself in its ClusterConfig.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::http::Request;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    client::Body,
};
use landbridge::{
    api::{ClusterConfig, ClusterConfigSpec, labels},
    controllers::{cluster_config, suspicions},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::front_desk::Rome;

#[tokio::test(start_paused = true)]
async fn an_identity_that_is_alone_again_is_told_though_the_api_was_away() {
    let objects = Rome::open().await.client;
    cluster_config::load(&objects, &ClusterConfigSpec::default())
        .await
        .unwrap();
    let api: Api<ClusterConfig> = Api::all(objects.clone());
    let left = json!({"type": "IdentityUnique", "status": "False", "reason": "DuplicateIdentity",
        "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let patch = Patch::Merge(json!({"status": {"conditions": [left]}}));
    let (name, params) = (labels::CLUSTER_CONFIG, PatchParams::default());
    api.patch_status(name, &params, &patch).await.unwrap();
    let is_away = Arc::new(AtomicBool::new(true));
    let rome = Rome::over(sometimes_away(objects, Arc::clone(&is_away)));
    tokio::spawn(suspicions::run(rome.context, CancellationToken::new()));
    let status = async || {
        let object = api.get(name).await.unwrap();
        object.status.unwrap().conditions.remove(0).status
    };
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(status().await, "False");
    is_away.store(false, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(status().await, "True");
}

/// A client whose API fails while it is away.
fn sometimes_away(client: Client, is_away: Arc<AtomicBool>) -> Client {
    let service = tower::service_fn(move |request: Request<Body>| {
        let (client, is_away) = (client.clone(), is_away.load(Ordering::Relaxed));
        async move {
            if is_away {
                return Err("the API is away".into());
            }
            client.send(request).await.map_err(tower::BoxError::from)
        }
    });
    Client::new(service, "default")
}
