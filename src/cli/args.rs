//! What can be typed. Help, man pages and completions are generated from this one definition.

use std::{path::PathBuf, time::Duration};

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};

use crate::{
    config::{Flag, Sources},
    telemetry::Format,
};

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
    /// Check whether this machine and its network are fit
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
    /// Show, export and import the identity of this machine
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

/// The settings that a person types, and where the others are.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Settings {
    /// The file with the settings [default: /etc/landbridge/landbridge.yaml as root, else $XDG_CONFIG_HOME/landbridge/landbridge.yaml]
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Where key, store and kubeconfig are [default: /var/lib/landbridge as root, else $XDG_STATE_HOME/landbridge]
    #[arg(long, value_name = "DIR")]
    pub(super) data_dir: Option<String>,
}

/// Settings that only the daemon has a use for.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct NodeSettings {
    #[command(flatten)]
    pub(super) common: Settings,
    /// What people see this cluster as [default: the host name]
    #[arg(long)]
    pub(super) name: Option<String>,
    /// The range of the pods [default: 10.244.0.0/16]
    #[arg(long, value_name = "RANGE")]
    pub(super) pod_cidr: Option<String>,
    /// The secret that all machines of one owner share
    #[arg(long, value_name = "FILE")]
    pub(super) fleet_secret_file: Option<String>,
}

impl Settings {
    /// Returns where the settings come from.
    pub(super) fn sources(&self) -> Sources {
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
    pub(super) fn sources(&self) -> Sources {
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

#[derive(Debug, Args)]
pub(super) struct Run {
    #[command(flatten)]
    pub(super) settings: NodeSettings,
    /// Keep the objects in the cluster of this kubeconfig instead of the embedded API
    #[arg(long, value_name = "FILE", conflicts_with = "in_cluster")]
    pub(super) kubeconfig: Option<PathBuf>,
    /// Keep the objects in the cluster that this process runs in
    #[arg(long)]
    pub(super) in_cluster: bool,
}

#[derive(Debug, Clone, Args)]
pub(super) struct Demo {
    /// How many clusters
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(2..=8))]
    pub(super) clusters: u8,
    /// How they find each other
    #[arg(long, value_enum, default_value_t = Scenario::Lan)]
    pub(super) scenario: Scenario,
    /// Keep them until Ctrl-C, and say how to look at them
    #[arg(long)]
    pub(super) hold: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Scenario {
    /// By multicast DNS on one LAN
    Lan,
    /// By a DNS domain, from networks that multicast does not cross; needs BIND
    Dns,
    /// By a ForeignCluster that a person writes
    Manual,
}

/// Which daemon to talk to.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Connect {
    #[command(flatten)]
    pub(super) settings: Settings,
    /// The kubeconfig of the API that keeps the objects [default: kubeconfig in the data directory]
    #[arg(long, value_name = "FILE")]
    pub(super) kubeconfig: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Status {
    #[command(flatten)]
    pub(super) connect: Connect,
    /// Wait until every cluster that is to be joined, and at least one, is peered [default duration: 60s]
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "60s", value_parser = duration)]
    pub(super) wait: Option<Duration>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = StatusOutput::Text)]
    pub(super) output: StatusOutput,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum StatusOutput {
    /// For people
    Text,
    /// For programs
    Json,
}

#[derive(Debug, Args)]
pub(super) struct Get {
    /// One cluster: object name, cluster name or the start of its id
    pub(super) name: Option<String>,
    #[command(flatten)]
    pub(super) connect: Connect,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = GetOutput::Table)]
    pub(super) output: GetOutput,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum GetOutput {
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
pub(super) struct Discover {
    /// Look on the LAN, which is also what happens without --domain
    #[arg(long)]
    pub(super) lan: bool,
    /// Look in this DNS domain; may be given several times
    #[arg(long, value_name = "DOMAIN")]
    pub(super) domain: Vec<String>,
    /// How long to look
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = duration)]
    pub(super) timeout: Duration,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = StatusOutput::Text)]
    pub(super) output: StatusOutput,
    #[command(flatten)]
    pub(super) settings: Settings,
}

#[derive(Debug, Args)]
pub(super) struct Check {
    #[command(subcommand)]
    pub(super) verb: CheckVerb,
}

#[derive(Debug, Subcommand)]
pub(super) enum CheckVerb {
    /// Check on each interface whether multicast goes out and comes in
    Lan(CheckLan),
}

