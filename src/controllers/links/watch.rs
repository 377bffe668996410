//! The watch on one session: our PeeringRequest in the peer's cluster.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::StreamExt as _;
use kube::{
    Api,
    api::{ListParams, WatchEvent, WatchParams},
    runtime::reflector::ObjectRef,
};
use tokio::{sync::mpsc, time::Instant};

use super::Entry;
use crate::{
    api::{ClusterId, ForeignCluster, PeeringRequest, labels::reason},
    controllers::Clock,
    engine::peering::{Failure, SILENCE},
    peer::{
        client::Connection,
        limits::{Buckets, Rate},
    },
};

/// A session on which nothing was heard for so long, with a heartbeat every two seconds, makes us ask
/// whether the peer is still announced.
const SUSPICION: Duration = Duration::from_millis(2500);
/// A watch is renewed on the same connection after this time, in seconds (kube's own value).
const WATCH_SECONDS: u32 = 290;
/// How fast the changes of one peer are taken; then it has to wait.
const CHANGES: Rate = Rate {
    burst: 50,
    each: Duration::from_millis(100),
};
/// The shortest time between two beginnings of a watch or a session, whatever the peer does.
const RENEW_PAUSE: Duration = Duration::from_secs(1);

/// How long a session has to stand before its loss is one like the first: one that breaks as soon as it
/// is opened is no better than none.
const STOOD: Duration = Duration::from_secs(15);

/// The watch on one session.
pub(super) struct Watch {
    pub(super) name: String,
    pub(super) own_id: ClusterId,
    pub(super) api: Api<PeeringRequest>,
    pub(super) connection: Arc<Connection>,
    pub(super) entries: Arc<Mutex<BTreeMap<String, Entry>>>,
    pub(super) nudges: mpsc::Sender<ObjectRef<ForeignCluster>>,
    pub(super) suspects: mpsc::Sender<ClusterId>,
    pub(super) clock: Clock,
    pub(super) opened: Instant,
}

/// How a stretch of watching ended.
enum End {
    /// The server ended it in order; the next stretch follows.
    Renew,
    /// Our request is gone.
    Deleted,
    /// The peer does not answer.
    Lost(String),
}

impl Watch {
    pub(super) async fn run(self, request: PeeringRequest) {
        let mut revision = request.metadata.resource_version.unwrap_or_default();
        let mut pace = Buckets::new(CHANGES, CHANGES, self.opened);
        let end = loop {
            let began = Instant::now();
            match self.stretch(&mut revision, &mut pace).await {
                End::Renew => tokio::time::sleep_until(began + RENEW_PAUSE).await,
                end @ (End::Deleted | End::Lost(_)) => break end,
            }
            match self.refresh().await {
                Ok(now_at) => revision = now_at,
                Err(end) => break end,
            }
        };
        match end {
            End::Lost(message) => self.lose(message),
            End::Deleted | End::Renew => {
                // The next session follows as soon as this one is no more.
                tokio::time::sleep_until(self.opened + RENEW_PAUSE).await;
                self.update(|entry| {
                    entry.link.session = None;
                    entry.link.answer = None;
                    entry.link.withdrawn = true;
                });
            }
        }
    }

    /// Watches until the stream ends. Heartbeats count as being heard; silence ends it.
    async fn stretch(&self, revision: &mut String, pace: &mut Buckets) -> End {
        let parameters = WatchParams::default()
            .fields(&format!("metadata.name={}", self.own_id))
            .timeout(WATCH_SECONDS);
        let silence = Duration::try_from(SILENCE).unwrap_or(Duration::from_secs(15));
        let mut events =
            match tokio::time::timeout(silence, self.api.watch(&parameters, revision)).await {
                Ok(Ok(events)) => events.boxed(),
                Ok(Err(error)) => return End::Lost(error.to_string()),
                Err(_) => return End::Lost("the peer does not answer the watch".to_owned()),
            };
        let mut heard = Instant::now();
        loop {
            let event = match tokio::time::timeout(SUSPICION, events.next()).await {
                Ok(Some(Ok(event))) => event,
                Ok(Some(Err(error))) => return End::Lost(error.to_string()),
                Ok(None) if self.connection.is_closed() => {
                    return End::Lost("the connection was closed".to_owned());
                }
                Ok(None) => return End::Renew,
                Err(_) if heard.elapsed() < silence => {
                    self.suspect();
                    continue;
                }
                Err(_) => return End::Lost("the session is silent".to_owned()),
            };
            heard = Instant::now();
            match event {
                WatchEvent::Added(request) | WatchEvent::Modified(request) => {
                    if let Some(newer) = &request.metadata.resource_version {
                        revision.clone_from(newer);
                    }
                    if let Some(wait) = pace.wait(&self.name, Instant::now()) {
                        tokio::time::sleep(wait).await;
                    }
                    pace.take(&self.name, Instant::now());
                    self.hear(Some(request));
                }
                WatchEvent::Bookmark(bookmark) => {
                    revision.clone_from(&bookmark.metadata.resource_version);
                    self.hear(None);
                }
                WatchEvent::Deleted(_) => return End::Deleted,
                WatchEvent::Error(_) => return End::Renew,
            }
        }
    }

    /// Reads the request anew, for a watch that has to start over.
    async fn refresh(&self) -> Result<String, End> {
        let only_ours = ListParams::default().fields(&format!("metadata.name={}", self.own_id));
        match self.api.list(&only_ours).await {
            Ok(mut list) => {
                let request = list.items.pop().ok_or(End::Deleted)?;
                self.hear(Some(request));
                // The revision of the request itself may be older than what the peer's log keeps.
                Ok(list.metadata.resource_version.unwrap_or_default())
            }
            Err(error) => Err(End::Lost(error.to_string())),
        }
    }

    fn hear(&self, request: Option<PeeringRequest>) {
        let now = (self.clock)();
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get_mut(&self.name);
        let Some(entry) = entry.filter(|entry| is_ours(entry)) else {
            return;
        };
        let Some(session) = entry.link.session.as_mut() else {
            return;
        };
        if self.opened.elapsed() >= STOOD {
            entry.backoff.reset();
        }
        session.heard = now;
        if let Some(request) = request {
            session.request = request;
            drop(self.nudges.try_send(ObjectRef::new(&self.name)));
        }
    }

    fn suspect(&self) {
        let peer = self.connection.proven.cluster_id.clone();
        drop(self.suspects.try_send(peer));
    }

    fn lose(&self, message: String) {
        self.suspect();
        tracing::debug!(cluster = %self.name, %message, "Session lost");
        let now = (self.clock)();
        self.update(|entry| {
            if let Some(connected) = &entry.link.connected {
                let reason = reason::PEER_SILENT.to_owned();
                entry
                    .link
                    .failures
                    .insert(connected.url.clone(), Failure { reason, message });
            }
            entry.link.session = None;
            entry.link.connected = None;
            entry.link.answer = None;
            entry.connection = None;
            entry.postpone(now);
        });
    }

    fn update(&self, change: impl FnOnce(&mut Entry)) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get_mut(&self.name);
        let Some(entry) = entry.filter(|entry| is_ours(entry)) else {
            return;
        };
        change(entry);
        entry.watch = None;
        drop(self.nudges.try_send(ObjectRef::new(&self.name)));
    }
}

/// Whether the task that asks is the watch on the session of an entry. One that is over may still run
/// when its successor stands.
fn is_ours(entry: &Entry) -> bool {
    let watch = entry.watch.as_ref();
    watch.is_some_and(|watch| watch.id() == tokio::task::id())
}
