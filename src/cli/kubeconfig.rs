//! `landbridge kubeconfig`: the way to the embedded API for kubectl.

use std::{fs, io::ErrorKind};

use super::{Failure, args::Kubeconfig, output};

/// Prints the kubeconfig of the embedded API, or where it is.
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
    if options.path {
        output::print(&format!("{place}\n"))
    } else {
        output::print(&text)
    }
}
