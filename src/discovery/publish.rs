//! Publishing in a DNS zone: signed updates (RFC 2136, RFC 8945) that create our records, keep them
//! true and take them back.
//!
//! A TXT record at our host's name says that the records are ours. Every change but the first is
//! made on the condition that it stands there, so that nobody else's records are ever touched.

mod key;
mod machine;
mod update;

use std::{error::Error, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use futures::future::BoxFuture;

use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

pub use crate::engine::domain::zone::Listing;
use crate::{
    api::identity::Fingerprint,
    discovery::{
        dns::{Servers, ServersError},
        source::Announcement,
    },
    engine::{
        addresses::{AuthUrl, OwnNetworks},
        backoff::Backoff,
        domain::zone::{self, Style},
    },
};
pub use key::{Key, KeyError};
pub use update::{Publisher, UpdateError};

/// How often the records are written again, in case somebody has removed them.
const REFRESH: Duration = Duration::from_mins(10);
/// How long changes are collected before they are published.
const DEBOUNCE: Duration = Duration::from_millis(500);
/// The waits after a failed update.
const RETRY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_mins(10));
/// How long the withdrawal may take when the daemon ends.
const FAREWELL: Duration = Duration::from_secs(3);
/// The most addresses that are published.
const ADDRESSES: usize = 8;

/// Indicates settings that do not allow to publish.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Indicates a zone that is not the name of a domain.
    #[error("dns.publish.zone: {0:?} is not the name of a domain")]
    Zone(String),
    /// Indicates a zone without the server or the key that go with it.
    #[error("dns.publish.{0} is needed to publish in a zone")]
    Missing(&'static str),
    /// Indicates a server that is not an address.
    #[error("dns.publish.server: {0}")]
    Server(ServersError),
    /// Indicates a key that cannot be used.
    #[error("dns.publish.tsigKeyFile: {}: {source}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: KeyError,
    },
}

/// Where this cluster is published.
#[derive(Debug, Clone)]
pub enum Destination {
    /// At a name server that takes signed updates.
    Server(Publisher),
    /// By the cluster that we run in, which has somebody to keep the zone.
    Cluster {
        /// The zone.
        zone: String,
        /// How the zone lists its clusters.
        style: Style,
    },
}

impl Destination {
    /// Reads the settings; nothing when there is no zone to publish in. Without a server it is left
    /// to the cluster.
    pub fn from_settings(
        zone: &str,
        server: &str,
        key_file: PathBuf,
        style: Style,
    ) -> Result<Option<Self>, SettingsError> {
        if zone.is_empty() {
            return Ok(None);
        }
        let zone = zone::domain(zone).map_err(|_| SettingsError::Zone(zone.to_owned()))?;
        if server.is_empty() && key_file.as_os_str().is_empty() {
            return Ok(Some(Self::Cluster { zone, style }));
        }
        if server.is_empty() {
            return Err(SettingsError::Missing("server"));
        }
        if key_file.as_os_str().is_empty() {
            return Err(SettingsError::Missing("tsigKeyFile"));
        }
        let name = update::zone_name(&zone).ok_or_else(|| SettingsError::Zone(zone.clone()))?;
        let server = Servers::address_of(server).map_err(SettingsError::Server)?;
        let key = Key::from_file(&key_file).map_err(|source| SettingsError::Key {
            path: key_file,
            source,
        })?;
        let mark = machine::mark(&zone);
        let publisher = Publisher::new(name, server, key, style).on_machine(mark);
        Ok(Some(Self::Server(publisher)))
    }
}

/// Why a zone does not say what it should.
pub type RegisterError = Box<dyn Error + Send + Sync>;

/// Somebody who keeps a zone.
pub trait Register: Send + Sync {
    /// Returns the zone.
    fn zone(&self) -> String;

    /// Makes the zone say what the listing says, whatever it said of us before.
    fn publish<'a>(&'a self, listing: &'a Listing) -> BoxFuture<'a, Result<(), RegisterError>>;

    /// Takes our records out of the zone.
    fn withdraw<'a>(&'a self, listing: &'a Listing) -> BoxFuture<'a, Result<(), RegisterError>>;
}

impl Register for Publisher {
    fn zone(&self) -> String {
        self.zone_text()
    }

    fn publish<'a>(&'a self, listing: &'a Listing) -> BoxFuture<'a, Result<(), RegisterError>> {
        Box::pin(async move { Ok(Self::publish(self, listing).await?) })
    }

    fn withdraw<'a>(&'a self, listing: &'a Listing) -> BoxFuture<'a, Result<(), RegisterError>> {
        Box::pin(async move { Ok(Self::withdraw(self, listing).await?) })
    }
}

/// Whether the zone says what it should, for a person.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    /// The zone.
    pub zone: String,
    /// Whether it lists this cluster.
    pub listed: bool,
    /// Why this cluster is not published as it should be, if it is not.
    pub problem: Option<String>,
}

/// What is published of this machine.
#[derive(Debug, Clone)]
pub struct Sources {
    /// Who we are and whether we are announced at all.
    pub announcement: watch::Receiver<Announcement>,
    /// Our addresses.
    pub own: watch::Receiver<OwnNetworks>,
    /// A URL to name instead of our own addresses.
    pub advertise: Option<AuthUrl>,
    /// The fingerprint of our key.
    pub key: Fingerprint,
}

