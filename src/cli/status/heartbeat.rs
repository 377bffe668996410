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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::{
        api::coordination::v1::LeaseSpec, apimachinery::pkg::apis::meta::v1::MicroTime,
    };
    use kube::api::{ObjectMeta, PostParams};

    use super::*;
    use crate::kubeapi::{KubeApi, Options};

    fn lease(age: SignedDuration) -> Lease {
        Lease {
            metadata: ObjectMeta {
                name: Some(labels::HEARTBEAT.to_owned()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                renew_time: Some(MicroTime(Timestamp::now() - age)),
                ..LeaseSpec::default()
            }),
        }
    }

    async fn cluster(age: SignedDuration) -> (Client, Api<Lease>) {
        let options = Options::in_memory(Arc::new(Timestamp::now), Vec::new());
        let client = KubeApi::open(options).await.unwrap().client();
        let leases: Api<Lease> = Api::namespaced(client.clone(), labels::NAMESPACE);
        let way = PostParams::default();
        leases.create(&way, &lease(age)).await.unwrap();
        (client, leases)
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_nobody_renews_is_that_of_a_dead_daemon() {
        let (client, _) = cluster(SignedDuration::from_hours(1)).await;
        let failure = check(&client).await.unwrap_err();
        assert!(matches!(failure, Failure::Unreachable(_)), "{failure:?}");
        let (client, _) = cluster(SignedDuration::from_secs(10)).await;
        check(&client).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_wrong_is_waited_for() {
        let (client, leases) = cluster(SignedDuration::from_hours(1)).await;
        let renew = async {
            sleep(Duration::from_secs(5)).await;
            let mut renewed = leases.get(labels::HEARTBEAT).await.unwrap();
            renewed.spec = lease(SignedDuration::from_mins(59)).spec;
            let way = PostParams::default();
            let name = labels::HEARTBEAT;
            leases.replace(name, &way, &renewed).await.unwrap();
        };
        let (checked, ()) = tokio::join!(check(&client), renew);
        checked.unwrap();
    }
}
