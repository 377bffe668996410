//! The way to the daemon's API.

use std::{path::PathBuf, time::Duration};

use kube::{
    Client,
    config::{KubeConfigOptions, Kubeconfig},
};

use super::{Failure, args::Connect};

/// How long one answer may take. The API is on this machine or in this cluster.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connects to the API that keeps the objects. `KUBECONFIG` is not looked at: it usually is some
/// other cluster's, and a verb like `join` must not go there by accident.
pub(super) async fn connect(options: &Connect) -> Result<Client, Failure> {
    let path = kubeconfig_path(options)?;
    let kubeconfig = Kubeconfig::read_from(&path).map_err(|error| no_kubeconfig(&path, &error))?;
    client(kubeconfig).await
}

/// Makes a client for a kubeconfig.
pub(super) async fn client(kubeconfig: Kubeconfig) -> Result<Client, Failure> {
    let refuse = |reason: String| Failure::Usage(format!("the kubeconfig is not usable: {reason}"));
    let mut config =
        kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .map_err(|error| refuse(error.to_string()))?;
    config.connect_timeout = Some(PATIENCE);
    config.read_timeout = Some(PATIENCE);
    config.write_timeout = Some(PATIENCE);
    Client::try_from(config).map_err(|error| refuse(error.to_string()))
}

/// Returns where the kubeconfig is: what was typed, or the one in the data directory.
fn kubeconfig_path(options: &Connect) -> Result<PathBuf, Failure> {
    if let Some(path) = &options.kubeconfig {
        return Ok(path.clone());
    }
    let loaded = options.settings.sources().load()?;
    Ok(loaded.config.data_dir.join("kubeconfig"))
}

fn no_kubeconfig(path: &std::path::Path, error: &kube::config::KubeconfigError) -> Failure {
    let missing = matches!(error, kube::config::KubeconfigError::ReadConfig(source, _)
        if source.kind() == std::io::ErrorKind::NotFound);
    if missing {
        Failure::Unreachable(format!(
            "no daemon was started here: {} does not exist: start one with landbridge run, or name its --data-dir or --kubeconfig",
            path.display()
        ))
    } else {
        Failure::Usage(format!("cannot use {}: {}", path.display(), chain(error)))
    }
}

/// Explains an answer of the API, or that there was none.
pub(super) fn explain(error: &kube::Error) -> Failure {
    if let kube::Error::Api(status) = error {
        return Failure::NotSo(status.message.clone());
    }
    Failure::Unreachable(format!(
        "the daemon cannot be reached: {}: look at its log, or start it with landbridge run",
        chain(error)
    ))
}

/// Puts an error and its causes into one line, each cause once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text.replace('\n', " ")
}
