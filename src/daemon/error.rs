//! Why the daemon cannot start.

use std::{io, net::SocketAddr, path::PathBuf};

/// Indicates that the daemon cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Indicates that the machine gave no threads or timers.
    #[error("cannot start: {0}")]
    Runtime(io::Error),
    /// Indicates settings that contradict each other or cannot be used.
    #[error(transparent)]
    Config(#[from] crate::config::Error),
    /// Indicates a data directory that cannot be used.
    #[error("cannot use {}: {source}; choose another data directory with --data-dir", path.display())]
    DataDir {
        /// The directory, or what in it.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Indicates a data directory that others could change.
    #[error("the data directory is not safe: {0}")]
    OpenDataDir(#[from] crate::peer::keyfile::Error),
    /// Indicates a second daemon on one data directory.
    #[error("another landbridge uses {}; stop it, or choose another directory with --data-dir", path.display())]
    DataDirInUse {
        /// The directory.
        path: PathBuf,
    },
    /// Indicates an address that cannot be listened on.
    #[error(
        "cannot listen on {address} for {purpose}: {source}; set {key} to another one, port 0 takes any free port"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What listens there.
        purpose: &'static str,
        /// The key of the settings.
        key: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Indicates that the identity key cannot be had.
    #[error("cannot load the identity key: {0}")]
    Identity(#[from] crate::peer::certificates::Error),
    /// Indicates an identity that cannot be sealed or opened.
    #[error(transparent)]
    Seal(#[from] crate::peer::seal::Error),
    /// Indicates a machine that has no identity yet.
    #[error("{} does not exist: the first landbridge run makes an identity; where the objects are in a cluster, it is in the Secret liqo/landbridge-identity there", .0.display())]
    NoIdentity(PathBuf),
    /// Indicates a machine that is another cluster already.
    #[error(
        "this machine is {0} already: --replace keeps that identity as identity.pem.{0} beside the new one"
    )]
    OtherIdentity(crate::api::ClusterId),
    /// Indicates name servers that cannot be asked.
    #[error("dns.servers: {0}")]
    NameServers(#[from] crate::discovery::dns::ServersError),
    /// Indicates keys of signed zones that cannot be used.
    #[error("dns.trustAnchorsFile: {}: {source}", path.display())]
    TrustAnchors {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: crate::discovery::dns::AnchorsError,
    },
    /// Indicates settings that do not allow to publish this cluster in DNS.
    #[error(transparent)]
    Publish(#[from] crate::discovery::publish::SettingsError),
    /// Indicates that TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] crate::peer::listener::Error),
    /// Indicates a fleet secret that cannot be used.
    #[error("cannot use the fleet secret: {0}")]
    FleetSecret(#[from] crate::peer::trust::Error),
    /// Indicates a certificate of the Web PKI, or authorities, that cannot be used.
    #[error("cannot use the Web PKI: {0}")]
    WebPki(#[from] crate::peer::web_pki::Error),
    /// Indicates an embedded API that cannot start.
    #[error(transparent)]
    KubeApi(#[from] crate::kubeapi::Error),
    /// Indicates a kubeconfig or an in-cluster account that cannot be used.
    #[error("cannot use the cluster: {0}")]
    Cluster(String),
    /// Indicates a resource definition that we may not install.
    #[error(
        "the resource definition {0} is missing or of another version, and this account may not install it; an administrator can: landbridge crd | kubectl apply --server-side -f -"
    )]
    Definitions(String),
    /// Indicates a resource definition that we may not even look at.
    #[error(
        "this account may not read the resource definition {0}; an administrator can allow it: kubectl apply -f deploy/kubernetes"
    )]
    DefinitionsHidden(String),
    /// Indicates a resource definition of somebody else.
    #[error(
        "the resource definition {name} in the cluster is {whose}, and other than ours; to replace all of them: landbridge crd | kubectl apply --server-side --force-conflicts -f -"
    )]
    DefinitionsOfOthers {
        /// Its name.
        name: String,
        /// Whose it is.
        whose: String,
    },
    /// Indicates that an object that we need could not be read or made.
    #[error(transparent)]
    Objects(#[from] crate::controllers::Error),
    /// Indicates a tunnel that cannot be set up, or whose key cannot be had.
    #[error("cannot set up the tunnel: {0}")]
    Tunnel(#[from] crate::tunnel::driver::Error),
    /// Indicates a part of the daemon that did not last as long as the daemon.
    #[error("{0} before the shutdown, which is a fault of landbridge: the log says more")]
    Task(String),
}

impl Error {
    /// Whether settings, or a file that they name, cannot be used.
    pub fn is_of_settings(&self) -> bool {
        matches!(
            self,
            Self::Config(_)
                | Self::NameServers(_)
                | Self::TrustAnchors { .. }
                | Self::Publish(_)
                | Self::FleetSecret(_)
                | Self::WebPki(_)
        )
    }
}
