//! What the daemon says about itself: the ConfigMap that `landbridge status` reads.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PostParams},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::build::{Assembly, Place};
use crate::{
    api::labels,
    controllers::{self, Context, context::chance},
    discovery::publish::Standing,
    engine::{addresses::OwnNetworks, backoff::Backoff},
};

/// How long after a failure it is written again, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
/// How often somebody may have changed or deleted it.
const LOOK: Duration = Duration::from_mins(5);

/// What the daemon says about itself. A text is empty where there is nothing to say.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Description {
    /// The id of this cluster.
    #[serde(rename = "clusterID")]
    pub cluster_id: String,
    /// What people see it as.
    pub cluster_name: String,
    /// The fingerprint of its key.
    pub fingerprint: String,
    /// The version of the daemon.
    pub version: String,
    /// The URL for peers.
    pub peer_endpoint: String,
    /// Where peers on the LAN reach it, parted by blanks.
    pub lan_endpoints: String,
    /// The URL of the embedded API.
    pub api_server: String,
    /// The port of the tunnel.
    pub tunnel_port: String,
    /// The address of this machine in the tunnel.
    pub tunnel_address: String,
    /// The public key of the tunnel.
    pub public_key: String,
    /// The DNS zone that it is to be listed in.
    pub dns_zone: String,
    /// Why it is not listed there.
    pub dns_problem: String,
}

impl Description {
    /// Reads the ConfigMap, which may be another version's.
    pub fn read(map: Option<ConfigMap>) -> Self {
        let data = map.and_then(|map| map.data).unwrap_or_default();
        serde_json::from_value(json!(data)).unwrap_or_default()
    }
}

/// Keeps the description true until the shutdown: what we are called, where we are and how
/// publishing goes changes.
pub(super) async fn follow(
    context: Arc<Context>,
    place: Place,
    mut networks: watch::Receiver<OwnNetworks>,
    mut standing: watch::Receiver<Standing>,
    description: Description,
    stop: CancellationToken,
) {
    let mut policy = context.config.clone();
    let (now, told) = watch::channel(description);
    let keeping = keep(context.client.clone(), told);
    let following = async {
        loop {
            policy.borrow_and_update();
            let (url, endpoints) = {
                let own = networks.borrow_and_update();
                (place.auth_url(&own), place.endpoints(&own))
            };
            context.move_to(url.clone());
            let (zone, problem) = publication(standing.borrow_and_update().clone());
            now.send_modify(|description| {
                description.cluster_name = context.own_name().to_string();
                description.peer_endpoint = url;
                description.lan_endpoints = endpoints;
                description.dns_zone = zone;
                description.dns_problem = problem;
            });
            tokio::select! {
                changed = policy.changed() => if changed.is_err() { return },
                changed = networks.changed() => if changed.is_err() { return },
                // Nobody may be publishing.
                Ok(()) = standing.changed() => {}
            }
        }
    };
    let both = async { tokio::join!(keeping, following) };
    let _ = stop.run_until_cancelled(both).await;
}

/// The zone that concerns us, and why we are not listed in it as we should be.
fn publication(standing: Standing) -> (String, String) {
    let concerned = standing.listed || standing.problem.is_some();
    let zone = if concerned {
        standing.zone
    } else {
        String::new()
    };
    (zone, standing.problem.unwrap_or_default())
}

/// Writes the description when it changes, when that failed and when somebody took it away.
async fn keep(client: Client, mut told: watch::Receiver<Description>) {
    let mut backoff = Backoff::new(RETRY.0, RETRY.1);
    loop {
        let description = told.borrow_and_update().clone();
        let again = match write(&client, description).await {
            Ok(()) => {
                backoff.reset();
                LOOK
            }
            Err(error) => {
                tracing::debug!(%error, "The daemon could not describe itself for landbridge status");
                backoff.next(chance())
            }
        };
        tokio::select! {
            changed = told.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(again) => {}
        }
    }
}

