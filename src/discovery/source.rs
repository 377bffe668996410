//! What a way to find clusters looks like from outside, and the channel that its finds go through.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    api::identity::{ClusterId, ClusterName},
    engine::sighting::Event,
};

/// How many events may wait for the roster: a LAN of 500 clusters answers a query within 80 ms.
pub const EVENTS: usize = 512;

/// A way to find clusters.
pub trait Source: Send {
    /// Names the source in logs and metrics.
    fn name(&self) -> &'static str;

    /// Reports what it finds until it is told to stop. It mends itself: it only ever ends when
    /// `shutdown` is cancelled, after it has said goodbye.
    fn run(
        self: Box<Self>,
        events: EventSink,
        shutdown: CancellationToken,
    ) -> BoxFuture<'static, ()>;
}

/// What we tell others about ourselves, and whether we look for them. It may change at any time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// Our id.
    pub cluster_id: ClusterId,
    /// Our name.
    pub name: ClusterName,
    /// The run of this program: 16 hexadecimal digits, new at each start.
    pub boot: String,
    /// The TCP port of our peer endpoint.
    pub port: u16,
    /// For how long others may believe what we tell them (`discoveryConfig.ttl`).
    pub ttl: Duration,
    /// Whether to announce ourselves.
    pub advertise: bool,
    /// Whether to look for others.
    pub discover: bool,
}

#[cfg(test)]
impl Announcement {
    /// That of a cluster that announces itself and looks for others.
    pub(crate) fn of_rome() -> Self {
        Self {
            cluster_id: "rome-1".parse().expect("an id"),
            name: ClusterName::neutralise("rome"),
            boot: "aaaa".to_owned(),
            port: 5870,
            ttl: Duration::from_secs(90),
            advertise: true,
            discover: true,
        }
    }
}

/// Where a source puts its events. It never blocks: an event that finds no room is dropped and
/// counted. A dropped sighting comes again when its source repeats it, and a dropped goodbye is made
/// good by the time to live.
#[derive(Debug, Clone)]
pub struct EventSink {
    sender: mpsc::Sender<Event>,
    dropped: Arc<AtomicU64>,
}

impl EventSink {
    /// Makes the channel between the sources and the roster.
    pub fn channel() -> (Self, mpsc::Receiver<Event>) {
        Self::with_capacity(EVENTS)
    }

    fn with_capacity(capacity: usize) -> (Self, mpsc::Receiver<Event>) {
        let (sender, receiver) = mpsc::channel(capacity);
        let sink = Self {
            sender,
            dropped: Arc::default(),
        };
        (sink, receiver)
    }

    /// Puts an event in; false when there was no room.
    pub fn send(&self, event: Event) -> bool {
        let sent = self.sender.try_send(event).is_ok();
        if !sent {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        sent
    }

    /// Returns how many events were dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::foreign_cluster::DiscoveryType;

    #[test]
    fn a_full_channel_drops_the_newest_event_and_counts_it() {
        let (sink, mut receiver) = EventSink::with_capacity(1);
        let event = |instance: &str| Event::Gone {
            source: DiscoveryType::Lan,
            instance: instance.to_owned(),
        };
        assert!(sink.send(event("first")));
        assert!(!sink.send(event("second")));
        assert_eq!(sink.dropped(), 1);
        assert_eq!(receiver.try_recv().ok(), Some(event("first")));
        assert!(receiver.try_recv().is_err());
    }
}
