//! Secrets of the operator: a new one, and the files of those that are, with a warning where everybody may read them.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use super::Error;
use crate::{config::Config, peer::trust::FleetSecret};

/// Makes a new secret, as for a fleet.
///
/// # Errors
///
/// The machine gives no random numbers.
pub fn new_secret() -> Result<FleetSecret, Error> {
    Ok(FleetSecret::generate()?)
}

/// Warns of secret files that are open to others. Kubernetes mounts them so, for everybody in the
/// container, and that is no error.
pub(super) fn warn_of_readers(config: &Config) {
    for (key, path) in open_to_others(config) {
        let path = path.display();
        tracing::warn!(%path, "The file of {key} is open to others: chmod o-rw {path}");
    }
}

fn open_to_others(config: &Config) -> Vec<(&'static str, &Path)> {
    let (trust, publish) = (&config.trust, &config.dns.publish);
    let files = [
        ("trust.fleetSecretFile", trust.fleet_secret_file.as_path()),
        ("trust.webPki.keyFile", trust.web_pki.key_file.as_path()),
        ("dns.publish.tsigKeyFile", publish.tsig_key_file.as_path()),
    ];
    let is_open = |path: &Path| {
        let mode = fs::metadata(path).map_or(0, |metadata| metadata.mode());
        mode & 0o006 != 0
    };
    let mut files = Vec::from(files);
    files.retain(|(_, path)| is_open(path));
    files
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_secret_file_that_others_can_read_or_change_is_noticed() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("secret");
        fs::write(&path, "secret").unwrap();
        let mut config = Config::default();
        assert_eq!(open_to_others(&config), []);
        config.trust.fleet_secret_file = path.clone();
        config.trust.web_pki.key_file = path.clone();
        config.dns.publish.tsig_key_file = path.clone();
        for (mode, noticed) in [(0o600, 0), (0o640, 0), (0o644, 3), (0o602, 3)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(open_to_others(&config).len(), noticed, "{mode:o}");
        }
    }
}
