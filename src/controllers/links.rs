//! The connections to peers, what was said on them, and the watch on each session.
//!
//! Nothing here is memory in the sense of the design: a restarted daemon dials again and reads the
//! session from the peer.

mod unrest;
mod watch;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use kube::{Api, ResourceExt as _, runtime::reflector::ObjectRef};
use tokio::{sync::mpsc, task::AbortHandle};

use super::Clock;
use crate::{
    api::{ClusterId, ClusterName, ForeignCluster, PeeringRequest},
    engine::{
        backoff::Backoff,
        peering::{Answer, Connected, Failure, LONGEST_RETRY, Link, Session},
    },
    peer::client::Connection,
};
use unrest::Unrest;
use watch::Watch;

/// The wait before the first new try to reach a peer.
const RETRY_BASE: Duration = Duration::from_millis(500);
/// How many wake-ups may wait for the controller. More are dropped: each object is looked at again
/// after a while.
const NUDGES: usize = 256;
/// How many suspicions may wait. More are dropped: a peer that stays silent is suspected again.
const SUSPECTS: usize = 64;
/// How soon a peer that refused us is asked again when it comes to us. Two that refuse each other
/// are not faster than this.
const ASK_SOON: jiff::SignedDuration = jiff::SignedDuration::from_secs(10);

/// The connections to peers, by the name of their ForeignCluster.
#[derive(Debug)]
pub struct Links {
    entries: Arc<Mutex<BTreeMap<String, Entry>>>,
    nudges: mpsc::Sender<ObjectRef<ForeignCluster>>,
    wakes: Mutex<Option<mpsc::Receiver<ObjectRef<ForeignCluster>>>>,
    suspects: mpsc::Sender<ClusterId>,
    suspected: Mutex<Option<mpsc::Receiver<ClusterId>>>,
}

#[derive(Debug)]
struct Entry {
    /// The uid of the ForeignCluster that the connection is for, once it was looked at.
    uid: Option<String>,
    link: Link,
    connection: Option<Arc<Connection>>,
    watch: Option<AbortHandle>,
    backoff: Backoff,
    /// That the plan of the object does not come to rest.
    unrest: Option<Unrest>,
}

impl Default for Entry {
    fn default() -> Self {
        Self {
            uid: None,
            link: Link::default(),
            connection: None,
            watch: None,
            backoff: Backoff::new(RETRY_BASE, LONGEST_RETRY.unsigned_abs()),
            unrest: None,
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(watch) = self.watch.take() {
            watch.abort();
        }
    }
}

impl Default for Links {
    fn default() -> Self {
        let (nudges, wakes) = mpsc::channel(NUDGES);
        let (suspects, suspected) = mpsc::channel(SUSPECTS);
        Self {
            entries: Arc::default(),
            nudges,
            wakes: Mutex::new(Some(wakes)),
            suspects,
            suspected: Mutex::new(Some(suspected)),
        }
    }
}

impl Links {
    /// Notes which object has a name now, and tells whether another one had it before. What is
    /// known of that one is given up.
    pub fn replaces(&self, name: &str, uid: Option<String>) -> bool {
        let mut entries = self.lock();
        let entry = entries.entry(name.to_owned()).or_default();
        let replaced = entry.uid.is_some() && entry.uid != uid;
        if replaced {
            *entry = Entry::default();
        }
        entry.uid = uid;
        replaced
    }

    /// Notes that the plan of an object did not come to rest, and returns for how long it is let
    /// alone.
    pub(crate) fn unsettled(&self, object: &ForeignCluster) -> Duration {
        let mut entries = self.lock();
        let entry = entries.entry(object.name_any()).or_default();
        let unrest = entry.unrest.get_or_insert_with(|| Unrest::of(object));
        unrest.pause(object)
    }

    /// Notes that the plan of an object came to rest.
    pub(crate) fn settled(&self, name: &str) {
        if let Some(entry) = self.lock().get_mut(name) {
            entry.unrest = None;
        }
    }

