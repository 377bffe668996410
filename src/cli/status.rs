//! `landbridge status`: what is well and what is not, then this cluster, then a line for each other.

mod heartbeat;
mod report;

use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client, api::ListParams};
use tokio::time::{Instant, sleep};

use super::{
    Failure,
    args::{Status, StatusOutput},
    connection::{connect, explain},
    output, peers,
};
use crate::{
    api::{ClusterConfig, SearchDomain, TunnelEndpoint, labels},
    daemon::Description,
};
pub(super) use report::Report;

/// How often `--wait` looks. A look is a handful of requests to this machine.
const LOOK: Duration = Duration::from_millis(200);

/// Prints the state once, or waits until everything that is asked for is peered.
pub(super) async fn status(options: Status) -> Result<(), Failure> {
    let report = match options.wait {
        Some(patience) => wait(&options, patience).await?,
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

/// Looks until all is well or the time is over. A daemon that is still starting is waited for.
async fn wait(options: &Status, patience: Duration) -> Result<Report, Failure> {
    let deadline = Instant::now() + patience;
    loop {
        let outcome = look_alive(options).await;
        let settled = match &outcome {
            Ok(report) => report.missing().is_none(),
            Err(Failure::Usage(_)) => true,
            Err(Failure::NotSo(_) | Failure::Unreachable(_)) => false,
        };
        if settled || Instant::now() >= deadline {
            return outcome;
        }
        sleep(LOOK.min(deadline - Instant::now())).await;
    }
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
    let ready = axum::http::Request::get("/readyz")
        .body(Vec::new())
        .expect("a constant path makes a request");
    let ready = match client.request_text(ready).await {
        Ok(_) => None,
        Err(kube::Error::Api(status)) => Some(status.message.clone()),
        Err(error) => return Err(explain(&error)),
    };
    let description = description(client).await?;
    let tunnels: Api<TunnelEndpoint> = Api::all(client.clone());
    let tunnels = tunnels
        .list(&ListParams::default())
        .await
        .map_err(|error| explain(&error))?;
    let domains: Api<SearchDomain> = Api::all(client.clone());
    let domains = domains
        .list(&ListParams::default())
        .await
        .map_err(|error| explain(&error))?;
    let clusters = peers::list(client).await?;
    let policy: Api<ClusterConfig> = Api::all(client.clone());
    let policy = policy.get_opt(labels::CLUSTER_CONFIG).await;
    let policy = policy.map_err(|error| explain(&error))?;
    let own = policy.and_then(|policy| policy.status);
    let report = Report::new(ready, description, &clusters, &tunnels.items);
    Ok(report
        .with_conditions(own.unwrap_or_default().conditions)
        .with_search_domains(&domains.items))
}
