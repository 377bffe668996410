//! `landbridge run`: the daemon.

use super::{Failure, args::Run};
use crate::daemon::{self, Target};

/// Runs the daemon until a signal ends it.
pub(super) fn run(options: Run) -> Result<(), Failure> {
    let loaded = options.settings.sources().load()?;
    let target = match (options.kubeconfig, options.in_cluster) {
        (Some(path), _) => Target::Kubeconfig(path),
        (None, true) => Target::InCluster,
        (None, false) => Target::Embedded,
    };
    daemon::run(loaded.config, target).map_err(|error| Failure::NotSo(error.to_string()))
}