#[derive(Debug, Args)]
pub(super) struct CheckLan {
    /// How long to listen
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration)]
    pub(super) timeout: Duration,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = StatusOutput::Text)]
    pub(super) output: StatusOutput,
    #[command(flatten)]
    pub(super) settings: Settings,
}

#[derive(Debug, Args)]
pub(super) struct Add {
    /// The peer endpoint of the cluster: https://host:port, or host for port 5870
    pub(super) url: String,
    /// The name of the object [default: made of the host]
    #[arg(long)]
    pub(super) name: Option<String>,
    /// Peer with it at once
    #[arg(long)]
    pub(super) join: bool,
    #[command(flatten)]
    pub(super) connect: Connect,
}

#[derive(Debug, Args)]
pub(super) struct Named {
    /// Object name, cluster name or the start of the cluster id
    pub(super) name: String,
    #[command(flatten)]
    pub(super) connect: Connect,
}

#[derive(Debug, Args)]
pub(super) struct FleetSecret {
    /// Write it to this new file, which only you can read, instead of printing it
    pub(super) file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Identity {
    #[command(subcommand)]
    pub(super) verb: IdentityVerb,
}

#[derive(Debug, Subcommand)]
pub(super) enum IdentityVerb {
    /// Print the cluster id and the fingerprint of its key
    Show(Settings),
    /// Write the identity to a new file, sealed by a passphrase
    Export(IdentityExport),
    /// Make an exported identity the one of this machine; its daemon must not run
    Import(IdentityImport),
}

#[derive(Debug, Args)]
pub(super) struct IdentityExport {
    /// The new file, which only you can read
    pub(super) file: PathBuf,
    #[command(flatten)]
    pub(super) passphrase: Passphrase,
    #[command(flatten)]
    pub(super) settings: Settings,
}

#[derive(Debug, Args)]
pub(super) struct IdentityImport {
    /// The file that landbridge identity export wrote
    pub(super) file: PathBuf,
    /// Take the place of another identity, which is kept as identity.pem.replaced
    #[arg(long)]
    pub(super) replace: bool,
    #[command(flatten)]
    pub(super) passphrase: Passphrase,
    #[command(flatten)]
    pub(super) settings: Settings,
}

#[derive(Debug, Args)]
pub(super) struct Passphrase {
    /// The file with the passphrase [default: asked for, or one line of standard input]
    #[arg(long, value_name = "FILE")]
    pub(super) passphrase_file: Option<PathBuf>,
}

/// How a token gets a cluster in.
const TOKEN_HELP: &str = "\
A token lets a cluster in that no person here has approved:

  milan $ landbridge token create --uses 1 --expires 1h    # prints the token, this once
  rome  $ landbridge token store milan                     # asks for it, and shows it to milan at once

Both sides then say Trusted with the reason Token. The token itself is never sent: what is shown is a
proof that is good between these two clusters and in one session.";

#[derive(Debug, Args)]
#[command(after_help = TOKEN_HELP)]
pub(super) struct Token {
    #[command(subcommand)]
    pub(super) verb: TokenVerb,
}

#[derive(Debug, Subcommand)]
pub(super) enum TokenVerb {
    /// Make a token and print it, this once: only its hash is kept
    Create(TokenCreate),
    /// List the tokens that were made here
    List(TokenList),
    /// Take tokens back; whoever used one stays accepted until landbridge deny
    Revoke(TokenRevoke),
    /// Store a token that another cluster gave us, read from standard input
    Store(Named),
}

#[derive(Debug, Args)]
pub(super) struct TokenCreate {
    /// After how long it is worth nothing: 30m, 24h, 7d, or never
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = lifetime)]
    pub(super) expires: Lifetime,
    /// How many clusters may use it: 1 to 1000, or any
    #[arg(long, value_name = "N", default_value = "1", value_parser = uses)]
    pub(super) uses: Uses,
    /// What it is called in lists and logs [default: made up]
    #[arg(long)]
    pub(super) name: Option<String>,
    #[command(flatten)]
    pub(super) connect: Connect,
}

/// How long a token is worth something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lifetime(pub(super) Option<jiff::SignedDuration>);

/// How many clusters may use a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Uses(pub(super) Option<u32>);

#[derive(Debug, Args)]
pub(super) struct TokenList {
    #[command(flatten)]
    pub(super) connect: Connect,
}

#[derive(Debug, Args)]
pub(super) struct TokenRevoke {
    /// The names of the tokens
    #[arg(required = true)]
    pub(super) names: Vec<String>,
    #[command(flatten)]
    pub(super) connect: Connect,
}

