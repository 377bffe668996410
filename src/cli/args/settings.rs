//! Which settings and which daemon a verb is about.

use std::path::PathBuf;

use clap::Args;

use crate::config::{Flag, Sources};

/// The settings that a person types, and where the others are.
#[derive(Debug, Clone, Default, Args)]
pub(in crate::cli) struct Settings {
    /// The file with the settings [default: /etc/landbridge/landbridge.yaml as root, else $XDG_CONFIG_HOME/landbridge/landbridge.yaml]
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) config: Option<PathBuf>,
    /// Where key, store and kubeconfig are [default: /var/lib/landbridge as root, else $XDG_STATE_HOME/landbridge]
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) data_dir: Option<String>,
}

/// Settings that only the daemon has a use for.
#[derive(Debug, Clone, Default, Args)]
pub(in crate::cli) struct NodeSettings {
    #[command(flatten)]
    pub(in crate::cli) common: Settings,
    /// What people see this cluster as [default: the host name]
    #[arg(long)]
    pub(in crate::cli) name: Option<String>,
    /// The range of the pods [default: 10.244.0.0/16]
    #[arg(long, value_name = "RANGE")]
    pub(in crate::cli) pod_cidr: Option<String>,
    /// The secret that all machines of one owner share
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) fleet_secret_file: Option<String>,
}

impl Settings {
    /// Returns where the settings come from.
    pub(in crate::cli) fn sources(&self) -> Sources {
        let mut sources = Sources::of_process();
        sources.file.clone_from(&self.config);
        sources
            .flags
            .extend(flag("--data-dir", "dataDir", self.data_dir.as_ref()));
        sources
    }
}

impl NodeSettings {
    /// Returns where the settings come from.
    pub(in crate::cli) fn sources(&self) -> Sources {
        let mut sources = self.common.sources();
        sources.flags.extend(
            [
                flag("--name", "cluster.name", self.name.as_ref()),
                flag("--pod-cidr", "cluster.podCIDR", self.pod_cidr.as_ref()),
                flag(
                    "--fleet-secret-file",
                    "trust.fleetSecretFile",
                    self.fleet_secret_file.as_ref(),
                ),
            ]
            .into_iter()
            .flatten(),
        );
        sources
    }
}

fn flag(name: &'static str, key: &'static str, value: Option<&String>) -> Option<Flag> {
    value.map(|value| Flag {
        name,
        key,
        value: value.clone(),
    })
}

/// Which daemon to talk to.
#[derive(Debug, Clone, Default, Args)]
pub(in crate::cli) struct Connect {
    #[command(flatten)]
    pub(in crate::cli) settings: Settings,
    /// The kubeconfig of the API that keeps the objects [default: kubeconfig in the data directory]
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) kubeconfig: Option<PathBuf>,
}