impl Assembly {
    /// What `landbridge status` shows about us.
    pub(super) fn description(&self) -> Description {
        let own = &self.context.own;
        let tunnel = own.tunnel.as_ref();
        let first = own.pod_cidr.hosts().next();
        let api = self
            .embedded
            .as_ref()
            .and_then(|embedded| embedded.listener.local_addr().ok());
        Description {
            cluster_id: own.cluster_id.to_string(),
            cluster_name: self.context.own_name().to_string(),
            fingerprint: self.credentials.identity().fingerprint().to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            peer_endpoint: self.context.auth_url(),
            lan_endpoints: self.place.endpoints(&self.own_networks.borrow()),
            api_server: api.map_or_else(String::new, |address| format!("https://{address}")),
            tunnel_port: tunnel.map_or_else(String::new, |tunnel| tunnel.port.to_string()),
            tunnel_address: tunnel
                .and(first)
                .map_or_else(String::new, |address| address.to_string()),
            public_key: tunnel.map_or_else(String::new, |tunnel| tunnel.public_key.clone()),
            // An earlier run may have been listed, or not; who publishes now says it anew.
            dns_zone: String::new(),
            dns_problem: String::new(),
        }
    }
}

/// Writes the description, when it is not there already.
pub(super) async fn write(client: &Client, data: Description) -> Result<(), controllers::Error> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), labels::NAMESPACE);
    let failed = controllers::Error::api("write the ConfigMap landbridge-status");
    let present = match api.get_opt(labels::DESCRIPTION).await {
        Ok(present) => present,
        Err(error) => return Err(failed(error)),
    };
    let is_there = present.is_some();
    if is_there && Description::read(present) == data {
        return Ok(());
    }
    let outcome = if is_there {
        let patch = Patch::Merge(json!({ "data": data }));
        api.patch(labels::DESCRIPTION, &controllers::managed(), &patch)
            .await
    } else {
        let map = ConfigMap {
            metadata: ObjectMeta {
                name: Some(labels::DESCRIPTION.to_owned()),
                ..ObjectMeta::default()
            },
            data: serde_json::from_value(json!(data)).ok(),
            ..ConfigMap::default()
        };
        api.create(&PostParams::default(), &map).await
    };
    outcome.map(drop).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::atomic::{AtomicU32, Ordering},
    };

    use kube::api::DeleteParams;

    use super::*;
    use crate::{
        api,
        kubeapi::{KubeApi, Options},
    };

    #[tokio::test(start_paused = true)]
    async fn what_failed_or_was_taken_away_is_written_again_whole() {
        let options = Options::in_memory(Arc::new(|| jiff::Timestamp::UNIX_EPOCH), api::crds());
        let client = KubeApi::open(options).await.unwrap().client();
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), labels::NAMESPACE);
        let said = Description {
            cluster_id: "rome".to_owned(),
            version: "1".to_owned(),
            ..Description::default()
        };
        let (_now, told) = watch::channel(said.clone());
        tokio::spawn(keep(failing_at_first(client), told));
        let written = async || {
            let present = maps.get_opt(labels::DESCRIPTION).await.unwrap();
            present.is_some() && Description::read(present) == said
        };
        tokio::time::sleep(RETRY.0 / 4).await;
        assert!(!written().await);
        tokio::time::sleep(RETRY.0 * 2).await;
        assert!(written().await);
        let now = DeleteParams::default();
        maps.delete(labels::DESCRIPTION, &now).await.unwrap();
        tokio::time::sleep(LOOK).await;
        assert!(written().await);
    }

    /// An API that does not answer the first question.
    fn failing_at_first(client: Client) -> Client {
        let asked = Arc::new(AtomicU32::new(0));
        let service = tower::service_fn(move |request| {
            let (client, asked) = (client.clone(), Arc::clone(&asked));
            async move {
                if asked.fetch_add(1, Ordering::Relaxed) == 0 {
                    return Err(io::Error::other("it rolls over"));
                }
                client.send(request).await.map_err(io::Error::other)
            }
        });
        Client::new(service, labels::NAMESPACE)
    }
}
