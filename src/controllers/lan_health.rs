//! How discovery on the LAN does, as a condition of the ClusterConfig.

use jiff::Timestamp;
use kube::Client;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    Clock, Error,
    own_condition::{self, Verdict},
};
use crate::{api::labels::cluster_config as words, discovery::Health};

/// How soon a report that the API did not take is tried again.
const RETRY: std::time::Duration = std::time::Duration::from_secs(5);

/// Follows the health until the shutdown; without one, `lan.enabled` is false.
pub async fn run(
    client: Client,
    health: Option<watch::Receiver<Health>>,
    clock: Clock,
    shutdown: CancellationToken,
) {
    // Where nobody looks, an earlier run may have left what it saw.
    let (_off, off) = watch::channel(Health::SwitchedOff);
    let by_settings = health.is_none();
    let mut health = health.unwrap_or(off);
    loop {
        let present = health.borrow_and_update().clone();
        let reported = match report(&client, &present, by_settings, clock()).await {
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

async fn report(
    client: &Client,
    health: &Health,
    by_settings: bool,
    now: Timestamp,
) -> Result<(), Error> {
    match verdict(health, by_settings) {
        Some(verdict) => own_condition::write(client, words::LAN_DISCOVERY, &verdict, now).await,
        None => Ok(()),
    }
}

/// What the condition says; nothing while it is not known yet, and at the end.
fn verdict(health: &Health, by_settings: bool) -> Option<Verdict> {
    let (status, reason, message) = match health {
        Health::Starting | Health::Stopped => return None,
        Health::Working { interfaces } => ("True", words::WORKING, interfaces.join(", ")),
        Health::SwitchedOff => {
            let message = if by_settings {
                "lan.enabled is false"
            } else {
                "enableDiscovery and enableAdvertisement are both off"
            };
            ("False", words::SWITCHED_OFF, message.to_owned())
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
        Health::Blocked {
            interfaces,
            working,
        } => {
            let names = interfaces.join(", ");
            let (reason, others) = if working.is_empty() {
                (words::MULTICAST_BLOCKED, String::new())
            } else {
                let others = format!(", as they do on {}", working.join(", "));
                (words::MULTICAST_PARTLY_BLOCKED, others)
            };
            let message = format!(
                "packets to 224.0.0.251 and ff02::fb, UDP port 5353, do not pass on {names}{others}: let the firewall of this machine accept them"
            );
            ("False", reason, message)
        }
        Health::PortTaken { message } => ("False", words::PORT_TAKEN, message.clone()),
        Health::Restarting { message } => ("False", words::RESTARTING, message.clone()),
    };
    Some(Verdict {
        status,
        reason,
        message,
    })
}
