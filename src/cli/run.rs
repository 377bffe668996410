//! `landbridge run`: the daemon.

use nix::sys::{
    prctl::set_dumpable,
    stat::{Mode, umask},
};

use super::{Failure, args::Run};
use crate::daemon::{self, Target};

/// Runs the daemon until a signal ends it.
pub(super) fn run(options: Run) -> Result<(), Failure> {
    // What a library creates is for us alone too: the store keeps Secrets.
    umask(Mode::from_bits_truncate(0o077));
    // Neither a core file nor another process of this user shall show our keys.
    if let Err(error) = set_dumpable(false) {
        tracing::warn!(%error, "Memory may end up in core files");
    }
    let loaded = options.settings.sources().load()?;
    let target = match (options.kubeconfig, options.in_cluster) {
        (Some(path), _) => Target::Kubeconfig(path),
        (None, true) => Target::InCluster,
        (None, false) => Target::Embedded,
    };
    daemon::run(&loaded, target).map_err(|error| {
        if error.is_of_settings() {
            Failure::Usage(error.to_string())
        } else {
            Failure::NotSo(error.to_string())
        }
    })
}