    /// Returns for how long an object is let alone, whatever its peer says.
    pub(crate) fn pause(&self, object: &ForeignCluster) -> Option<Duration> {
        let entries = self.lock();
        entries
            .get(&object.name_any())?
            .unrest
            .as_ref()?
            .left(object)
    }

    /// Returns what is known about the connection to a peer.
    pub fn facts(&self, name: &str) -> Link {
        self.lock()
            .get(name)
            .map(|entry| entry.link.clone())
            .unwrap_or_default()
    }

    /// Returns where the peers are that answer.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        let entries = self.lock();
        let connected = entries.values().filter_map(|it| it.link.connected.as_ref());
        connected.filter_map(|it| Some(it.address?.ip())).collect()
    }

    /// Returns the connection to a peer, while it stands.
    pub fn connection(&self, name: &str) -> Option<Arc<Connection>> {
        self.lock()
            .get(name)
            .and_then(|entry| entry.connection.clone())
    }

    /// Takes a connection whose key was proven. An older one is given up.
    pub fn adopt(&self, name: &str, connected: Connected, connection: Arc<Connection>) {
        let mut entries = self.lock();
        let entry = entries.entry(name.to_owned()).or_default();
        if let Some(watch) = entry.watch.take() {
            watch.abort();
        }
        entry.link.failures.clear();
        entry.link.retry_at = None;
        entry.link.answer = None;
        entry.link.session = None;
        entry.link.connected = Some(connected);
        entry.connection = Some(connection);
    }

    /// Notes why the URLs did not answer, and when to try again.
    pub fn failed(&self, name: &str, failures: BTreeMap<String, Failure>, now: Timestamp) {
        let mut entries = self.lock();
        let entry = entries.entry(name.to_owned()).or_default();
        entry.link.failures = failures;
        entry.postpone(now);
    }

    /// Notes that the connection failed in use, and when to try again.
    pub fn broken(&self, name: &str, failure: Failure, now: Timestamp) {
        let mut entries = self.lock();
        let entry = entries.entry(name.to_owned()).or_default();
        if let Some(connected) = &entry.link.connected {
            let url = connected.url.clone();
            entry.link.failures.insert(url, failure);
            drop(self.suspects.try_send(connected.cluster_id.clone()));
        }
        entry.disconnect();
        entry.postpone(now);
    }

    /// Gives up the connection.
    pub fn disconnect(&self, name: &str) {
        if let Some(entry) = self.lock().get_mut(name) {
            entry.disconnect();
        }
    }

    /// Lets the next try happen at once, because something new was heard of the peer.
    pub fn try_now(&self, name: &str) {
        if let Some(entry) = self.lock().get_mut(name) {
            entry.link.retry_at = None;
            entry.backoff.reset();
        }
        self.nudge(name);
    }

    /// Has the peer asked again at once, because we have something new to show. A session that
    /// stands needs nothing.
    pub(crate) fn ask_anew(&self, name: &str) {
        if let Some(entry) = self.lock().get_mut(name)
            && entry.link.session.is_none()
        {
            entry.link.answer = None;
        }
        self.try_now(name);
    }

    /// Has a peer that refused us asked again soon, because it was heard of.
    pub(crate) fn ask_soon(&self, name: &str, now: Timestamp) {
        if let Some(answer) = self
            .lock()
            .get_mut(name)
            .and_then(|entry| entry.link.answer.as_mut())
        {
            answer.ask_again = answer.ask_again.min(now + ASK_SOON);
        }
    }

    /// Has a busy peer asked again at a later time, if it has answered us under our name before: what
    /// it said stands.
    pub(crate) fn put_off(&self, name: &str, own_name: &ClusterName, time: Timestamp) -> bool {
        let mut entries = self.lock();
        let answer = entries.get_mut(name).and_then(|it| it.link.answer.as_mut());
        let Some(answer) = answer.filter(|answer| answer.introduced == *own_name) else {
            return false;
        };
        answer.ask_again = time;
        // What a person wants meanwhile has been tried.
        answer.recorded = false;
        true
    }

