//! The one place where everything is put together.
//!
//! ```text
//! settings -> build (key, store or cluster, sockets, tunnel) -> run (every task, one shutdown)
//! ```

mod announcement;
mod build;
mod clock;
mod description;
mod error;
mod heartbeat;
pub mod identity;
mod installation;
pub mod kubeconfig;
mod networks;
mod platform;
mod publication;
mod ranges;
mod run;
mod secret_files;
pub mod survey;
mod user;
pub mod zone;

use std::path::PathBuf;

pub use description::Description;
pub use error::Error;
pub use secret_files::new_secret;
pub use user::kubeconfig_for;

use crate::config::Loaded;

/// Which API keeps our objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Our own, in the data directory.
    Embedded,
    /// The cluster of a kubeconfig.
    Kubeconfig(PathBuf),
    /// The cluster that this process runs in.
    InCluster,
}

/// Runs the daemon until a signal ends it.
///
/// # Errors
///
/// Anything that keeps the daemon from starting, in one line with what mends it.
pub fn run(settings: &Loaded, target: Target) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(Error::Runtime)?;
    // Held until nothing of this daemon runs any more: its network goes last.
    let _lock = platform::claim(&settings.config.data_dir)?;
    let outcome = runtime.block_on(Box::pin(run::run(settings, target)));
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    outcome
}