#[derive(Debug, Args)]
pub(super) struct Kubeconfig {
    #[command(flatten)]
    pub(super) settings: Settings,
    /// Print where it is: export KUBECONFIG=$(landbridge kubeconfig --path)
    #[arg(long, conflicts_with = "user")]
    pub(super) path: bool,
    /// Issue a certificate to this user instead, who may do what roles and bindings allow
    #[arg(long)]
    pub(super) user: Option<String>,
    /// A group that the user is in; may be given twice
    #[arg(long = "group", requires = "user")]
    pub(super) groups: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct Crd {
    /// Write a file for each kind into this directory instead
    #[arg(long, value_name = "DIR")]
    pub(super) write: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Dns {
    #[command(subcommand)]
    pub(super) verb: DnsVerb,
}

#[derive(Debug, Subcommand)]
pub(super) enum DnsVerb {
    /// Print a zone file that lists this cluster
    Zone(DnsZone),
}

#[derive(Debug, Args)]
pub(super) struct DnsZone {
    /// The domain [default: dns.publish.zone of the settings]
    #[arg(long)]
    pub(super) domain: Option<String>,
    /// How the domain lists its clusters
    #[arg(long, value_enum, default_value_t = ZoneStyle::Rfc6763)]
    pub(super) style: ZoneStyle,
    #[command(flatten)]
    pub(super) connect: Connect,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ZoneStyle {
    /// As Liqo 0.2 reads it: PTR records at the domain itself
    Liqo,
    /// As DNS service discovery asks: service types, instances, TXT records
    Rfc6763,
}

#[derive(Debug, Args)]
pub(super) struct Config {
    #[command(subcommand)]
    pub(super) verb: ConfigVerb,
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigVerb {
    /// Print the settings that hold
    Show(ConfigShow),
}

#[derive(Debug, Args)]
pub(super) struct ConfigShow {
    #[command(flatten)]
    pub(super) settings: NodeSettings,
    /// Print where each value comes from
    #[arg(long)]
    pub(super) origin: bool,
}

#[derive(Debug, Args)]
pub(super) struct Completions {
    /// For which shell
    #[arg(value_enum)]
    pub(super) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(super) struct Man {
    /// The directory for the pages
    pub(super) directory: PathBuf,
}

/// Reads a duration like 60s, 2m or 1h30m.
fn duration(text: &str) -> Result<Duration, String> {
    text.parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok())
        .ok_or_else(|| "write a duration like 60s or 2m".to_owned())
}

/// Reads for how long a token is worth something; days are 24 hours.
fn lifetime(text: &str) -> Result<Lifetime, String> {
    if text == "never" {
        return Ok(Lifetime(None));
    }
    let days = text
        .strip_suffix('d')
        .and_then(|days| days.parse::<i64>().ok());
    let parsed = match days {
        Some(days) if (1..=3650).contains(&days) => {
            Some(jiff::SignedDuration::from_hours(days * 24))
        }
        Some(_) => None,
        None => text.parse::<jiff::SignedDuration>().ok(),
    };
    let usable = |life: &jiff::SignedDuration| {
        life.is_positive() && *life <= jiff::SignedDuration::from_hours(3650 * 24)
    };
    let life = parsed.filter(usable);
    let life = life.ok_or_else(|| "write a duration like 30m, 24h or 7d, or never".to_owned())?;
    Ok(Lifetime(Some(life)))
}

fn uses(text: &str) -> Result<Uses, String> {
    if text == "any" {
        return Ok(Uses(None));
    }
    let number = text
        .parse::<u32>()
        .ok()
        .filter(|uses| (1..=1000).contains(uses));
    let number = number.ok_or_else(|| "write a number from 1 to 1000, or any".to_owned())?;
    Ok(Uses(Some(number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn a_token_has_an_end_and_a_count_unless_told_otherwise() {
        let hours = |hours| Lifetime(Some(jiff::SignedDuration::from_hours(hours)));
        assert_eq!(lifetime("24h"), Ok(hours(24)));
        assert_eq!(lifetime("7d"), Ok(hours(168)));
        assert_eq!(lifetime("never"), Ok(Lifetime(None)));
        for wrong in ["", "0s", "-1h", "soon", "0d", "99999999999d", "99999999h"] {
            assert!(lifetime(wrong).is_err(), "{wrong}");
        }
        assert_eq!(uses("1000"), Ok(Uses(Some(1000))));
        assert_eq!(uses("any"), Ok(Uses(None)));
        for wrong in ["", "0", "1001", "-1", "many"] {
            assert!(uses(wrong).is_err(), "{wrong}");
        }
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
