//! The verbs that look: at the clusters that are known, at the network, at this machine.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::{Connect, Settings};

#[derive(Debug, Args)]
pub(in crate::cli) struct Status {
    #[command(flatten)]
    pub(in crate::cli) connect: Connect,
    /// Wait until every cluster that is to be joined, and at least one, is peered [default duration: 60s]
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "60s", value_parser = duration)]
    pub(in crate::cli) wait: Option<Duration>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = StatusOutput::Text)]
    pub(in crate::cli) output: StatusOutput,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum StatusOutput {
    /// For people
    Text,
    /// For programs
    Json,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Get {
    /// One cluster: object name, cluster name or the start of its id
    pub(in crate::cli) name: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) connect: Connect,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = GetOutput::Table)]
    pub(in crate::cli) output: GetOutput,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum GetOutput {
    /// The columns of kubectl
    Table,
    /// The columns of kubectl -o wide
    Wide,
    /// The objects as JSON
    Json,
    /// The objects as YAML
    Yaml,
    /// The names only
    Name,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Discover {
    /// Look on the LAN, which is also what happens without --domain
    #[arg(long)]
    pub(in crate::cli) lan: bool,
    /// Look in this DNS domain; may be given several times
    #[arg(long, value_name = "DOMAIN")]
    pub(in crate::cli) domain: Vec<String>,
    /// How long to look
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = duration)]
    pub(in crate::cli) timeout: Duration,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = StatusOutput::Text)]
    pub(in crate::cli) output: StatusOutput,
    #[command(flatten)]
    pub(in crate::cli) settings: Settings,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Check {
    #[command(subcommand)]
    pub(in crate::cli) verb: CheckVerb,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum CheckVerb {
    /// Check on each interface whether multicast goes out and comes in
    Lan(CheckLan),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct CheckLan {
    /// How long to listen
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration)]
    pub(in crate::cli) timeout: Duration,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = StatusOutput::Text)]
    pub(in crate::cli) output: StatusOutput,
    #[command(flatten)]
    pub(in crate::cli) settings: Settings,
}

/// Reads a duration like 60s, 2m or 1h30m.
fn duration(text: &str) -> Result<Duration, String> {
    text.parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok())
        .ok_or_else(|| "write a duration like 60s or 2m".to_owned())
}
