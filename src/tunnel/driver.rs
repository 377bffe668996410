//! What any tunnel can do: say what is there, and carry out one operation at a time.

use std::{
    fmt, io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use futures::future::BoxFuture;

use crate::engine::overlay::{Observed, Operation, PublicKey};

/// How long a probe waits for its echo.
pub const ECHO_LIMIT: Duration = Duration::from_secs(1);

/// Indicates that a tunnel could not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Indicates that this machine cannot have a tunnel; `missing` and `mend` say why.
    #[error("no tunnel is possible here: {missing}; {mend}")]
    Unavailable {
        /// What is missing.
        missing: String,
        /// What a person can do about it.
        mend: String,
    },
    /// Indicates that a file of the tunnel could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// What went wrong.
        source: io::Error,
    },
    /// Indicates that the kernel refused something.
    #[error("could not {what}: {source}")]
    Kernel {
        /// What was tried.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Indicates that `nft` refused the rules.
    #[error("nft refused {what}: {message}")]
    Rules {
        /// What it was asked for.
        what: &'static str,
        /// What it said.
        message: String,
    },
    /// Indicates that something did not finish in time.
    #[error("{what} took longer than {limit:?}")]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// How long.
        limit: Duration,
    },
    /// Indicates that no echo came back through the tunnel.
    #[error("no echo from {0}")]
    NoEcho(Ipv4Addr),
    /// Indicates that an operation needs an interface and there is none.
    #[error("the tunnel's interface is gone; it is made again at the next look")]
    NoInterface,
}

impl Error {
    pub(crate) fn kernel(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Kernel {
            what: what.into(),
            source: source.into(),
        }
    }

    /// Returns whether trying again without a change on this machine is in vain.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

/// A tunnel. All peers are behind the one interface of a driver.
pub trait Driver: fmt::Debug + Send + Sync {
    /// Returns the key that peers know us by.
    fn public_key(&self) -> PublicKey;

    /// Returns the UDP port that peers send to.
    fn port(&self) -> u16;

    /// Returns the largest packet that the path to an endpoint carries outside of the tunnel.
    fn path_mtu(&self, endpoint: SocketAddr) -> Option<u32>;

    /// Looks at what is there, and how each peer does.
    fn observe(&self) -> BoxFuture<'_, Result<Observed, Error>>;

    /// Carries out one operation.
    fn carry_out(&self, operation: Operation) -> BoxFuture<'_, Result<(), Error>>;

    /// Sends an echo to a peer's end of the tunnel and returns the round-trip time.
    fn probe(&self, target: Ipv4Addr) -> BoxFuture<'_, Result<Duration, Error>>;

    /// Removes what the driver has made: interface, routes and rules.
    fn close(&self) -> BoxFuture<'_, Result<(), Error>>;
}
