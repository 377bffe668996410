//! What the daemon says about itself: the ConfigMap that `landbridge status` reads.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PostParams},
};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::build::{Assembly, Place};
use crate::{
    api::labels,
    controllers::{self, Context},
    engine::addresses::OwnNetworks,
};

/// How long after a failure name and place are told again.
const RETRY: Duration = Duration::from_secs(1);

/// Follows what we are called and where we are until the shutdown.
pub(super) async fn follow(
    context: Arc<Context>,
    place: Place,
    mut networks: watch::Receiver<OwnNetworks>,
    stop: CancellationToken,
) {
    let mut policy = context.config.clone();
    loop {
        policy.borrow_and_update();
        let url = place.auth_url(&networks.borrow_and_update());
        context.move_to(url.clone());
        let part = [
            ("clusterName".to_owned(), context.own_name().to_string()),
            ("peerEndpoint".to_owned(), url),
        ];
        let told = write(&context.client, part.into()).await;
        let again = match told {
            Ok(()) => Duration::MAX,
            Err(error) => {
                tracing::debug!(%error, "Name and place could not be told to landbridge status");
                RETRY
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            changed = policy.changed() => if changed.is_err() { return stop.cancelled().await },
            changed = networks.changed() => if changed.is_err() { return stop.cancelled().await },
            () = tokio::time::sleep(again) => {}
        }
    }
}

impl Assembly {
    /// What `landbridge status` shows about us.
    pub(super) fn description(&self) -> BTreeMap<String, String> {
        let own = &self.context.own;
        let tunnel = own.tunnel.as_ref();
        let first = own.pod_cidr.hosts().next();
        let api = self
            .embedded
            .as_ref()
            .and_then(|embedded| embedded.listener.local_addr().ok());
        [
            ("clusterID", own.cluster_id.to_string()),
            ("clusterName", self.context.own_name().to_string()),
            (
                "fingerprint",
                self.credentials.identity().fingerprint().to_string(),
            ),
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            // An earlier run may have been listed, or not; who publishes now says it anew.
            ("dnsZone", String::new()),
            ("dnsProblem", String::new()),
            ("peerEndpoint", self.context.auth_url()),
            (
                "apiServer",
                api.map(|address| format!("https://{address}"))
                    .unwrap_or_default(),
            ),
            (
                "tunnelPort",
                tunnel
                    .map(|tunnel| tunnel.port.to_string())
                    .unwrap_or_default(),
            ),
            (
                "publicKey",
                tunnel
                    .map(|tunnel| tunnel.public_key.clone())
                    .unwrap_or_default(),
            ),
            (
                "tunnelAddress",
                tunnel
                    .and(first)
                    .map(|address| address.to_string())
                    .unwrap_or_default(),
            ),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
    }
}

/// Writes a part of the description, when it is not there already.
pub(super) async fn write(
    client: &Client,
    data: BTreeMap<String, String>,
) -> Result<(), controllers::Error> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), labels::NAMESPACE);
    let failed = controllers::Error::api("write the ConfigMap landbridge-status");
    let present = match api.get_opt(labels::DESCRIPTION).await {
        Ok(present) => present,
        Err(error) => return Err(failed(error)),
    };
    let outcome = match present {
        Some(present) if says(&present, &data) => return Ok(()),
        Some(_) => {
            let patch = Patch::Merge(json!({ "data": data }));
            api.patch(labels::DESCRIPTION, &controllers::managed(), &patch)
                .await
        }
        None => {
            let map = ConfigMap {
                metadata: ObjectMeta {
                    name: Some(labels::DESCRIPTION.to_owned()),
                    ..ObjectMeta::default()
                },
                data: Some(data),
                ..ConfigMap::default()
            };
            api.create(&PostParams::default(), &map).await
        }
    };
    outcome.map(drop).map_err(failed)
}

fn says(present: &ConfigMap, data: &BTreeMap<String, String>) -> bool {
    let said = present.data.as_ref();
    data.iter()
        .all(|(key, text)| said.is_some_and(|said| said.get(key) == Some(text)))
}
