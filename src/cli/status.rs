//! `landbridge status`: what is well and what is not, then this cluster, then a line for each other.

mod heartbeat;
mod report;

use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client, api::ListParams};
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    Failure,
    args::{Status, StatusOutput},
    connection::connect,
    output, peers,
};
use crate::{
    api::{ClusterConfig, SearchDomain, TunnelEndpoint, labels},
    daemon::Description,
};
pub(super) use report::Report;

/// How often `--wait` looks. A look is a handful of requests to this machine.
const LOOK: Duration = Duration::from_millis(200);
/// How long the first look may take, however short the patience: `--wait=0s` looks once.
const FIRST_LOOK: Duration = Duration::from_secs(1);

/// Prints the state once, or waits until everything that is asked for is peered.
pub(super) async fn status(options: Status) -> Result<(), Failure> {
    let report = match options.wait {
        Some(patience) => wait(async || look_alive(&options).await, patience).await?,
        None => look_alive(&options).await?,
    };
    let text = match options.output {
        StatusOutput::Text => report.text(),
        StatusOutput::Json => {
            let value = serde_json::to_value(&report)
                .map_err(|error| Failure::NotSo(format!("cannot print the status: {error}")))?;
            format!("{value:#}\n")
        }
    };
    output::print(&text)?;
    match (options.wait, report.missing()) {
        (Some(patience), Some(missing)) => Err(Failure::NotSo(format!(
            "not peered after {patience:?}: {missing}"
        ))),
        (Some(_) | None, _) => Ok(()),
    }
}

/// Looks until all is well or the time is over, and returns what was seen last. A daemon that is still
/// starting is waited for.
async fn wait(
    mut look: impl AsyncFnMut() -> Result<Report, Failure>,
    patience: Duration,
) -> Result<Report, Failure> {
    let start = Instant::now();
    let deadline = start + patience;
    let mut end = deadline.max(start + FIRST_LOOK);
    let mut last = Err(Failure::Unreachable(format!(
        "nothing was heard of the daemon within {patience:?}: look at its log, or start it with landbridge run"
    )));
    while let Ok(outcome) = timeout_at(end, look()).await {
        let settled = match &outcome {
            Ok(report) => report.missing().is_none(),
            Err(Failure::Usage(_)) => true,
            Err(Failure::NotSo(_) | Failure::Unreachable(_)) => false,
        };
        last = outcome;
        if settled || Instant::now() >= deadline {
            break;
        }
        end = deadline;
        sleep(LOOK.min(deadline - Instant::now())).await;
    }
    last
}

/// Makes sure that a daemon lives, and reads everything.
async fn look_alive(options: &Status) -> Result<Report, Failure> {
    let client = connect(&options.connect).await?;
    if options.connect.kubeconfig.is_some() {
        let description = description(&client).await?;
        // An API that a daemon serves itself ends with it.
        if description.api_server.is_empty() {
            heartbeat::check(&client).await?;
        }
    }
    look(&client).await
}

/// Reads what the daemon says about itself.
pub(super) async fn description(client: &Client) -> Result<Description, Failure> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), labels::NAMESPACE);
    Ok(Description::read(maps.get_opt(labels::DESCRIPTION).await?))
}

/// Reads everything that the status is made of.
pub(super) async fn look(client: &Client) -> Result<Report, Failure> {
    let all = ListParams::default();
    let tunnels: Api<TunnelEndpoint> = Api::all(client.clone());
    let tunnels = tunnels.list(&all).await?;
    let domains: Api<SearchDomain> = Api::all(client.clone());
    let domains = domains.list(&all).await?;
    let policy: Api<ClusterConfig> = Api::all(client.clone());
    let policy = policy.get_opt(labels::CLUSTER_CONFIG).await?;
    let own = policy.and_then(|policy| policy.status);
    let clusters = peers::list(client).await?;
    let report = Report::new(description(client).await?, &clusters, &tunnels.items);
    Ok(report
        .with_conditions(own.unwrap_or_default().conditions)
        .with_search_domains(&domains.items))
}

#[cfg(test)]
mod tests {
    use std::{io, sync::Arc};

    use axum::http::Response;
    use kube::{api::PostParams, client::Body};
    use serde_json::json;

    use super::*;
    use crate::{
        api::{self, ForeignCluster},
        kubeapi::{KubeApi, Options},
    };

    /// An API that shows objects and tells this account nothing else.
    async fn reticent() -> Client {
        let options = Options::in_memory(Arc::new(jiff::Timestamp::now), api::crds());
        let client = KubeApi::open(options).await.unwrap().client();
        let cluster = json!({
            "metadata": {"name": "milan"},
            "spec": {"join": true, "authUrl": "https://milan:5870"},
            "status": {"phase": "Peered"},
        });
        let cluster: ForeignCluster = serde_json::from_value(cluster).unwrap();
        let clusters: Api<ForeignCluster> = Api::all(client.clone());
        let way = PostParams::default();
        clusters.create(&way, &cluster).await.unwrap();
        let service = tower::service_fn(move |request: axum::http::Request<Body>| {
            let client = client.clone();
            async move {
                if request.uri().path() == "/readyz" {
                    let refusal = json!({"kind": "Status", "code": 403, "status": "Failure",
                        "reason": "Forbidden", "message": "no"});
                    let body = Body::from(refusal.to_string().into_bytes());
                    return Ok(Response::builder().status(403).body(body).unwrap());
                }
                client.send(request).await.map_err(io::Error::other)
            }
        });
        Client::new(service, labels::NAMESPACE)
    }

    #[tokio::test]
    async fn what_the_api_tells_of_itself_is_not_about_the_daemon() {
        let report = look(&reticent().await).await.unwrap();
        assert_eq!(report.missing(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_waits_no_longer_than_was_said() {
        let patience = Duration::from_secs(3);
        let began = Instant::now();
        let silent = wait(async || std::future::pending().await, patience).await;
        assert!(matches!(silent, Err(Failure::Unreachable(_))), "{silent:?}");
        let nobody = || Report::new(Description::default(), &[], &[]);
        let mut looks = 0;
        let then_silent = async || {
            looks += 1;
            if looks > 2 {
                std::future::pending::<()>().await;
            }
            Ok(nobody())
        };
        let seen = wait(then_silent, patience).await;
        assert_eq!(seen.unwrap(), nobody());
        assert_eq!(began.elapsed(), patience * 2);
        wait(async || Ok(nobody()), Duration::ZERO).await.unwrap();
        assert_eq!(began.elapsed(), patience * 2);
    }
}
