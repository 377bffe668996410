//! One life of the multicast DNS library: from its start until shutdown or until it breaks.

use std::{
    collections::BTreeSet,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use futures::{StreamExt, stream, stream::BoxStream};
use mdns_sd::{IfKind, IfPredicate, Receiver, ServiceDaemon, ServiceEvent, ServiceInfo};
use socket2::{Domain, Socket, Type};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::{Mdns, SERVICE_TYPES, fraction, link_events::link_events, neighbours::Neighbours};
use crate::{
    discovery::{
        DiscoveryError, Health,
        interfaces::{InterfaceRules, Links},
        record::Record,
        source::{Announcement, EventSink},
    },
    engine::sighting::Event,
};

/// When an announcement is repeated; the library itself does so after one second. The times grow by
/// a factor of at least two (RFC 6762, section 8.3) and are spread by a fifth.
const REPEATED_ANNOUNCEMENTS: [Duration; 3] = [
    Duration::from_secs(3),
    Duration::from_secs(9),
    Duration::from_secs(27),
];
/// The least time between two announcements (RFC 6762, section 6).
const ANNOUNCEMENT_PAUSE: Duration = Duration::from_secs(1);
/// How long after a change of links we are announced again: by then the library, which looks every
/// second, has dropped the addresses that are gone.
const AFTER_LINK_CHANGE: Duration = Duration::from_millis(1200);
/// For how long link events are collected: an address change comes as several.
const LINK_DEBOUNCE: Duration = Duration::from_millis(20);
/// How often the library and the links are looked at.
const CHECK: Duration = Duration::from_secs(5);
/// How long the library may take to answer.
const ANSWER: Duration = Duration::from_secs(2);
/// How long a doubted advertisement has to be confirmed.
const VERIFY: Duration = Duration::from_secs(2);
/// The second goodbye of the library follows after 120 ms.
const SECOND_GOODBYE: Duration = Duration::from_millis(150);
/// The most pointers in the library's cache, which has no bound of its own.
const CACHE_LIMIT: i64 = 4096;
/// How often a request is repeated when the library's queue of 100 is full, and after which pause.
const QUEUE_TRIES: (u32, Duration) = (20, Duration::from_millis(10));

/// What the library says on one of our subscriptions.
enum Heard {
    Event(&'static str, ServiceEvent),
    Ended,
}

/// Runs until shutdown, or until the library has to be started anew.
pub(super) async fn run(
    source: &mut Mdns,
    events: &EventSink,
    shutdown: &CancellationToken,
) -> Result<(), DiscoveryError> {
    check_port(source.port)?;
    let mut session = Session::start(source, events).await?;
    let mut link_events = link_events();
    loop {
        let next = session.next_timer();
        tokio::select! {
            () = shutdown.cancelled() => break,
            changed = source.announcement.changed() => {
                if changed.is_err() {
                    // Nobody is left who could want us to go on.
                    shutdown.cancelled().await;
                    break;
                }
                let announcement = source.announcement.borrow_and_update().clone();
                session.follow(announcement).await?;
            }
            Some(heard) = session.heard.next() => session.hear(heard).await?,
            Some(()) = link_events.next() => session.note_link_event(),
            Some(instance) = source.verify.recv() => session.verify(&instance).await?,
            () = sleep_until(next) => session.handle_timers().await?,
        }
        source.set_health(session.health());
    }
    session.say_goodbye().await;
    Ok(())
}

struct Session<'a> {
    daemon: Daemon,
    rules: InterfaceRules,
    events: &'a EventSink,
    announcement: Announcement,
    advertised: Option<Announcement>,
    discovering: bool,
    heard: BoxStream<'static, Heard>,
    links: Links,
    neighbours: Neighbours,
    announce_at: BTreeSet<Instant>,
    announced: Instant,
    links_due: Option<Instant>,
    check_due: Instant,
    apple_flag: bool,
}

impl<'a> Session<'a> {
    async fn start(source: &mut Mdns, events: &'a EventSink) -> Result<Self, DiscoveryError> {
        let rules = source.rules.clone();
        let links = Links::read(&rules).map_err(DiscoveryError::Interfaces)?;
        let daemon = Daemon(ServiceDaemon::new_with_port(source.port)?);
        let predicate = {
            let rules = rules.clone();
            IfPredicate::new(move |interface| !rules.allows(&interface.name, interface.ip()))
        };
        daemon.0.disable_interface(IfKind::Predicate(predicate))?;
        daemon.0.set_ip_check_interval(1)?;
        let announcement = source.announcement.borrow_and_update().clone();
        let now = Instant::now();
        let mut session = Self {
            neighbours: Neighbours::new(announcement.cluster_id.clone(), announcement.boot.clone()),
            daemon,
            rules,
            events,
            announcement: announcement.clone(),
            advertised: None,
            discovering: false,
            heard: stream::pending().boxed(),
            links,
            announce_at: BTreeSet::new(),
            announced: now,
            links_due: None,
            check_due: now + CHECK,
            apple_flag: false,
        };
        session.follow(announcement).await?;
        source.set_health(session.health());
        tracing::info!(interfaces = ?session.links.names(), "Discovery on the LAN started");
        Ok(session)
    }

    fn health(&self) -> Health {
        if !self.announcement.advertise && !self.announcement.discover {
            Health::SwitchedOff
        } else if self.links.is_empty() {
            Health::NoInterface
        } else {
            Health::Working {
                interfaces: self.links.names(),
            }
        }
    }

    /// Does what the announcement wants, from whatever is done at present.
    async fn follow(&mut self, announcement: Announcement) -> Result<(), DiscoveryError> {
        self.announcement = announcement;
        if self.announcement.discover && !self.discovering {
            self.browse().await?;
        } else if !self.announcement.discover && self.discovering {
            self.stop_browsing().await?;
        }
        if self.announcement.advertise {
            if self.advertised.as_ref() != Some(&self.announcement) {
                self.announce().await?;
                let now = Instant::now();
                for after in REPEATED_ANNOUNCEMENTS {
                    self.announce_at
                        .insert(now + after.mul_f64(0.9 + fraction() / 5.0));
                }
            }
        } else if self.advertised.is_some() {
            self.withdraw().await?;
        }
        Ok(())
    }

    async fn browse(&mut self) -> Result<(), DiscoveryError> {
        let mut subscriptions = stream::SelectAll::new();
        for service_type in SERVICE_TYPES {
            let receiver = self
                .daemon
                .ask(|daemon| daemon.browse(service_type))
                .await?;
            let subscription = receiver
                .into_stream()
                .map(move |event| Heard::Event(service_type, event))
                .chain(stream::once(async { Heard::Ended }));
            subscriptions.push(subscription.boxed());
        }
        self.heard = subscriptions.chain(stream::pending()).boxed();
        self.discovering = true;
        Ok(())
    }

    async fn stop_browsing(&mut self) -> Result<(), DiscoveryError> {
        self.heard = stream::pending().boxed();
        self.discovering = false;
        self.neighbours.clear();
        for service_type in SERVICE_TYPES {
            self.daemon
                .ask(|daemon| daemon.stop_browse(service_type))
                .await?;
        }
        Ok(())
    }

    async fn announce(&mut self) -> Result<(), DiscoveryError> {
        for service_type in SERVICE_TYPES {
            let service = service_of(&self.announcement, service_type)?;
            self.daemon
                .ask(|daemon| daemon.register(service.clone()))
                .await?;
        }
        self.announced = Instant::now();
        self.advertised = Some(self.announcement.clone());
        Ok(())
    }

    async fn withdraw(&mut self) -> Result<(), DiscoveryError> {
        self.announce_at.clear();
        let Some(announcement) = self.advertised.take() else {
            return Ok(());
        };
        for service_type in SERVICE_TYPES {
            let full_name = format!("{}.{service_type}", announcement.cluster_id);
            let done = self
                .daemon
                .ask(|daemon| daemon.unregister(&full_name))
                .await?;
            answer(&done).await?;
        }
        Ok(())
    }

    /// Announces us as soon as that is polite.
    fn announce_soon(&mut self, now: Instant) {
        if self.advertised.is_some() {
            self.announce_at
                .insert(now.max(self.announced + ANNOUNCEMENT_PAUSE));
        }
    }

    async fn hear(&mut self, heard: Heard) -> Result<(), DiscoveryError> {
        let now = Instant::now();
        let events = match heard {
            Heard::Event(service_type, ServiceEvent::ServiceResolved(found)) => {
                let (is_new, events) =
                    self.neighbours
                        .resolved(service_type, &found, &self.links, now);
                if is_new {
                    self.announce_soon(now);
                }
                events
            }
            Heard::Event(service_type, ServiceEvent::ServiceRemoved(_, full_name)) => self
                .neighbours
                .removed(service_type, &full_name, &self.links, now),
            // The library closes a subscription that was not read fast enough.
            Heard::Ended => {
                tracing::debug!("Subscribing to the LAN again");
                self.browse().await?;
                Vec::new()
            }
            Heard::Event(..) => Vec::new(),
        };
        self.send(events);
        Ok(())
    }

    fn send(&self, events: Vec<Event>) {
        for event in events {
            self.events.send(event);
        }
    }

    fn note_link_event(&mut self) {
        self.links_due
            .get_or_insert_with(|| Instant::now() + LINK_DEBOUNCE);
    }

    async fn verify(&mut self, instance: &str) -> Result<(), DiscoveryError> {
        for full_name in self.neighbours.full_names(instance) {
            self.daemon
                .ask(|daemon| daemon.verify(full_name.clone(), VERIFY))
                .await?;
        }
        Ok(())
    }

    fn next_timer(&self) -> Instant {
        [
            self.announce_at.first().copied(),
            self.links_due,
            self.neighbours.next_repeat(),
        ]
        .into_iter()
        .flatten()
        .fold(self.check_due, Instant::min)
    }

    async fn handle_timers(&mut self) -> Result<(), DiscoveryError> {
        let now = Instant::now();
        if self.links_due.is_some_and(|due| due <= now) {
            self.links_due = None;
            self.look_at_links(now).await?;
        }
        if self.announce_at.first().is_some_and(|due| *due <= now) {
            self.announce_at = self.announce_at.split_off(&(now + Duration::from_nanos(1)));
            self.announce().await?;
        }
        let repeated = self.neighbours.repeat(now);
        self.send(repeated);
        if self.check_due <= now {
            self.check_due = now + CHECK;
            self.look_at_links(now).await?;
            self.check_library().await?;
        }
        Ok(())
    }

    async fn look_at_links(&mut self, now: Instant) -> Result<(), DiscoveryError> {
        let links = Links::read(&self.rules).map_err(DiscoveryError::Interfaces)?;
        if links == self.links {
            return Ok(());
        }
        tracing::debug!(interfaces = ?links.names(), "Network addresses changed");
        self.links = links;
        // Flipping this flag, which means nothing on Linux, makes the library look at its interfaces
        // at once. `enable_interface` would do so too, but remembers each call for ever.
        self.apple_flag = !self.apple_flag;
        let flag = self.apple_flag;
        self.daemon
            .ask(|daemon| daemon.include_apple_p2p(flag))
            .await?;
        let events = self.neighbours.links_changed(&self.links, now);
        self.send(events);
        if self.advertised.is_some() {
            self.announce_at.insert(now + AFTER_LINK_CHANGE);
        }
        Ok(())
    }

    async fn check_library(&mut self) -> Result<(), DiscoveryError> {
        let metrics = self.daemon.ask(ServiceDaemon::get_metrics).await?;
        let metrics = answer(&metrics).await?;
        let pointers = metrics.get("cached-ptr").copied().unwrap_or_default();
        if pointers > CACHE_LIMIT {
            return Err(DiscoveryError::Flood(pointers));
        }
        Ok(())
    }

    async fn say_goodbye(&mut self) {
        let advertised = self.advertised.is_some();
        match self.withdraw().await {
            Ok(()) if advertised => tokio::time::sleep(SECOND_GOODBYE).await,
            Ok(()) => {}
            Err(error) => tracing::debug!(%error, "Leaving the LAN without a goodbye"),
        }
    }
}

/// The library's thread, which ends with its owner.
struct Daemon(ServiceDaemon);

impl Daemon {
    /// Makes a request, again and again for a moment if the library's queue is full.
    async fn ask<T>(
        &self,
        request: impl Fn(&ServiceDaemon) -> mdns_sd::Result<T>,
    ) -> Result<T, DiscoveryError> {
        for _ in 0..QUEUE_TRIES.0 {
            match request(&self.0) {
                Err(mdns_sd::Error::Again) => tokio::time::sleep(QUEUE_TRIES.1).await,
                result => return Ok(result?),
            }
        }
        Err(DiscoveryError::Silent)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // The thread does not end by itself when its last handle is dropped.
        if let Err(error) = self.0.shutdown() {
            tracing::debug!(%error, "The mDNS library could not be told to end");
        }
    }
}

async fn answer<T>(receiver: &Receiver<T>) -> Result<T, DiscoveryError> {
    match timeout(ANSWER, receiver.recv_async()).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) | Err(_) => Err(DiscoveryError::Silent),
    }
}

