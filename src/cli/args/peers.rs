//! The verbs that change what happens with one cluster.

use clap::Args;

use super::Connect;

#[derive(Debug, Args)]
pub(in crate::cli) struct Add {
    /// The peer endpoint of the cluster: https://host:port, or host for port 5870
    pub(in crate::cli) url: String,
    /// The name of the object [default: made of the host]
    #[arg(long)]
    pub(in crate::cli) name: Option<String>,
    /// Peer with it at once
    #[arg(long)]
    pub(in crate::cli) join: bool,
    #[command(flatten)]
    pub(in crate::cli) connect: Connect,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Named {
    /// Object name, cluster name or the start of the cluster id
    pub(in crate::cli) name: String,
    #[command(flatten)]
    pub(in crate::cli) connect: Connect,
}
