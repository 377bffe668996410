//! The state that requests see: objects, the recent changes, and who watches them.

use super::{
    Change, LOG_BYTES, LOG_LENGTH, LOG_MINUTES, Loaded, Operation,
    feed::{Bell, Events, Feed, feed},
    recent::Recent,
    stored::Stored,
};
use crate::kubeapi::Clock;
use jiff::Timestamp;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    mem,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A published change, with what was there before it.
#[derive(Debug)]
pub(in crate::kubeapi) struct Event {
    pub(in crate::kubeapi) revision: u64,
    pub(in crate::kubeapi) key: String,
    pub(in crate::kubeapi) operation: Operation,
    pub(in crate::kubeapi) object: Arc<Stored>,
    pub(in crate::kubeapi) previous: Option<Arc<Stored>>,
    at: Timestamp,
}

impl Event {
    /// How much memory its objects take, about.
    pub(super) fn size(&self) -> usize {
        let previous = self.previous.as_ref().map_or(0, |previous| previous.size());
        self.object.size() + previous
    }

    /// Whether the object was there before, and nothing is known of what it was like.
    pub(in crate::kubeapi) fn is_unknown(&self) -> bool {
        self.operation == Operation::Modified && self.previous.is_none()
    }
}

/// Where a subscription begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::kubeapi) enum Start {
    /// With the objects of this moment.
    Objects,
    /// With the changes from this moment on.
    Now,
    /// With the changes after this revision.
    After(u64),
}

/// What a watcher gets: first what is there, then what comes.
#[derive(Debug)]
pub(in crate::kubeapi) struct Subscription {
    pub(in crate::kubeapi) objects: Vec<Arc<Stored>>,
    pub(in crate::kubeapi) backlog: VecDeque<Arc<Event>>,
    pub(in crate::kubeapi) events: Events,
    /// The revision at which the subscription was made.
    pub(in crate::kubeapi) revision: u64,
}

pub(super) struct Watcher {
    prefix: String,
    feed: Feed,
    /// Whether it is to be woken.
    has_news: bool,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) revision: u64,
    compacted: u64,
    pub(super) objects: BTreeMap<String, Arc<Stored>>,
    log: VecDeque<Arc<Event>>,
    /// How large the objects of the log are together.
    log_bytes: usize,
    recent: Recent,
    pub(super) watchers: Vec<Watcher>,
    pub(super) dependents: BTreeMap<Box<str>, BTreeSet<String>>,
}

/// The state behind its lock, shared by the committer, the requests and the watches.
pub(super) struct Live {
    state: Mutex<State>,
    clock: Clock,
}