fn service_of(announcement: &Announcement, service_type: &str) -> mdns_sd::Result<ServiceInfo> {
    let id = announcement.cluster_id.as_str();
    let record = Record {
        cluster_id: Some(announcement.cluster_id.clone()),
        name: announcement.name.clone(),
        boot: Some(announcement.boot.clone()),
    };
    let host = host_of(id, service_type);
    let pairs = record.pairs();
    let mut service = ServiceInfo::new(
        service_type,
        id,
        &host,
        (),
        announcement.port,
        pairs.as_slice(),
    )?
    .enable_addr_auto();
    // The name carries our UUID: nobody else has it, so 750 ms of probing would be wasted.
    service.set_requires_probe(false);
    Ok(service)
}

/// Each service type has a host of its own. With a common one, the addresses would be left out of the
/// second announcement, since no record is repeated within a second (RFC 6762, section 6), and there
/// are listeners who keep nothing between packets, Liqo among them.
fn host_of(id: &str, service_type: &str) -> String {
    if service_type == SERVICE_TYPES[0] {
        format!("landbridge-{id}.local.")
    } else {
        format!("{id}.local.")
    }
}

/// The library hides it when it cannot have its port, so we try first. A machine may lack one of
/// the families, but a port that is taken in IPv4 hides us from most neighbours.
fn check_port(port: u16) -> Result<(), DiscoveryError> {
    let addresses = [
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
    ];
    for address in addresses {
        match bind_shared(address) {
            Ok(()) => return Ok(()),
            Err(reason) if reason.kind() == io::ErrorKind::AddrInUse => {
                return Err(DiscoveryError::PortTaken { port, reason });
            }
            Err(error) => tracing::debug!(%address, %error, "No socket for multicast DNS"),
        }
    }
    Ok(())
}

fn bind_shared(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())
}
