//! The Lease that tells `landbridge status` that a daemon lives, where the API outlives it.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client,
    api::{DeleteParams, ObjectMeta, Patch},
};
use tokio_util::sync::CancellationToken;

use crate::{
    api::labels,
    controllers::{
        Clock,
        lease::{RENEWAL, renewed},
        managed,
    },
};

/// How long a request may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Renews the Lease until the shutdown, and then takes it away.
pub(super) async fn run(client: Client, clock: Clock, stop: CancellationToken) {
    let leases: Api<Lease> = Api::namespaced(client, labels::NAMESPACE);
    let mut ticks = tokio::time::interval(RENEWAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut told = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = ticks.tick() => {}
        }
        // After a failure the next tick is soon enough: the Lease holds for several.
        let error = renew(&leases, clock()).await.err();
        if let Some(error) = error.as_ref().filter(|error| told.as_ref() != Some(*error)) {
            tracing::warn!(
                %error,
                "landbridge status cannot be told that the daemon lives"
            );
        }
        told = error;
    }
    let parameters = DeleteParams::default();
    let withdrawal = leases.delete(labels::HEARTBEAT, &parameters);
    if let Ok(Err(error)) = tokio::time::timeout(LIMIT, withdrawal).await {
        tracing::debug!(%error, "The Lease could not be withdrawn");
    }
}

/// Renews the Lease once; returns why it could not.
async fn renew(leases: &Api<Lease>, now: Timestamp) -> Result<(), String> {
    let patch = Patch::Apply(lease(now));
    let parameters = managed().force();
    let renewal = leases.patch(labels::HEARTBEAT, &parameters, &patch);
    let renewed = tokio::time::timeout(LIMIT, renewal).await;
    let answer = renewed.map_err(|_| "no answer in time".to_owned())?;
    answer.map(drop).map_err(|error| error.to_string())
}

fn lease(now: Timestamp) -> Lease {
    let host = nix::unistd::gethostname().ok();
    let holder = host.and_then(|name| name.into_string().ok());
    Lease {
        metadata: ObjectMeta {
            name: Some(labels::HEARTBEAT.to_owned()),
            ..ObjectMeta::default()
        },
        spec: Some(renewed(holder, now)),
    }
}
