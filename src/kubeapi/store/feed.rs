//! The way of changes from the store to one watcher. It is bounded, and it is emptied as soon as the
//! watcher is cut off: one that stopped reading would else keep what it never reads in memory.

use super::Event;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

/// How many changes a watcher may fall behind before it is cut off and has to come back: a burst of
/// a thousand changes between two polls is normal, more than that is a reader that stopped.
const MOST_EVENTS: usize = 1_024;

/// How many bytes of objects it may fall behind: as many as the log keeps.
const MOST_BYTES: usize = super::LOG_BYTES;

/// Makes the two ends of a way.
pub(super) fn feed() -> (Feed, Events) {
    let shared = Arc::new(Shared::default());
    (Feed(Arc::clone(&shared)), Events(shared))
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    /// Whether nothing more will come, or nobody waits for it.
    ended: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end of the store.
#[derive(Debug)]
pub(super) struct Feed(Arc<Shared>);

impl Feed {
    /// Hands over a change, of which the watcher is told by the bell; false when it is gone or too slow.
    pub(super) fn offer(&self, event: &Arc<Event>) -> bool {
        let mut queue = self.0.lock();
        if queue.ended {
            return false;
        }
        queue.bytes += event.size();
        queue.events.push_back(Arc::clone(event));
        let fits = queue.events.len() <= MOST_EVENTS && queue.bytes <= MOST_BYTES;
        if !fits {
            queue.events = VecDeque::new();
            queue.ended = true;
        }
        fits
    }

    /// Wakes the watcher.
    pub(super) fn bell(&self) -> Bell {
        Bell(Arc::clone(&self.0))
    }

    /// Whether nobody reads any more.
    pub(super) fn is_closed(&self) -> bool {
        self.0.lock().ended
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.news.notify_one();
    }
}

/// Wakes one watcher.
#[derive(Debug)]
pub(super) struct Bell(Arc<Shared>);

impl Bell {
    pub(super) fn ring(&self) {
        self.0.news.notify_one();
    }
}

/// The end of the watcher.
#[derive(Debug)]
pub(in crate::kubeapi) struct Events(Arc<Shared>);

impl Events {
    /// The next change, once there is one; none when the store has ended or cut this watcher off.
    pub(in crate::kubeapi) async fn next(&mut self) -> Option<Arc<Event>> {
        loop {
            let (event, ended) = self.take();
            if event.is_some() || ended {
                return event;
            }
            self.0.news.notified().await;
        }
    }

    /// The next change, if there is one by now.
    pub(in crate::kubeapi) fn ready(&mut self) -> Option<Arc<Event>> {
        self.take().0
    }

    /// Whether nothing more will come.
    pub(in crate::kubeapi) fn has_ended(&self) -> bool {
        self.0.lock().ended
    }

    fn take(&mut self) -> (Option<Arc<Event>>, bool) {
        let mut queue = self.0.lock();
        let event = queue.events.pop_front();
        if let Some(event) = &event {
            queue.bytes -= event.size();
        }
        (event, queue.ended)
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.events = VecDeque::new();
        queue.ended = true;
    }
}
