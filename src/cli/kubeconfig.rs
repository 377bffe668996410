//! `landbridge kubeconfig`: the way to the embedded API for kubectl, and for other users.

use std::{fs, io::ErrorKind};

use super::{Failure, args::Kubeconfig, output};
use crate::daemon;

/// Prints the kubeconfig of the embedded API, or where it is, or one for another user.
pub(super) fn kubeconfig(options: &Kubeconfig) -> Result<(), Failure> {
    let loaded = options.settings.sources().load()?;
    let path = loaded.config.data_dir.join("kubeconfig");
    let place = path.display();
    let text = fs::read_to_string(&path).map_err(|error| {
        if error.kind() == ErrorKind::NotFound {
            Failure::Unreachable(format!(
                "{place} does not exist: start the daemon with landbridge run, or name its --data-dir"
            ))
        } else {
            Failure::Unreachable(format!("cannot read {place}: {error}"))
        }
    })?;
    if let Some(user) = &options.user {
        let issued = daemon::kubeconfig_for(&loaded.config.data_dir, user, &options.groups);
        let issued = issued.map_err(|error| Failure::Unreachable(error.to_string()))?;
        output::print(&issued)
    } else if options.path {
        output::print(&format!("{place}\n"))
    } else {
        output::print(&text)
    }
}
