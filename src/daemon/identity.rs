//! The identity of a machine, looked at and moved while no daemon needs to run.

use std::path::PathBuf;

use super::{
    Error,
    platform::{IDENTITY, claim},
};
use crate::{
    api::{ClusterId, Fingerprint},
    config::Config,
    peer::{certificates::Identity, keyfile, seal},
};

/// Who a machine is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Its cluster id.
    pub cluster_id: ClusterId,
    /// The fingerprint of its key.
    pub fingerprint: Fingerprint,
}

/// Returns who this machine is.
pub fn show(config: &Config) -> Result<Shown, Error> {
    let identity = present(config)?.ok_or_else(|| Error::NoIdentity(path(config)))?;
    Ok(shown(&identity))
}

/// Returns the identity of this machine, sealed by a passphrase.
pub fn export(config: &Config, passphrase: &str) -> Result<String, Error> {
    let identity = present(config)?.ok_or_else(|| Error::NoIdentity(path(config)))?;
    Ok(seal::seal(&identity, passphrase)?)
}

/// Makes a sealed identity the one of this machine. Another one that is there stays unless it is to
/// be replaced, and then it is kept beside it, under a name that has its id.
pub fn import(
    config: &Config,
    sealed: &str,
    passphrase: &str,
    replace: bool,
) -> Result<Shown, Error> {
    let identity = seal::open(sealed, passphrase)?;
    // A daemon that runs would go on with the other key.
    let _lock = claim(&config.data_dir)?;
    let path = path(config);
    match present(config)? {
        Some(old) if old.cluster_id() == identity.cluster_id() => {
            return Ok(shown(&identity));
        }
        Some(old) if !replace => return Err(Error::OtherIdentity(old.cluster_id().clone())),
        Some(old) => {
            let kept = config
                .data_dir
                .join(format!("{IDENTITY}.{}", old.cluster_id()));
            keyfile::create(&kept, &old.to_pem())?;
        }
        None => {}
    }
    keyfile::create(&path, &identity.to_pem())?;
    Ok(shown(&identity))
}

fn present(config: &Config) -> Result<Option<Identity>, Error> {
    match keyfile::read(&path(config))? {
        Some(pem) => Ok(Some(Identity::from_pem(&pem)?)),
        None => Ok(None),
    }
}

fn shown(identity: &Identity) -> Shown {
    Shown {
        cluster_id: identity.cluster_id().clone(),
        fingerprint: identity.fingerprint().clone(),
    }
}

fn path(config: &Config) -> PathBuf {
    config.data_dir.join(IDENTITY)
}