impl Live {
    pub(super) fn new(loaded: Loaded, clock: Clock) -> Self {
        let now = clock();
        let mut log = loaded.log;
        let older = log.len().saturating_sub(LOG_LENGTH);
        let last_of_them = log.drain(..older).next_back();
        let mut state = State {
            revision: loaded.revision,
            compacted: last_of_them.map_or(loaded.compacted, |change| change.revision),
            ..State::default()
        };
        let mut latest = state.replay(log, now);
        for current in loaded.objects {
            let known = latest.remove(&current.key);
            let stored = known
                .filter(|known| known.revision == current.revision)
                .unwrap_or_else(|| {
                    let modified = Operation::Modified;
                    Arc::new(Stored::loaded(current.revision, modified, &current.object))
                });
            state.put(current.key, stored);
        }
        state.trim(now);
        Self {
            state: Mutex::new(state),
            clock,
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn revision(&self) -> u64 {
        self.lock().revision
    }

    pub(super) fn compacted(&self) -> u64 {
        self.lock().compacted
    }

    pub(super) fn revision_of(&self, key: &str) -> Option<u64> {
        self.lock().objects.get(key).map(|stored| stored.revision)
    }

    /// Makes committed changes visible, to readers and watchers alike; whoever made them is to be woken
    /// before the watchers.
    pub(super) fn publish(&self, changes: Vec<(String, Operation, Arc<Stored>)>) -> Vec<Bell> {
        let now = (self.clock)();
        // They are freed after the lock.
        let mut idle = Vec::new();
        let mut state = self.lock();
        for (key, operation, object) in changes {
            state.revision = object.revision;
            idle.extend(state.recent.push(&object));
            let previous = if operation == Operation::Deleted {
                state.remove(&key)
            } else {
                state.put(key.clone(), Arc::clone(&object))
            };
            idle.extend(previous.as_ref().and_then(|previous| previous.take_tree()));
            let event = Arc::new(Event {
                revision: object.revision,
                key,
                operation,
                object,
                previous,
                at: now,
            });
            state.watchers.retain_mut(|watcher| watcher.offer(&event));
            state.remember(event);
        }
        state.trim(now);
        let watchers = state.watchers.iter_mut();
        let bells = watchers.filter_map(Watcher::bell).collect();
        drop(state);
        drop(idle);
        bells
    }
}

impl Watcher {
    /// Hands over a change; false when the watcher is gone or too slow.
    fn offer(&mut self, event: &Arc<Event>) -> bool {
        if event.key.starts_with(&self.prefix) {
            self.has_news = true;
            self.feed.offer(event)
        } else {
            !self.feed.is_closed()
        }
    }

    /// Wakes it, if there is something new for it.
    fn bell(&mut self) -> Option<Bell> {
        mem::take(&mut self.has_news).then(|| self.feed.bell())
    }
}

impl State {
    fn put(&mut self, key: String, stored: Arc<Stored>) -> Option<Arc<Stored>> {
        let previous = self.remove(&key);
        for owner in &stored.owners {
            self.dependents
                .entry(owner.clone())
                .or_default()
                .insert(key.clone());
        }
        self.objects.insert(key, stored);
        previous
    }

    fn remove(&mut self, key: &str) -> Option<Arc<Stored>> {
        let stored = self.objects.remove(key)?;
        for owner in &stored.owners {
            if let Some(keys) = self.dependents.get_mut(owner) {
                keys.remove(key);
                if keys.is_empty() {
                    self.dependents.remove(owner);
                }
            }
        }
        Some(stored)
    }

    /// Fills the log with what a backend kept; returns the last state of each object in it.
    fn replay(&mut self, log: Vec<Change>, now: Timestamp) -> BTreeMap<String, Arc<Stored>> {
        let mut latest: BTreeMap<String, Arc<Stored>> = BTreeMap::new();
        for change in log {
            let (revision, operation) = (change.revision, change.operation);
            let object = Arc::new(Stored::loaded(revision, operation, &change.object));
            let previous = latest.insert(change.key.clone(), Arc::clone(&object));
            self.remember(Arc::new(Event {
                revision,
                key: change.key,
                operation,
                object,
                previous,
                at: now,
            }));
        }
        latest
    }

    fn remember(&mut self, event: Arc<Event>) {
        self.log_bytes += event.object.size();
        self.log.push_back(event);
    }

    fn trim(&mut self, now: Timestamp) {
        let horizon = now.as_second() - LOG_MINUTES * 60;
        while let Some(oldest) = self.log.front() {
            let fits = self.log.len() <= LOG_LENGTH && self.log_bytes <= LOG_BYTES;
            if fits && oldest.at.as_second() >= horizon {
                break;
            }
            self.compacted = oldest.revision;
            self.log_bytes -= oldest.object.size();
            self.log.pop_front();
        }
    }

    pub(super) fn range(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> impl Iterator<Item = (&String, &Arc<Stored>)> {
        let start = match after {
            Some(after) => Bound::Excluded(after.to_owned()),
            None => Bound::Included(prefix.to_owned()),
        };
        self.objects
            .range::<String, _>((start, Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
    }

    /// The objects as they were at a revision; `None` when that is forgotten.
    pub(super) fn at(&self, prefix: &str, revision: u64) -> Option<BTreeMap<String, Arc<Stored>>> {
        if revision < self.compacted {
            return None;
        }
        let mut objects: BTreeMap<String, Arc<Stored>> = self
            .range(prefix, None)
            .map(|(key, stored)| (key.clone(), Arc::clone(stored)))
            .collect();
        let later = self.log.partition_point(|event| event.revision <= revision);
        let undone = self.log.range(later..).rev();
        for event in undone.filter(|event| event.key.starts_with(prefix)) {
            match (&event.previous, event.operation) {
                (_, Operation::Added) => {
                    objects.remove(&event.key);
                }
                (Some(previous), _) => {
                    objects.insert(event.key.clone(), Arc::clone(previous));
                }
                // What was there before the first change that the log kept is not known.
                (None, _) => return None,
            }
        }
        Some(objects)
    }

    /// Subscribes from this start on; `None` when it is forgotten.
    pub(super) fn subscribe(&mut self, prefix: &str, start: Start) -> Option<Subscription> {
        let mut backlog = VecDeque::new();
        if let Start::After(revision) = start {
            if revision < self.compacted {
                return None;
            }
            let fresh = self.log.partition_point(|event| event.revision <= revision);
            backlog = self
                .log
                .range(fresh..)
                .filter(|event| event.key.starts_with(prefix))
                .map(Arc::clone)
                .collect();
        }
        let objects = if start == Start::Objects {
            let found = self.range(prefix, None);
            found.map(|(_, stored)| Arc::clone(stored)).collect()
        } else {
            Vec::new()
        };
        let (feed, events) = feed();
        self.watchers.push(Watcher {
            prefix: prefix.to_owned(),
            feed,
            has_news: false,
        });
        Some(Subscription {
            objects,
            backlog,
            events,
            revision: self.revision,
        })
    }
}
