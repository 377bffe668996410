//! `landbridge kubeconfig`: the way to the embedded API for kubectl, and for other users.

use super::{Failure, args::Kubeconfig, connection::own_kubeconfig, output};
use crate::daemon;

/// Prints the kubeconfig of the embedded API, or where it is, or one for another user.
pub(super) fn kubeconfig(options: &Kubeconfig) -> Result<(), Failure> {
    let data_dir = options.settings.sources().load()?.config.data_dir;
    let (path, text) = own_kubeconfig(&data_dir)?;
    if let Some(user) = &options.user {
        let issued = daemon::kubeconfig_for(&data_dir, user, &options.groups);
        output::print(&issued.map_err(|error| Failure::Usage(error.to_string()))?)
    } else if options.path {
        output::print(&format!("{}\n", path.display()))
    } else {
        output::print(&text)
    }
}
