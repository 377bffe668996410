//! How discovery on the LAN does, as a condition of the ClusterConfig.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Clock, Error};
use crate::{
    api::{
        ClusterConfig,
        labels::{self, cluster_config as words},
    },
    discovery::Health,
};

/// How soon a report that the API did not take is tried again.
const RETRY: std::time::Duration = std::time::Duration::from_secs(5);

/// Follows the health until the shutdown.
pub async fn run(
    client: Client,
    mut health: watch::Receiver<Health>,
    clock: Clock,
    shutdown: CancellationToken,
) {
    loop {
        let present = health.borrow_and_update().clone();
        let reported = match report(&client, &present, clock()).await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "How discovery on the LAN does could not be reported");
                false
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = health.changed() => if changed.is_err() {
                return shutdown.cancelled().await;
            },
            () = tokio::time::sleep(RETRY), if !reported => {}
        }
    }
}

/// Writes the condition if it says something else than before.
async fn report(client: &Client, health: &Health, now: Timestamp) -> Result<(), Error> {
    let Some((status, reason, message)) = verdict(health) else {
        return Ok(());
    };
    let api: Api<ClusterConfig> = Api::all(client.clone());
    let read = Error::api("read the ClusterConfig");
    let Some(object) = api.get_opt(labels::CLUSTER_CONFIG).await.map_err(read)? else {
        return Ok(());
    };
    let mut conditions = object.status.unwrap_or_default().conditions;
    let before = conditions
        .iter()
        .position(|one| one.type_ == words::LAN_DISCOVERY)
        .map(|index| conditions.swap_remove(index));
    if before
        .as_ref()
        .is_some_and(|one| one.status == status && one.reason == reason && one.message == message)
    {
        return Ok(());
    }
    let since = before.filter(|one| one.status == status);
    conditions.push(Condition {
        type_: words::LAN_DISCOVERY.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        last_transition_time: since.map_or(Time(now), |one| one.last_transition_time),
        observed_generation: None,
    });
    conditions.sort_by(|one, other| one.type_.cmp(&other.type_));
    let patch = json!({
        "metadata": { "resourceVersion": object.metadata.resource_version },
        "status": { "conditions": conditions },
    });
    api.patch_status(
        labels::CLUSTER_CONFIG,
        &PatchParams::apply(labels::MANAGER),
        &Patch::Merge(patch),
    )
    .await
    .map(drop)
    .map_err(Error::api("write the status of the ClusterConfig"))
}

/// What the condition says; nothing while it is not known yet, and at the end.
fn verdict(health: &Health) -> Option<(&'static str, &'static str, String)> {
    let verdict = match health {
        Health::Starting | Health::Stopped => return None,
        Health::Working { interfaces } => ("True", words::WORKING, interfaces.join(", ")),
        Health::SwitchedOff => {
            let message = "enableDiscovery and enableAdvertisement are both off".to_owned();
            ("False", words::SWITCHED_OFF, message)
        }
        Health::NoInterface { without_multicast } if without_multicast.is_empty() => {
            let message = "no interface is up, has an address and is allowed by lan.interfaces";
            ("False", words::NO_INTERFACE, message.to_owned())
        }
        Health::NoInterface { without_multicast } => {
            let names = without_multicast.join(", ");
            let message = format!(
                "multicast is off on {names}: ip link set {} multicast on",
                without_multicast.first().map_or("", String::as_str)
            );
            ("False", words::NO_MULTICAST, message)
        }
        Health::Blocked { interfaces } => {
            let names = interfaces.join(", ");
            let message = format!(
                "packets to 224.0.0.251 and ff02::fb, UDP port 5353, do not pass on {names}: let the firewall of this machine accept them"
            );
            ("False", words::MULTICAST_BLOCKED, message)
        }
        Health::PortTaken { message } => ("False", words::PORT_TAKEN, message.clone()),
        Health::Restarting { message } => ("False", words::RESTARTING, message.clone()),
    };
    Some(verdict)
}
