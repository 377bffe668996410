//! The verbs that print something for other programs.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{Connect, Settings};

#[derive(Debug, Args)]
pub(in crate::cli) struct Kubeconfig {
    #[command(flatten)]
    pub(in crate::cli) settings: Settings,
    /// Print where it is: export KUBECONFIG=$(landbridge kubeconfig --path)
    #[arg(long, conflicts_with = "user")]
    pub(in crate::cli) path: bool,
    /// Issue a certificate to this user instead, who may do what roles and bindings allow
    #[arg(long)]
    pub(in crate::cli) user: Option<String>,
    /// A group that the user is in; may be given twice
    #[arg(long = "group", requires = "user")]
    pub(in crate::cli) groups: Vec<String>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Crd {
    /// Write a file for each kind into this directory instead
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) write: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Dns {
    #[command(subcommand)]
    pub(in crate::cli) verb: DnsVerb,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum DnsVerb {
    /// Print a zone file that lists this cluster
    Zone(DnsZone),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct DnsZone {
    /// The domain [default: dns.publish.zone of the settings]
    #[arg(long)]
    pub(in crate::cli) domain: Option<String>,
    /// How the domain lists its clusters
    #[arg(long, value_enum, default_value_t = ZoneStyle::Rfc6763)]
    pub(in crate::cli) style: ZoneStyle,
    #[command(flatten)]
    pub(in crate::cli) connect: Connect,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum ZoneStyle {
    /// As Liqo 0.2 reads it: PTR records at the domain itself
    Liqo,
    /// As DNS service discovery asks: service types, instances, TXT records
    Rfc6763,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Completions {
    /// For which shell
    #[arg(value_enum)]
    pub(in crate::cli) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Man {
    /// The directory for the pages
    pub(in crate::cli) directory: PathBuf,
}
