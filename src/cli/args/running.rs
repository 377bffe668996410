//! The verbs that run clusters, and what they run with.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::NodeSettings;

#[derive(Debug, Args)]
pub(in crate::cli) struct Run {
    #[command(flatten)]
    pub(in crate::cli) settings: NodeSettings,
    /// Keep the objects in the cluster of this kubeconfig instead of the embedded API
    #[arg(long, value_name = "FILE", conflicts_with = "in_cluster")]
    pub(in crate::cli) kubeconfig: Option<PathBuf>,
    /// Keep the objects in the cluster that this process runs in
    #[arg(long)]
    pub(in crate::cli) in_cluster: bool,
}

#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct Demo {
    /// How many clusters
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(2..=8))]
    pub(in crate::cli) clusters: u8,
    /// How they find each other
    #[arg(long, value_enum, default_value_t = Scenario::Lan)]
    pub(in crate::cli) scenario: Scenario,
    /// Keep them until Ctrl-C, and say how to look at them
    #[arg(long)]
    pub(in crate::cli) hold: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Scenario {
    /// By multicast DNS on one LAN
    Lan,
    /// By a DNS domain, from networks that multicast does not cross; needs BIND
    Dns,
    /// By a ForeignCluster that a person writes
    Manual,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Config {
    #[command(subcommand)]
    pub(in crate::cli) verb: ConfigVerb,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ConfigVerb {
    /// Print the settings of this machine; some are for the first start, after which the ClusterConfig rules
    Show(ConfigShow),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ConfigShow {
    #[command(flatten)]
    pub(in crate::cli) settings: NodeSettings,
    /// Print where each value comes from
    #[arg(long)]
    pub(in crate::cli) origin: bool,
}
