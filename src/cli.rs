//! The front door: the command line.

mod add;
mod approve;
mod args;
mod check;
mod completions;
mod config;
mod connection;
mod crd;
mod demo;
mod deny;
mod discover;
mod dns;
mod fleet_secret;
mod get;
mod identity;
mod join;
mod kubeconfig;
mod man;
mod output;
mod peers;
mod prompt;
mod run;
mod status;
mod token;
mod version;

use std::process::ExitCode;

use clap::Parser as _;

pub use args::command;
use args::{Arguments, Verb};

use crate::telemetry::{self, Filter, Way};

/// Indicates that a verb did not do what was asked. The kind decides the exit code.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// Indicates that the thing asked for is not so.
    #[error("{0}")]
    NotSo(String),
    /// Indicates that what was typed, or a file that was named, cannot be used.
    #[error("{0}")]
    Usage(String),
    /// Indicates that no daemon answers.
    #[error("{0}")]
    Unreachable(String),
}

impl Failure {
    /// Returns the exit code, which scripts may rely on.
    fn code(&self) -> u8 {
        match self {
            Self::NotSo(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable(_) => 3,
        }
    }
}

impl From<crate::config::Error> for Failure {
    fn from(error: crate::config::Error) -> Self {
        Self::Usage(error.to_string())
    }
}

/// Runs the command line and returns its exit code: 0 well, 1 the thing asked for is not so,
/// 2 usage, 3 the daemon cannot be reached.
pub fn main() -> ExitCode {
    // Fails only when a provider is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arguments = Arguments::parse();
    let outcome = dispatch(arguments);
    telemetry::flush();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::complain(&failure.to_string());
            ExitCode::from(failure.code())
        }
    }
}

fn dispatch(arguments: Arguments) -> Result<(), Failure> {
    set_up_logs(&arguments)?;
    match arguments.verb {
        Verb::Run(options) => run::run(options),
        Verb::Demo(options) => demo::demo(&options),
        Verb::Status(options) => wait_for(status::status(options)),
        Verb::Get(options) => wait_for(get::get(options)),
        Verb::Discover(options) => wait_for(discover::discover(options)),
        Verb::Check(options) => wait_for(check::check(options)),
        Verb::Add(options) => wait_for(add::add(options)),
        Verb::Join(options) => wait_for(join::set(options, true)),
        Verb::Leave(options) => wait_for(join::set(options, false)),
        Verb::Approve(options) => wait_for(approve::approve(options)),
        Verb::Deny(options) => wait_for(deny::deny(options)),
        Verb::Block(options) => wait_for(deny::block(options)),
        Verb::Token(options) => wait_for(token::token(options.verb)),
        Verb::FleetSecret(options) => fleet_secret::fleet_secret(&options),
        Verb::Identity(options) => wait_for(identity::identity(options.verb)),
        Verb::Kubeconfig(options) => kubeconfig::kubeconfig(&options),
        Verb::Crd(options) => crd::crd(&options),
        Verb::Dns(options) => wait_for(dns::dns(options)),
        Verb::Config(options) => config::config(options),
        Verb::Completions(options) => completions::completions(&options),
        Verb::Man(options) => man::man(&options),
        Verb::Version => version::version(),
    }
}

/// The daemon tells what it does; the other verbs speak for themselves unless logs are asked for.
fn set_up_logs(arguments: &Arguments) -> Result<(), Failure> {
    let refuse = |error: telemetry::Error| Failure::Usage(error.to_string());
    let typed = arguments
        .log_level
        .as_ref()
        .filter(|level| !level.is_empty());
    let wished = match typed {
        Some(level) => Some(Filter::new(level).map_err(refuse)?),
        None => filter_of_environment(),
    };
    let (filter, way) = match (wished, &arguments.verb) {
        (Some(filter), Verb::Run(_)) => (filter, Way::Queued),
        (None, Verb::Run(_)) => (Filter::new("info").map_err(refuse)?, Way::Queued),
        (Some(filter), _) => (filter, Way::Direct),
        (None, _) => return Ok(()),
    };
    telemetry::init(filter, arguments.log_format, way).map_err(refuse)
}

/// Returns what `RUST_LOG` asks for, which may be meant for other programs and stops nobody.
fn filter_of_environment() -> Option<Filter> {
    let value = std::env::var("RUST_LOG").ok()?;
    let value = Some(value).filter(|value| !value.is_empty())?;
    match Filter::of_variable(&value) {
        Ok(filter) => Some(filter),
        Err(error) => {
            output::remark(&format!("RUST_LOG does nothing: {error}"));
            None
        }
    }
}

/// Runs a verb that waits for the daemon or for a person.
fn wait_for(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::NotSo(format!("cannot start the runtime: {error}")))?
        .block_on(work)
}
