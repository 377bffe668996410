//! The one place where everything is put together.

use std::path::PathBuf;

use crate::config::Config;

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

/// Indicates that the daemon cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {}

/// Runs the daemon until a signal ends it.
pub fn run(_config: Config, _target: Target) -> Result<(), Error> {
    Ok(())
}