    /// Notes what the peer answered.
    pub fn answered(&self, name: &str, answer: Answer) {
        if let Some(entry) = self.lock().get_mut(name) {
            entry.link.answer = Some(answer);
        }
    }

    /// Notes that the answer stands in the object's status.
    pub fn recorded(&self, name: &str) {
        if let Some(answer) = self
            .lock()
            .get_mut(name)
            .and_then(|entry| entry.link.answer.as_mut())
        {
            answer.recorded = true;
        }
    }

    /// Notes that no PeeringRequest of ours stands in the peer's cluster.
    pub fn withdrawn(&self, name: &str) {
        if let Some(entry) = self.lock().get_mut(name) {
            entry.end_session();
            entry.link.withdrawn = true;
        }
    }

    /// Notes that a PeeringRequest of ours may stand in the peer's cluster from now on.
    pub(crate) fn opening(&self, name: &str) {
        if let Some(entry) = self.lock().get_mut(name) {
            entry.link.withdrawn = false;
        }
    }

    /// Starts to watch our PeeringRequest in the peer's cluster.
    pub fn watch(&self, name: &str, own_id: &ClusterId, request: PeeringRequest, clock: Clock) {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(name) else {
            return;
        };
        let Some(connection) = entry.connection.clone() else {
            return;
        };
        entry.end_session();
        entry.link.withdrawn = false;
        entry.link.session = Some(Session {
            request: request.clone(),
            heard: clock(),
        });
        let session = Watch {
            name: name.to_owned(),
            own_id: own_id.clone(),
            api: Api::all(connection.kube_client()),
            connection,
            entries: Arc::clone(&self.entries),
            nudges: self.nudges.clone(),
            suspects: self.suspects.clone(),
            clock,
            opened: tokio::time::Instant::now(),
        };
        entry.watch = Some(tokio::spawn(session.run(request)).abort_handle());
    }

    /// Notes a newer version of our PeeringRequest, as a write returned it.
    pub fn updated(&self, name: &str, request: PeeringRequest) {
        if let Some(session) = self
            .lock()
            .get_mut(name)
            .and_then(|entry| entry.link.session.as_mut())
        {
            session.request = request;
        }
    }

    /// Forgets a peer whose object is gone, unless another object has its name by now.
    pub(crate) fn forget(&self, name: &str, uid: Option<&str>) {
        let mut entries = self.lock();
        if entries
            .get(name)
            .is_some_and(|entry| entry.uid.as_deref() == uid)
        {
            entries.remove(name);
        }
    }

    /// Wakes the controller for one object.
    pub fn nudge(&self, name: &str) {
        drop(self.nudges.try_send(ObjectRef::new(name)));
    }

    /// Hands out the wake-ups, once.
    pub(crate) fn wakes(&self) -> Option<mpsc::Receiver<ObjectRef<ForeignCluster>>> {
        self.wakes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Hands out the peers that fell silent, once.
    pub(crate) fn suspected(&self) -> Option<mpsc::Receiver<ClusterId>> {
        self.suspected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn end_session(&mut self) {
        if let Some(watch) = self.watch.take() {
            watch.abort();
        }
        self.link.session = None;
    }

    fn disconnect(&mut self) {
        self.end_session();
        self.link.connected = None;
        self.link.answer = None;
        self.connection = None;
    }

    fn postpone(&mut self, now: Timestamp) {
        let wait = self.backoff.next(super::context::chance());
        let wait = jiff::SignedDuration::try_from(wait).unwrap_or(LONGEST_RETRY);
        self.link.retry_at = Some(now + wait);
    }
}

#[cfg(test)]
mod tests;
