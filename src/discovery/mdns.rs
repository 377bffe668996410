//! Discovery on the LAN by multicast DNS: announces us, looks for others, and mends itself.
//!
//! ```text
//! netlink ------------ link events --.
//! socket --- packets --- wire -------+--> session --> neighbours --> EventSink --> roster
//! Announcement, known ids, verify ---'       |
//!                                            '--> responder --> wire --> socket
//! ```
//! Only `socket` does I/O and only `session` waits. `wire`, `gate`, `neighbours` and `responder` are
//! given packets and time.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    api::identity::ClusterId,
    discovery::{
        DiscoveryError, Health, fraction,
        interfaces::InterfaceRules,
        source::{Announcement, EventSink, Source},
    },
    engine::backoff::Backoff,
};

mod gate;
mod link_events;
mod neighbours;
mod responder;
mod session;
mod socket;
pub mod wire;

/// The port of multicast DNS (RFC 6762, section 3).
pub(super) const PORT: u16 = 5353;
/// Its groups.
pub(super) const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
pub(super) const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
/// The waits before a broken session is followed by the next one.
const RESTART: (Duration, Duration) = (Duration::from_millis(500), Duration::from_mins(1));
/// A session that lived for so long was well.
const HEALTHY: Duration = Duration::from_mins(1);
/// How many requests to look again may wait. More are dropped: the next health check asks again.
const VERIFY_QUEUE: usize = 64;

/// The source of discovery on the LAN.
#[derive(Debug)]
pub struct Mdns {
    port: u16,
    rules: InterfaceRules,
    announcement: watch::Receiver<Announcement>,
    known: watch::Receiver<BTreeSet<ClusterId>>,
    verify: mpsc::Receiver<String>,
    health: watch::Sender<Health>,
}

/// What the rest of the program holds of a running [`Mdns`].
#[derive(Debug, Clone)]
pub struct MdnsHandle {
    verify: mpsc::Sender<String>,
    known: watch::Sender<BTreeSet<ClusterId>>,
    health: watch::Receiver<Health>,
}

impl MdnsHandle {
    /// Asks to look again whether an advertisement still stands, after it did not answer: if nobody
    /// confirms it within two seconds it is reported gone. Returns false when too many wait already.
    pub fn verify(&self, instance: &str) -> bool {
        self.verify.try_send(instance.to_owned()).is_ok()
    }

    /// Says which clusters are known already: they come first, whatever else is announced.
    pub fn set_known(&self, known: BTreeSet<ClusterId>) {
        self.known.send_if_modified(|present| {
            let news = *present != known;
            *present = known;
            news
        });
    }

    /// Returns how discovery on the LAN is doing, and tells when that changes.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }
}

impl Mdns {
    /// Prepares the source. It follows the announcement, switches included, while it runs.
    pub fn new(
        rules: InterfaceRules,
        announcement: watch::Receiver<Announcement>,
    ) -> (Self, MdnsHandle) {
        let (verify_sender, verify) = mpsc::channel(VERIFY_QUEUE);
        let (known_sender, known) = watch::channel(BTreeSet::new());
        let (health, health_receiver) = watch::channel(Health::Starting);
        let source = Self {
            port: PORT,
            rules,
            announcement,
            known,
            verify,
            health,
        };
        let handle = MdnsHandle {
            verify: verify_sender,
            known: known_sender,
            health: health_receiver,
        };
        (source, handle)
    }

    /// Returns the same source on another UDP port, away from the neighbours' view.
    #[must_use]
    pub fn on_port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    async fn supervise(mut self, events: EventSink, shutdown: CancellationToken) {
        let mut backoff = Backoff::new(RESTART.0, RESTART.1);
        loop {
            let started = Instant::now();
            let Err(error) = session::run(&mut self, &events, &shutdown).await else {
                break;
            };
            if started.elapsed() > HEALTHY {
                backoff.reset();
            }
            self.report(&error);
            tokio::select! {
                () = tokio::time::sleep(backoff.next(fraction())) => {}
                () = shutdown.cancelled() => break,
            }
        }
        self.set_health(Health::Stopped);
    }

    fn report(&self, error: &DiscoveryError) {
        let message = error.to_string();
        let health = if matches!(error, DiscoveryError::PortTaken { .. }) {
            Health::PortTaken { message }
        } else {
            Health::Restarting { message }
        };
        if self.set_health(health) {
            tracing::warn!(%error, "Discovery on the LAN is interrupted");
        }
    }

    /// Returns whether that was news.
    fn set_health(&self, health: Health) -> bool {
        self.health.send_if_modified(|present| {
            let news = *present != health;
            *present = health;
            news
        })
    }
}

impl Source for Mdns {
    fn name(&self) -> &'static str {
        "mdns"
    }

    fn run(
        self: Box<Self>,
        events: EventSink,
        shutdown: CancellationToken,
    ) -> BoxFuture<'static, ()> {
        self.supervise(events, shutdown).boxed()
    }
}
