//! A watch of a peer: the events of its one object, a heartbeat, and an end.

use std::{collections::VecDeque, pin::Pin, sync::Arc};

use axum::body::Bytes;
use futures::{Stream, StreamExt as _};
use kube::{
    ResourceExt as _,
    core::{TypeMeta, WatchEvent},
};
use serde_json::json;
use tokio::time::{Instant, Interval};

use super::{HEARTBEAT, shown};
use crate::{
    api::{identity::ClusterId, peering_request::PeeringRequest},
    peer::{auth::Reception, limits::Guest},
};

type Events = Pin<Box<dyn Stream<Item = Result<WatchEvent<PeeringRequest>, kube::Error>> + Send>>;

/// A running watch. It is pulled by its reader, so a slow one holds back nobody else.
pub(super) struct Watch {
    events: Events,
    ready: VecDeque<Bytes>,
    revision: String,
    bookmarks: bool,
    heartbeat: Interval,
    until: Option<Instant>,
    own: ClusterId,
    reception: Arc<dyn Reception>,
    /// Counts until the watch ends.
    _place: Guest<ClusterId>,
}

impl Watch {
    /// Takes over the events of the store, for as long as the peer is accepted.
    pub(super) fn new(
        events: impl Stream<Item = Result<WatchEvent<PeeringRequest>, kube::Error>> + Send + 'static,
        own: &ClusterId,
        reception: Arc<dyn Reception>,
        place: Guest<ClusterId>,
    ) -> Self {
        Self {
            events: Box::pin(events),
            ready: VecDeque::new(),
            revision: String::new(),
            bookmarks: false,
            heartbeat: tokio::time::interval_at(Instant::now() + HEARTBEAT, HEARTBEAT),
            until: None,
            own: own.clone(),
            reception,
            _place: place,
        }
    }

    /// Sends the present objects first, and tells from which revision on it watches.
    pub(super) fn starting_with(mut self, present: Vec<PeeringRequest>, revision: String) -> Self {
        self.ready = present
            .into_iter()
            .filter_map(|object| json_line(&WatchEvent::Added(shown(object))))
            .collect();
        self.revision = revision;
        self
    }

    /// Ends at a moment.
    pub(super) fn ending_at(mut self, until: Instant) -> Self {
        self.until = Some(until);
        self
    }

    /// Says every [`HEARTBEAT`] that it lives.
    pub(super) fn with_bookmarks(mut self, bookmarks: bool) -> Self {
        self.bookmarks = bookmarks;
        self
    }

    /// Returns the next line, `None` at the end: the time is up, the store ended it, or the peer is
    /// not accepted any more.
    pub(super) async fn next_line(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(line);
            }
            if self.until.is_some_and(|until| Instant::now() >= until) {
                return None;
            }
            tokio::select! {
                event = self.events.next() => {
                    let event = event?.ok()?;
                    if self.reception.accepted(&self.own).await != Ok(true) {
                        return None;
                    }
                    self.take(event);
                }
                _ = self.heartbeat.tick() => {
                    if self.reception.accepted(&self.own).await != Ok(true) {
                        return None;
                    }
                    if self.bookmarks {
                        self.ready.extend(bookmark(&self.revision));
                    }
                }
            }
        }
    }

    fn take(&mut self, event: WatchEvent<PeeringRequest>) {
        let event = match event {
            WatchEvent::Added(object) => WatchEvent::Added(self.seen(object)),
            WatchEvent::Modified(object) => WatchEvent::Modified(self.seen(object)),
            WatchEvent::Deleted(object) => WatchEvent::Deleted(self.seen(object)),
            WatchEvent::Bookmark(bookmark) => {
                self.revision
                    .clone_from(&bookmark.metadata.resource_version);
                if !self.bookmarks {
                    return;
                }
                WatchEvent::Bookmark(bookmark)
            }
            WatchEvent::Error(status) => {
                self.until = Some(Instant::now());
                WatchEvent::Error(status)
            }
        };
        self.ready.extend(json_line(&event));
    }

    fn seen(&mut self, object: PeeringRequest) -> PeeringRequest {
        if let Some(revision) = object.resource_version() {
            self.revision = revision;
        }
        shown(object)
    }
}

fn bookmark(revision: &str) -> Option<Bytes> {
    let types = TypeMeta::resource::<PeeringRequest>();
    let event = json!({
        "type": "BOOKMARK",
        "object": {
            "apiVersion": types.api_version,
            "kind": types.kind,
            "metadata": {"resourceVersion": revision},
        },
    });
    json_line(&event)
}

fn json_line(value: &impl serde::Serialize) -> Option<Bytes> {
    let mut line = serde_json::to_vec(value).ok()?;
    line.push(b'\n');
    Some(Bytes::from(line))
}
