//! Where our objects are kept: the embedded API, or a real cluster. Nothing outside of this room
//! knows which.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use kube::Client;
use nix::fcntl::{Flock, FlockArg, OFlag};
use tokio::net::TcpListener;

use super::{Error, Target, clock, installation};
use crate::{
    api,
    config::Config,
    kubeapi::{
        KubeApi, Options,
        loopback::Credentials,
        store::{Commit, Sqlite},
    },
    peer::{certificates::Identity, keyfile},
};

/// The store of the embedded API in the data directory.
const STORE: &str = "store.db";
/// The identity key in the data directory.
pub(super) const IDENTITY: &str = "identity.pem";
/// The file that one daemon holds locked.
const LOCK: &str = "lock";

/// The API that keeps our objects, and our identity.
pub(super) struct Platform {
    pub(super) client: Client,
    pub(super) identity: Arc<Identity>,
    /// The embedded API, when there is one to be served.
    pub(super) embedded: Option<Embedded>,
}

/// The embedded API with what serves it to kubectl.
pub(super) struct Embedded {
    pub(super) api: KubeApi,
    pub(super) listener: TcpListener,
    pub(super) credentials: Credentials,
}

/// Opens the API and reads our identity.
pub(super) async fn open(config: &Config, target: Target) -> Result<Platform, Error> {
    match target {
        Target::Embedded => {
            let identity = Identity::load_or_create(&config.data_dir.join(IDENTITY))?;
            let embedded = embedded(config).await?;
            Ok(Platform {
                client: embedded.api.client(),
                identity: Arc::new(identity),
                embedded: Some(embedded),
            })
        }
        Target::Kubeconfig(path) => {
            let client = installation::client_of(&path).await?;
            real(client).await
        }
        Target::InCluster => {
            let client = installation::client_in_cluster()?;
            real(client).await
        }
    }
}

async fn real(client: Client) -> Result<Platform, Error> {
    installation::install_definitions(&client).await?;
    let identity = installation::identity(&client).await?;
    Ok(Platform {
        client,
        identity: Arc::new(identity),
        embedded: None,
    })
}

async fn embedded(config: &Config) -> Result<Embedded, Error> {
    let store = Sqlite::open(config.data_dir.join(STORE))?;
    let clock = clock::wall();
    // Refuses a link, and what others could read.
    keyfile::read(&Credentials::path(&config.data_dir))?;
    let credentials = Credentials::load_or_create(&config.data_dir, clock())?;
    let address = config.api.listen;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| Error::Listen {
            address,
            purpose: "the Kubernetes API",
            key: "api.listen",
            source,
        })?;
    let api = KubeApi::open(Options {
        backend: Box::new(store),
        commit: Commit::Threaded,
        clock: Arc::clone(&clock),
        crds: api::crds(),
    })
    .await?;
    Ok(Embedded {
        api,
        listener,
        credentials,
    })
}

/// Makes the data directory, private to us, and holds its lock.
pub(super) fn claim(directory: &Path) -> Result<Flock<fs::File>, Error> {
    let refuse = |source| Error::DataDir {
        path: directory.to_owned(),
        source,
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(refuse)?;
    keyfile::check_directory(directory)?;
    let path: PathBuf = directory.join(LOCK);
    let file = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(&path)
        .map_err(|source| Error::DataDir {
            path: path.clone(),
            source,
        })?;
    let mut lock =
        Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| Error::DataDirInUse {
            path: directory.to_owned(),
        })?;
    // The number helps a person to find the holder; nothing depends on it.
    drop(
        lock.set_len(0)
            .and_then(|()| writeln!(lock, "{}", std::process::id())),
    );
    Ok(lock)
}
