//! What can be typed. Help, man pages and completions are generated from this one definition.

mod identity;
mod looking;
mod peers;
mod printing;
mod running;
mod settings;
mod token;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::telemetry::Format;

pub(super) use identity::{FleetSecret, Identity, IdentityVerb, Passphrase};
pub(super) use looking::{
    Check, CheckLan, CheckVerb, Discover, Get, GetOutput, Status, StatusOutput,
};
pub(super) use peers::{Add, Named};
pub(super) use printing::{Completions, Crd, Dns, DnsVerb, DnsZone, Kubeconfig, Man, ZoneStyle};
pub(super) use running::{Config, ConfigShow, ConfigVerb, Demo, Run, Scenario};
pub(super) use settings::{Connect, NodeSettings, Settings};
pub(super) use token::{Token, TokenCreate, TokenList, TokenRevoke, TokenVerb};

/// Exit codes, for the end of the help.
const EXIT_CODES: &str =
    "Exit codes: 0 well, 1 the thing asked for is not so, 2 usage, 3 the daemon cannot be reached.";

/// Returns the definition of the command line.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Turns Kubernetes clusters on one LAN into peers, with no central server.
#[derive(Debug, Parser)]
#[command(name = "landbridge", version, after_help = EXIT_CODES)]
pub(super) struct Arguments {
    /// How much to log: error, warn, info, debug, trace, or a filter as RUST_LOG takes it
    #[arg(
        long,
        global = true,
        value_name = "LEVEL",
        env = "LANDBRIDGE_LOG_LEVEL"
    )]
    pub(super) log_level: Option<String>,
    /// How to log: auto (text, without time under systemd), text or json
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        env = "LANDBRIDGE_LOG_FORMAT",
        default_value = "auto"
    )]
    pub(super) log_format: Format,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Run the daemon
    Run(Run),
    /// Build clusters on this machine, let them peer, and ping through their tunnel
    Demo(Demo),
    /// Say what is well and what is not, with a line for each cluster
    Status(Status),
    /// List the clusters that are known, like kubectl get foreignclusters
    Get(Get),
    /// Look once for clusters on the LAN or in a domain, without a daemon
    Discover(Discover),
    /// Check whether the network is fit
    Check(Check),
    /// Add a cluster that discovery cannot reach
    Add(Add),
    /// Peer with a cluster
    Join(Named),
    /// Take a peering down
    Leave(Named),
    /// Accept the identity of a cluster, also of one that was denied or blocked
    Approve(Named),
    /// Refuse a cluster until it is approved: nothing is peered with it, and it is told so
    Deny(Named),
    /// Deny a cluster, forget that it was trusted, and join it no more
    Block(Named),
    /// Make, list and revoke tokens that let a cluster in without a person
    Token(Token),
    /// Make a secret by which all machines of one owner accept each other
    FleetSecret(FleetSecret),
    /// Show, export and import the identity of this machine, where no cluster keeps it in a Secret
    Identity(Identity),
    /// Print the kubeconfig of the embedded API
    Kubeconfig(Kubeconfig),
    /// Print the definitions of our kinds for kubectl apply
    Crd(Crd),
    /// List this cluster in a DNS domain
    Dns(Dns),
    /// Look at the settings
    Config(Config),
    /// Print a completion script
    Completions(Completions),
    /// Write the man pages
    Man(Man),
    /// Print the version
    Version,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn wait_takes_a_duration_or_has_one() {
        let wait = |arguments: &[&str]| {
            let parsed = Arguments::try_parse_from(arguments).expect("usable");
            let Verb::Status(status) = parsed.verb else {
                panic!("another verb");
            };
            status.wait
        };
        assert_eq!(wait(&["landbridge", "status"]), None);
        assert_eq!(
            wait(&["landbridge", "status", "--wait"]),
            Some(Duration::from_mins(1))
        );
        assert_eq!(
            wait(&["landbridge", "status", "--wait=1m30s"]),
            Some(Duration::from_secs(90))
        );
        assert!(Arguments::try_parse_from(["landbridge", "status", "--wait=soon"]).is_err());
    }
}
