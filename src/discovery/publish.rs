//! Publishing in a DNS zone: signed updates (RFC 2136, RFC 8945) that create our records, keep them
//! true and take them back.
//!
//! A TXT record at our host's name says that the records are ours. Every change but the first is
//! made on the condition that it stands there, so that nobody else's records are ever touched.

mod key;
mod update;

use std::{net::IpAddr, path::PathBuf, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    discovery::{
        dns::{Servers, ServersError},
        source::Announcement,
    },
    engine::{
        addresses::{AuthUrl, OwnNetworks},
        backoff::Backoff,
    },
};
pub use key::{Key, KeyError};
pub use update::{Listing, Publisher, UpdateError};

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

impl Publisher {
    /// Reads the settings; nothing when there is no zone to publish in.
    pub fn from_settings(
        zone: &str,
        server: &str,
        key_file: PathBuf,
    ) -> Result<Option<Self>, SettingsError> {
        if zone.is_empty() {
            return Ok(None);
        }
        if server.is_empty() {
            return Err(SettingsError::Missing("server"));
        }
        if key_file.as_os_str().is_empty() {
            return Err(SettingsError::Missing("tsigKeyFile"));
        }
        let name = update::zone_name(zone).ok_or_else(|| SettingsError::Zone(zone.to_owned()))?;
        let server = Servers::address_of(server).map_err(SettingsError::Server)?;
        let key = Key::from_file(&key_file).map_err(|source| SettingsError::Key {
            path: key_file,
            source,
        })?;
        Ok(Some(Self::new(name, server, key)))
    }
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
}

impl Sources {
    /// What the zone should say now; nothing while we are not announced or have no address.
    fn wanted(&self) -> Option<Listing> {
        let announcement = self.announcement.borrow();
        let listing = Listing {
            cluster_id: announcement.cluster_id.clone(),
            name: announcement.name.clone(),
            port: announcement.port,
            addresses: addresses(&self.own.borrow()),
            advertise: self.advertise.clone(),
        };
        let reachable = listing.advertise.is_some() || !listing.addresses.is_empty();
        (announcement.advertise && reachable).then_some(listing)
    }
}

/// The addresses of this machine on its LANs, each family in order.
fn addresses(own: &OwnNetworks) -> Vec<IpAddr> {
    let usable = |address: &IpAddr| match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    };
    let on_lan = |address: &IpAddr| own.on_link.iter().any(|subnet| subnet.contains(address));
    let mut addresses: Vec<IpAddr> = own.addresses.iter().copied().collect();
    addresses.retain(|address| usable(address) && on_lan(address));
    addresses.sort_unstable();
    addresses.dedup();
    addresses.truncate(ADDRESSES);
    addresses
}

/// Keeps our records in the zone until the shutdown, and then takes them back.
pub async fn run(publisher: Publisher, mut sources: Sources, shutdown: CancellationToken) {
    let mut backoff = Backoff::new(RETRY.0, RETRY.1);
    let mut published: Option<Listing> = None;
    let mut complaint = String::new();
    loop {
        let wanted = sources.wanted();
        let outcome = match (&wanted, &published) {
            (Some(wanted), _) => publisher.publish(wanted).await,
            (None, Some(published)) => publisher.withdraw(published).await,
            (None, None) => Ok(()),
        };
        let wait = match outcome {
            Ok(()) => {
                if wanted != published {
                    tracing::info!(zone = %publisher.zone(), listed = wanted.is_some(), "Zone updated");
                }
                published = wanted;
                complaint.clear();
                backoff.reset();
                REFRESH
            }
            Err(error) => {
                let text = error.to_string();
                if text != complaint {
                    tracing::warn!(zone = %publisher.zone(), %error, "This cluster is not published");
                    complaint = text;
                }
                backoff.next(crate::discovery::fraction())
            }
        };
        if !wait_for_change(&mut sources, wait, &shutdown).await {
            break;
        }
    }
    if let Some(published) = published {
        let withdrawn = timeout(FAREWELL, publisher.withdraw(&published)).await;
        if !matches!(withdrawn, Ok(Ok(()))) {
            tracing::warn!(zone = %publisher.zone(), "Our records stay in the zone: it could not be updated");
        }
    }
}

/// Waits for the next update; false at the shutdown.
async fn wait_for_change(
    sources: &mut Sources,
    wait: Duration,
    shutdown: &CancellationToken,
) -> bool {
    let before = sources.wanted();
    let deadline = Instant::now() + wait;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return false,
            () = tokio::time::sleep_until(deadline) => return true,
            changed = sources.announcement.changed() => if changed.is_err() { return false },
            changed = sources.own.changed() => if changed.is_err() { return false },
        }
        if sources.wanted() != before {
            tokio::select! {
                () = shutdown.cancelled() => return false,
                () = tokio::time::sleep(DEBOUNCE) => return true,
            }
        }
    }
}