impl Sources {
    /// What the zone should say now; nothing while we are not announced or have no address.
    fn wanted(&self) -> Option<Listing> {
        let listing = self.listing();
        let reachable = listing.advertise.is_some() || !listing.addresses.is_empty();
        (self.announcement.borrow().advertise && reachable).then_some(listing)
    }

    /// What there is to say of us.
    fn listing(&self) -> Listing {
        let announcement = self.announcement.borrow();
        Listing {
            cluster_id: announcement.cluster_id.clone(),
            name: announcement.name.clone(),
            port: announcement.port,
            addresses: addresses(&self.own.borrow()),
            advertise: self.advertise.clone(),
            key: Some(self.key.clone()),
        }
    }

    /// Why there is nothing to publish, where there should be.
    fn obstacle(&self) -> Option<String> {
        let nothing = self.announcement.borrow().advertise && self.wanted().is_none();
        nothing.then(|| {
            "this machine has no address on a LAN: name one with peer.advertise".to_owned()
        })
    }
}

/// The addresses of this machine on its LANs that others reach it at, each family in order.
pub fn addresses(own: &OwnNetworks) -> Vec<IpAddr> {
    let usable = |address: &IpAddr| match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    };
    let mut addresses: Vec<IpAddr> = own.said.clone();
    addresses.retain(usable);
    addresses.sort_unstable();
    addresses.dedup();
    addresses.truncate(ADDRESSES);
    addresses
}

/// Keeps our records in the zone until the shutdown, and then takes them back.
pub async fn run(
    register: Arc<dyn Register>,
    mut sources: Sources,
    standing: watch::Sender<Standing>,
    shutdown: CancellationToken,
) {
    let mut desk = Desk {
        register,
        published: None,
        may_stand: true,
        standing,
        backoff: Backoff::new(RETRY.0, RETRY.1),
    };
    loop {
        let (wanted, obstacle) = (sources.wanted(), sources.obstacle());
        let left = (desk.may_stand && obstacle.is_none()).then(|| sources.listing());
        let wait = match desk.update(wanted.as_ref(), left.as_ref()).await {
            Ok(()) => desk.note(wanted.clone(), obstacle),
            Err(error) => desk.complain(&error),
        };
        if !wait_for_change(&mut sources, wanted.as_ref(), wait, &shutdown).await {
            break;
        }
    }
    desk.leave(&sources).await;
}

/// What stands in the zone, and how that went.
struct Desk {
    register: Arc<dyn Register>,
    published: Option<Listing>,
    /// Whether records may stand there that an earlier run has left, or an update that failed.
    may_stand: bool,
    standing: watch::Sender<Standing>,
    backoff: Backoff,
}

impl Desk {
    /// Has the zone say what is wanted. `left` is what may stand there besides what we published.
    async fn update(
        &self,
        wanted: Option<&Listing>,
        left: Option<&Listing>,
    ) -> Result<(), RegisterError> {
        match (wanted, self.published.as_ref().or(left)) {
            (Some(wanted), _) => self.register.publish(wanted).await,
            (None, Some(standing)) => self.register.withdraw(standing).await,
            (None, None) => Ok(()),
        }
    }

    /// Notes a success and returns when to write again.
    fn note(&mut self, wanted: Option<Listing>, obstacle: Option<String>) -> Duration {
        if wanted != self.published {
            let listed = wanted.is_some();
            tracing::info!(zone = self.register.zone(), listed, "Zone updated");
        }
        self.published = wanted;
        // What is there stays while it is only our addresses that are missing.
        self.may_stand &= obstacle.is_some();
        self.report(obstacle);
        self.backoff.reset();
        REFRESH
    }

    /// Tells a failure once and returns when to try again.
    fn complain(&mut self, error: &RegisterError) -> Duration {
        self.may_stand = true;
        if self.report(Some(error.to_string())) {
            let zone = self.register.zone();
            tracing::warn!(zone, %error, "This cluster is not published");
        }
        self.backoff.next(super::fraction())
    }

    /// Says how it went, and returns whether that was news.
    fn report(&self, problem: Option<String>) -> bool {
        let new = Standing {
            zone: self.register.zone(),
            listed: self.published.is_some(),
            problem,
        };
        self.standing.send_if_modified(|standing| {
            let news = *standing != new;
            *standing = new;
            news
        })
    }

    async fn leave(self, sources: &Sources) {
        let left = || self.may_stand.then(|| sources.listing());
        let Some(standing) = self.published.clone().or_else(left) else {
            return;
        };
        let withdrawn = timeout(FAREWELL, self.register.withdraw(&standing)).await;
        if !matches!(withdrawn, Ok(Ok(()))) {
            let zone = self.register.zone();
            tracing::warn!(
                zone,
                "Our records may stay in the zone: it could not be updated"
            );
        }
    }
}

/// Waits for the next update after one that was to bring this about; false at the shutdown.
async fn wait_for_change(
    sources: &mut Sources,
    before: Option<&Listing>,
    wait: Duration,
    shutdown: &CancellationToken,
) -> bool {
    let deadline = Instant::now() + wait;
    loop {
        if sources.wanted().as_ref() != before {
            tokio::select! {
                () = shutdown.cancelled() => return false,
                () = tokio::time::sleep(DEBOUNCE) => return true,
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return false,
            () = tokio::time::sleep_until(deadline) => return true,
            changed = sources.announcement.changed() => if changed.is_err() { return false },
            changed = sources.own.changed() => if changed.is_err() { return false },
        }
    }
}

#[cfg(test)]
mod tests;
