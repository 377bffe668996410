//! The way to the daemon's API.

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    time::Duration,
};

use kube::{
    Client,
    config::{Kubeconfig, KubeconfigError},
};

use super::{Failure, args::Connect};
use crate::{config::Sources, daemon};

/// How long one answer may take. The API is on this machine or in this cluster.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connects to the API that keeps the objects. `KUBECONFIG` is not looked at: it usually is some
/// other cluster's, and a verb like `join` must not go there by accident.
pub(super) async fn connect(options: &Connect) -> Result<Client, Failure> {
    let path = match &options.kubeconfig {
        Some(path) => path.clone(),
        None => own_path(&options.settings.sources().load()?.config.data_dir),
    };
    let refuse = |error: KubeconfigError| {
        if let KubeconfigError::ReadConfig(error, _) = &error {
            return unread(&path, error);
        }
        Failure::Usage(format!("cannot use {}: {}", path.display(), chain(&error)))
    };
    client(Kubeconfig::read_from(&path).map_err(refuse)?).await
}

/// Reads the kubeconfig of the daemon of this machine, and says where it is.
pub(super) fn own_kubeconfig(data_dir: &Path) -> Result<(PathBuf, String), Failure> {
    let path = own_path(data_dir);
    let text = fs::read_to_string(&path).map_err(|error| unread(&path, &error))?;
    Ok((path, text))
}

fn own_path(data_dir: &Path) -> PathBuf {
    data_dir.join("kubeconfig")
}

/// Makes a client for a kubeconfig.
pub(super) async fn client(kubeconfig: Kubeconfig) -> Result<Client, Failure> {
    let refuse = |reason: String| Failure::Usage(format!("the kubeconfig is not usable: {reason}"));
    let mut config = daemon::kubeconfig::read(kubeconfig).await.map_err(refuse)?;
    config.connect_timeout = Some(PATIENCE);
    config.read_timeout = Some(PATIENCE);
    config.write_timeout = Some(PATIENCE);
    Client::try_from(config).map_err(|error| refuse(error.to_string()))
}

/// Says why a kubeconfig cannot be read, and what to do.
fn unread(path: &Path, error: &io::Error) -> Failure {
    let own = Sources::of_process();
    let of_root = Sources {
        root: true,
        ..Sources::default()
    };
    let is_roots = path.starts_with(own.data_dir()) && !own.root && of_root.data_dir().is_dir();
    let place = path.display();
    if error.kind() == ErrorKind::NotFound {
        return Failure::Unreachable(missing(path, is_roots));
    }
    let advice = if error.kind() == ErrorKind::PermissionDenied {
        ": try it with sudo"
    } else {
        ""
    };
    Failure::Usage(format!("cannot read {place}: {error}{advice}"))
}

/// Says that there is no kubeconfig; where root's daemon is on this machine, it is the one that is
/// meant, and no second one shall be started.
fn missing(path: &Path, is_roots: bool) -> String {
    let advice = if is_roots {
        "the daemon of this machine is root's: try it with sudo, or name its --data-dir or --kubeconfig"
    } else {
        "name its --data-dir, or the --kubeconfig of the cluster that it runs for, or start one with landbridge run"
    };
    format!(
        "no daemon was started here: {} does not exist: {advice}",
        path.display()
    )
}

/// Explains an answer of the API, or that there was none.
pub(super) fn explain(error: &kube::Error) -> Failure {
    if let kube::Error::Api(status) = error {
        return Failure::NotSo(status.message.clone());
    }
    if matches!(error, kube::Error::SerdeError(_)) {
        return Failure::NotSo(format!(
            "the answer cannot be read: {}: is this landbridge older than the daemon?",
            chain(error)
        ));
    }
    Failure::Unreachable(format!(
        "the daemon cannot be reached: {}: look at its log, or start it with landbridge run",
        chain(error)
    ))
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        explain(&error)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_told_to_start_a_second_daemon_beside_the_one_of_root() {
        let path = Path::new("/home/ada/.local/state/landbridge/kubeconfig");
        assert!(missing(path, false).contains("landbridge run"));
        let told = missing(path, true);
        assert!(
            told.contains("sudo") && !told.contains("landbridge run"),
            "{told}"
        );
    }

    #[test]
    fn an_answer_that_cannot_be_read_is_an_answer() {
        let unread = serde_json::from_str::<bool>("{}").unwrap_err();
        let failure = explain(&kube::Error::SerdeError(unread));
        assert_eq!(failure.code(), 1, "{failure}");
        assert!(failure.to_string().contains("older"), "{failure}");
    }
}
