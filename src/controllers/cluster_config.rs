//! The policy of this cluster: the ClusterConfig object, live.

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
    runtime::{WatchStreamExt as _, watcher},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Error, is_conflict};
use crate::api::{ClusterConfig, ClusterConfigSpec, labels};

/// Reads the policy, and creates it from `first` when there is none yet.
pub async fn load(client: &Client, first: &ClusterConfigSpec) -> Result<ClusterConfigSpec, Error> {
    let api: Api<ClusterConfig> = Api::all(client.clone());
    let read = Error::api("read the ClusterConfig");
    if let Some(present) = api.get_opt(labels::CLUSTER_CONFIG).await.map_err(read)? {
        return Ok(present.spec);
    }
    let object = ClusterConfig::new(labels::CLUSTER_CONFIG, first.clone());
    let created = api.create(&PostParams::default(), &object).await;
    Ok(created
        .map_err(Error::api("create the ClusterConfig"))?
        .spec)
}

/// Makes sure that a namespace exists.
pub async fn ensure_namespace(client: &Client, name: &str) -> Result<(), Error> {
    let api: Api<Namespace> = Api::all(client.clone());
    if api
        .get_opt(name)
        .await
        .map_err(Error::api("read a namespace"))?
        .is_some()
    {
        return Ok(());
    }
    let namespace = Namespace {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    };
    match api.create(&PostParams::default(), &namespace).await {
        Err(error) if is_conflict(&error) => Ok(()),
        other => other.map(drop).map_err(Error::api("create a namespace")),
    }
}

/// Follows the object until the shutdown. A deleted object leaves the last policy in force.
pub async fn run(
    client: Client,
    policy: watch::Sender<ClusterConfigSpec>,
    shutdown: CancellationToken,
) {
    let config =
        watcher::Config::default().fields(&format!("metadata.name={}", labels::CLUSTER_CONFIG));
    let changes = watcher(Api::<ClusterConfig>::all(client), config)
        .default_backoff()
        .applied_objects();
    let mut changes = Box::pin(changes.take_until(shutdown.cancelled_owned()));
    while let Some(change) = changes.next().await {
        match change {
            Ok(object) => {
                let changed = policy.send_if_modified(|present| {
                    let different = *present != object.spec;
                    present.clone_from(&object.spec);
                    different
                });
                if changed {
                    tracing::info!("Policy changed");
                }
            }
            Err(error) => tracing::debug!(%error, "The watch on the ClusterConfig ended"),
        }
    }
}
