//! When a zone is written, on paused time: by a register in memory that takes a while.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use super::*;

/// How long the register takes, as a name server does that is far away.
const TAKES: Duration = Duration::from_secs(3);

/// A zone that remembers what it was told: the addresses, or nothing for a withdrawal. It may do it
/// and seem to fail.
#[derive(Default)]
struct Zone {
    said: Mutex<Vec<Option<Vec<IpAddr>>>>,
    seems_to_fail: AtomicBool,
}

impl Zone {
    fn note(&self, said: Option<Vec<IpAddr>>) -> BoxFuture<'_, Result<(), RegisterError>> {
        Box::pin(async move {
            tokio::time::sleep(TAKES).await;
            self.said
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(said);
            if self.seems_to_fail.load(Ordering::Relaxed) {
                return Err("the answer got lost".into());
            }
            Ok(())
        })
    }

    fn said(&self) -> Vec<Option<Vec<IpAddr>>> {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *said)
    }
}

impl Register for Zone {
    fn zone(&self) -> String {
        "example.com".to_owned()
    }

    fn publish<'a>(&'a self, listing: &'a Listing) -> BoxFuture<'a, Result<(), RegisterError>> {
        self.note(Some(listing.addresses.clone()))
    }

    fn withdraw<'a>(&'a self, _: &'a Listing) -> BoxFuture<'a, Result<(), RegisterError>> {
        self.note(None)
    }
}

/// A running publication, and what it follows.
struct Running {
    zone: Arc<Zone>,
    announcement: watch::Sender<Announcement>,
    own: watch::Sender<OwnNetworks>,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    fn start() -> Self {
        Self::with(true, 1)
    }

    fn with(advertise: bool, addresses: u8) -> Self {
        let announcement = watch::Sender::new(Announcement {
            advertise,
            ..Announcement::of_rome()
        });
        let own = watch::Sender::new(networks(addresses));
        let sources = Sources {
            announcement: announcement.subscribe(),
            own: own.subscribe(),
            advertise: None,
            key: Fingerprint::from_spki(b"a key"),
        };
        let (zone, shutdown) = (Arc::new(Zone::default()), CancellationToken::new());
        let standing = watch::Sender::new(Standing::default());
        let register: Arc<Zone> = Arc::clone(&zone);
        let task = run(register, sources, standing, shutdown.clone());
        Self {
            zone,
            announcement,
            own,
            shutdown,
            task: tokio::spawn(task),
        }
    }

    fn advertise(&self, advertise: bool) {
        self.announcement
            .send_modify(|announcement| announcement.advertise = advertise);
    }

    /// What the zone is told within a time.
    async fn told_within(&self, time: Duration) -> Vec<Option<Vec<IpAddr>>> {
        tokio::time::sleep(time).await;
        self.zone.said()
    }
}

/// A machine with so many addresses on its LAN.
fn networks(count: u8) -> OwnNetworks {
    OwnNetworks {
        said: listed(count),
        ..OwnNetworks::default()
    }
}

fn listed(count: u8) -> Vec<IpAddr> {
    (1..=count)
        .map(|last| IpAddr::from([10, 0, 0, last]))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn the_zone_follows_addresses_and_the_switch_and_is_written_again_from_time_to_time() {
    let running = Running::start();
    let soon = Duration::from_secs(20);
    assert_eq!(running.told_within(soon).await, [Some(listed(1))]);
    running.own.send_replace(networks(2));
    assert_eq!(running.told_within(soon).await, [Some(listed(2))]);
    running.advertise(false);
    assert_eq!(running.told_within(soon).await, [None]);
    assert_eq!(
        running.told_within(REFRESH * 2).await,
        [],
        "nothing is there"
    );
    running.advertise(true);
    assert_eq!(running.told_within(soon).await, [Some(listed(2))]);
    assert_eq!(running.told_within(REFRESH).await, [Some(listed(2))]);
    running.shutdown.cancel();
    running.task.await.expect("it ends");
    assert_eq!(running.zone.said(), [None]);
}

#[tokio::test(start_paused = true)]
async fn what_a_killed_run_has_left_is_taken_back_once_when_we_are_not_to_be_listed() {
    let soon = Duration::from_secs(20);
    let running = Running::with(false, 1);
    assert_eq!(running.told_within(soon).await, [None]);
    assert_eq!(running.told_within(REFRESH * 2).await, []);
    running.shutdown.cancel();
    // An address is missing for a moment after each start.
    let running = Running::with(true, 0);
    assert_eq!(running.told_within(REFRESH * 2).await, []);
    running.advertise(false);
    assert_eq!(running.told_within(soon).await, [None]);
    running.shutdown.cancel();
}

#[tokio::test(start_paused = true)]
async fn what_changes_while_the_zone_is_written_is_written_next() {
    let running = Running::start();
    let soon = Duration::from_secs(20);
    tokio::time::sleep(TAKES / 2).await;
    running.own.send_replace(networks(2));
    let told = running.told_within(soon).await;
    assert_eq!(told, [Some(listed(1)), Some(listed(2))]);
    running.own.send_replace(networks(3));
    tokio::time::sleep(DEBOUNCE + TAKES / 2).await;
    running.advertise(false);
    let told = running.told_within(soon).await;
    assert_eq!(told, [Some(listed(3)), None]);
    running.shutdown.cancel();
}

#[tokio::test(start_paused = true)]
async fn what_may_stand_there_although_it_seemed_to_fail_is_taken_back_at_the_end() {
    let soon = Duration::from_secs(20);
    for listed_before in [false, true] {
        let running = Running::with(listed_before, 1);
        let before = listed_before.then(|| listed(1));
        assert_eq!(running.told_within(soon).await, [before]);
        running.advertise(false);
        running.told_within(soon).await;
        running.zone.seems_to_fail.store(true, Ordering::Relaxed);
        running.advertise(true);
        let told = running.told_within(DEBOUNCE + TAKES * 2).await;
        assert_eq!(told.first(), Some(&Some(listed(1))));
        running.shutdown.cancel();
        running.task.await.expect("it ends");
        assert_eq!(running.zone.said().last(), Some(&None));
    }
}
