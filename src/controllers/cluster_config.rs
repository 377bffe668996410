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
    let mut told = false;
    while let Some(change) = changes.next().await {
        match change {
            Ok(object) => {
                told = false;
                take(&policy, object.spec);
            }
            Err(error) => told = tell(&error, told),
        }
    }
}

/// Says once that the object cannot be read, which only a person can mend; returns whether that has
/// been said.
fn tell(error: &watcher::Error, told: bool) -> bool {
    let unreadable = matches!(
        error,
        watcher::Error::InitialListFailed(kube::Error::SerdeError(_))
            | watcher::Error::WatchFailed(kube::Error::SerdeError(_))
    );
    if unreadable && !told {
        tracing::warn!(
            %error,
            "The ClusterConfig cannot be read, and the policy stays as it was; mend it with kubectl edit"
        );
    } else {
        tracing::debug!(%error, "The watch on the ClusterConfig ended");
    }
    told || unreadable
}

fn take(policy: &watch::Sender<ClusterConfigSpec>, spec: ClusterConfigSpec) {
    let news = News::between(&policy.borrow(), &spec);
    if news == News::default() {
        return;
    }
    policy.send_replace(spec);
    if news.live {
        tracing::info!("Policy changed");
    }
    if news.at_start {
        tracing::warn!(
            "podCIDR and serviceCIDR of the ClusterConfig were changed, which landbridge heeds when it is started again"
        );
    }
}

/// What is different in a policy.
#[derive(Debug, Default, PartialEq, Eq)]
struct News {
    /// What acts at once.
    live: bool,
    /// The ranges of pods and services, which a daemon that runs keeps.
    at_start: bool,
}

impl News {
    fn between(before: &ClusterConfigSpec, after: &ClusterConfigSpec) -> Self {
        let mut rest = after.clone();
        let kept = &before.liqonet_config;
        rest.liqonet_config.pod_cidr.clone_from(&kept.pod_cidr);
        let services = &mut rest.liqonet_config.service_cidr;
        services.clone_from(&kept.service_cidr);
        Self {
            live: *before != rest,
            at_start: rest != *after,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_a_policy_act_at_the_start_and_the_rest_at_once() {
        let before = ClusterConfigSpec::default();
        let news = |change: fn(&mut ClusterConfigSpec)| {
            let mut after = before.clone();
            change(&mut after);
            let News { live, at_start } = News::between(&before, &after);
            (live, at_start)
        };
        assert_eq!(news(|_| ()), (false, false));
        let autojoin: fn(&mut ClusterConfigSpec) = |after| after.discovery_config.autojoin = false;
        assert_eq!(news(autojoin), (true, false));
        let pods: fn(&mut ClusterConfigSpec) = |after| {
            "10.9.0.0/16".clone_into(&mut after.liqonet_config.pod_cidr);
        };
        assert_eq!(news(pods), (false, true));
        let both: fn(&mut ClusterConfigSpec) = |after| {
            "10.9.0.0/16".clone_into(&mut after.liqonet_config.service_cidr);
            after
                .liqonet_config
                .additional_pools
                .push("10.10.0.0/16".to_owned());
        };
        assert_eq!(news(both), (true, true));
    }
}
