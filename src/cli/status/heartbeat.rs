//! Whether the daemon lives, where the API outlives it: its Lease tells.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use tokio::time::{Instant, sleep};

use crate::{
    api::labels,
    cli::{Failure, connection::explain},
};

/// How far the Lease may be from the time here without a doubt.
const FRESH: SignedDuration = SignedDuration::from_secs(40);
/// How long to wait for a renewal when there is a doubt: longer than one takes to come.
const PATIENCE: Duration = Duration::from_secs(12);
/// How often to look for it.
const LOOK: Duration = Duration::from_secs(1);

/// Makes sure that the daemon lives. A clock that is wrong makes it look dead, so then a renewal is
/// waited for.
pub(super) async fn check(client: &Client) -> Result<(), Failure> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), labels::NAMESPACE);
    let deadline = Instant::now() + PATIENCE;
    let mut first = None;
    loop {
        let lease = leases.get_opt(labels::HEARTBEAT).await;
        let lease = lease.map_err(|error| explain(&error))?;
        let Some(renewed) = lease.and_then(|lease| lease.spec?.renew_time) else {
            return Err(dead("there is no Lease liqo/landbridge"));
        };
        let renewed = renewed.0;
        let changed = *first.get_or_insert(renewed) != renewed;
        if changed || Timestamp::now().duration_since(renewed).abs() <= FRESH {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let why = format!("its Lease liqo/landbridge was last renewed at {renewed:.0}");
            return Err(dead(&why));
        }
        sleep(LOOK).await;
    }
}

fn dead(why: &str) -> Failure {
    Failure::Unreachable(format!(
        "no daemon runs for this cluster: {why}: look at its log, or start it with landbridge run"
    ))
}
