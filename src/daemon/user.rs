//! Kubeconfigs of the embedded API for others than its administrator.

use super::Error;
use crate::{kubeapi::loopback::Credentials, peer::keyfile};
use kube::config::Kubeconfig;
use std::path::Path;

/// Issues a certificate to a user for a year, and returns the kubeconfig that carries it. What the
/// user may do is what RBAC objects allow to it and to these groups.
///
/// # Errors
///
/// The daemon never ran here, its credentials cannot be read, or the groups are too many.
pub fn kubeconfig_for(data_dir: &Path, user: &str, groups: &[String]) -> Result<String, Error> {
    let path = data_dir.join("kubeconfig");
    let known = Kubeconfig::read_from(&path)
        .map_err(|error| Error::Cluster(format!("{}: {error}", path.display())))?;
    let server = known
        .clusters
        .into_iter()
        .find_map(|cluster| cluster.cluster?.server)
        .ok_or_else(|| Error::Cluster(format!("{} names no server", path.display())))?;
    let now = jiff::Timestamp::now();
    keyfile::read(&Credentials::path(data_dir))?;
    // A daemon that runs knows only the authority that it started with, so none is made here.
    let credentials = Credentials::load(data_dir)?.ok_or_else(|| {
        let place = data_dir.join("api").display().to_string();
        Error::Cluster(format!("{place} has no credentials: start the daemon anew"))
    })?;
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    Ok(credentials.kubeconfig_for(user, &groups, &server, now)?)
}
